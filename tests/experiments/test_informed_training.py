"""Rates are chosen inside their grid, and every method stays within the budget."""

import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

from cosa_theory.nn import layer_moments, random_batches
from cosa_theory.spectrum.budget import lora_parameters
from experiments import informed_training
from experiments.finetune.methods import linear_layers
from experiments.informed_training import METHODS, Config, Run, _tuned


def test_a_grid_is_extended_until_the_best_rate_is_inside():
    best = METHODS["lora"].centre + 3

    def trained(runs):
        assert {run.part for run in runs} == {"validation"}
        quarters = [run.quarter for run in runs]
        return pd.DataFrame({"quarter": quarters, "loss": [abs(one - best) for one in quarters]})

    table = _tuned("lora", Config(), trained)
    assert table["loss"].min() == 0
    assert table["quarter"].max() == best + 1


@pytest.mark.parametrize("method", ["haar", "haar_one_sided", "texts", "centred", "lora"])
def test_a_method_trains_no_more_than_its_budget_and_changes_nothing_at_first(method, monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = BertConfig(num_hidden_layers=2, vocab_size=50, **sizes)
    encoder = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    batches = random_batches(encoder, 16, 12)
    moments = layer_moments(encoder, batches)
    monkeypatch.setattr(informed_training, "calibrated", lambda *_: moments)
    layers = linear_layers(encoder, 0)
    with torch.no_grad():
        before = encoder(**batches[0]).last_hidden_state
        adapted = METHODS[method].adapt(encoder, layers, Run(method, -10, 0, "test", rank=2))
        after = adapted(**batches[0]).last_hidden_state
    torch.testing.assert_close(after, before)
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    budget = sum(lora_parameters(m, n, 2) for m, n in layers.values())
    assert 0.8 * budget <= trained <= budget
