"""Scores: of the right tokens, whatever the padding, with intervals over groups."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments.finetune import scoring
from experiments.finetune.scoring import _bootstrap, score
from experiments.finetune.tasks import Example
from tests.experiments.finetune_tiny import load


def test_the_loss_is_the_mean_over_the_tokens_of_bodies_alone(tmp_path):
    task = load(tmp_path, 12, 6)
    model = task.model().eval()
    nats, tokens = 0.0, 0
    for example in task.test:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        for place, label in enumerate(example.labels):
            if label != -100:
                nats -= logs[place - 1, label].item()
                tokens += 1
    assert tokens == 6 * 8
    found = score(task, model, task.test)
    assert found.value == pytest.approx(nats / tokens, abs=1e-5)
    assert found.item_weights == [16.0] * 3, "two functions of eight tokens in each module"
    assert sum(found.item_sums) == pytest.approx(nats, abs=1e-3)
    assert found.scored == 6


def test_padding_and_the_order_of_items_do_not_change_the_loss(tmp_path):
    task = load(tmp_path, 12, 6)
    short = Example((3, 4, 5), (-100, 4, 5), "9")
    model = task.model()
    together = score(task, model, [*task.test, short])
    apart = [score(task, model, [short]).value, score(task, model, task.test).value]
    assert together.value == pytest.approx((2 * apart[0] + 48 * apart[1]) / 50, abs=1e-5)
    assert score(task, model, [short, *task.test]).value == pytest.approx(together.value)


def test_a_model_of_many_words_is_scored_a_few_items_at_once(tmp_path, monkeypatch):
    task = load(tmp_path, 12, 6)
    model = task.model()
    whole = score(task, model, task.test)
    seen = []
    model.register_forward_hook(
        lambda module, args, given, result: seen.append(given["input_ids"].numel()),
        with_kwargs=True,
    )
    longest = max(len(example.input_ids) for example in task.test)
    monkeypatch.setattr(scoring, "MOST_LOGITS", 20 * 2 * longest)  # of 20 words
    few = score(task, model, task.test)
    assert seen == [2 * longest] * 3
    assert few.item_sums == pytest.approx(whole.item_sums, rel=1e-5)
    monkeypatch.setattr(scoring, "MOST_LOGITS", 1)
    assert score(task, model, task.test).value == pytest.approx(whole.value, rel=1e-5)
    assert len(seen) == 3 + 6, "at least one at once"


def test_the_interval_of_a_loss_resamples_groups_not_items():
    low, high = _bootstrap(np.array([2.0, 6.0]), np.full(2, 2.0), 0)
    assert (low, high) == (1.0, 3.0), "two groups: a quarter of the resamples have only one"
    low, high = _bootstrap(np.tile([1.0, 3.0], 100), np.ones(200), 0)
    half = 1.96 / np.sqrt(200)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=0.3 * half)
    assert np.isnan(_bootstrap(np.array([8.0]), np.array([4.0]), 0)).all()


def test_accuracy_counts_hits_and_has_wilsons_interval(texts):
    class Always(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, attention_mask):
            return {"logits": torch.eye(8)[2].expand(len(input_ids), 8)}

    hits = sum(example.labels == 2 for example in texts.test)
    found = score(texts, Always(), texts.test)
    assert found.value == hits / 30
    assert sorted(found.item_sums) == [0.0] * (30 - hits) + [1.0] * hits
    n, p, z = 30, hits / 30, 1.959963984540054
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
