"""What is studied: sizes, criteria and predictions, as they stand in the stated file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosa_theory.ground.checks import choice, real, whole
from cosa_theory.ground.errors import InputError
from experiments.command import read_toml, with_fields
from experiments.subspace.arms import ARMS

__all__ = ["STATED", "Comparison", "Setting", "Study", "read_study"]

STATED = Path(__file__).parents[1] / "configs" / "subspace.toml"
"""Committed before the first training."""


@dataclass(frozen=True)
class Setting:
    """One model with its data.

    Attributes
    ----------
    model, data, steps, batch, tokens
        As in `experiments.finetune.config.Config`.
    seeds : int
        Of the comparison; 0 for as many as the pilot asks for.
    arms : tuple of str
        Keys of `ARMS`, none for all.
    stage : int
        All that is of an earlier stage is trained before.
    items, tuning_items : int
        Held-out items that are scored, and where rates are chosen; 0 for all.
    """

    model: str = "minilm"
    data: str = "r8"
    steps: int = 300
    batch: int = 16
    tokens: int = 64
    seeds: int = 0
    arms: tuple[str, ...] = ()
    stage: int = 1
    items: int = 0
    tuning_items: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "tokens", "stage"):
            whole(name, getattr(self, name))
        for name in ("seeds", "items", "tuning_items"):
            whole(name, getattr(self, name), least=0)
        for arm in self.arms:
            choice("arms", arm, ARMS)

    @property
    def decoder(self) -> bool:
        """Whether it is the language model."""
        return self.model == "smollm2"


@dataclass(frozen=True)
class Comparison:
    """Two arms, and which outcomes were expected: "better", "worse", "undecided"."""

    arm: str
    against: str
    expected: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Study:
    """The whole of it; see the comments of the stated file.

    Attributes
    ----------
    tasks : dict of str to Setting
        In the order in which they are trained.
    comparisons : tuple of Comparison
        The first is the primary one.
    smallest_effect, confidence, resamples
        Of the decisions.
    pilot, least, most
        Arms of the pilot, and the fewest and most seeds.
    tuning_seeds, tuning_share, head_rate, warm_up, rank
        Of all trainings; those that choose a rate take a share of the steps.
    crossed : dict
        ``task``, ``arm`` and ``seeds`` of the crossed design.
    predictors : dict
        Of each measure, whether it was expected to predict, and why.
    expected : dict
        Numbers that were expected besides.
    date : str
        Of the stated file.
    """

    tasks: dict[str, Setting]
    comparisons: tuple[Comparison, ...]
    smallest_effect: float
    confidence: float
    resamples: int
    pilot: tuple[str, ...]
    least: int
    most: int
    tuning_seeds: tuple[int, ...]
    tuning_share: float
    head_rate: float
    warm_up: float
    rank: int
    crossed: dict[str, Any]
    predictors: dict[str, str]
    expected: dict[str, float]
    date: str

    def arms(self, task: str) -> tuple[str, ...]:
        """Return the arms of a task."""
        return self.tasks[task].arms or tuple(ARMS)


def read_study(path: Path = STATED) -> Study:
    """Read the stated file.

    Raises
    ------
    InputError
        If there is none, or something in it cannot be.
    """
    given = read_toml(path)
    try:
        outcome, power, training = (given[name] for name in ("outcome", "power", "training"))
        tasks = {
            name: with_fields(Setting(), fields, f"configuration {path}: tasks.{name}: ")
            for name, fields in given["tasks"].items()
        }
        comparisons = tuple(Comparison(**one) for one in given["comparisons"])
        study = Study(
            tasks=tasks,
            comparisons=comparisons,
            pilot=power["arms"],
            least=whole("least", power["least"], least=2),
            most=whole("most", power["most"], least=2),
            **{name: given[name] for name in ("crossed", "predictors", "expected")},
            date=str(given["date"]),
            smallest_effect=real("smallest_effect", outcome["smallest_effect"], above=0),
            confidence=real("confidence", outcome["confidence"], above=0, below=1),
            resamples=whole("resamples", outcome["resamples"]),
            tuning_seeds=training["tuning_seeds"],
            **{name: training[name] for name in ("tuning_share", "head_rate", "warm_up", "rank")},
        )
    except KeyError as error:
        raise InputError(f"configuration {path}: {error} is missing: it must be there") from error
    except TypeError as error:
        raise InputError(f"configuration {path}: {error}") from error
    named = [one for pair in comparisons for one in (pair.arm, pair.against)]
    for arm in (*named, *study.pilot, study.crossed["arm"]):
        choice("arm", arm, ARMS)
    return study
