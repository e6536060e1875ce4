"""Moments of layers beside the matrices of a pair."""

import numpy as np
import pytest

from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.moments import Moments, write_moments
from cosa_theory.projections import SecondMoments
from cosa_theory.spectrum import compare_families
from cosa_theory.studies.known_layers import KnownLayers
from cosa_theory.studies.spectrum.pair import survey_pair

RNG = np.random.default_rng(0)


def moments(n):
    x = RNG.standard_normal((3 * n, n)) * 0.8 ** np.arange(n)
    return SecondMoments((x.T @ x / len(x)).astype(np.float32), count=len(x))


def layer(name, m=20, n=16):
    delta, base = RNG.standard_normal((2, m, n)).astype(np.float32)
    return LayerDelta(name, delta, base)


LAYERS = [layer("bert.layer.0.query.weight"), layer("bert.layer.1.query.weight")]
HELD = Moments(
    {"layer.0.query.weight": moments(16), "layer.1.query.weight": moments(20)},
    {"layer.0.query.weight": moments(20)},
    transposed=frozenset({"layer.1.query.weight"}),
)
INFORMED = ["cosa_activation", "cosa_gradient"]


def survey(layers, **settings):
    return survey_pair(layers, families=INFORMED, ranks=[1, 2], matrices=["delta"], **settings)


def test_a_survey_has_informed_rows_where_there_are_moments(tmp_path):
    write_moments(HELD, tmp_path / "moments.safetensors")
    more = [*LAYERS, layer("bert.pooler.weight")]
    found = survey(more, moments=tmp_path / "moments.safetensors")
    counts = found.families.groupby(["layer", "family"]).size().to_dict()
    assert counts == {
        ("bert.layer.0.query.weight", "cosa_activation"): 2,
        ("bert.layer.0.query.weight", "cosa_gradient"): 2,
        ("bert.layer.1.query.weight", "cosa_activation"): 2,
    }
    (notice,) = (one for one in found.notices if "moments" in one)
    assert "1 of 3" in notice
    assert "bert.pooler.weight" in notice
    assert survey(LAYERS).families.empty
    for one, name, turned in zip(LAYERS, HELD.inputs, (False, True), strict=True):
        expected = compare_families(
            one.delta,
            families=INFORMED[:1],
            ranks=[1, 2],
            key=one.name,
            moments=HELD.inputs[name],
            transposed=turned,
        )
        rows = found.families[found.families["layer"] == one.name]
        rows = rows[rows["family"] == INFORMED[0]]
        np.testing.assert_allclose(rows["captured"], expected["captured"])


def test_a_stored_layer_is_computed_anew_with_other_moments(tmp_path):
    first = survey(LAYERS[:1], moments=HELD, cells=tmp_path)
    other = Moments({**HELD.inputs, "layer.0.query.weight": moments(16)})
    again = survey(LAYERS[:1], moments=other, cells=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert first.families["captured"].iloc[0] != again.families["captured"].iloc[0]


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([layer("decoder.weight")], ("decoder.weight", "layer.0.query.weight")),
        ([layer("layer.0.query.weight", n=12)], ("layer.0.query", "16", "12")),
        ([layer("layer.0.query.weight", m=12)], ("layer.0.query", "20", "12")),
    ],
)
def test_moments_that_do_not_fit_are_refused(layers, named):
    with pytest.raises(InputError) as caught:
        survey(layers, moments=HELD)
    assert all(name in str(caught.value) for name in named)
    assert len(str(caught.value)) <= 300


def test_a_name_that_fits_several_moments_fits_none():
    held = Moments({"a.query.weight": moments(16), "b.query.weight": moments(16)})
    with pytest.raises(InputError, match=r"none is a matrix of the pair.*query\.weight"):
        KnownLayers(held, ["query.weight"])


def test_moments_that_fit_several_matrices_fit_the_one_of_their_name_or_none():
    held = Moments({"block.weight": moments(16), "query.weight": moments(16)})
    found = KnownLayers(held, ["encoder.block.weight", "decoder.block.weight", "query.weight"])
    assert found.named("encoder.block.weight", (20, 16)) is None
    assert found.named("query.weight", (20, 16)).inputs is held.inputs["query.weight"]
    assert "encoder.block.weight, decoder.block.weight" in found.notices[0]
    found = KnownLayers(held, ["query.weight", "other.query.weight"])
    assert found.named("query.weight", (20, 16)) is not None
    assert found.named("other.query.weight", (20, 16)) is None
