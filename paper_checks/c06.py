"""C6: the saving in trainable parameters against LoRA and PiSSA."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from cosa_theory.deltas import LayerDelta
from paper_checks.base import Case, Check, Claim, counts, percent
from paper_checks.models import LORA_RANK, RELEASED_CORE, Model, clipped, load_models, released_core
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

AS_RELEASED, CLIPPED = "as released", "clipped to the layer"

CLAIM = Claim(
    id="C6",
    claim="CoSA trains over 68.4 % fewer parameters than LoRA and PiSSA.",
    source="abstract of the first version",
    method=f"Exact counts on the linear maps of every block of six models: cores of "
    f"{RELEASED_CORE[0]} × {RELEASED_CORE[1]} against rank {LORA_RANK}, the settings of the "
    "release, once as they are and once with a and b clipped to the layer (larger cores have "
    "entries that change nothing). PiSSA trains as many parameters as LoRA.",
    quantity=THRESHOLDS["c6_saving"].quantity,
    criterion=f"{THRESHOLDS['c6_saving']}, model by model",
)


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    models: Mapping[str, Model] | None = None,
    core: Callable[[int, int], tuple[int, int]] = released_core,
    rank: int = LORA_RANK,
) -> list[Case]:
    """Return two cases for each model: the released core as it is, and clipped."""

    def as_released(m: int, n: int) -> int:
        a, b = core(m, n)
        return a * b

    def when_clipped(m: int, n: int) -> int:
        a, b = clipped(core(m, n), m, n)
        return a * b

    cases = []
    for model in (load_models() if models is None else models).values():
        lora = model.count(lambda m, n: rank * (m + n))
        for group, trained in ((AS_RELEASED, as_released), (CLIPPED, when_clipped)):
            cosa = model.count(trained)
            saving, counted = 1 - cosa / lora, {"lora": lora, "cosa": cosa}
            cases.append(Case.exact(model.name, group, saving, "c6_saving", counted))
    return cases


def describe(cases: Sequence[Case]) -> str:
    """Return the saving of every model, as released and clipped."""
    sentences = []
    for group in dict.fromkeys(case.group for case in cases):
        those = [case for case in cases if case.group == group]
        savings = ", ".join(f"{case.name} {percent(case.value)}" for case in those)
        sentences.append(f"{group} it {counts(those)} models ({savings})")
    text = "; ".join(sentences)
    return f"{text[0].upper()}{text[1:]}."


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
