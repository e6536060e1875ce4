"""Patterns of names give every layer its shape, and budgets the shapes that spend them."""

from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st

from cosa_theory.nn.settings import CosaSettings
from cosa_theory.nn.shapes import ModelLayers
from cosa_theory.studies.plan.core_shapes import balanced_settings, shape_patterns

PART = st.sampled_from(["layers", "0", "1", "12", "attn", "q_proj", "dense", "out.put", "a+b"])
NAMES = st.lists(PART, min_size=1, max_size=4).map(".".join)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@run(max_examples=40)
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=12))
def test_patterns_give_every_layer_its_shape(shapes):
    settings = CosaSettings(7, 7, shape_pattern=shape_patterns(shapes))
    found = settings.layers(dict.fromkeys(shapes, (9, 9)))
    assert {name: (spec.a, spec.b) for name, spec in found.items()} == shapes


def test_patterns_are_as_short_as_can_be():
    shapes = {}
    for block in range(3):
        shapes[f"h.{block}.attention.query"] = (4, 4)
        shapes[f"h.{block}.attention.output.dense"] = (4, 4)
        shapes[f"h.{block}.intermediate.dense"] = (2, 8)
        shapes[f"h.{block}.output.dense"] = (8, 2)
    assert shape_patterns(shapes) == {
        "query": (4, 4),
        r"attention\.output\.dense": (4, 4),
        r"intermediate\.dense": (2, 8),
        r"\d+\.output\.dense": (8, 2),
    }


def test_balanced_settings_keep_all_but_the_shapes():
    model = ModelLayers("One", {"x": (64, 16), "y": (32, 32)}, {"x": "x", "y": "y"})
    settings = CosaSettings(16, 4, alpha=3.0, seed=5, kind="haar", scale="analysis")
    found = balanced_settings(settings, model)
    assert (found.alpha, found.seed, found.kind, found.scale) == (3.0, 5, "haar", "analysis")
    specs = found.layers(model.sizes)
    assert (specs["x"].a, specs["x"].b) == (4, 16)
    assert (specs["y"].a, specs["y"].b) == (8, 8)
