"""The gradient on texts is that of the model's own loss, and what has none is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cosa_theory.deltas.texts import text_gradients
from cosa_theory.ground.errors import InputError
from tests.deltas.language_models import TEXTS, save_model


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("masked"), "masked")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS, encoding="utf-8")
    return path


def test_a_causal_models_gradient_is_that_of_predicting_each_next_word(causal, data):
    found = {one.name: one.delta for one in text_gradients(causal, data)}
    model = AutoModelForCausalLM.from_pretrained(causal)
    tokenizer = AutoTokenizer.from_pretrained(causal)
    total, words = 0.0, 0
    for text in filter(None, TEXTS.splitlines()):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        logits = model(input_ids=ids).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        words += ids.shape[1] - 1
    (total / words).backward()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert found[name] == pytest.approx(parameter.grad.numpy(), abs=1e-6), name


def test_batch_and_max_tokens_choose_what_is_read(causal, data):
    def embedding(**settings):
        found = {one.name: one.delta for one in text_gradients(causal, data, **settings)}
        return np.flatnonzero(np.abs(found["model.embed_tokens.weight"]).sum(axis=1))

    # Word numbers: 4 the, 5 cat, 6 sat, 7 on, 8 a; a causal model never embeds the last word
    # for a prediction of its own.
    assert embedding(batch=1).tolist() == [4, 5, 6, 7, 8]
    assert embedding(batch=1, max_tokens=3).tolist() == [4, 5]
    assert 11 in embedding(batch=2)  # "ran"


def test_a_masked_models_gradient_depends_on_the_seed_alone(masked, data):
    def gradient(seed):
        found = {one.name: one.delta for one in text_gradients(masked, data, seed=seed)}
        return found["bert.encoder.layer.0.output.dense.weight"]

    assert np.array_equal(gradient(0), gradient(0))
    assert not np.array_equal(gradient(0), gradient(1))
    assert np.abs(gradient(0)).max() > 0


def test_an_encoder_without_a_head_is_refused_with_the_remedy(tmp_path, data):
    folder = save_model(tmp_path / "headless", "headless")
    with pytest.raises(InputError, match="names BertModel, which has no loss on plain text: save"):
        text_gradients(folder, data)


def test_a_folder_without_a_model_or_tokenizer_is_named(causal, tmp_path, data):
    with pytest.raises(InputError, match="transformers cannot load"):
        text_gradients(tmp_path / "nowhere", data)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(InputError, match="bare: transformers cannot load"):
        text_gradients(bare, data)
    unworded = shutil.copytree(causal, tmp_path / "unworded")
    for path in unworded.glob("token*"):
        path.unlink()
    with pytest.raises(InputError, match="unworded"):
        text_gradients(unworded, data)


def test_data_without_text_are_refused(causal, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match=r"empty\.txt: holds 0 different texts") as caught:
        text_gradients(causal, empty)
    assert caught.value.argument == "data"


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("max_tokens", 1)])
def test_sizes_below_the_least_are_refused(causal, data, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        text_gradients(causal, data, **{name: value})


def test_nothing_is_printed(causal, masked, data, capfd):
    text_gradients(causal, data)
    text_gradients(masked, data)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
