"""Whether informed projections train better: the encoder on Reuters R8, paired on seeds.

Every method has as many trainable parameters in each of the 36 linear layers, P = r(m + n) or the
next fewer that its shape allows, and a new head besides. Its rate is chosen on one seed by the
cross-entropy of a validation part, on a grid of quarter decades; then it is trained with other
seeds, which give every method the same head and the same texts in the same order, and measured on
test texts. What counts as better was stated before (`configs/informed_predictions.toml`).

    python -m experiments.informed_training --out results/informed_training
"""

import dataclasses
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import (
    EvaConfig,
    LoraConfig,
    get_eva_state_dict,
    get_peft_model,
    initialize_lora_eva_weights,
)
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from cosa_theory.assets import asset_folder
from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.checks import whole
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.sweep import run_cells
from cosa_theory.nn import add_cosa
from cosa_theory.nn.readout import load_text_model
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number
from cosa_theory.projections import stream
from cosa_theory.spectrum.budget import cosa_shape, lora_parameters, one_sided_shape
from experiments.calibration import batches_of, calibrated
from experiments.command import (
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.finetune.methods import linear_layers
from experiments.finetune.scoring import score
from experiments.finetune.tasks import TASKS, Task
from experiments.finetune.training import isolated
from experiments.informed_predictions import compared, judge_training
from experiments.rates import best_quarter, grown

__all__ = ["METHODS", "Config", "Run", "run", "train"]

NAME, VERSION = "informed_training", 2
TUNING_SEED, TUNING_ITEMS = 100, 200
MOMENTS = Path("results/calibration")
HEAD_RATE, WARM_UP = 1e-2, 0.1

Sizes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Method:
    """One way to spend the budget.

    Parameters
    ----------
    label : str
        In words.
    adapt : callable
        Maps (encoder, names and sizes of its layers, run) to the encoder that is trained.
    centre : int
        Where its grid of rates begins, in quarter decades: 10^(centre/4).
    """

    label: str
    adapt: "Adapt"
    centre: int


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    method : str
        A key of `METHODS`.
    quarter : int
        The peak rate of AdamW without weight decay is 10^(quarter/4); it rises over a tenth of the
        steps and falls linearly to zero. That of the head is the same for all methods.
    seed : int
        Of head, order of the texts, dropout and random projections.
    part : {"validation", "test"}
        What is measured at the end.
    rank, steps, batch, tokens, items, texts : int
        Budget; steps and texts in each; tokens at which texts are cut; held-out texts; texts that
        informed projections and EVA are calibrated on.
    """

    method: str
    quarter: int
    seed: int
    part: str
    rank: int = 8
    steps: int = 50
    batch: int = 16
    tokens: int = 48
    items: int = 400
    texts: int = 128


@dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes
    ----------
    methods : tuple of str
        Keys of `METHODS`.
    seeds : int
        Of the comparison, beside the one that rates are chosen on.
    steps : int
        Of each training.
    """

    methods: tuple[str, ...] = ()
    seeds: int = 5
    steps: int = 50

    def __post_init__(self) -> None:
        whole("seeds", self.seeds)
        whole("steps", self.steps)


Adapt = Callable[[nn.Module, Sizes, Run], nn.Module]


def _cosa(kind: str, *, source: str = "", one_sided: bool = True, **options: Any) -> Adapt:
    """Return what puts CoSA into an encoder: one-sided, L is the identity, else a·m = b·n."""

    def adapt(encoder: nn.Module, sizes: Sizes, run: Run) -> nn.Module:
        shapes = {}
        for name, (m, n) in sizes.items():
            budget = lora_parameters(m, n, run.rank)
            core = one_sided_shape(m, n, budget) if one_sided else cosa_shape(m, n, budget)
            shapes[re.escape(name)] = core.a, core.b
        given: dict[str, Any] = {"left": "identity"} if one_sided else {}
        if source:
            found = calibrated(asset_folder("encoder"), source, run.texts, MOMENTS)
            # Of the same weights, but for a pooling layer, which this encoder lacks.
            given["moments"] = replace(found, model="")
        return add_cosa(
            encoder,
            list(sizes),
            kind=kind,
            seed=run.seed,
            shape_pattern=shapes,
            options=options,
            **given,
        )

    return adapt


def _lora(*, eva: bool = False, frozen: bool = False) -> Adapt:
    """Return what puts PEFT's LoRA into an encoder: with `frozen` first factors of rank P/m.

    The rows that EVA starts from are orthonormal, so that LoRA-FA's correction of the gradient,
    (A Aᵀ)⁻¹, is one number, to which Adam is indifferent: freezing A is LoRA-FA.
    """

    def adapt(encoder: nn.Module, sizes: Sizes, run: Run) -> nn.Module:
        ranks = {
            re.escape(name): lora_parameters(m, n, run.rank) // m if frozen else run.rank
            for name, (m, n) in sizes.items()
        }
        settings: dict[str, Any] = {"rank_pattern": ranks, "alpha_pattern": ranks}
        if eva:
            start = EvaConfig(rho=1.0, use_label_mask=False)
            settings |= {"init_lora_weights": "eva", "eva_config": start}
        model = get_peft_model(encoder, LoraConfig(target_modules=list(sizes), **settings))
        if eva:
            found = _eva_state(model, tuple(ranks.items()), run.texts, run.tokens)
            initialize_lora_eva_weights(model, eva_state_dict=dict(found))
        for name, parameter in model.named_parameters():
            if frozen and ".lora_A." in name:
                parameter.requires_grad_(False)
        return model

    return adapt


_EVA: dict[Any, dict[str, Tensor]] = {}


def _eva_state(model: nn.Module, *settings: Any) -> dict[str, Tensor]:
    """Return the first factors that EVA finds on the calibration texts, once for equal settings."""
    if settings not in _EVA:
        _, count, tokens = settings
        texts = batches_of(load_text_model(asset_folder("encoder")), "reuters", count, tokens)
        _EVA[settings] = get_eva_state_dict(model, list(texts), show_progress_bar=False)
    return _EVA[settings]


METHODS: dict[str, Method] = {
    "haar": Method("CoSA, orthonormal", _cosa("haar", one_sided=False), -10),
    "haar_one_sided": Method("the same, one-sided", _cosa("haar"), -10),
    "tokens": Method("informed by random tokens", _cosa("activation", source="random"), -12),
    "texts": Method("informed by texts", _cosa("activation", source="reuters"), -12),
    "whitened": Method(
        "the same, whitened", _cosa("activation", source="reuters", whiten=True), -10
    ),
    "centred": Method(
        "centred and whitened",
        _cosa("activation", source="reuters", whiten=True, centre=True),
        -10,
    ),
    "lora": Method("LoRA", _lora(), -10),
    "lora_fa_eva": Method("LoRA-FA, started by EVA", _lora(eva=True, frozen=True), -12),
    "lora_eva": Method("LoRA, started by EVA", _lora(eva=True), -10),
}
"""The methods; those informed are one-sided, and take texts of the kind they are trained on."""


def train(run: Run) -> dict[str, Any]:
    """Train once, and measure.

    Returns
    -------
    dict
        `loss`, the mean cross-entropy of the held-out texts in nats, `accuracy`, `train_loss` (mean
        of the last tenth of the steps), `parameters` trained without the head, and
        `seconds_per_step`.
    """
    task = TASKS["encoder"](Path(), run.tokens, run.items)
    with isolated(run.seed, threads=1), quiet_transformers():
        model: Any = task.model()
        model.encoder.requires_grad_(False)
        sizes = linear_layers(model.encoder, 0)
        model.encoder = METHODS[run.method].adapt(model.encoder, sizes, run)
        trained = [one for one in model.encoder.parameters() if one.requires_grad]
        torch.manual_seed(run.seed)  # however many numbers the adapter has drawn
        started = time.perf_counter()
        losses = _steps(task, model, trained, run)
        seconds = (time.perf_counter() - started) / run.steps
        measures = score(task, model, getattr(task, run.part)).measures
    last = losses[-max(1, run.steps // 10) :]
    return {
        "loss": measures["loss"],
        "accuracy": measures["accuracy"],
        "train_loss": sum(last) / len(last),
        "parameters": sum(one.numel() for one in trained),
        "seconds_per_step": seconds,
    }


def _steps(task: Task, model: nn.Module, trained: list[nn.Parameter], run: Run) -> list[float]:
    """Train; return the loss of every step."""
    head = {"params": model.get_submodule("head").parameters(), "lr": HEAD_RATE}
    groups = [{"params": trained, "lr": 10 ** (run.quarter / 4)}, head]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    rising = math.ceil(WARM_UP * run.steps)
    schedule = get_linear_schedule_with_warmup(optimiser, rising, run.steps)
    order = stream(run.seed, NAME, "order").permutation(len(task.train))
    model.train()
    losses = []
    for step in range(run.steps):
        places = [(step * run.batch + one) % len(order) for one in range(run.batch)]
        loss = model(**task.collate([task.train[order[place]] for place in places])).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def run(config: Config, cells: Path) -> pd.DataFrame:
    """Choose rates and train with all seeds; an interrupted run resumes from its cells.

    Returns
    -------
    pandas.DataFrame
        Every training, with the columns of `Run` and of `train`.
    """
    names = config.methods or tuple(METHODS)

    def trained(runs: Sequence[Run]) -> pd.DataFrame:
        settings: dict[str, Any] = {"name": NAME, "version": VERSION, "folder": cells}
        return run_cells(train, runs, jobs=1, **settings)

    tuned = {name: _tuned(name, config, trained) for name in names}
    best = {name: best_quarter(table) for name, table in tuned.items()}
    final = [
        Run(name, best[name], seed, "test", steps=config.steps)
        for seed in range(config.seeds)
        for name in names
    ]
    return pd.concat([*tuned.values(), trained(final)], ignore_index=True)


def _tuned(
    name: str, config: Config, trained: Callable[[Sequence[Run]], pd.DataFrame]
) -> pd.DataFrame:
    """Train with the tuning seed at three rates, and further ones until the best is inside."""
    centre = METHODS[name].centre
    quarters = [centre - 1, centre, centre + 1]

    def measured() -> pd.DataFrame:
        runs = [
            Run(name, one, TUNING_SEED, "validation", steps=config.steps, items=TUNING_ITEMS)
            for one in quarters
        ]
        return trained(runs)

    table = measured()
    while more := grown(quarters, best_quarter(table)):
        quarters = more
        table = measured()
    return table


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per method: its rate, and mean loss and accuracy on test texts over seeds."""
    tested = runs[runs["part"] == "test"].assign(rate=lambda table: 10 ** (table["quarter"] / 4))
    means = tested.groupby("method", sort=False)[["rate", "parameters", "loss", "accuracy"]].mean()
    means.insert(0, "seeds", tested.groupby("method")["seed"].nunique())
    return means.reset_index()


_COLUMNS = (
    Column("method", "method", text=True),
    Column("against", "against", text=True),
    Column("seeds", "seeds", "", count),
    Column("difference", "difference", "of the test loss in nats; negative is better", number),
    Column("low", "from", "95 %, over seeds", number),
    Column("high", "to", "95 %, over seeds", number),
    Column("outcome", "outcome", text=True),
)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Train with informed and uninformed projections, with LoRA and EVA's starts; compare.",
        out=Path("results") / NAME,
        config=Config(),
        fields=("seeds", "steps"),
        example="--methods haar_one_sided texts lora",
        reference=True,
    )
    parser.add_argument("--methods", nargs="*", default=(), choices=list(METHODS), metavar="NAME")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = Config(tuple(chosen.methods), chosen.seeds, chosen.steps)
        beside = tuple(f"{NAME}_{name}" for name in ("runs", "compared", "judged"))
        check_table(chosen.out, NAME, beside=beside)
        runs = run(config, chosen.out / "cells")
        table, comparison = summary(runs), compared(runs)
        judged = judge_training(comparison)
        text = verdict(comparison)
        tables = dict(zip(beside, (runs, comparison, judged), strict=True))
        arguments = dataclasses.asdict(config)
        write_table(table, chosen.out, NAME, arguments=arguments, verdict=text, beside=tables)
        if chosen.reference:
            write_reference({NAME: table, **tables})
        print(printable(text))
        print(render_view(View.of("Held-out loss, paired on seeds", _COLUMNS, comparison)))

    return run_command(body)


def verdict(comparison: pd.DataFrame) -> str:
    """Say in words which methods train better than LoRA, and which than uninformed projections."""
    parts = []
    for against, words in (("lora", "LoRA"), ("haar_one_sided", "uninformed projections")):
        own = comparison[comparison["against"] == against]
        for outcome in ("better", "worse", "undecided"):
            names = own.loc[own["outcome"] == outcome, "method"]
            if len(names):
                labels = ", ".join(METHODS[name].label for name in names)
                parts.append(f"{outcome} than {words}: {labels}".replace("ed than", "ed against"))
    found = "; ".join(parts) or "nothing to compare, which takes LoRA or uninformed projections"
    return f"By held-out loss after training, paired on seeds: {found}."


if __name__ == "__main__":
    sys.exit(main())
