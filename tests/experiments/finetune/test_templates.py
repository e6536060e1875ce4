"""Instructions and chats: put as they should be, learnt on the answer alone, trained by TRL."""

import json
from dataclasses import replace

import pytest
import transformers
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from cosa_theory.ground.errors import InputError
from experiments.finetune.config import Config
from experiments.finetune.tasks import load_task
from experiments.finetune.templates import put
from experiments.finetune.training import fit, isolated
from tests.experiments.finetune.shrunk import model_folder, words

TEMPLATE = (
    "{% for one in messages %}{% if one.role == 'tool' %}{{ raise_exception('no tools') }}"
    "{% endif %}{{ 'w2 ' if one.role == 'assistant' else 'w1 ' }}{{ one.content }} </s> "
    "{% endfor %}{% if add_generation_prompt %}w2 {% endif %}"
)


def chat(number, **last):
    """Return a chat of two turns."""
    said = [("user", 1), ("assistant", 2), ("user", 3), ("assistant", 4)]
    messages = [{"role": role, "content": words(number + shift, 3)} for role, shift in said]
    return [*messages[:3], {**messages[3], **last}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = model_folder(tmp_path_factory.mktemp("model"), "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def config_of(folder, model, rows, **settings):
    text = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (folder / "chats.jsonl").write_text(text)
    named = {name: str(folder / "chats.jsonl") for name in ("train", "validation", "test")}
    fields = {"inputs": ("messages",), "learns": "answers", "template": "chat", "threads": 1}
    return Config(model=str(model), data="files", **{**named, **fields, **settings})


def test_the_last_answer_of_a_chat_is_labelled_as_trl_labels_it(tmp_path, model):
    rows = [chat(number) for number in range(5)]
    task = load_task(config_of(tmp_path, model, rows), tmp_path)
    completions = [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    settings = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}
    theirs = SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(model),
        SFTConfig(**settings),
        train_dataset=Dataset.from_list(completions),
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    ).train_dataset
    for ours, row in zip(task.train, theirs, strict=True):
        assert list(ours.input_ids) == row["input_ids"]
        assert list(ours.labels) == row["labels"]
        assert sum(label >= 0 for label in ours.labels) == 4, "three words and the end"


def test_trl_takes_the_steps_that_the_trainer_takes_and_goes_on_to_the_same_numbers(
    tmp_path, model
):
    rows = [chat(number, content=words(number, 1 + number % 4)) for number in range(12)]
    settings = {"steps": 4, "batch": 2, "accumulation": 2, "learning_rate": 1e-2, "evaluate": 2}
    config = config_of(tmp_path, model, rows, rank=2, checkpoint=2, watch=1, **settings)
    task = load_task(config, tmp_path)

    def stop(done, total):
        if done == 3:
            raise InterruptedError

    def rows_of(task, folder, progress=None):
        with isolated(0, 1):
            fitted = fit(task, config, tmp_path / folder, progress)
        assert isinstance(fitted.trainer, SFTTrainer) is bool(task.template)
        return fitted.history

    whole = rows_of(task, "whole")
    with pytest.raises(InterruptedError):
        rows_of(task, "stopped", stop)
    resumed = rows_of(task, "stopped")
    plain = rows_of(replace(task, template=""), "plain")
    names = ("loss", "grad_norm", "tokens", "eval_loss", "learning_rate")
    found = [
        [[row[name] for name in names if name in row] for row in history]
        for history in (whole, resumed, plain)
    ]
    assert found[0] == found[1]
    for row, other in zip(found[0], found[2], strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert any("update_" in name for row in whole for name in row)


def test_prompts_are_put_as_they_are_as_an_instruction_or_as_a_chat(model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    assert put("w3", "", tokenizer) == "w3"
    assert put("w3", "alpaca", tokenizer).endswith("### Instruction:\nw3\n\n### Response:\n")
    assert put("w3", "chat", tokenizer, [("system", "w5")]) == "w1 w5 </s> w1 w3 </s> w2 "
    with pytest.raises(InputError, match=r"refuses a chat of tool, user \(.*no tools"):
        put("w3", "chat", tokenizer, [("tool", "w5")])
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"has none for chats: name a model.*alpaca"):
        put("w3", "chat", tokenizer)


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([chat(1), "w1"], {}, "row 2 has 'w1' as 'messages': it must be a list of objects"),
        ([chat(1)[:3]], {}, "row 1 has .* as 'messages'.*an assistant's at the end"),
        ([chat(1, content=3)], {}, "row 1 has .* as 'messages'"),
        ([chat(1)], {"template": ""}, "inputs must name one column .*and output.*a chat, with"),
        ([chat(1, content="  ")], {}, "items of the train part are longer, or .*answers"),
        ([chat(1)], {"tokens": 5}, "tokens is 5: all 1 items of the train part"),
    ],
)
def test_a_chat_that_cannot_be_learnt_is_said_in_a_sentence(tmp_path, model, rows, settings, said):
    with pytest.raises(InputError, match=said) as caught:
        load_task(config_of(tmp_path, model, rows, **settings), tmp_path)
    assert len(str(caught.value)) <= 300
