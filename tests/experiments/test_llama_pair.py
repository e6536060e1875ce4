"""The pair for timing is of sizes and strengths that there can be."""

import pytest

from cosa_theory.ground.errors import InputError
from experiments.llama_pair import Config


@pytest.mark.parametrize(
    "settings",
    [
        *({name: 0} for name in ("blocks", "hidden", "feed_forward", "key_value", "rank")),
        {"blocks": -1},
        {"hidden": 2**25},
        *({name: -0.1} for name in ("weight_sd", "low_rank_sd", "noise_sd")),
        {"weight_sd": float("nan")},
        {"noise_sd": 1e39},
        {"seed": -1},
    ],
)
def test_sizes_and_strengths_that_cannot_be_are_refused_by_name(settings):
    ((name, value),) = settings.items()
    with pytest.raises(InputError) as refused:
        Config(**settings)
    assert str(refused.value).startswith(f"{name} is {value}: it must be ")
