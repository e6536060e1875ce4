"""Every check reaches its verdict from the numbers: a broken or different input flips it."""

import dataclasses

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import make_projection, stream
from cosa_theory.spectrum.budget import CosaShape
from cosa_theory.spectrum.families import crossover
from paper_checks import c01, c04, c05, c06, c09, c10
from paper_checks.base import decide, failed_controls
from paper_checks.models import LORA_RANK, Model, clipped, load_models, released_core


def layer(delta, name="encoder.layer.0.attention.self.query.weight"):
    return LayerDelta(name, np.asarray(delta, dtype=np.float32), np.zeros_like(delta))


def decaying(m, n, name="decaying"):
    """An update like a real one: a few directions and a small floor."""
    generator = stream(0, "test", name, m, n)
    low_rank = generator.standard_normal((m, 3)) @ generator.standard_normal((3, n))
    return layer(1e-4 * (low_rank + 0.05 * generator.standard_normal((m, n))), name)


def flat(m, n, name="flat"):
    long, short = max(m, n), min(m, n)
    rows = np.asarray(make_projection("haar", short, long, seed=1, scale="synthesis"))
    return layer(rows.T if m > n else rows, name)


LAYERS = [decaying(64, 48, "one"), decaying(40, 80, "two")]
ZERO = layer(np.zeros((32, 32)), "zero")


# C1 ---------------------------------------------------------------------------------------------


def test_c1_the_identity_holds_for_every_ensemble():
    cases = c01.measure()
    assert decide(cases) == "holds"
    assert {case.group for case in cases} == set(c01.KINDS)


class Transposed(CosaBasis):
    """Stacks columns where rows belong: the two sides of the identity in different orders."""

    def synthesize(self, Y):
        return super().synthesize(np.ascontiguousarray(Y.T).reshape(Y.shape))


class OtherFactor(CosaBasis):
    """Decodes with a factor that is not the one it shows."""

    @property
    def R(self):
        return np.asarray(super().R)[::-1]


@pytest.mark.parametrize("broken", [Transposed, OtherFactor])
def test_c1_a_wrong_order_or_factor_flips_it(broken):
    cases = c01.measure(kinds=("gaussian",), draw=broken.sample)
    assert decide(cases) != "holds"
    # A core with a single row is the same in both orders.
    assert sum(case.outcome == "fails" for case in cases) >= len(c01.SIZES) - 1


def test_c1_an_error_just_above_rounding_flips_it():
    class Inexact(CosaBasis):
        def encode(self, dW):
            return super().encode(dW) * (1 + 1e-12)

    assert decide(c01.measure(kinds=("gaussian",), draw=Inexact.sample)) == "fails"


def test_c1_its_explicit_kronecker_product_is_numpys():
    A, B = stream(0, "kron").standard_normal((2, 3)), stream(1, "kron").standard_normal((5, 4))
    np.testing.assert_array_equal(c01.kronecker(A, B), np.kron(A, B))


# C4 ---------------------------------------------------------------------------------------------


def test_c4_a_small_core_does_not_bring_a_real_update_back():
    cases = c04.measure([*LAYERS, ZERO])
    assert decide(cases) == "fails"
    assert not failed_controls(cases)
    assert {case.name.split(",")[0] for case in cases if not case.control} == {"one", "two"}


def test_c4_a_core_as_large_as_the_layer_flips_it():
    """At rank 30 LoRA trains 2,760 numbers on 40 × 52, more than the layer has."""
    cases = c04.measure([decaying(40, 52)], ranks=(30,))
    assert decide(cases) == "holds"
    assert cases[0].value == pytest.approx(1.0, abs=1e-5)


def test_c4_a_straddling_interval_is_undecided():
    """A core of 95 % of the entries on few draws of a rank-one update."""
    generator = stream(3, "test")
    update = np.outer(generator.standard_normal(8), generator.standard_normal(8))
    cases = c04.measure([layer(update)], ranks=(2, 3))
    assert "undecided" in {case.outcome for case in cases if not case.control}


def test_c4_a_measurement_against_the_law_is_not_trusted():
    """Factors that look at the update first bring back more than any oblivious ones."""
    target = LAYERS[0].delta.astype(np.float64)

    def cheat(m, n, a, b, *, seed, key, dtype):
        U, _, Vt = np.linalg.svd(target)
        return CosaBasis(U[:, :a].astype(dtype), Vt[:b].astype(dtype))

    cases = c04.measure(LAYERS[:1], draw=cheat)
    assert [case.threshold for case in failed_controls(cases)] == ["c4_law"]
    assert decide(cases) == "undecided"
    assert "no more" not in c04.describe(cases)


def test_c4_tiny_updates_lose_nothing_to_underflow():
    tiny = dataclasses.replace(LAYERS[0], delta=LAYERS[0].delta * np.float32(1e-24))
    shares = [case.value for case in c04.measure([tiny])]
    assert shares == pytest.approx([case.value for case in c04.measure(LAYERS[:1])], rel=1e-3)


def test_c4_without_an_update_nothing_is_decided():
    assert decide(c04.measure([ZERO])) == "undecided"
    assert c04.describe(c04.measure([ZERO])) == "There was no update to encode."


# C5 ---------------------------------------------------------------------------------------------


def test_c5_holds_for_flat_spectra_alone():
    cases = c05.measure(LAYERS)
    assert decide(cases) == "holds under conditions"
    assert {case.outcome for case in cases if case.group == c05.FLAT} == {"holds"}
    assert {case.outcome for case in cases if case.group == c05.REAL} == {"fails"}


def test_c5_real_updates_with_a_flat_spectrum_flip_it():
    assert decide(c05.measure([flat(64, 64), flat(96, 64)])) == "holds"


def test_c5_the_flat_advantage_is_the_bound():
    """Square: 2 up to the whole numbers in the core's shape; never more."""
    values = {case.name: 1 / case.value for case in c05.measure(LAYERS) if case.group == c05.FLAT}
    assert values["384 × 384, r = 16"] == pytest.approx(2, rel=0.03)
    assert values["768 × 384, r = 16"] == pytest.approx(1.5, rel=0.03)


def test_c5_an_advantage_beyond_the_bound_is_not_trusted():
    def broken(sigma, m, n):
        table = crossover(sigma, m, n)
        return table.assign(crossover_ratio=0.4)

    cases = c05.measure(LAYERS, compare=broken)
    assert [case.threshold for case in failed_controls(cases)] == ["c5_bound"]
    assert decide(cases) == "undecided"


def test_c5_without_an_update_nothing_is_decided():
    assert decide(c05.measure([ZERO])) == "undecided"


# C6 ---------------------------------------------------------------------------------------------


def test_c6_holds_for_some_models_and_not_for_others():
    cases = c06.measure()
    assert decide(cases) == "holds under conditions"
    counted = {(case.name, case.group): case for case in cases}
    # Seven cores of 1024 × 256 in each of 16 blocks, against 90,177,536 for LoRA.
    released = counted["Llama-3.2-1B", c06.AS_RELEASED]
    assert released.details == {"lora": 90_177_536, "cosa": 7 * 16 * 1024 * 256}
    assert released.value == pytest.approx(0.6744, abs=1e-4)
    # Clipping halves the cores of k_proj and v_proj.
    assert counted["Llama-3.2-1B", c06.CLIPPED].details["cosa"] == 16 * 6 * 1024 * 256


def test_c6_another_rank_or_core_flips_it():
    assert decide(c06.measure(rank=1024)) == "holds"
    assert decide(c06.measure(rank=LORA_RANK // 8)) == "fails"
    assert decide(c06.measure(core=lambda m, n: (m, n))) == "fails"


def test_c6_one_model_alone_decides_for_itself():
    models = load_models()
    assert decide(c06.measure(models={"x": models["Llama-3.1-8B"]})) == "holds"
    assert decide(c06.measure(models={"x": models["RoBERTa-base"]})) == "fails"


# C9 ---------------------------------------------------------------------------------------------


def test_c9_cores_of_usual_size_are_low_rank():
    usual = [decaying(256, 200, "one"), decaying(160, 320, "two")]
    cases = c09.measure([*usual, ZERO, layer(np.ones((2, 99)), "narrow")])
    assert decide(cases) == "fails"
    names = {case.name.split(",")[0] for case in cases if case.group == c09.BEST}
    assert names == {"one", "two"}
    measured = [case for case in cases if case.group in (c09.BEST, c09.TRAINED)]
    # The wall is reached: generic cores have the full rank that it allows.
    assert all(case.details["rank"] == case.details["wall"] for case in measured)


def test_c9_a_core_above_the_limit_flips_it_for_that_layer():
    """A core of 40 × 40 on 64 × 48 has rank 40, and the limit is 64·48/112 = 27.4."""
    cases = c09.measure(LAYERS[:1], shape=lambda m, n, parameters: CosaShape(40, 40))
    assert decide(cases) == "holds under conditions"
    assert {case.outcome for case in cases if case.group == c09.BEST} == {"holds"}


def test_c9_a_rank_above_the_wall_is_not_trusted():
    cases = c09.measure(LAYERS[:1], rank_of=lambda update: c09.matrix_rank(update) + 1)
    assert [case.threshold for case in failed_controls(cases)] == ["c9_wall"]
    assert decide(cases) == "undecided"


@pytest.mark.parametrize(("m", "n", "rank"), [(50, 20, 7), (20, 50, 20), (30, 30, 1)])
def test_c9_the_rank_is_the_number_of_directions(m, n, rank):
    generator = stream(0, "rank", m, n)
    product = generator.standard_normal((m, rank)) @ generator.standard_normal((rank, n))
    assert c09.matrix_rank(product) == rank
    assert c09.matrix_rank(1e-200 * product) == rank
    assert c09.matrix_rank(0 * product) == 0


# C10 --------------------------------------------------------------------------------------------


def test_c10_the_default_core_is_too_tall_for_some_layers():
    cases = c10.measure()
    assert decide(cases) == "holds under conditions"
    assert not failed_controls(cases)
    failing = {case.details["model"] for case in cases if case.outcome == "fails"}
    assert failing == {"Llama-3.2-1B", "Qwen2-7B", "RoBERTa-base"}
    by_name = {case.name: case for case in cases if case.group == "default core"}
    k_proj = by_name["Llama-3.2-1B self_attn.k_proj, 512 × 2048 with core 1024 × 256"]
    assert k_proj.value == 0.5
    query = by_name["RoBERTa-base attention.self.query, 768 × 768 with core 1024 × 256"]
    assert query.value == 0.25


def test_c10_a_clipped_core_flips_it():
    cases = c10.measure(modes={"clipped": lambda m, n: clipped(released_core(m, n), m, n)})
    assert decide(cases) == "holds"


TINY = {"tiny": Model("tiny", 2, {"q": (32, 32), "k": (8, 32)}, 0, {})}


def test_c10_a_core_too_large_everywhere_flips_it():
    modes = {"too wide": lambda m, n: (4, n + 4)}
    cases = c10.measure(modes=modes, models=TINY)
    assert decide(cases) == "fails"
    assert cases[0].value == pytest.approx(4 / 36)


def test_c10_a_count_that_the_factors_contradict_is_not_trusted():
    def deficient(m, n, a, b, *, seed, key):
        basis = CosaBasis.sample(m, n, a, b, seed=seed, key=key)
        L = np.array(basis.L)
        L[-1] = L[0]
        return CosaBasis(L, basis.R)

    modes = {"one": lambda m, n: (16, 16)}
    assert not failed_controls(c10.measure(modes=modes, models=TINY))
    cases = c10.measure(modes=modes, models=TINY, draw=deficient)
    assert [case.threshold for case in failed_controls(cases)] == ["c10_count"]
    assert decide(cases) == "undecided"


# All --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [c01, c04, c05, c06, c09, c10])
def test_the_same_seed_gives_the_same_numbers(check):
    first, again = (check.CHECK.measure(LAYERS, 5) for _ in range(2))
    assert first == again
    assert check.CHECK.describe(first)
