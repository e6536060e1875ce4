"""CoSA adapters read without torch: their updates, against L Y R written out."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cosa_theory.cli import main
from cosa_theory.deltas import open_pair
from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.deltas.cosa_released import is_released, translated_settings
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo
from cosa_theory.nn.peft import CosaConfig
from tests.deltas.cosa_files import SIZES, base_model, cosa_adapter, edit_config, released_adapter
from tests.deltas.test_adapters import LINEAR, Tiny, TinyGPT, assert_equals_merge, trained

FIRST, *_, LAST = SIZES
KINDS = {
    "gaussian": {},
    "rademacher": {},
    "achlioptas": {},
    "very_sparse": {"density": 0.3},
    "sjlt": {"nonzeros": 2},
    "haar": {},
    "srht": {},
}


def assert_updates(pair, updates):
    assert list(pair.names) == [f"{name}.weight" for name in updates]
    for layer in pair:
        exact = updates[layer.name.removesuffix(".weight")]
        assert np.linalg.norm(layer.delta - exact) < 3e-7 * np.linalg.norm(exact)
        left, right = layer.factors
        assert left.shape[1] == right.shape[0]
        np.testing.assert_array_equal(left @ right, layer.delta)


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
@pytest.mark.parametrize("scale", ["synthesis", "analysis"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_update_of_an_adapter_is_alpha_l_y_r(tmp_path, kind, scale, stored):
    updates = cosa_adapter(
        tmp_path / "adapter", kind=kind, options=KINDS[kind], scale=scale, stored=stored
    )
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)


@pytest.mark.parametrize("core", [(8, 5), (4, 9), (6, 6)], ids="{0[0]}x{0[1]}".format)
def test_the_factors_have_the_smaller_side_of_the_core_as_rank(tmp_path, core):
    updates = cosa_adapter(tmp_path / "adapter", a=core[0], b=core[1])
    pair = open_pair(base_model(), tmp_path / "adapter")
    assert_updates(pair, updates)
    for layer in pair:
        assert layer.factors[0].shape[1] == min(core)
        assert np.linalg.matrix_rank(layer.delta) == min(core)


def test_layers_may_differ_in_shape_and_alpha(tmp_path):
    updates = cosa_adapter(
        tmp_path / "adapter", shapes={LAST: (3, 11)}, alpha_pattern={"layers.1.*": -2.0}
    )
    updates[LAST] *= -2.0 / 1.5
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
def test_shared_projections_are_those_of_the_first_layer(tmp_path, stored):
    updates = cosa_adapter(tmp_path / "adapter", share=True, stored=stored)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    counts = {role: sum(name.endswith(f"cosa_{role}") for name in tensors) for role in "YLR"}
    assert counts == {"Y": 3, "L": 2 * stored, "R": 1 * stored}
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)
    folder = read_cosa_folder(tmp_path / "adapter")
    if not stored:
        assert folder.projections(FIRST)[1] is folder.projections(LAST)[1]


def test_shared_projections_that_are_stored_are_not_drawn(tmp_path):
    updates = cosa_adapter(tmp_path / "adapter", share=True, stored=True)

    def double(tensors):
        for name, values in tensors.items():
            if name.endswith("cosa_L"):
                values *= 2  # as a library would find them that draws otherwise

    rewrite(tmp_path / "adapter", double)
    doubled = {name: 2 * update for name, update in updates.items()}
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), doubled)


def test_layers_draw_different_projections(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    folder = read_cosa_folder(tmp_path / "adapter")
    (left, right), (other, another) = folder.projections(FIRST), folder.projections(LAST)
    assert not np.isclose(left, other).any()
    assert not np.isclose(right, another).any()


def test_layers_that_store_their_weight_transposed_get_the_transpose(tmp_path):
    sizes = {"h.0.c_attn": (18, 6), "h.0.c_proj": (6, 6)}
    updates = cosa_adapter(tmp_path / "adapter", sizes, 4, 3, fan_in_fan_out=True)
    base = base_model(sizes, transposed=sizes)
    pair = open_pair(base, tmp_path / "adapter")
    assert_updates(pair, {name: update.T for name, update in updates.items()})
    edit_config(tmp_path / "adapter", lambda config: config.update(fan_in_fan_out=False))
    with pytest.raises(InputError, match=r"fan_in_fan_out is false .*1, first h.0.c_proj.weight"):
        open_pair(base, tmp_path / "adapter")


def test_replaced_modules_are_part_of_the_update(tmp_path):
    head = np.full((7, 4), 2.0, dtype=np.float32)
    extra = {"base_model.model.embed.weight": head, "base_model.model.norm.base_layer.bias": head}
    cosa_adapter(tmp_path / "adapter", extra=extra)
    base = base_model()
    pair = open_pair(base, tmp_path / "adapter")
    assert len(pair) == 4
    (layer,) = (layer for layer in pair if layer.name == "embed.weight")
    np.testing.assert_array_equal(layer.delta, head - base["embed.weight"])


def test_a_core_in_float64_keeps_its_digits(tmp_path):
    updates = cosa_adapter(tmp_path / "adapter", dtype=np.float64)
    for layer in open_pair(base_model(), tmp_path / "adapter"):
        exact = updates[layer.name.removesuffix(".weight")]
        assert layer.delta.dtype == np.float64
        np.testing.assert_allclose(layer.delta, exact, rtol=1e-12, atol=1e-12)


def test_reading_an_adapter_needs_no_torch(tmp_path):
    cosa_adapter(tmp_path / "adapter", kind="srht")
    code = (
        "import sys; from cosa_theory.deltas.cosa_adapters import read_cosa_folder; "
        "from cosa_theory.deltas.cosa_products import thin_factors; "
        "folder = read_cosa_folder(sys.argv[1]); "
        "[thin_factors(folder, name) for name in folder.layers]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "adapter")], check=True)


# Adapters that PEFT saved

PEFT_CASES = {
    "defaults": {},
    "signs": {"kind": "srht", "share_projections": True, "alpha_pattern": {"value": -0.5}},
    "stored": {"kind": "sjlt", "save_projections": True, "share_projections": True},
    "shapes": {"shape_pattern": {"layers.1.query": [2, 5]}, "modules_to_save": ["classifier"]},
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning:peft")
@pytest.mark.parametrize("case", PEFT_CASES)
def test_the_update_of_a_saved_adapter_equals_its_merge(tmp_path, case):
    config = CosaConfig(a=4, b=3, alpha=1.5, target_modules=["query", "value"], **PEFT_CASES[case])
    merged = trained(Tiny(), config, tmp_path)
    head = ["classifier.weight"] if "modules_to_save" in PEFT_CASES[case] else []
    assert_equals_merge(
        open_pair(tmp_path / "base", tmp_path / "adapter"), merged, [*LINEAR, *head]
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning:peft")
def test_the_update_of_saved_conv1d_layers_equals_their_merge(tmp_path):
    merged = trained(TinyGPT(), CosaConfig(a=4, b=3, target_modules=["c_attn", "c_proj"]), tmp_path)
    pair = open_pair(tmp_path / "base", tmp_path / "adapter")
    assert_equals_merge(pair, merged, ["c_attn.weight", "c_proj.weight"])


# Adapters of the released code


@pytest.mark.parametrize(("settings", "alpha"), [({}, 0.5), ({"use_rslora": True}, 2.0)])
def test_an_adapter_of_the_released_code_is_scaled_by_its_divisor(tmp_path, settings, alpha):
    updates = released_adapter(tmp_path / "adapter", **settings)
    updates = {name: alpha * update for name, update in updates.items()}
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)


def test_cores_larger_than_their_layer_are_read(tmp_path):
    updates = released_adapter(tmp_path / "adapter", a=30, b=6, lora_alpha=16)
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)


def test_settings_of_the_released_code_are_translated(tmp_path):
    folder = tmp_path / "adapter"
    released_adapter(
        folder,
        rank_pattern={"up_proj": 4},
        lora_dropout=0.1,
        bias="lora_only",
        target_modules=["q_proj", "up_proj"],
    )
    read = read_cosa_folder(folder)
    assert read.released
    assert read.settings == {
        "peft_type": "COSA",
        "a": 8,
        "b": 5,
        "alpha": 0.5,
        "alpha_pattern": {r"^model\.layers\.0\.mlp\.up_proj": 2.0},
        "shape_pattern": {},
        "seed": 42,
        "kind": "gaussian",
        "options": {},
        "scale": "analysis",
        "dropout": 0.1,
        "bias": "cosa_only",
        "save_projections": True,
        "target_modules": ["q_proj", "up_proj"],
    }
    assert {name: record.alpha for name, record in read.layers.items()} == dict(
        zip(SIZES, [0.5, 2.0, 0.5], strict=True)
    )


def test_translated_shapes_name_one_layer_each():
    infos = {
        "base_model.model.q.lora_Y.weight": TensorInfo("float32", (4, 3)),
        "base_model.model.x.q.lora_Y.weight": TensorInfo("float32", (5, 2)),
    }
    settings = {"peft_type": "COSA", "r": 4, "lora_alpha": 4, "use_compression": True}
    read = translated_settings(settings, infos, "adapter")
    assert (read["a"], read["b"], read["shape_pattern"]) == (4, 3, {r"^x\.q": [5, 2]})


@pytest.mark.parametrize("drop", ["lora_L", "lora_R"])
def test_a_released_adapter_without_its_projections_is_refused_with_the_reason(tmp_path, drop):
    released_adapter(tmp_path / "adapter", drop=[drop])
    with pytest.raises(InputError, match=r"3 of 3 layers .*salts anew in every process") as caught:
        open_pair(base_model(), tmp_path / "adapter")
    assert len(caught.value.problems) == 1


def test_a_released_adapter_without_cores_is_told_what_it_is(tmp_path):
    released_adapter(tmp_path / "adapter", drop=["lora_Y.weight"])
    with pytest.raises(InputError, match="trained without compression, as plain LoRA"):
        read_cosa_folder(tmp_path / "adapter")


@pytest.mark.parametrize("settings", [{"r": 0}, {"r": "8"}, {"lora_alpha": None}])
def test_a_released_adapter_without_a_divisor_is_refused(tmp_path, settings):
    released_adapter(tmp_path / "adapter", **settings)
    with pytest.raises(InputError, match=r"adapter_config\.json: (r|lora_alpha) is "):
        read_cosa_folder(tmp_path / "adapter")


# Bad input


def described(**change):
    return lambda config: config["layers"][FIRST].update(change)


BAD_SETTINGS = {
    "kind": (lambda config: config.update(kind="fourier"), "kind is 'fourier'.*gaussian"),
    "scale": (lambda config: config.update(scale="unit"), "scale is 'unit'.*synthesis, analysis"),
    "seed": (lambda config: config.update(seed=-1), "seed is -1"),
    "alpha": (lambda config: config.pop("alpha"), "alpha is None"),
    "options": (lambda config: config.update(options=3), "options is 3"),
    "option of another kind": (
        lambda config: config.update(options={"density": 0.5}),
        f"{FIRST}: L cannot be drawn: density is 0.5",
    ),
    "alpha pattern": (
        lambda config: config.update(alpha_pattern={"q_proj": "big"}),
        "alpha_pattern of .q_proj. is .big.",
    ),
    "seed of another run": (
        lambda config: config.update(seed=4),
        "L of model.layers.0.*q_proj, drawn from seed 4, .*save_projections",
    ),
    "layer without core": (
        lambda config: config["layers"].update({"x.y": config["layers"][FIRST]}),
        "x.y is in adapter_config.json, but adapter_model.safetensors has no core",
    ),
    "layer not described": (
        lambda config: config["layers"].pop(FIRST),
        f"{FIRST} is not described in adapter_config.json",
    ),
    "no layers": (lambda config: config.pop("layers"), f"{LAST} is not described"),
    "layers of another type": (lambda config: config.update(layers=[1]), r"layers is \[1\]"),
    "core": (described(core=[8, 4]), f"{FIRST}: .*cosa_Y is 8 × 5, but 8 × 4 is expected of Y"),
    "size": (described(size=[20]), rf"{FIRST}: .*size is \[20\]: it must be two"),
    "size of another type": (described(size=[20.0, 16]), r"size is \[20.0, 16\]"),
    "key": (described(key=None), "key is None"),
    "fingerprint": (described(R=7), "R is 7: it must be a fingerprint"),
    "description": (
        lambda config: config["layers"].update({FIRST: "q"}),
        "is 'q': it must be an object",
    ),
}


@pytest.mark.parametrize("bad", BAD_SETTINGS)
def test_bad_settings_are_named(tmp_path, bad):
    change, says = BAD_SETTINGS[bad]
    cosa_adapter(tmp_path / "adapter")
    edit_config(tmp_path / "adapter", change)
    with pytest.raises(InputError, match=says) as caught:
        for _ in open_pair(base_model(), tmp_path / "adapter", on_shape="error"):
            pass
    assert str(tmp_path / "adapter") in str(caught.value)


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


BAD_TENSORS = {
    "integers": (lambda t: t.update({f"{CORE}": np.ones((8, 5), dtype=np.int32)}), "type int32"),
    "vector": (lambda t: t.update({f"{CORE}": np.ones(40, dtype=np.float32)}), r"shape \(40,\)"),
    "no core": (lambda t: t.pop(CORE), f"{FIRST} is in adapter_config.json, but"),
    "unknown": (
        lambda t: t.update({"base_model.model.q.cosa_Z": np.ones(3)}),
        "cosa_Z is not understood",
    ),
    "wrong L": (
        lambda t: t.update({CORE.replace("_Y", "_L"): np.ones((8, 20), dtype=np.float32)}),
        "cosa_L is 8 × 20, but 20 × 8 is expected of L in a layer of 20 × 16",
    ),
}
CORE = f"base_model.model.{FIRST}.cosa_Y"


@pytest.mark.parametrize("bad", BAD_TENSORS)
def test_bad_tensors_are_named(tmp_path, bad):
    change, says = BAD_TENSORS[bad]
    cosa_adapter(tmp_path / "adapter")
    rewrite(tmp_path / "adapter", change)
    with pytest.raises(InputError, match=says):
        open_pair(base_model(), tmp_path / "adapter")


def test_all_problems_are_told_at_once(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    edit_config(tmp_path / "adapter", lambda config: config.update(kind="fourier", seed="x"))
    edit_config(tmp_path / "adapter", described(size=[20]))
    with pytest.raises(InputError) as caught:
        read_cosa_folder(tmp_path / "adapter")
    assert len(caught.value.problems) == 3


def test_nan_in_a_core_is_an_error_that_names_the_layer(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    rewrite(tmp_path / "adapter", lambda tensors: tensors[CORE].__setitem__((0, 0), np.nan))
    with pytest.raises(InputError, match=rf"{FIRST}.weight: .*NaN.* in tuned"):
        list(open_pair(base_model(), tmp_path / "adapter"))
    pair = open_pair(base_model(), tmp_path / "adapter", on_nonfinite="skip")
    assert len(list(pair)) == 2


def test_files_that_are_missing_or_of_another_method_are_named(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"no adapter_config\.json here"):
        read_cosa_folder(tmp_path)
    edit_config(tmp_path / "adapter", lambda config: config.update(peft_type="VERA"))
    with pytest.raises(InputError, match="peft_type is 'VERA'"):
        read_cosa_folder(tmp_path / "adapter")
    edit_config(tmp_path / "adapter", lambda config: config.update(peft_type="COSA"))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        open_pair(base_model(), tmp_path / "adapter")


def test_the_other_name_of_the_method_is_the_same_format(tmp_path):
    updates = cosa_adapter(tmp_path / "adapter")
    edit_config(tmp_path / "adapter", lambda config: config.update(peft_type="COSA_THEORY"))
    assert_updates(open_pair(base_model(), tmp_path / "adapter"), updates)


def test_a_configuration_of_lora_is_none_of_the_released_code():
    assert is_released({"peft_type": "COSA", "r": 8, "lora_alpha": 8})
    assert not is_released({"peft_type": "LORA", "r": 8, "lora_alpha": 8})
    assert not is_released({"peft_type": "COSA", "a": 8, "b": 8})


def test_an_adapter_of_another_base_model_is_refused(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    base = base_model(SIZES | {FIRST: (21, 16)})
    with pytest.raises(InputError, match=rf"{FIRST}.weight: .*21 × 16 in base, 20 × 16 in tuned"):
        open_pair(base, tmp_path / "adapter")


def test_an_adapter_cannot_be_the_base(tmp_path):
    cosa_adapter(tmp_path / "adapter")
    with pytest.raises(InputError, match="is an adapter; give the model it was trained on"):
        open_pair(tmp_path / "adapter", base_model())


@pytest.mark.parametrize("name", ["base_model.model.q.cosa_Y.default", "q.Y"])
def test_a_model_with_cores_that_are_not_merged_is_refused(tmp_path, name):
    base = base_model({"q": (6, 5)})
    wrapped = {"q.base_layer.weight": base["q.weight"], "embed.weight": base["embed.weight"]}
    with pytest.raises(InputError, match=r"1 CoSA layers that are not merged, first .*Y"):
        open_pair(base, wrapped | {name: np.ones((2, 2), dtype=np.float32)})


# The command


def test_spectrum_of_a_trained_adapter(tmp_path, monkeypatch, capsys):
    sizes = {name: (m + 20, n + 20) for name, (m, n) in SIZES.items()}
    updates = cosa_adapter(tmp_path / "adapter", sizes, 8, 5, kind="sjlt")
    save_file(base_model(sizes), tmp_path / "base.safetensors")
    monkeypatch.chdir(tmp_path)
    options = ["--json", "--families", "none", "--matrices", "delta", "--ranks", "2"]
    assert main(["spectrum", "base.safetensors", "adapter", *options]) == 0
    run = capsys.readouterr()
    result = json.loads(run.out)
    rows = {row["layer"]: row for row in result["layers"]}
    for name, update in updates.items():
        sigma = np.linalg.svd(update, compute_uv=False)
        row = rows[f"{name}.weight"]
        assert row["rank"] == 5
        assert row["delta_norm"] == pytest.approx(np.linalg.norm(update), rel=1e-6)
        share = (sigma[:2] ** 2).sum() / (sigma**2).sum()
        (cross,) = (line for line in result["crossover"] if line["layer"] == f"{name}.weight")
        assert cross["top_share"] == pytest.approx(share, rel=1e-6)
    assert "tuned is an adapter" in run.err
