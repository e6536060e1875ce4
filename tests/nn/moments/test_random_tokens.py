"""Random tokens: keyed, uniform over the ordinary words, as a model takes them."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import random_batches
from cosa_theory.nn.moments.sums import SketchedSum


class Model(nn.Module):
    def __init__(self, words=50, **config):
        super().__init__()
        self.embedding = nn.Embedding(words, 3)
        self.config = SimpleNamespace(**config)

    def get_input_embeddings(self):
        return self.embedding


def test_tokens_are_uniform_over_all_words_but_special_ones():
    model = Model(vocab_size=48, pad_token_id=0, bos_token_id=None, eos_token_id=[7, 9])
    batches = random_batches(model, 40, 100, seed=3, size=16)
    assert [tuple(one["input_ids"].shape) for one in batches] == [(16, 100), (16, 100), (8, 100)]
    assert all(bool((one["attention_mask"] == 1).all()) for one in batches)
    assert batches[0]["input_ids"].dtype == torch.long
    seen = np.bincount(torch.cat([one["input_ids"] for one in batches]).numpy().ravel(), None, 50)
    ordinary = sorted(set(range(48)) - {0, 7, 9})
    assert seen[ordinary].sum() == 4000
    assert chisquare(seen[ordinary]).pvalue > 1e-3


def test_more_texts_and_other_batches_begin_alike_and_other_seeds_do_not():
    model = Model()
    few = torch.cat([one["input_ids"] for one in random_batches(model, 5, 9, size=2)])
    many = torch.cat([one["input_ids"] for one in random_batches(model, 8, 9, size=3)])
    assert torch.equal(few, many[:5])
    assert not torch.equal(few, random_batches(model, 5, 9, seed=1)[0]["input_ids"])


def drawn():
    return repr(random_batches(Model(), 2, 6, seed=4)), repr(SketchedSum(9, None, 3, 5, "a").test)


def test_tokens_and_sketches_are_the_same_in_every_process():
    code = "from tests.nn.moments.test_random_tokens import drawn; print(drawn())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(drawn())


def test_a_model_that_takes_no_such_text_is_told():
    with pytest.raises(InputError, match=r"length is 65.*64"):
        random_batches(Model(max_position_embeddings=64), 1, 65)
    with pytest.raises(InputError, match="all 2 tokens of Model are special"):
        random_batches(Model(vocab_size=2, pad_token_id=0, eos_token_id=1), 1, 4)
    with pytest.raises(InputError, match="Linear has no vocabulary"):
        random_batches(nn.Linear(3, 2), 1, 4)
