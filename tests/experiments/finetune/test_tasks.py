"""Tasks: the right tokens are labelled, and the parts are always the same."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cosa_theory.ground.errors import InputError
from experiments.finetune.config import Config
from experiments.finetune.data import Parts
from experiments.finetune.methods import counts, prepared
from experiments.finetune.rows import Item
from experiments.finetune.tasks import AnswerTask, TextTask, answer_examples
from tests.experiments.finetune.shrunk import begin_texts, model_folder, words


def test_answers_are_labelled_with_their_end_alone_and_long_ones_are_left_out():
    def encode(texts):
        return [[ord(letter) for letter in text] for text in texts]

    texts = [Item(("ab",), "cd", "m"), Item(("abc",), "def", "m")]
    (example,) = answer_examples(texts, encode, 1, 5)
    assert example.input_ids == (97, 98, 99, 100, 1)
    assert example.labels == (-100, -100, 99, 100, 1)
    assert example.group == "m"
    assert len(answer_examples(texts, encode, 1, 7)) == 2
    assert answer_examples([Item(("ab",), "", "m")], encode, 1, 7) == [], "nothing to learn"


@pytest.mark.parametrize("template", ["", "alpaca"])
def test_a_text_begins_as_the_models_own_texts_do(template, tmp_path):
    folder = model_folder(tmp_path, "llama")
    items = [Item((words(1),), words(2), "a")]
    parts = Parts("answers", items, items, items, template)
    config = Config(model=str(folder))
    (plain,) = AnswerTask.load(config, parts, tmp_path).train
    begin_texts(folder)
    (begun,) = AnswerTask.load(config, parts, tmp_path).train
    assert begun.input_ids == (2, *plain.input_ids)
    assert begun.labels == (-100, *plain.labels)
    with pytest.raises(InputError, match="all 1 items of the train part are longer"):
        tight = replace(config, tokens=len(plain.input_ids))
        AnswerTask.load(tight, parts, tmp_path)


def test_the_parts_of_the_texts_are_always_the_same(texts):
    assert len(texts.validation) == len(texts.test) == 30
    assert len(texts.train) == 5485 - 600
    assert all(len(example.input_ids) <= 16 for example in texts.train)
    parts = [
        [list(example.input_ids), example.labels, example.group]
        for part in (texts.train, texts.validation, texts.test)
        for example in part
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert digest.startswith("7e0a470b6d2841a1"), "stored results are of these"


def labelled(folder, **settings):
    """Return a task of two labels for the model in a folder."""
    items = [Item((words(number, 4 + number),), "ab"[number % 2], str(number)) for number in (0, 1)]
    config = Config(model=str(folder), rank=2, **settings)
    return config, TextTask.load(config, Parts("labels", items, items, items))


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "llama", "distilbert", "deberta-v2"])
def test_the_new_head_of_every_architecture_is_trained(kind, tmp_path):
    config, task = labelled(model_folder(tmp_path, kind))
    model = task.model()
    body = {name for name, _ in model.base_model.named_parameters(model.base_model_prefix)}
    new = sum(one.numel() for name, one in model.named_parameters() if name not in body)
    assert counts(prepared(model, config, head=task.head), task.head).head == new > 0


def test_a_pooler_that_a_checkpoint_lacks_is_part_of_the_head(tmp_path):
    config, task = labelled(model_folder(tmp_path, "bert"))
    assert set(task.head) == {"classifier", "bert.pooler"}
    model = prepared(task.model(), config, head=task.head)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert any("bert.pooler" in name for name in trained)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    whole.save_pretrained(tmp_path)
    assert labelled(tmp_path)[1].head == ("classifier",), "this one has a pooler"


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_weights_that_a_checkpoint_lacks_are_not_drawn(kind, tmp_path):
    file = model_folder(tmp_path, kind) / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if ".1." in name)
    save_file({name: one for name, one in weights.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(InputError, match=rf"its files lack {lost}, which transformers would draw"):
        labelled(tmp_path)
    if kind == "llama":
        items = [Item((words(1),), words(2), "a")]
        with pytest.raises(InputError, match=rf"its files lack {lost}, which transformers would"):
            AnswerTask.load(Config(model=str(tmp_path)), Parts("answers", items, items, items), "")


def test_a_classifier_needs_no_token_for_padding(tmp_path):
    folder = model_folder(tmp_path, "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    task = labelled(folder)[1]
    inputs = task.collate(task.train)
    assert inputs["input_ids"][0, -1] == tokenizer.eos_token_id
    with torch.no_grad():
        assert task.outcomes(task.model(), inputs)["loss"].isfinite().all()


def test_more_tokens_than_a_model_has_positions_for_are_refused(tmp_path):
    folder = model_folder(tmp_path, "roberta")
    with pytest.raises(InputError, match=r"tokens is 66: model .* has positions for 65: lower it"):
        labelled(folder, tokens=66)
    task = labelled(folder, tokens=65)[1]
    ids = torch.full((1, 65), 3)
    assert task.model()(input_ids=ids).logits.isfinite().all()


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "distilbert", "llama", "qwen2"])
def test_an_encoder_is_refused_where_answers_are_learnt(kind, tmp_path):
    config = Config(model=str(model_folder(tmp_path, kind)), data="functions")
    item = Item((words(0, 4),), words(1, 2), "m")
    parts = Parts("answers", [item], [item], [item])
    if kind in ("llama", "qwen2"):
        assert AnswerTask.load(config, parts, tmp_path).train
        return
    with pytest.raises(InputError, match=r"model is .*an encoder .* name a language model"):
        AnswerTask.load(config, parts, tmp_path)


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "config.json"])
def test_damaged_files_of_a_model_are_told_in_a_sentence(damaged, tmp_path):
    folder = model_folder(tmp_path, "roberta")
    file = folder / damaged
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match="transformers cannot load it or its tokenizer"):
        labelled(folder)[1].model()
