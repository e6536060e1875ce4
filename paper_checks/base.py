"""What every paper check shares: the claim in words, its cases, and the rule for the verdict."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cosa_theory.deltas import LayerDelta
from paper_checks.thresholds import THRESHOLDS, Threshold

__all__ = [
    "NO_CLAIM",
    "Case",
    "Check",
    "Claim",
    "Outcome",
    "Verdict",
    "counts",
    "decide",
    "exceptions",
    "failed_controls",
    "judge",
    "percent",
    "spread",
    "warnings",
]

NO_CLAIM = "no claim of the paper"
"""Source of what is judged beside the claims: the same question of another method."""

Outcome = Literal["holds", "fails", "undecided"]
Word = Literal["holds", "holds under conditions", "fails", "undecided"]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is decided, all written before measuring.

    Attributes
    ----------
    id : str
        Such as "C1".
    claim : str
        The claim in our own words.
    source : str
        Where it is made.
    method : str
        How it is measured.
    quantity : str
        What number decides.
    criterion : str
        Which values of it let the claim hold.
    """

    id: str
    claim: str
    source: str
    method: str
    quantity: str
    criterion: str


@dataclass(frozen=True)
class Case:
    """One measured number and the interval it is known to.

    Attributes
    ----------
    name : str
        Which layer, model or setting.
    group : str
        The condition it stands for, such as "clipped".
    value, low, high : float
        The measured number and its 95 % interval; an exact number is its own interval.
    threshold : str
        Key of `THRESHOLDS`.
    control : bool
        A control does not speak for or against the claim: it shows that the measurement works.
        When one fails the verdict is undecided.
    details : mapping
        Further numbers and words, JSON-ready.
    """

    name: str
    group: str
    value: float
    low: float
    high: float
    threshold: str
    control: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def exact(
        cls,
        name: str,
        group: str,
        value: float,
        threshold: str,
        details: Mapping[str, Any] | None = None,
        *,
        control: bool = False,
    ) -> "Case":
        """Return the case of a number that has no uncertainty."""
        return cls(name, group, value, value, value, threshold, control, details or {})

    @property
    def outcome(self) -> Outcome:
        """Whether the interval lies on the right side of the threshold."""
        return judge(self.low, self.high, THRESHOLDS[self.threshold])

    @property
    def known(self) -> bool:
        """Whether the measured number and both ends of its interval are numbers."""
        return not any(map(math.isnan, (self.value, self.low, self.high)))


@dataclass(frozen=True)
class Check:
    """A claim with the code that decides it.

    Attributes
    ----------
    claim : Claim
        The claim in words.
    measure : callable
        Maps (layers, seed) to cases. `layers` iterates over `LayerDelta` and is empty when
        `needs_pair` is false.
    describe : callable
        Maps the cases to a sentence or two made of their numbers.
    needs_pair : bool
        Whether real weight updates are measured.
    """

    claim: Claim
    measure: Callable[[Iterable[LayerDelta], int], list[Case]]
    describe: Callable[[Sequence[Case]], str]
    needs_pair: bool


@dataclass(frozen=True)
class Verdict:
    """The result of one check.

    Attributes
    ----------
    claim : Claim
        The claim in words.
    verdict : str
        "holds", "holds under conditions", "fails" or "undecided", computed from the cases.
    summary : str
        The numbers behind it, in words.
    cases : tuple of Case
        All that was measured.
    seconds : float
        Time of the check.
    """

    claim: Claim
    verdict: Word
    summary: str
    cases: tuple[Case, ...]
    seconds: float


def judge(low: float, high: float, threshold: Threshold) -> Outcome:
    """Compare an interval with a threshold.

    Returns
    -------
    str
        "holds" when the whole interval lies on the right side (its end may touch the threshold),
        "fails" when all of it lies on the wrong side, "undecided" when the threshold is inside,
        or an end of the interval is not a number.
    """
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if threshold.relation == "at least":
        low, high, value = -high, -low, -threshold.value
    else:
        value = threshold.value
    return "holds" if high <= value else "fails" if low > value else "undecided"


def failed_controls(cases: Sequence[Case]) -> list[Case]:
    """Return the controls that do not hold."""
    return [case for case in cases if case.control and case.outcome != "holds"]


def decide(cases: Sequence[Case]) -> Word:
    """Return the verdict that follows from the cases.

    Returns
    -------
    str
        "undecided" if a control does not hold or nothing was measured. Otherwise, of the other
        cases: "holds" or "fails" when all agree; "holds under conditions" when some hold and some
        fail; "undecided" when only undecided ones stand against those that hold or fail.
    """
    outcomes = {case.outcome for case in cases if not case.control}
    if failed_controls(cases) or not outcomes:
        return "undecided"
    if {"holds", "fails"} <= outcomes:
        return "holds under conditions"
    if "undecided" in outcomes:
        return "undecided"
    return "holds" if outcomes == {"holds"} else "fails"


def warnings(cases: Sequence[Case]) -> str:
    """Name the controls that do not hold, and the cases whose number could not be computed."""
    text = "".join(
        f"The control {case.name!r} failed ({case.value:.3g}). "
        for case in failed_controls(cases)
        if case.known
    )
    lost = [case.name for case in cases if not case.known]
    if lost:
        named = "; ".join(lost[:4]) + ("; …" if len(lost) > 4 else "")
        text += f"Of {len(cases)} numbers, {len(lost)} could not be computed ({named}). "
    return text


def percent(share: float) -> str:
    """Return a share as text, three digits: 0.0404 is "4.04 %"."""
    return f"{100 * share:.3g} %"


def counts(cases: Sequence[Case]) -> str:
    """Return "holds in 3 of 5", and the undecided where there are any; controls left out."""
    outcomes = [case.outcome for case in cases if not case.control]
    text = f"holds in {outcomes.count('holds')} of {len(outcomes)}"
    undecided = outcomes.count("undecided")
    return f"{text} ({undecided} undecided)" if undecided else text


def spread(values: Iterable[float], text: Callable[[float], str] = "{:.3g}".format) -> str:
    """Return "median 6.3 (range 4.9 to 50)", or "none" for no values; NaN is left out."""
    array = np.asarray(list(values), dtype=np.float64)
    array = array[~np.isnan(array)]
    if array.size == 0:
        return "none"
    middle, low, high = (text(float(x)) for x in (np.median(array), array.min(), array.max()))
    return f"median {middle} (range {low} to {high})"


def exceptions(cases: Sequence[Case], most: int = 4) -> str:
    """Name the cases that hold where few do, or those that fail where few do; else nothing."""
    for outcome, verb in (("holds", "it holds for"), ("fails", "it fails for")):
        names = [case.name for case in cases if not case.control and case.outcome == outcome]
        if 0 < len(names) <= most and len(names) < len(cases):
            return f" ({verb} {'; '.join(names)})"
    return ""
