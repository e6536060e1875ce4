"""A policy-gradient run on a tiny language model: what storage keeps, and what is learnt."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from cosa_theory.ground.errors import InputError
from experiments import policy_gradient
from experiments.policy_gradient import Config, Task, read_tasks, train, weights_of_answers
from tests.deltas.language_models import save_model

QUICK = Config(steps=3, problems=2, samples=4, tokens=5, rate=1e-2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "away"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cats(monkeypatch):
    """Two prompts; an answer passes if it has a cat in it."""
    tasks = [Task("the mat on a", ()), Task("a cat sat on", ())]
    monkeypatch.setattr(policy_gradient, "read_tasks", lambda: tasks)
    monkeypatch.setattr(Task, "passed", lambda self, answer: "cat" in answer)


def test_every_function_that_is_asked_for_can_be_written_and_is_not_passed_by_nothing():
    tasks = {task.prompt.split("def ")[-1].split("(")[0]: task for task in read_tasks()}
    assert len(tasks) >= 20
    assert tasks["add"].passed(" a + b\n\nwhatever follows")
    assert not tasks["add"].passed(" a - b\n")
    assert not tasks["evens"].passed(" [x for x in iter(int, 1)]\n")  # without end
    for task in tasks.values():
        compile(task.prompt + " 0\n" + "\n".join(task.checks), "task", "exec")


def test_answers_are_weighed_against_the_others_to_the_same_problem():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    found = weights_of_answers(rewards, "rewarded", generator)
    assert torch.equal(found[1], torch.zeros(4))
    assert found.sum() == 0
    assert found[0, 0] == found[0, 3] > 0 > found[0, 1]
    assert not weights_of_answers(rewards[1:], "rewarded", generator).any()
    assert torch.equal(weights_of_answers(rewards, "supervised", generator), torch.ones(2, 4))
    drawn = [weights_of_answers(rewards, "shuffled", generator) for _ in range(20)]
    assert any(one[1].any() for one in drawn)  # a reward that was earned elsewhere
    assert all(float(one.sum().abs()) < 1e-6 for one in drawn)


def test_weights_are_what_bfloat16_keeps_and_a_small_step_leaves_most_of_them(base, tmp_path, cats):
    before, after, _ = train(QUICK, "supervised", base, tmp_path / "large")
    first, last = load_file(before), load_file(after)
    assert {one.dtype for one in last.values()} == {torch.bfloat16}
    moved = sum(int((last[name] != one).sum()) for name, one in first.items())
    small = Config(**{**vars(QUICK), "rate": 1e-6})
    before, after, _ = train(small, "supervised", base, tmp_path / "small")
    last = load_file(after)
    fewer = sum(int((last[name] != one).sum()) for name, one in load_file(before).items())
    # Weights of some 0.02 have steps of 1e-4 in bfloat16.
    assert 0 < fewer < 0.1 * moved


def test_a_killed_run_goes_on_to_the_same_weights(base, tmp_path, cats, monkeypatch):
    _, whole, earned = train(QUICK, "rewarded", base, tmp_path / "a" / "whole")
    step, taken = policy_gradient._Run.step, []

    def dying(run):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(1)
        step(run)

    monkeypatch.setattr(policy_gradient._Run, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(QUICK, "rewarded", base, tmp_path / "a" / "killed")
    monkeypatch.setattr(policy_gradient._Run, "step", step)
    other = Config(**{**vars(QUICK), "rate": 1e-3})
    assert not policy_gradient._Run(other, "rewarded", base, tmp_path / "a" / "killed").earned
    _, again, same = train(QUICK, "rewarded", base, tmp_path / "a" / "killed")
    assert same == earned
    one, other = load_file(whole), load_file(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "a" / "killed" / "state.safetensors").exists()


def test_a_finished_run_is_not_trained_again_but_with_other_settings(
    base, tmp_path, cats, monkeypatch
):
    train(QUICK, "rewarded", base, tmp_path / "run")
    monkeypatch.setattr(policy_gradient._Run, "step", lambda run: pytest.fail("trained again"))
    train(QUICK, "rewarded", base, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(stored["earned"]) == QUICK.steps
    with pytest.raises(pytest.fail.Exception):
        train(Config(**{**vars(QUICK), "seed": 1}), "rewarded", base, tmp_path / "run")


def test_what_is_rewarded_becomes_likelier_and_what_is_shuffled_does_not_as_much(
    base, tmp_path, cats
):
    longer = Config(steps=12, problems=2, samples=16, tokens=3, rate=2e-2)
    *_, earned = train(longer, "rewarded", base, tmp_path / "rewarded")
    *_, shuffled = train(longer, "shuffled", base, tmp_path / "shuffled")
    assert sum(earned[-4:]) > sum(earned[:4]) + 1
    assert sum(earned[-4:]) > sum(shuffled[-4:]) + 1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"problems": 0}, {"rate": float("nan")}, {"seed": -1}]
)
def test_a_setting_out_of_range_is_named(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is"):
        Config(**wrong)
