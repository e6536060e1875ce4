"""The pieces of an adapter's folder: settings from layers, stored projections, what is read."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.nn.folder import (
    common_settings,
    layer_entry,
    layer_specs,
    projection_tensors,
    read_cores,
    write_adapter,
)
from cosa_theory.nn.pairs import Placement, layer_pairs
from cosa_theory.nn.projection import draw_projections, given_projection
from cosa_theory.nn.settings import CosaSettings
from cosa_theory.projections import KINDS

SIZES = {
    f"layers.{i}.{part}": size
    for i in (0, 1, 10)
    for part, size in {"attn.q": (16, 16), "attn.k": (8, 16), "mlp.up": (24, 16)}.items()
}


def specs_of(**settings):
    return CosaSettings(**({"a": 5, "b": 4} | settings)).layers(SIZES)


def projections_of(specs):
    drawn = draw_projections(p for one in specs.values() for p in (one.left, one.right))
    return {name: (one.key, drawn[one.left], drawn[one.right]) for name, one in specs.items()}


def write(folder, specs, *, stored=False):
    """An adapter's folder made of the pieces; returns its cores."""
    pairs = projections_of(specs)
    cores = {
        f"base_model.model.{name}.cosa_Y": torch.randn(one.a, one.b) for name, one in specs.items()
    }
    settings = common_settings(specs) | {
        "peft_type": "COSA",
        "layers": {
            name: layer_entry(key, SIZES[name], left, right, None)
            for name, (key, left, right) in pairs.items()
        },
    }
    write_adapter(folder, settings, cores | (projection_tensors(pairs) if stored else {}))
    return cores


def pairs_of(adapter, dtypes=None, **options):
    """The projections of an adapter on the CPU, in float32 or the given types."""
    dtypes = dtypes or dict.fromkeys(SIZES, torch.float32)
    return layer_pairs(
        layer_specs(adapter),
        {name: Placement(torch.device("cpu"), dtype) for name, dtype in dtypes.items()},
        adapter=adapter,
        fingerprints={name: record.fingerprints for name, record in adapter.layers.items()},
        **options,
    )


@settings(max_examples=40)
@given(
    shapes=st.dictionaries(
        st.sampled_from(["q", "k", r"layers.1.mlp.up", r"0.attn.q"]),
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ),
    alphas=st.dictionaries(
        st.sampled_from(["up", "k", "1.attn.k"]), st.sampled_from([-1.0, 0.5, 3.0])
    ),
    share=st.booleans(),
)
def test_the_settings_of_layers_lead_to_the_same_layers(shapes, alphas, share):
    specs = specs_of(
        shape_pattern={re.escape(name): shape for name, shape in shapes.items()},
        alpha_pattern={re.escape(name): alpha for name, alpha in alphas.items()},
        share_projections=share,
        kind="very_sparse",
        options={"density": 0.5},
        seed=3,
        scale="analysis",
    )
    settings = json.loads(json.dumps(common_settings(specs)))
    assert CosaSettings(**settings).layers(SIZES) == specs


def test_a_pattern_is_the_end_of_a_name_where_all_that_end_so_agree():
    settings = common_settings(specs_of(shape_pattern={"k": (2, 2), "1.attn.q": (3, 3)}))
    assert settings["shape_pattern"] == {r"^layers\.1\.attn\.q": [3, 3], "k": [2, 2]}
    assert common_settings(specs_of())["shape_pattern"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_stored_projections_are_the_factors_of_the_basis(kind):
    tensors = projection_tensors(projections_of(specs_of(kind=kind, seed=7)))
    for name, (m, n) in SIZES.items():
        basis = CosaBasis.sample(m, n, 5, 4, kind=kind, seed=7, key=name)
        for role, values in (("L", basis.L), ("R", basis.R)):
            stored = tensors[f"base_model.model.{name}.cosa_{role}"]
            dense = values @ torch.eye(values.shape[1], dtype=torch.float64).numpy()
            assert stored.dtype == torch.float32
            assert torch.allclose(stored.double(), torch.as_tensor(dense), rtol=1e-7, atol=1e-9)


def test_given_projections_of_one_key_are_stored_apart_where_they_differ():
    left, right, other = (given_projection(torch.randn(2, 3)) for _ in range(3))
    tensors = projection_tensors({"p": ("", left, right), "q": ("", other, right)})
    assert [name.removeprefix("base_model.model.") for name in tensors] == [
        "p.cosa_L",
        "p.cosa_R",
        "q.cosa_L",
    ]


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
def test_what_is_read_is_what_was_written(tmp_path, share, stored):
    torch.manual_seed(0)
    specs = specs_of(share_projections=share, alpha_pattern={"k": 2.0})
    cores = write(tmp_path, specs, stored=stored)
    adapter = read_cosa_folder(tmp_path)
    assert layer_specs(adapter) == specs
    found = read_cores(adapter)
    assert list(found) == list(adapter.layers)
    assert all(torch.equal(found[n], cores[f"base_model.model.{n}.cosa_Y"]) for n in SIZES)
    pairs = pairs_of(adapter)
    for name, (_, left, right) in projections_of(specs).items():
        assert torch.equal(pairs[name][0].matrix(), left.matrix())
        assert torch.equal(pairs[name][1].matrix(), right.matrix())
        assert (pairs[name][0].spec is None) == stored
    objects = {id(one) for pair in pairs.values() for one in pair}
    assert len(objects) == (3 + 1 if share else 2 * len(SIZES))


def test_projections_are_read_in_the_dtype_of_each_layer(tmp_path):
    write(tmp_path, specs_of(share_projections=True))
    dtypes = {name: torch.bfloat16 if ".1." in name else torch.float64 for name in SIZES}
    pairs = pairs_of(read_cosa_folder(tmp_path), dtypes)
    assert {name: left.matrix().dtype for name, (left, _) in pairs.items()} == dtypes
    fine, coarse = (pairs[f"layers.{i}.attn.q"][0].matrix() for i in (0, 1))
    assert torch.equal(coarse, fine.float().bfloat16())


def test_every_draw_that_differs_is_counted(tmp_path):
    write(tmp_path, specs_of())
    path = tmp_path / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["layers"]["layers.0.mlp.up"]["R"] = "0" * 32
    settings["layers"]["layers.10.attn.q"]["L"] = "f" * 32
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"R of layers\.0\.mlp\.up \(and 1 more\)"):
        pairs_of(read_cosa_folder(tmp_path))


def test_progress_counts_every_draw_once(tmp_path):
    write(tmp_path, specs_of(share_projections=True))
    steps = []
    adapter = read_cosa_folder(tmp_path)
    pairs_of(adapter, progress=lambda *step: steps.append(step))
    assert steps == [(count, 4) for count in range(1, 5)]


def test_tensors_are_written_for_any_reader_of_safetensors(tmp_path):
    write(tmp_path, specs_of(), stored=True)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert len(tensors) == 3 * len(SIZES)
