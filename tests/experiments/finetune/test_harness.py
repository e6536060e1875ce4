"""Grades by lm-evaluation-harness: a task of its own files, and what is said without it."""

import json
import math
import sys

import pytest
import torch
import transformers

from cosa_theory.ground.errors import InputError
from experiments.finetune.config import Config
from experiments.finetune.grades import grade, questions
from tests.experiments.finetune.shrunk import model_folder, words

TASK = """task: tiny
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{asked}}}}"
doc_to_target: " {{{{answer}}}}"
metric_list:
- {{metric: perplexity}}
"""


def test_without_the_harness_a_grade_by_it_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"'lm_eval:gsm8k', and lm-eval is not installed: install"):
        questions(Config(grades=("lm_eval:gsm8k",)))


def test_a_task_of_the_harness_is_measured_as_the_model_says(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = model_folder(tmp_path / "model", "llama")
    rows = [{"asked": words(n, 3), "answer": words(n + 1, 2)} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl"))
    name = f"lm_eval:{tmp_path / 'tiny.yaml'}"
    config = Config(grades=(name,), items=3)
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    found = grade(name, questions(config)[name], model, str(base), config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    nats = []
    for row in rows[:3]:
        ids = tokenizer(f"{row['asked']} {row['answer']}", return_tensors="pt").input_ids
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        nats.append(-sum(logs[place - 1, ids[0, place]].item() for place in (3, 4)))
    assert found["tiny/perplexity,none"] == pytest.approx(math.exp(sum(nats) / 3), rel=1e-4)
    assert json.dumps(found)
    with pytest.raises(InputError, match="lm-eval has no task 'gsm9k'"):
        questions(Config(grades=("lm_eval:gsm9k",)))
