"""What a step keeps in memory is measured, and let go of."""

import gc
import warnings
import weakref

import torch
from torch import nn

from experiments.layer_costs import saved_bytes


class Squared(nn.Module):
    """Keeps its own output for backward, and says which activations it made."""

    def __init__(self):
        super().__init__()
        self.inner, self.made = nn.Linear(8, 8), []

    def forward(self, x):
        hidden = torch.exp(self.inner(x))
        self.made.append(weakref.ref(hidden))
        return torch.exp(hidden).sum()


def test_what_a_forward_pass_keeps_is_counted_and_let_go_of():
    model, x = Squared(), torch.ones(4, 8)
    # The input, and the two outputs that the exponentials keep.
    assert saved_bytes(model, lambda: model(x)) == 3 * 4 * 8 * 4
    gc.collect()
    assert model.made[0]() is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated objects that are only looked at
        alive = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    assert not any(one.shape == (4, 8) and one.requires_grad for one in alive)
