"""Answers that a trained language model writes, and how they are marked.

Final answers of GSM8K and MATH are compared with the true ones; functions of HumanEval and MBPP
must pass their tests, run by `experiments.finetune.sandbox`. One answer to each, the likeliest
token by token: the share of right ones is accuracy, or pass@1.
"""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
import transformers
from scipy.stats import binomtest
from torch import nn

from cosa_theory.assets import asset_folder
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.progress import progress_bar
from experiments.finetune.config import HARNESS, Config
from experiments.finetune.harness import harness_grades, harness_task
from experiments.finetune.pretrained import beginning_of
from experiments.finetune.rows import GSM8K, MATH, Source, hub_split, refuse_lacking
from experiments.finetune.sandbox import run_program
from experiments.finetune.templates import put

__all__ = ["GRADES", "Problem", "final_answer", "grade", "questions", "same_answer"]

_BATCH = 8


@dataclass(frozen=True)
class Problem:
    """What is asked, and how an answer is marked.

    Attributes
    ----------
    prompt : str
        What the model continues.
    right : callable
        Whether a continuation is.
    put : bool
        Whether the prompt is an instruction, which is put as those that were learnt.
    """

    prompt: str
    right: Callable[[str], bool]
    put: bool = True


def questions(config: Config) -> dict[str, Any]:
    """Return what each grade of a training asks, before that begins: a list of `Problem`.

    Raises
    ------
    InputError
        If the problems cannot be had, or programs cannot be run apart here.
    """
    return {
        name: harness_task(name)
        if name.startswith(HARNESS)
        else GRADES[name](config)[: config.items or None]
        for name in config.grades
    }


def grade(
    name: str, problems: Any, model: nn.Module, base: str, config: Config
) -> dict[str, float]:
    """Let a model answer the problems of a grade, and mark the answers.

    Parameters
    ----------
    name : str
        One of the training's grades.
    problems : list of Problem
        What `questions` has for it.
    model : Module
        A language model.
    base : str
        Folder or name of its tokenizer.
    config : Config
        How long answers may be, and how instructions are put.

    Returns
    -------
    dict
        NAME (the share that is right), NAME_low and NAME_high (Wilson's 95 % interval) and
        NAME_problems; of the harness, what it measures.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    if name.startswith(HARNESS):
        return harness_grades(problems, model, tokenizer, config)
    right = 0
    with progress_bar(f"answers to {name}") as advance:
        for start in range(0, len(problems), _BATCH):
            asked = problems[start : start + _BATCH]
            # What is learnt without a template is no instruction; these are.
            prompts = [
                put(one.prompt, config.template or "alpaca", tokenizer) if one.put else one.prompt
                for one in asked
            ]
            chat = config.template == "chat" and asked[0].put
            begin = [] if chat else beginning_of(tokenizer)
            answers = written(model, tokenizer, prompts, config.answer_tokens, begin)
            right += sum(one.right(answer) for one, answer in zip(asked, answers, strict=True))
            advance(start + len(asked), len(problems))
    interval = binomtest(right, len(problems)).proportion_ci(0.95, method="wilson")
    values = (right / len(problems), float(interval.low), float(interval.high), len(problems))
    return dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_problems"), values, strict=True))


@torch.no_grad()
def written(
    model: Any, tokenizer: Any, prompts: Sequence[str], most: int, begin: Sequence[int] = ()
) -> list[str]:
    """Return the likeliest continuation of each prompt, token by token, of at most `most`."""
    model.eval()
    device = next(model.parameters()).device
    end = tokenizer.eos_token_id
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    listed = tokenizer(list(prompts), add_special_tokens=False).input_ids
    ids = [[*begin, *one] for one in listed]
    width = max(map(len, ids))
    rows = torch.tensor([[pad] * (width - len(one)) + one for one in ids], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in ids], device=device)
    settings = {"do_sample": False, "use_cache": True, "eos_token_id": end, "pad_token_id": pad}
    found = model.generate(input_ids=rows, attention_mask=mask, max_new_tokens=most, **settings)
    texts: list[str] = tokenizer.batch_decode(found[:, width:], skip_special_tokens=True)
    return texts


def final_answer(text: str) -> str:
    r"""Return what "The answer is", #### or \boxed marks in a text, else its last number."""
    for mark in ("The answer is", "####"):
        if mark in text:
            said = text.rpartition(mark)[2].strip().removeprefix(":").strip()
            return said.split("\n")[0].rstrip(" .")
    if "\\boxed" in text:
        return _braced(text.rpartition("\\boxed")[2])
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", text)
    return numbers[-1] if numbers else ""


def _braced(text: str) -> str:
    """Return what stands in the braces that a text begins with."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[1:place] if text.startswith("{") else "".join(text.split()[:1])
    return text


def same_answer(said: str, true: str) -> bool:
    """Tell whether two final answers are equal, as numbers or as formulas without their spacing."""
    numbers = [_number(one) for one in (said, true)]
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _plain(said) == _plain(true) != ""


def _number(text: str) -> Fraction | None:
    cleaned = re.sub(r"\\[td]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    cleaned = re.sub(r"\\?%|[$,\s]|\\[!;]", "", cleaned).rstrip(".")
    try:
        return Fraction(cleaned)
    except (ValueError, ZeroDivisionError):
        return None


def _plain(text: str) -> str:
    text = re.sub(r"\\left|\\right|\\[!,;: ]|\\text\s*|\s|\$", "", text)
    return re.sub(r"\\[td]frac", r"\\frac", text).rstrip(".")


def _math(source: Source, config: Config) -> list[Problem]:
    return [
        Problem(
            row[source.inputs[0]],
            partial(_comes_to, final_answer(row[source.output])),
        )
        for row in _rows(source, config)
    ]


def _comes_to(true: str, text: str) -> bool:
    return same_answer(final_answer(text), true)


def _rows(source: Source, config: Config) -> Any:
    rows = hub_split(source, "test", config.copies)
    refuse_lacking(source.path, rows.column_names, [*source.inputs, source.output])
    if not len(rows):
        raise InputError(f"data {source.path}: the test split is empty")
    return rows


_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ", "\n```")


def _human_eval(config: Config) -> list[Problem]:
    del config
    run_program("")  # tells where programs cannot be run apart
    path = asset_folder("human_eval") / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Problem(row["prompt"], partial(_completes, row), put=False) for row in rows]


def _completes(row: dict[str, str], text: str) -> bool:
    function = f"{row['prompt']}{_cut(text)}"
    return run_program(f"{function}\n{row['test']}\ncheck({row['entry_point']})").passed


def _cut(text: str) -> str:
    """Return a continuation up to where the function that is asked for has ended."""
    ends = [place for stop in _STOPS if (place := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


def _mbpp(config: Config) -> list[Problem]:
    run_program("")
    found = []
    for row in _rows(_MBPP, config):
        tests = "\n".join(row["test_list"])
        asked = f"{row['prompt']} Your code should pass these tests:\n\n{tests}"
        checks = "\n".join([*row["test_imports"], tests])
        found.append(Problem(asked, partial(_passes, checks)))
    return found


def _passes(checks: str, text: str) -> bool:
    return run_program(f"{_code(text)}\n{checks}").passed


def _code(text: str) -> str:
    """Return the code block of an answer, or all of it."""
    found = re.search(r"```(?:python)?\n(.*?)(?:```|$)", text, re.DOTALL)
    return found[1] if found else text


_MBPP = Source(
    "google-research-datasets/mbpp", ("prompt", "test_imports"), "test_list", subset="sanitized"
)

GRADES: dict[str, Callable[[Config], list[Problem]]] = {
    "gsm8k": partial(_math, GSM8K),
    "math": partial(_math, MATH),
    "humaneval": _human_eval,
    "mbpp": _mbpp,
}
"""The problems of each grade."""
