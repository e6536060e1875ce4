"""Settings: shapes by pattern, one warning for clipped cores, one error for all bad values."""

import warnings

import pytest
import torch

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.settings import CosaSettings, convert_alpha, initial_core

SIZES = {
    "layers.0.q_proj": (64, 64),
    "layers.0.k_proj": (16, 64),
    "layers.1.q_proj": (64, 64),
    "layers.1.mlp.up": (128, 64),
}


def test_patterns_match_the_end_of_a_name_or_all_of_it():
    settings = CosaSettings(
        8,
        4,
        shape_pattern={"k_proj": (4, 2), r"layers\.1\..*": (16, 8)},
        alpha_pattern={"mlp.up": 3.0},
    )
    specs = settings.layers(SIZES)
    assert [(spec.a, spec.b) for spec in specs.values()] == [(8, 4), (4, 2), (16, 8), (16, 8)]
    assert [spec.alpha for spec in specs.values()] == [1.0, 1.0, 1.0, 3.0]
    assert (
        CosaSettings(8, 4, shape_pattern={"proj": (1, 1)}).layers(SIZES)["layers.0.q_proj"].a == 8
    )


def test_one_warning_lists_every_clipped_layer():
    with pytest.warns(UserWarning, match="reduced") as caught:
        specs = CosaSettings(32, 80).layers(SIZES)
    assert len(caught) == 1
    for name in SIZES:
        assert name in str(caught[0].message)
    assert [(spec.a, spec.b) for spec in specs.values()] == [(32, 64), (16, 64), (32, 64), (32, 64)]


def test_a_core_that_fits_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CosaSettings(16, 64).layers(SIZES)


def test_without_clipping_a_core_too_large_is_an_error_that_lists_the_layers():
    with pytest.raises(InputError, match=r"larger than 1 of 4 layers: layers\.0\.k_proj, 16 × 64"):
        CosaSettings(32, 8, clip=False).layers(SIZES)


def test_every_bad_value_is_named_at_once():
    with pytest.raises(InputError) as caught:
        CosaSettings(
            0,
            2.5,
            alpha=float("nan"),
            seed=-1,
            kind="cauchy",
            scale="paper",
            share_projections="false",
            shape_pattern={"q": (1,), "(": (1, 2)},
        )
    named = caught.value.problems
    assert len(named) == 9
    for name in (
        "a is 0",
        "b is 2.5",
        "alpha is nan",
        "seed is -1",
        "cauchy",
        "paper",
        "share_projections is 'false'",
        "(1,)",
        "'('",
    ):
        assert any(name in problem for problem in named), name


def test_an_option_of_another_ensemble_is_an_error():
    with pytest.raises(InputError, match="sjlt takes nonzeros"):
        CosaSettings(4, 4, kind="sjlt", options={"density": 0.1})
    assert CosaSettings(4, 4, kind="sjlt", options={"nonzeros": 2}).layers(SIZES)


def test_a_layer_draws_what_the_basis_of_its_name_draws():
    spec = CosaSettings(8, 4, seed=9).layers(SIZES)["layers.0.q_proj"]
    basis = CosaBasis.sample(64, 64, 8, 4, seed=9, key="layers.0.q_proj")
    assert (spec.left.make("float64").T == basis.L).all()
    assert (spec.right.make("float64") == basis.R).all()


def test_shared_projections_are_one_for_each_size():
    specs = CosaSettings(8, 4, share_projections=True).layers(SIZES)
    assert len({spec.right for spec in specs.values()}) == 1
    assert len({spec.left for spec in specs.values()}) == 3
    apart = CosaSettings(8, 4).layers(SIZES)
    assert len({spec.left for spec in apart.values()}) == 4


def test_alpha_is_carried_between_scales_without_changing_the_update():
    m, n, a, b = 40, 24, 6, 5
    released = CosaBasis.sample(m, n, a, b, scale="analysis", key="x")
    ours = CosaBasis.sample(m, n, a, b, scale="synthesis", key="x")
    Y = torch.randn(a, b, generator=torch.Generator().manual_seed(0)).double().numpy()
    alpha = convert_alpha(2.0, m, n, a, b)
    assert abs(2.0 * released.synthesize(Y) - alpha * ours.synthesize(Y)).max() < 1e-12
    assert convert_alpha(alpha, m, n, a, b, source="synthesis", target="analysis") == pytest.approx(
        2
    )
    assert convert_alpha(3.0, m, n, a, b, source="analysis", target="analysis") == 3.0
    assert convert_alpha(1.0, 4096, 4096, 1024, 256) == 8.0
    with pytest.raises(ValueError, match="paper"):
        convert_alpha(1.0, 1, 1, 1, 1, source="paper")
    with pytest.raises(ValueError, match=r"n is 0\.0"):
        convert_alpha(1.0, 4, 0, 1, 1)


def test_the_core_starts_at_zero_unless_asked_otherwise():
    assert not initial_core(5, 7).any()
    torch.manual_seed(0)
    started = initial_core(200, 50, init_weights=False)
    # 10,000 squares with mean 1/50 and standard deviation √2/50: six standard errors
    assert abs(50 * float((started**2).mean()) - 1) < 6 * (2 / 10_000) ** 0.5
