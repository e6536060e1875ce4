"""Weights that are read past their layer's forward are found in the code that reads them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa
from cosa_theory.nn.readers import weights_read_past


class Block(nn.Module):
    def __init__(self, exact: bool = False) -> None:
        super().__init__()
        names = ("called", "asked", "direct", "alias", "helped", "guarded", "unread")
        for name in names:
            self.add_module(name, nn.Linear(4, 4))
        self.parts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.inner = nn.ModuleDict({"deep": nn.Linear(4, 4)})
        self.exact = exact
        self.init_weights()

    def init_weights(self) -> None:
        self.unread.weight.data.zero_()
        nn.init.normal_(self.unread.weight)

    def forward(self, x):
        x = self.called(x).to(self.asked.weight.dtype)
        if isinstance(self.asked.weight, nn.Parameter) and self.asked.weight is not None:
            x = F.linear(self.asked(x), self.direct.weight)
        layer = self.alias
        x = x @ layer.weight.T
        for part in self.parts:
            x = F.linear(x, part.weight)
        if self.exact and x is not None:
            x = F.linear(x, self.direct.weight)
        if self.exact:
            x = F.linear(x, self.guarded.weight)
        return self.help(x) + x @ self.inner.deep.weight

    def help(self, x):
        return sum(F.linear(x, one) for one in (self.helped.weight,))


def read_in(model: nn.Module) -> set[str]:
    linears = [name for name, one in model.named_modules() if isinstance(one, nn.Linear)]
    return set(weights_read_past(model, linears))


def test_the_weights_that_the_code_of_a_module_reads_are_found():
    expected = {"direct", "alias", "parts.0", "parts.1", "helped", "inner.deep"}
    assert read_in(Block()) == expected
    assert read_in(nn.Sequential(Block())) == {f"0.{name}" for name in expected}


def test_a_branch_that_a_setting_closes_does_not_count():
    assert "guarded" not in read_in(Block())
    assert "guarded" in read_in(Block(exact=True))


def test_an_overridden_forward_does_not_count_unless_it_is_called():
    class Overrides(Block):
        def forward(self, x):
            return self.called(x)

    class Calls(Block):
        def forward(self, x):
            return super().forward(x)

    assert read_in(Overrides()) == {"helped"}  # by a method that others may call
    assert read_in(Calls()) == read_in(Block())


def test_torchs_attention_and_encoder_are_known():
    assert read_in(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1)) == {
        "layers.0.self_attn.out_proj"
    }


def test_the_refusal_names_the_reader_and_few_layers():
    model = nn.ModuleList(Block() for _ in range(30))
    with pytest.raises(InputError) as caught:
        add_cosa(model, ["direct", "called"], 2, 2)
    (sentence,) = caught.value.problems
    assert "0.direct" in sentence
    assert "Block.forward" in sentence
    assert len(sentence) < 300
    assert torch.equal(model[0](torch.ones(1, 4)), model[0](torch.ones(1, 4)))
