"""Every check reaches its verdict from the numbers: a broken or different input flips it."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.projections import stream
from cosa_theory.spectrum.budget import CosaShape
from paper_checks import c01, c06, c09, c10
from paper_checks.base import decide, failed_controls
from paper_checks.models import LORA_RANK, Model, clipped, load_models, released_core
from tests.paper_checks.updates import LAYERS, ZERO, decaying, layer

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


def test_c1_a_side_that_is_not_a_number_does_not_hold():
    class Missing(CosaBasis):
        def encode(self, dW):
            return super().encode(dW) * np.nan

    cases = c01.measure(kinds=("gaussian",), draw=Missing.sample)
    assert decide(cases) == "undecided"
    assert "nan" in c01.describe(cases)


def test_c1_an_error_just_above_rounding_flips_it():
    class Inexact(CosaBasis):
        def encode(self, dW):
            return super().encode(dW) * (1 + 1e-12)

    assert decide(c01.measure(kinds=("gaussian",), draw=Inexact.sample)) == "fails"


def test_c1_its_explicit_kronecker_product_is_numpys():
    A, B = stream(0, "kron").standard_normal((2, 3)), stream(1, "kron").standard_normal((5, 4))
    np.testing.assert_array_equal(c01.kronecker(A, B), np.kron(A, B))


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


def of(cases, threshold, group=c09.BEST):
    return [case for case in cases if case.threshold == threshold and case.group == group]


def test_c9_the_rank_of_usual_cores_is_far_above_loras_and_below_the_low_rank_limit():
    usual = [decaying(256, 200, "one"), decaying(160, 320, "two")]
    cases = c09.measure([*usual, ZERO, layer(np.ones((2, 99)), "narrow")])
    assert decide(cases) == "holds under conditions"
    names = {case.name.split(",")[0] for case in cases if case.group == c09.BEST}
    assert names == {"one", "two"}
    assert {case.outcome for case in of(cases, "c9_lora")} == {"holds"}
    assert {case.outcome for case in of(cases, "c9_rank")} == {"fails"}
    measured = [case for case in cases if case.group in (c09.BEST, c09.TRAINED)]
    # The wall is reached: generic cores have the full rank that it allows.
    assert all(case.details["rank"] == case.details["wall"] for case in measured)
    for case in of(cases, "c9_lora", c09.TRAINED):
        m, n, a, b = (case.details[name] for name in "mnab")
        lora = a * b / (m + n)
        assert case.value == pytest.approx(case.details["rank"] / lora), "LoRA's rank, not rounded"
    assert c09.describe(cases).startswith("Over LoRA's rank at equal parameters the rank is median")


def test_c9_a_core_above_the_limit_flips_the_strict_reading_for_that_layer():
    """A core of 40 × 40 on 64 × 48 has rank 40, and the limit is 64·48/112 = 27.4."""
    cases = c09.measure(LAYERS[:1], shape=lambda m, n, parameters: CosaShape(40, 40))
    assert {case.outcome for case in of(cases, "c9_rank")} == {"holds"}


def test_c9_updates_of_loras_rank_flip_the_first_reading():
    cases = c09.measure(LAYERS[:1], rank_of=lambda update: 1)
    assert {case.outcome for case in of(cases, "c9_lora")} == {"fails"}


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


@pytest.mark.parametrize("check", [c01, c06, c09, c10])
def test_the_same_seed_gives_the_same_numbers(check):
    first, again = (check.CHECK.measure(LAYERS, 5) for _ in range(2))
    assert first == again
    assert check.CHECK.describe(first)
