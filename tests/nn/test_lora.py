"""CoSA adapters as LoRA adapters: exact factors, best truncations, and what reads them."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, convert_to_lora, get_peft_model
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import DTYPE_CODES, read_header
from cosa_theory.nn import load_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.lora_factors import balanced, rank_for, rounding_error, truncated
from cosa_theory.nn.peft import CosaConfig
from tests.deltas.cosa_files import SIZES, cosa_adapter, edit_config, released_adapter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning:peft")

FIRST, SECOND, LAST = SIZES
EPS = 2.0**-24  # half the spacing of float32 numbers
KINDS = {
    "gaussian": {},
    "rademacher": {},
    "achlioptas": {},
    "very_sparse": {"density": 0.3},
    "sjlt": {"nonzeros": 2},
    "haar": {},
    "srht": {},
}


def served(folder):
    """Read a LoRA folder as a server does that knows one rank, one alpha and no patterns."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert not config["use_dora"]
    assert not config["use_rslora"]
    scaling = config["lora_alpha"] / config["r"]
    tensors = {}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name in file.keys():  # noqa: SIM118  (it is no dictionary)
            tensors[name.removeprefix("base_model.model.")] = file.get_tensor(name).double().numpy()
    updates = {}
    names = [name for name in tensors if name.endswith(".lora_A.weight")]
    for module in (name.removesuffix(".lora_A.weight") for name in names):
        A, B = (tensors.pop(f"{module}.lora_{side}.weight") for side in "AB")
        assert A.shape[0] == B.shape[1] <= config["r"]
        updates[module] = scaling * B @ A
    return updates, config, tensors


def assert_close(updates, exact, tolerance):
    assert updates.keys() == exact.keys()
    for name, update in updates.items():
        error = np.linalg.norm(update - exact[name])
        assert error <= tolerance * np.linalg.norm(exact[name]), name


# The exact export


@pytest.mark.parametrize(
    ("kind", "scale", "stored"),
    [
        *((kind, "synthesis", False) for kind in KINDS),
        *((kind, "analysis", True) for kind in KINDS),
    ],
)
def test_the_export_is_exact_to_float32_rounding(tmp_path, kind, scale, stored):
    exact = cosa_adapter(
        tmp_path / "cosa", kind=kind, options=KINDS[kind], scale=scale, stored=stored
    )
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    updates, config, rest = served(tmp_path / "lora")
    assert_close(updates, exact, 2 * EPS)
    assert 0 < export.rounding < EPS
    assert export.energy_lost == 0
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (5, 5, {})
    assert config["base_model_name_or_path"] == "some/base"
    assert config["task_type"] == "CAUSAL_LM"
    assert not rest


@pytest.mark.parametrize("core", [(8, 5), (4, 9), (6, 6), (1, 1)], ids="{0[0]}x{0[1]}".format)
def test_the_rank_is_the_smaller_side_of_the_core(tmp_path, core):
    exact = cosa_adapter(tmp_path / "cosa", a=core[0], b=core[1])
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert {layer.rank for layer in export.layers} == {min(core)}
    assert_close(served(tmp_path / "lora")[0], exact, 2 * EPS)


def test_adapters_of_the_released_code_are_exported(tmp_path):
    exact = released_adapter(tmp_path / "cosa")
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    updates, config, _ = served(tmp_path / "lora")
    assert_close(updates, {name: 0.5 * update for name, update in exact.items()}, 2 * EPS)
    assert config["base_model_name_or_path"] is None


def test_a_core_larger_than_its_layer_gets_the_rank_of_the_layer(tmp_path):
    exact = released_adapter(tmp_path / "cosa", a=30, b=18, lora_alpha=16)
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert ({layer.rank for layer in export.layers}, export.energy_lost) == ({16}, 0)
    assert_close(served(tmp_path / "lora")[0], exact, 2 * EPS)


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
def test_shared_projections_are_exported(tmp_path, stored):
    exact = cosa_adapter(tmp_path / "cosa", share=True, stored=stored)
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert_close(served(tmp_path / "lora")[0], exact, 2 * EPS)


def test_the_norms_of_the_factors_are_balanced_whatever_alpha_is(tmp_path):
    for alpha in (1e-6, 1.0, 1e6):
        exact = cosa_adapter(tmp_path / "cosa", alpha=alpha)
        to_lora(tmp_path / "cosa", tmp_path / "lora")
        assert_close(served(tmp_path / "lora")[0], exact, 2 * EPS)
        tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
        for name in SIZES:
            A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            assert 0.5 <= np.linalg.norm(A) / np.linalg.norm(B) <= 2


def test_a_zero_core_gives_a_zero_update(tmp_path):
    cosa_adapter(tmp_path / "cosa", alpha=0.0)
    for options in ({}, {"rank": 2}, {"energy": 0.9}):
        export = to_lora(tmp_path / "cosa", tmp_path / "lora", **options)
        updates, _, _ = served(tmp_path / "lora")
        assert all(not update.any() for update in updates.values())
        assert (export.energy_lost, export.rounding) == (0, 0)
    assert export.rank == 1


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_the_error_of_a_shorter_type_is_what_the_report_says(tmp_path, dtype, bits):
    exact = cosa_adapter(tmp_path / "cosa")
    export = to_lora(tmp_path / "cosa", tmp_path / "lora", dtype=dtype)
    updates, _, _ = served(tmp_path / "lora")
    for layer in export.layers:
        error = np.linalg.norm(updates[layer.name] - exact[layer.name])
        assert layer.rounding == pytest.approx(error / layer.norm, rel=1e-6)
        assert layer.norm == pytest.approx(np.linalg.norm(exact[layer.name]), rel=1e-12)
        assert 0.1 * 2.0**-bits < layer.rounding < 2 * 2.0**-bits


# Truncation


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_truncation_is_the_best_of_its_rank(tmp_path, rank):
    exact = cosa_adapter(tmp_path / "cosa", shapes={LAST: (4, 9)})
    export = to_lora(tmp_path / "cosa", tmp_path / "lora", rank=rank)
    updates, config, _ = served(tmp_path / "lora")
    assert config["r"] == rank
    lost = total = 0.0
    for layer in export.layers:
        sigma = np.linalg.svd(exact[layer.name], compute_uv=False)
        least = np.sqrt((sigma[rank:] ** 2).sum())
        error = np.linalg.norm(updates[layer.name] - exact[layer.name])
        # By Eckart and Young no matrix of this rank is closer.
        assert error == pytest.approx(least, rel=1e-5, abs=2 * EPS * sigma[0])
        assert layer.energy_lost == pytest.approx((least / layer.norm) ** 2, rel=1e-9, abs=1e-28)
        lost, total = lost + least**2, total + layer.norm**2
    assert export.energy_lost == pytest.approx(lost / total, rel=1e-9)


def test_a_rank_above_the_core_cuts_nothing(tmp_path):
    exact = cosa_adapter(tmp_path / "cosa")
    export = to_lora(tmp_path / "cosa", tmp_path / "lora", rank=64)
    assert (export.rank, export.energy_lost) == (5, 0)
    assert_close(served(tmp_path / "lora")[0], exact, 2 * EPS)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_every_layer_gets_the_smallest_rank_that_keeps_the_energy(tmp_path, energy):
    exact = cosa_adapter(tmp_path / "cosa", shapes={LAST: (7, 10), FIRST: (2, 2)})
    export = to_lora(tmp_path / "cosa", tmp_path / "lora", energy=energy)
    for layer in export.layers:
        shares = np.cumsum(np.linalg.svd(exact[layer.name], compute_uv=False) ** 2)
        shares /= shares[-1]
        assert layer.rank == 1 + int(np.argmax(shares >= energy))
        assert layer.energy_lost <= 1 - energy
    capped = to_lora(tmp_path / "cosa", tmp_path / "lora", energy=energy, rank=2)
    assert [one.rank for one in capped.layers] == [min(2, one.rank) for one in export.layers]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(0, 2**16),
    st.integers(-40, 40),
)
def test_the_algebra_of_small_factors(m, n, r, rank, seed, exponent):
    generator = np.random.default_rng(seed)
    B, A = generator.standard_normal((m, r)) * 2.0**exponent, generator.standard_normal((r, n))
    left, right = balanced(B, A)
    np.testing.assert_array_equal(left @ right, B @ A)
    assert 0.5 <= np.linalg.norm(left) / np.linalg.norm(right) <= 2
    U, sigma, Vt = np.linalg.svd(B @ A, full_matrices=False)
    left, right, lost = truncated(B, A, rank)
    best = U[:, :rank] * sigma[:rank] @ Vt[:rank]
    assert np.linalg.norm(left @ right - B @ A) <= (
        np.linalg.norm(best - B @ A) + 1e-13 * np.linalg.norm(sigma)
    )
    assert lost == pytest.approx((sigma[rank:] ** 2).sum() / (sigma**2).sum(), abs=1e-13)
    kept = rank_for(sigma, 0.9)
    assert (sigma[:kept] ** 2).sum() >= 0.9 * (sigma**2).sum() * (1 - 1e-12)
    assert kept == 1 or (sigma[: kept - 1] ** 2).sum() < 0.9 * (sigma**2).sum()


def test_the_rounding_error_keeps_its_digits_where_it_is_tiny():
    generator = np.random.default_rng(0)
    B, A = generator.standard_normal((40, 6)), generator.standard_normal((6, 30))
    stored = torch.from_numpy(B) * (1 + 1e-13), torch.from_numpy(A.copy())
    assert rounding_error(B, A, stored) == pytest.approx(1e-13, rel=1e-2)


# Layers of different rank


def test_ranks_that_are_kept_are_in_the_patterns_of_peft_with_scaling_one(tmp_path):
    exact = cosa_adapter(tmp_path / "cosa", shapes={LAST: (3, 4), SECOND: (2, 7)})
    to_lora(tmp_path / "cosa", tmp_path / "lora", keep_ranks=True)
    updates, config, _ = served(tmp_path / "lora")
    assert config["rank_pattern"] == config["alpha_pattern"] == {LAST: 3, SECOND: 2}
    assert_close(updates, exact, 2 * EPS)  # a server that knows no pattern reads it right too


def test_all_layers_get_one_rank(tmp_path):
    exact = cosa_adapter(tmp_path / "cosa", shapes={LAST: (3, 4)})
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    updates, config, _ = served(tmp_path / "lora")
    assert export.padded
    assert [layer.rank for layer in export.layers] == [5, 5, 3]
    assert config["rank_pattern"] == {}
    assert_close(updates, exact, 2 * EPS)
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert {one.shape[0] for name, one in tensors.items() if "lora_A" in name} == {5}


class Nested(nn.Module):
    """A module whose name is the end of another's."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(16, 20)
        self.x = nn.ModuleDict({"q": nn.Linear(16, 20)})
        self.up = nn.Linear(16, 24)

    def forward(self, x):
        return torch.cat([self.q(x), self.x["q"](x), self.up(x)], dim=-1)


@pytest.mark.parametrize("kept", [False, True], ids=["one rank", "kept ranks"])
@pytest.mark.parametrize("small", ["q", "x.q"])
def test_a_name_that_ends_with_another_gets_its_own_rank(tmp_path, small, kept):
    sizes = {"q": (20, 16), "x.q": (20, 16), "up": (24, 16)}
    exact = cosa_adapter(tmp_path / "cosa", sizes, shapes={small: (3, 3)}, task_type=None)
    to_lora(tmp_path / "cosa", tmp_path / "lora", keep_ranks=kept)
    model = Nested()
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "lora").eval()
    x = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    change = np.vstack([exact[name] for name in sizes]) @ x.double().numpy().T
    found = (loaded(x) - model(x)).detach().double().numpy().T
    assert np.linalg.norm(found - change) < 1e-5 * np.linalg.norm(change)


# What PEFT makes of it


class Tiny(nn.Module):
    def __init__(self, linear=nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.up = linear(16, 24)
        self.square = linear(24, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, tokens):
        return self.head(torch.tanh(self.square(torch.tanh(self.up(self.embed(tokens))))))


def conv1d(n, m):
    """Return GPT-2's linear layer, which stores its weight as in × out."""
    return Conv1D(m, n)


TOKENS = torch.arange(22).reshape(2, 11) % 11


def trained(model, folder, **options):
    """Save an adapter as PEFT's trainer leaves it; return the model and its outputs."""
    given = {"a": 8, "b": 5, "alpha": 1.5, "target_modules": ["up", "square"], **options}
    model = get_peft_model(model, CosaConfig(**given)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return model, model(TOKENS).detach()


CASES = {
    "defaults": {},
    "a wide core": {"a": 4, "b": 9},
    "sparse": {"kind": "sjlt", "options": {"nonzeros": 2}},
    "structured": {"kind": "srht", "share_projections": True},
    "stored, shared signs": {
        "kind": "rademacher",
        "save_projections": True,
        "share_projections": True,
    },
    "patterns": {"shape_pattern": {"square": [3, 7]}, "alpha_pattern": {"square": -0.5}},
    "a replaced head": {"modules_to_save": ["head"]},
    "biases": {"bias": "all"},
    "biases of the layers": {"bias": "cosa_only"},
    "biases and a head": {"bias": "all", "modules_to_save": ["head"]},
    "biases of the layers and a head": {"bias": "cosa_only", "modules_to_save": ["head"]},
}


@pytest.mark.parametrize("case", CASES)
def test_peft_gives_the_outputs_of_the_cosa_adapter(tmp_path, case):
    _, expected = trained(Tiny(), tmp_path / "cosa", **CASES[case])
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    loaded = PeftModel.from_pretrained(Tiny(), tmp_path / "lora").eval()
    assert isinstance(loaded.peft_config["default"], LoraConfig)
    assert all(s == 1 for m in loaded.modules() for s in getattr(m, "scaling", {}).values())
    assert (expected - Tiny()(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(loaded(TOKENS), expected, rtol=1e-5, atol=1e-5)
    bias = CASES[case].get("bias", "none").replace("cosa", "lora")
    assert loaded.peft_config["default"].bias == bias
    assert bool(export.carried) == ("modules_to_save" in CASES[case] or "bias" in CASES[case])


def test_peft_the_plain_layer_and_the_export_agree(tmp_path):
    _, expected = trained(Tiny(), tmp_path / "cosa")
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    plain = load_cosa(Tiny(), tmp_path / "cosa").eval()
    lora = PeftModel.from_pretrained(Tiny(), tmp_path / "lora").merge_and_unload()
    torch.testing.assert_close(plain(TOKENS), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lora(TOKENS), expected, rtol=1e-5, atol=1e-5)


def test_conv1d_layers_are_exported(tmp_path):
    _, expected = trained(Tiny(conv1d), tmp_path / "cosa")
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"]
    loaded = PeftModel.from_pretrained(Tiny(conv1d), tmp_path / "lora").eval()
    torch.testing.assert_close(loaded(TOKENS), expected, rtol=1e-5, atol=1e-5)


def test_only_the_adapted_modules_are_targets(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(16, 20)}) for _ in range(2))

    name = "layers.1.q"
    for targets in ({"target_modules": [name]}, {"exclude_modules": ["layers.0.q"]}):
        cosa_adapter(tmp_path / "cosa", {name: (20, 16)}, task_type=None, **targets)
        to_lora(tmp_path / "cosa", tmp_path / "lora")
    loaded = PeftModel.from_pretrained(Two(), tmp_path / "lora")
    assert [name for name, _ in loaded.named_modules() if name.endswith(".q.lora_A")] == [
        "base_model.model.layers.1.q.lora_A"
    ]


@pytest.mark.parametrize("linear", [nn.Linear, conv1d])
def test_the_conversion_of_peft_agrees_to_the_digits_of_its_decomposition(tmp_path, linear):
    model, _ = trained(Tiny(linear), tmp_path / "cosa")
    config, state = convert_to_lora(model, rank=5)
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    ours, _, _ = served(tmp_path / "lora")
    for name, update in ours.items():
        A, B = (
            state[f"base_model.model.{name}.lora_{side}.weight"].double().numpy() for side in "AB"
        )
        theirs = B @ A * (config.lora_alpha / config.r)
        assert np.linalg.norm(theirs - update) < 5e-6 * np.linalg.norm(update)


@pytest.mark.parametrize("rank", [2, 0.8])
def test_truncations_of_peft_lose_as_much(tmp_path, rank):
    model, _ = trained(Tiny(), tmp_path / "cosa")
    _, state = convert_to_lora(model, rank=rank)
    option = {"rank": rank} if isinstance(rank, int) else {"energy": rank}
    export = to_lora(tmp_path / "cosa", tmp_path / "lora", **option)
    ours, _, _ = served(tmp_path / "lora")
    for layer in export.layers:
        path = f"base_model.model.{layer.name}.lora"
        A, B = (state[f"{path}_{side}.weight"].double().numpy() for side in "AB")
        assert A.shape[0] == layer.rank
        assert np.linalg.norm(B @ A - ours[layer.name]) < 5e-6 * layer.norm


# Files


def test_carried_tensors_keep_their_bytes_and_types(tmp_path):
    wide = np.random.default_rng(0).standard_normal((3, 5))
    whole = np.arange(7, dtype=np.int64)
    short = np.arange(5, dtype=np.float16)
    extra = {"head.weight": wide, "head.steps": whole, "a_norm.weight": short}
    extra = {f"base_model.model.{name}": one for name, one in extra.items()}
    exact = cosa_adapter(tmp_path / "cosa", extra=extra, modules_to_save=["head"])
    for dtype, tolerance in (("float32", 2 * EPS), ("bfloat16", 2.0**-7)):
        export = to_lora(tmp_path / "cosa", tmp_path / "lora", dtype=dtype)
        updates, config, rest = served(tmp_path / "lora")
        assert_close(updates, exact, tolerance)
        assert config["modules_to_save"] == ["head"]
        assert set(export.carried) == set(extra)
        for info in read_header(tmp_path / "lora" / "adapter_model.safetensors").values():
            assert (info.start - 8) % (DTYPE_CODES[info.dtype][1] // 8) == 0
        for name, one in extra.items():
            np.testing.assert_array_equal(rest[name.removeprefix("base_model.model.")], one)


def test_sizes_are_those_of_the_files(tmp_path):
    cosa_adapter(tmp_path / "cosa")
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    for size, folder in ((export.cosa_bytes, "cosa"), (export.lora_bytes, "lora")):
        assert size == (tmp_path / folder / "adapter_model.safetensors").stat().st_size


def test_a_lora_adapter_is_replaced_and_other_files_stay(tmp_path):
    cosa_adapter(tmp_path / "cosa")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "tokenizer.json").write_text("{}")
    to_lora(tmp_path / "cosa", tmp_path / "lora", rank=1)
    to_lora(tmp_path / "cosa", tmp_path / "lora", rank=2)
    assert served(tmp_path / "lora")[1]["r"] == 2
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == [
        ".cosa-theory.json",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "README.md"])
def test_a_file_of_somebody_else_is_not_replaced_by_an_export(tmp_path, name):
    cosa_adapter(tmp_path / "cosa")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / name).write_text("mine")
    with pytest.raises(InputError, match=name):
        to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert [path.read_text() for path in (tmp_path / "lora").iterdir()] == ["mine"]
    with pytest.raises(InputError, match="inside"):
        to_lora(tmp_path / "cosa", tmp_path)


def test_the_same_adapter_gives_the_same_bytes(tmp_path):
    cosa_adapter(tmp_path / "cosa")
    contents = []
    for name in ("one", "two"):
        to_lora(tmp_path / "cosa", tmp_path / name, energy=0.9)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path):
    peaks = []
    for count in (2, 12):
        sizes = {f"layers.{number}.q": (512, 384) for number in range(count)}
        cosa_adapter(tmp_path / "cosa", sizes, 64, 48)
        to_lora(tmp_path / "cosa", tmp_path / "lora")  # imports and caches are not the question
        tracemalloc.start()
        to_lora(tmp_path / "cosa", tmp_path / "lora")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_progress_counts_every_step(tmp_path):
    cosa_adapter(tmp_path / "cosa")
    for energy, total in ((None, 3), (0.9, 6)):
        seen: list[tuple[int, int, str]] = []

        def note(*step, seen=seen):
            seen.append(step)

        to_lora(tmp_path / "cosa", tmp_path / "lora", energy=energy, progress=note)
        assert [(done, count) for done, count, _ in seen] == [
            (done, total) for done in range(1, total + 1)
        ]
        assert {name for *_, name in seen} == set(SIZES)


# Bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 0}, "rank is 0: it must be"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"rank": True}, "rank is True"),
        ({"energy": 1.0}, "energy is 1.0: it must be"),
        ({"energy": 0}, "energy is 0: "),
        ({"energy": float("nan")}, "energy is nan"),
        ({"dtype": "int8"}, "dtype is 'int8': it must be one of float32, float16, bfloat16"),
    ],
)
def test_options_outside_their_range_are_named(tmp_path, options, says):
    cosa_adapter(tmp_path / "cosa")
    with pytest.raises(InputError, match=says):
        to_lora(tmp_path / "cosa", tmp_path / "lora", **options)
    assert not (tmp_path / "lora").exists()


def poisoned(folder, value):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[f"base_model.model.{LAST}.cosa_Y"][1, 2] = value
    save_file(tensors, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_core_that_is_not_finite_is_refused_and_the_old_export_stays(tmp_path, value):
    cosa_adapter(tmp_path / "cosa")
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    before = [path.read_bytes() for path in sorted((tmp_path / "lora").iterdir())]
    poisoned(tmp_path / "cosa", value)
    for options in ({}, {"energy": 0.9}):
        with pytest.raises(InputError, match=f"core of {LAST} is not finite"):
            to_lora(tmp_path / "cosa", tmp_path / "lora", **options)
    assert [path.read_bytes() for path in sorted((tmp_path / "lora").iterdir())] == before


def test_factors_that_overflow_half_precision_are_refused(tmp_path):
    cosa_adapter(tmp_path / "cosa", alpha=1e12)
    with pytest.raises(InputError, match="overflow float16: export float32 or bfloat16"):
        to_lora(tmp_path / "cosa", tmp_path / "lora", dtype="float16")
    assert to_lora(tmp_path / "cosa", tmp_path / "lora", dtype="bfloat16").rounding < 2.0**-7


def test_an_adapter_of_another_method_is_not_replaced(tmp_path):
    cosa_adapter(tmp_path / "cosa")
    before = (tmp_path / "cosa" / "adapter_config.json").read_bytes()
    with pytest.raises(InputError, match="holds a COSA adapter, which is not replaced"):
        to_lora(tmp_path / "cosa", tmp_path / "cosa")
    assert (tmp_path / "cosa" / "adapter_config.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in the way"):
        to_lora(tmp_path / "cosa", tmp_path / "file")


def test_a_model_that_is_one_layer_has_no_lora_form(tmp_path):
    cosa_adapter(tmp_path / "cosa", {"q": (20, 16)})
    tensors = load_file(tmp_path / "cosa" / "adapter_model.safetensors")
    save_file(
        {"base_model.model.cosa_Y": tensors["base_model.model.q.cosa_Y"]},
        tmp_path / "cosa" / "adapter_model.safetensors",
    )
    edit_config(tmp_path / "cosa", lambda config: config.update(layers={"": config["layers"]["q"]}))
    with pytest.raises(InputError, match=r"one linear layer itself.*wrap it in a module"):
        to_lora(tmp_path / "cosa", tmp_path / "lora")


def test_a_changed_seed_is_refused(tmp_path):
    cosa_adapter(tmp_path / "cosa", seed=3)
    edit_config(tmp_path / "cosa", lambda config: config.update(seed=4))
    with pytest.raises(InputError, match=f"L of {SECOND}, drawn from seed 4, has the fingerprint"):
        to_lora(tmp_path / "cosa", tmp_path / "lora")


def test_a_failed_export_leaves_no_new_folder(tmp_path, monkeypatch):
    cosa_adapter(tmp_path / "cosa")
    (tmp_path / "there").mkdir()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cosa_theory.nn.lora.write_tensors", full)
        for name in ("new/lora", "there"):
            with pytest.raises(OSError, match="No space left") as caught:
                to_lora(tmp_path / "cosa", tmp_path / name)
            assert caught.value.filename == str(tmp_path / name)
    poisoned(tmp_path / "cosa", np.nan)
    with pytest.raises(InputError, match="is not finite"):
        to_lora(tmp_path / "cosa", tmp_path / "new" / "lora")
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []
