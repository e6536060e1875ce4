"""How a comparison of trainings is shown: CoSA, LoRA of equal size and full fine-tuning.

The document's tables are "summary", one row for each model and method, and "trainings", one for
each seed besides, as `experiments.finetune_check_results.summarise` and
`experiments.finetune_check.run` return them.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number

__all__ = ["PRESENTATION"]

Row = Mapping[Any, Any]

_MODELS = {
    "encoder": "Sentence encoder on Reuters R8: test accuracy",
    "decoder": "Language model on library functions: held-out loss, nats a token",
}


def _megabytes(size: Any) -> str:
    return number(float(size) / 1e6)


def _score(value: Any, metric: str) -> str:
    if pd.isna(value):
        return MISSING
    return f"{100 * float(value):.1f} %" if metric == "accuracy" else f"{float(value):.3f}"


def _interval(row: Row) -> str:
    low, high = (_score(row[name], row["metric"]) for name in ("value_low", "value_high"))
    return f"[{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def _advantage(row: Row) -> str:
    """Return the lead over LoRA with its interval; points for accuracies, nats for losses."""
    if pd.isna(row["advantage"]):
        return MISSING
    scale, digits = (100, 1) if row["metric"] == "accuracy" else (1, 3)
    names = ("advantage", "advantage_low", "advantage_high")
    lead, low, high = (f"{scale * float(row[name]):+.{digits}f}" for name in names)
    return lead if pd.isna(row["advantage_low"]) else f"{lead} [{low}, {high}]"


def _result(row: Row) -> str:
    return _score(row["value"], row["metric"])


def _model_view(model: str, part: pd.DataFrame) -> View:
    accuracy = part["metric"].iloc[0] == "accuracy"
    unit = "points of accuracy" if accuracy else "nats a token"
    columns = (
        Column("label", "method", text=True),
        Column(None, "result", "mean over the seeds", _result),
        Column(
            None, "95 % interval", "over seeds; of a single seed over the held-out items", _interval
        ),
        Column(
            None, "lead over LoRA", f"{unit} on equal seeds; positive: better than LoRA", _advantage
        ),
        Column("seeds", "seeds", cell=count),
        Column("adapter_parameters", "trained", "parameters, a new head aside", count),
        Column(
            "learning_rate",
            "rate",
            "peak learning rate, the best of a grid on a validation part",
            lambda rate: f"{float(rate):g}",
        ),
        Column("seconds_per_step", "s/step", "median", number),
        Column("saved_bytes", "kept, MB", "saved for backward in one step", _megabytes),
        Column("state_bytes", "state, MB", "gradients and Adam's moments", _megabytes),
        Column("frozen_bytes", "frozen, MB", "projections, which the seed restores", _megabytes),
        Column(
            "adapter_bytes",
            "file, MB",
            "the adapter, with a new head; all trained weights without one",
            _megabytes,
        ),
    )
    before = _score(part["before"].iloc[0], str(part["metric"].iloc[0]))
    title = f"{_MODELS[model]} (before training {before})"
    return View.of(title, columns, part.sort_values("value", ascending=not accuracy))


def _views(document: Document) -> list[View]:
    summary = document.tables["summary"]
    groups = summary.groupby("model", sort=False)
    return [_model_view(str(model), part) for model, part in groups]


def _training_views(document: Document) -> list[View]:
    table = document.tables["trainings"]
    done = table[(table["status"] == "done") & (table["method"] != "start")]
    labels = document.tables["summary"].set_index("method")["label"].to_dict()
    columns = (
        Column("model", "model", text=True),
        Column("method", "method", cell=lambda method: str(labels[method]), text=True),
        Column("seed", "seed", cell=count),
        Column(None, "result", cell=_result),
        Column(
            None,
            "95 % interval",
            "over the held-out items",
            lambda row: _interval({**row, "value_low": row["low"], "value_high": row["high"]}),
        ),
        Column("scored", "items", cell=count),
        Column("train_loss", "loss in training", "mean of the last tenth of the steps", number),
        Column("steps", "steps", cell=count),
        Column("seconds", "took, s", cell=number),
    )
    return [View.of("Every training", columns, done)]


_TERMS: tuple[tuple[str, str], ...] = (
    (
        "equal trainable parameters",
        "a layer's budget is that of LoRA of the stated rank, r(m + n), and its CoSA core has the "
        "largest a × b within it. A new head is trained by every method and not counted; full "
        "fine-tuning trains all weights of the adapted blocks.",
    ),
    (
        "CoSA, and CoSA as released",
        "Gaussian projections: with rows and columns of unit norm in expectation and a·m = b·n; "
        "and at the scale of the released code, 1/√a and 1/√b an entry, with a near 4 b as in its "
        "default.",
    ),
    (
        "learning rate",
        "the best of a grid on a validation part, which is no part of the training or test items. "
        "Adam's first steps move every entry of a core by about the rate.",
    ),
    (
        "lead over LoRA",
        "the mean difference over trainings with equal seeds, which see the same items in the same "
        "order, with a 95 % interval over seeds and items: a bootstrap over the held-out items, "
        "which are the same in every training, and Student's t over the seeds.",
    ),
    (
        "kept for backward",
        "the tensors that one training step saves for its gradients, counted by hooks; weights "
        "and projections are not among them. It is a count of bytes, not the size of a process.",
    ),
)

PRESENTATION = Presentation(
    title="Fine-tuning at equal size: CoSA and LoRA",
    tables=("summary", "trainings"),
    views=_views,
    detail_views=_training_views,
    terms=_TERMS,
)
