"""Time and memory of CoSA beside LoRA, VeRA and RandLoRA: layers, a whole model, drawing.

Layers are those of Llama-3.2-1B; a step is forward and backward, to the input and to what is
trained. `multiple` is a step's time over the base layer's, divided by the same ratio of
floating-point operations (CoSA's in the order that runs): 1 is the speed of the base layer's own
products. Methods are timed in turn, in seconds of the processor, and ratios taken within a round.

    python -m experiments.bench_layer --preset quick
    python -m experiments.bench_layer --preset full --threads 2 --out results/bench_layer
    python -m experiments.bench_layer --parts drawing
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import nn

from cosa_theory.ground.program import note, program
from experiments.command import check_table, command_parser, write_table
from experiments.layer_costs import (
    adapted_layers,
    adapted_readers,
    added_flops,
    frozen_bytes,
    interleaved,
    peak_bytes,
    ratio,
    saved_bytes,
    step,
    trainable_bytes,
)
from experiments.model_costs import drawing, model_table

__all__ = ["PRESETS", "Config", "markdown", "run", "verdict"]

NAME = "bench_layer"
PARTS = ("layers", "readers", "model", "drawing")
ENOUGH = 1.15
"""A step should take at most so many times what its floating-point operations suggest."""
ENOUGH_BESIDE_LORA = 1.05
"""A one-sided layer's step should take at most so many times that of a LoRA of its size."""
ENOUGH_TOKENS = 4096
"""From so many tokens on a square layer gains by forming L Y once."""


@dataclass(frozen=True)
class Config:
    """Settings of the benchmark.

    Attributes
    ----------
    cases : tuple of (m, n, tokens)
        Layers and the vectors that they get.
    readers : tuple of (n, outputs, tokens)
        Layers that read one input of n numbers, by their outputs' sizes.
    dtypes : tuple of str
        Of weights and inputs.
    core : (int, int)
        CoSA's (a, b) on a layer, and for drawing; clipped to the layer.
    model_core : (int, int)
        CoSA's (a, b) on the embedded model.
    model_tokens : int
        Tokens of a step of the embedded model.
    rank : int
        Of LoRA, beside that of equally many trainable parameters.
    small_rank : int
        Of LoRA too, beside a one-sided core of as many numbers.
    rounds : int
        Repetitions, in turn, after one that does not count.
    threads : int
        Of torch.
    drawing_threads : int
        Of drawing.
    seed : int
        Of the projections.
    """

    cases: tuple[tuple[int, int, int], ...]
    readers: tuple[tuple[int, tuple[int, ...], int], ...] = (
        (2048, (2048, 512, 512), 512),
        (2048, (8192, 8192), 512),
    )
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    core: tuple[int, int] = (1024, 256)
    model_core: tuple[int, int] = (256, 256)
    model_tokens: int = 128
    rank: int = 128
    small_rank: int = 8
    rounds: int = 2
    threads: int = 1
    drawing_threads: int = 2
    seed: int = 0


_LAYERS = ((2048, 2048), (512, 2048), (8192, 2048), (2048, 8192))
PRESETS = {
    "quick": Config(((2048, 2048, 4096), (2048, 2048, 512), (512, 2048, 512), (8192, 2048, 512))),
    "full": Config(
        tuple((m, n, tokens) for tokens in (4096, 512) for m, n in _LAYERS),
        model_tokens=1024,
        rounds=7,
    ),
}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def layer_table(case: tuple[int, int, int], dtype: str, config: Config) -> pd.DataFrame:
    """Measure one layer with each method.

    Returns
    -------
    pandas.DataFrame
        One row per method, the base first: m, n, tokens, dtype, method, ms (median), added_ms,
        ratio (of times, to the base), flop_ratio, multiple, saved_bytes (kept for backward),
        peak_bytes (lent during a step), frozen_bytes, trainable_bytes, optimiser_bytes (AdamW's).
    """
    m, n, tokens = case
    kind = getattr(torch, dtype)
    layer = nn.Linear(n, m, bias=False, dtype=kind)
    adapted = adapted_layers(layer, config.core, config.rank, config.seed, config.small_rank)
    modules = {"base": layer, **adapted}
    draw = torch.Generator().manual_seed(config.seed)
    x = torch.randn(tokens, n, generator=draw).to(kind).requires_grad_()
    gradient = torch.randn(tokens, m, generator=draw).to(kind)
    steps = {name: step(module, x, gradient) for name, module in modules.items()}
    seconds = interleaved(steps, config.rounds)
    flops = 4 * m * n * tokens
    rows = []
    for name, module in modules.items():
        added = 0
        if name != "base":
            added = added_flops(module, steps[name], tokens, flops)
        times, operations = ratio(seconds, name, "base"), 1 + added / flops
        ms = 1e3 * median(seconds[name])
        trained = trainable_bytes(module)
        rows.append(
            {
                "m": m,
                "n": n,
                "tokens": tokens,
                "dtype": dtype,
                "method": name,
                "ms": ms,
                "added_ms": (times - 1) * 1e3 * median(seconds["base"]),
                "ratio": times,
                "flop_ratio": operations,
                "multiple": times / operations,
                "saved_bytes": saved_bytes(module, partial(module, x)),
                "peak_bytes": peak_bytes(steps[name]),
                "frozen_bytes": frozen_bytes(module, layer),
                "trainable_bytes": trained,
                "optimiser_bytes": 2 * trained,
            }
        )
    return pd.DataFrame(rows)


def readers_table(case: tuple[int, tuple[int, ...], int], config: Config) -> pd.DataFrame:
    """Measure layers that read one input, in float32.

    Returns
    -------
    pandas.DataFrame
        One row per method, the base first: n, outputs, tokens, method, ms (median), ratio (of times
        to the base), saved_bytes (kept for backward), trainable_bytes.
    """
    n, outputs, tokens = case
    modules = adapted_readers(n, outputs, config.small_rank)
    draw = torch.Generator().manual_seed(config.seed)
    x = torch.randn(tokens, n, generator=draw).requires_grad_()
    gradient = torch.randn(tokens, sum(outputs), generator=draw)
    steps = {name: step(module, x, gradient) for name, module in modules.items()}
    seconds = interleaved(steps, config.rounds)
    rows = [
        {
            "n": n,
            "outputs": ", ".join(map(str, outputs)),
            "tokens": tokens,
            "method": name,
            "ms": 1e3 * median(seconds[name]),
            "ratio": ratio(seconds, name, "base"),
            "saved_bytes": saved_bytes(module, partial(module, x)),
            "trainable_bytes": trainable_bytes(module),
        }
        for name, module in modules.items()
    ]
    return pd.DataFrame(rows)


def run(config: Config, parts: Sequence[str] = PARTS) -> dict[str, pd.DataFrame]:
    """Measure; the tables by part, one of `PARTS`."""
    tables: dict[str, list[pd.DataFrame]] = {part: [] for part in parts}
    with _threads(config.threads):
        for dtype in config.dtypes:
            for case in config.cases if "layers" in parts else ():
                note(f"layer {case[0]} × {case[1]}, {case[2]} tokens, {dtype}")
                tables["layers"].append(layer_table(case, dtype, config))
            if "model" in parts:
                note(f"model, {config.model_tokens} tokens, {dtype}")
                found = model_table(
                    config.model_core,
                    config.rank,
                    config.model_tokens,
                    getattr(torch, dtype),
                    config.rounds,
                    config.seed,
                )
                found.insert(0, "dtype", dtype)
                tables["model"].append(found)
        for readers in config.readers if "readers" in parts else ():
            note(f"{len(readers[1])} layers of one input of {readers[0]}, {readers[2]} tokens")
            tables["readers"].append(readers_table(readers, config))
        if "drawing" in parts:
            note("drawing the projections of Llama-3.1-8B")
            tables["drawing"].append(drawing(config.core, config.drawing_threads))
    return {part: pd.concat(found, ignore_index=True) for part, found in tables.items()}


def verdict(tables: dict[str, pd.DataFrame]) -> str:
    """Return what was found, in a sentence per target."""
    sentences = []
    if "layers" in tables:
        sentences += _layer_sentences(tables["layers"])
    if "readers" in tables:
        sentences += _readers_sentences(tables["readers"])
    if "model" in tables:
        ours = tables["model"][tables["model"]["method"].str.startswith("CoSA")]
        save, load = ours["save_seconds"].max(), ours["load_seconds"].max()
        sentences.append(
            f"Every CoSA adapter of SmolLM2-135M was saved within {save:.2f} s and loaded within "
            f"{load:.2f} s."
        )
    if "drawing" in tables:
        own, shared = tables["drawing"]["seconds"]
        threads = tables["drawing"]["threads"].iloc[0]
        sentences.append(
            f"All projections of Llama-3.1-8B were drawn in {own:.1f} s on {threads} threads, "
            f"shared ones in {shared:.1f} s."
        )
    return " ".join(sentences)


def _layer_sentences(table: pd.DataFrame) -> list[str]:
    dense = table["method"].str.fullmatch(r"CoSA \(\d+, \d+\)")
    worst = table[dense].nlargest(1, "multiple").iloc[0]
    sentences = [
        f"With dense projections a step takes at most {worst['multiple']:.2f} times what its "
        f"operations suggest (target {ENOUGH}; {_case(worst)})."
    ]
    kept, beside = [], []
    for _, rows in table.groupby(["m", "n", "tokens", "dtype"], sort=False):
        by_method = rows.set_index("method")
        name = next(one for one in by_method.index if one.endswith("through a"))
        ours, through = by_method.loc[name.removesuffix(" through a")], by_method.loc[name]
        lora = by_method.loc[[one for one in by_method.index if one.startswith("LoRA")]]
        for _, slim in by_method[by_method.index.str.contains("one-sided")].iterrows():
            nearest = (lora["trainable_bytes"] - slim["trainable_bytes"]).abs().idxmin()
            beside.append((slim["ratio"] / lora.loc[nearest, "ratio"], _case(slim)))
        kept.append((ours["saved_bytes"] / lora["saved_bytes"].min(), _case(ours)))
        if ours["m"] == ours["n"] and ours["tokens"] >= ENOUGH_TOKENS:
            gain = through["added_ms"] / ours["added_ms"]
            sentences.append(
                f"{_case(ours)}: the added work is {gain:.2f} times as fast as through a."
            )
    most, case = max(kept)
    slowest, where = max(beside)
    sentences.append(
        f"A step of a one-sided core takes at most {slowest:.3f} times that of a LoRA of its size "
        f"(target {ENOUGH_BESIDE_LORA}; {where})."
    )
    sentences.append(f"Backward keeps at most {most:.2f} of what it keeps for LoRA ({case}).")
    return sentences


def _readers_sentences(table: pd.DataFrame) -> list[str]:
    found = []
    for (n, outputs, tokens), rows in table.groupby(["n", "outputs", "tokens"], sort=False):
        lora, own, shared = (100 * (one - 1) for one in rows["ratio"].iloc[1:])
        found.append(
            f"Layers of {outputs} outputs that read one input of {n} ({tokens} tokens): LoRA adds "
            f"{lora:.0f} %, one-sided CoSA {own:.0f} %, with one R for all {shared:.0f} %."
        )
    return found


def _case(row: pd.Series[Any]) -> str:
    return f"{row['m']} × {row['n']}, {row['tokens']} tokens, {row['dtype']}"


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown: bytes in MB, numbers to three digits."""
    shown = table.copy()
    for column in [name for name in shown.columns if name.endswith("bytes")]:
        shown[column] = shown[column] / 1e6
    shown.columns = [name.replace("_bytes", " MB").replace("_", " ") for name in shown.columns]
    cells = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    lines = [list(shown.columns), ["---"] * len(shown.columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or the parts of it that are asked for."""
    parser = command_parser(f"experiments.{NAME}", __doc__)
    add = parser.add_argument
    add("--preset", choices=list(PRESETS), default="quick", help="default: %(default)s")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    add("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    add("--rounds", type=int, help="repetitions, in turn (default: the preset's)")
    add("--out", type=Path, help="folder for the tables")
    add("--json", action="store_true", help="print one JSON document instead of tables")
    chosen = parser.parse_args(arguments)
    if chosen.threads < 1 or (chosen.rounds is not None and chosen.rounds < 1):
        parser.error("--threads and --rounds must be at least 1")
    config = dataclasses.replace(PRESETS[chosen.preset], threads=chosen.threads)
    if chosen.rounds is not None:
        config = dataclasses.replace(config, rounds=chosen.rounds)
    for part in chosen.parts if chosen.out is not None else ():
        check_table(chosen.out, f"{NAME}_{part}")
    tables = run(config, chosen.parts)
    text = verdict(tables)
    if chosen.json:
        records = {
            part: json.loads(table.to_json(orient="records")) for part, table in tables.items()
        }
        print(json.dumps({"verdict": text, "settings": dataclasses.asdict(config), **records}))
    else:
        print(text)
        for part, table in tables.items():
            print(f"\n{part}\n\n{markdown(table)}")
    if chosen.out is not None:
        for part, table in tables.items():
            write_table(
                table,
                chosen.out,
                f"{NAME}_{part}",
                arguments=dataclasses.asdict(config),
                verdict=text,
                seed=config.seed,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
