"""The result of `cosa-theory to-lora`: its verdict, and its table of layers."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from cosa_theory.deltas.matching import first_few
from cosa_theory.page.views import Column, View, count, memory, number, percent

if TYPE_CHECKING:  # what it describes needs torch
    from cosa_theory.nn.lora import LoraExport

__all__ = ["lora_notices", "lora_table", "lora_verdict", "lora_view"]

_SINGLE = 1e-6
"""Relative errors below this are the rounding of float32; those of shorter types are above."""


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def lora_verdict(export: "LoraExport") -> str:
    """Return what `to_lora` wrote, how close it is, how large and for whom, on one line."""
    if export.server_rank is None:
        server = f"vLLM does not load rank {export.rank}: cut it to 512 with --rank."
    else:
        server = f"vLLM takes rank {export.rank} with --max-lora-rank {export.server_rank}."
    return f"{_accuracy(export)} {server}"


def _accuracy(export: "LoraExport") -> str:
    layers = _layers(len(export.layers))
    ratio = export.lora_bytes / export.cosa_bytes
    size = (
        f"its file has {memory(export.lora_bytes)}, {number(ratio)} times the "
        f"{memory(export.cosa_bytes)} of the CoSA adapter"
    )
    if all(layer.norm == 0 for layer in export.layers):
        return (
            f"A LoRA adapter of rank {export.rank} in {layers} that changes nothing, as the CoSA "
            f"adapter does: every core is zero; {size}."
        )
    if not any(layer.energy_lost for layer in export.layers):
        exact = export.rounding < _SINGLE
        return (
            f"{'An exact' if exact else 'An uncut'} LoRA adapter of rank {export.rank} in "
            f"{layers}: its ΔW equals that of the CoSA adapter to {number(export.rounding)} of its "
            f"norm, the rounding of what is stored; {size}."
        )
    worst = max(export.layers, key=lambda layer: layer.energy_lost)
    most = "" if len({layer.rank for layer in export.layers}) == 1 else "at most "
    return (
        f"A LoRA adapter of rank {most}{export.rank} in {layers} that keeps "
        f"{percent(1 - export.energy_lost)} of the energy of all updates (least "
        f"{percent(1 - worst.energy_lost)}, in {worst.name}), the most that these ranks can; "
        f"{size}."
    )


def lora_notices(export: "LoraExport") -> tuple[str, ...]:
    """Return what a user of the adapter, or of a server that reads it, should know."""
    notices = []
    ranks = {layer.rank for layer in export.layers}
    if len(ranks) > 1 and export.padded:
        notices.append(
            f"updates of rank {min(ranks)} to {max(ranks)} are filled up with zeros to one rank, "
            "which all software scales right; --keep-ranks keeps them smaller, for PEFT alone"
        )
    elif len(ranks) > 1:
        notices.append(
            f"the layers have ranks from {min(ranks)} to {max(ranks)}, which PEFT reads from "
            "rank_pattern and alpha_pattern; llama.cpp and other software that reads no patterns "
            "scales them wrongly: leave out --keep-ranks there"
        )
    if export.expression:
        notices.append(
            "target_modules is a regular expression that matches the adapted layers alone; a list "
            "may match other modules too"
        )
    if export.mistaken:
        notices.append(
            f"PEFT takes {len(export.mistaken)} layers for parts of the experts of this model, and "
            f"loads another update there: {first_few(export.mistaken, 3)}; merge the adapter "
            "instead"
        )
    if export.carried:
        tensors = "1 tensor" if len(export.carried) == 1 else f"{len(export.carried):,} tensors"
        notices.append(
            f"{tensors} besides the factors carried over (modules_to_save, biases; first "
            f"{export.carried[0]}): PEFT loads them, servers that know nothing but factors refuse "
            "them or leave them out"
        )
    return tuple(notices)


def lora_table(export: "LoraExport") -> pd.DataFrame:
    """Return one row per layer.

    `layer`, `m`, `n`, `a`, `b`, `rank`, `norm` (‖ΔW‖, Frobenius), `energy_lost` (share of ‖ΔW‖²
    that the truncation took), `rounding` (relative error of the stored factors, beside the
    truncation), `core_numbers` (ab) and `lora_numbers` (r(m + n) with the rank that is stored).
    """
    table = pd.DataFrame([asdict(one) for one in export.layers]).rename(columns={"name": "layer"})
    lora_numbers = (export.rank if export.padded else table["rank"]) * (table["m"] + table["n"])
    return table.assign(core_numbers=table["a"] * table["b"], lora_numbers=lora_numbers)


_COLUMNS = (
    Column("layer", "layer", "module in the base model", text=True),
    Column(None, "m × n", "size of ΔW", lambda row: f"{row['m']} × {row['n']}"),
    Column(None, "core", "a × b", lambda row: f"{row['a']} × {row['b']}"),
    Column("rank", "rank", "of the LoRA layer", count),
    Column("norm", "‖ΔW‖", "Frobenius norm", number),
    Column("energy_lost", "energy lost", "share of ‖ΔW‖² that the truncation took", percent),
    Column(
        "rounding",
        "rounding",
        "relative error of the stored factors, beside the truncation",
        number,
    ),
    Column("core_numbers", "core numbers", "ab", count),
    Column("lora_numbers", "LoRA numbers", "r(m + n) with the rank that is stored", count),
)


def lora_view(table: pd.DataFrame) -> View:
    """Return the table of layers, as `lora_table` makes it, in text cells."""
    return View.of("Layers", _COLUMNS, table)
