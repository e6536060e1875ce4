"""The document of `cosa-theory plan`: its verdict, and how its tables are shown."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Presentation
from cosa_theory.page.views import MISSING, Column, View, count, memory, number, percent
from cosa_theory.projections import INFORMED

__all__ = ["PRESENTATION", "plan_verdict"]

_METHODS = {
    "cosa": "CoSA as asked",
    "cosa_balanced": "CoSA at a·m = b·n",
    "lora": "LoRA of equal size",
}


def _operations(flops: Any) -> str:
    for unit, scale in (("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if flops >= scale:
            return f"{number(flops / scale)} {unit}"
    return f"{flops:.0f} FLOP"


def _span(low: Any, high: Any) -> str:
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def _times(value: float) -> str:
    return f"{number(value).rstrip('.')} times" if value >= 1 else f"{percent(value)} of"


def _layers(rows: Mapping[Any, Any]) -> str:
    return f"{count(rows['layers'])} {'layer' if rows['layers'] == 1 else 'layers'}"


def plan_verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what the tables of `plan_tables` say, in plain sentences on one line."""
    rows = {row["method"]: row for row in tables["totals"].to_dict("records")}
    cosa, lora, balanced = rows["cosa"], rows["lora"], rows.get("cosa_balanced")
    frozen = f"{memory(cosa['frozen_bytes'])} of frozen projections"
    multiple = _times(cosa["frozen_bytes"] / cosa["trainable_bytes"])
    saving = ""
    if balanced is not None and balanced["frozen_bytes"] < 0.99 * cosa["frozen_bytes"]:
        saving = f"; {memory(balanced['frozen_bytes'])} at a·m = b·n"
    return (
        f"CoSA on {_layers(cosa)} of {cosa['architecture']} trains "
        f"{count(cosa['trainable'])} parameters, {percent(cosa['trainable'] / lora['trainable'])} "
        f"of those of LoRA at rank {_span(lora['least_rank'], lora['most_rank'])}, and holds "
        f"{frozen}, {multiple} the size of its cores (LoRA none{saving}). A step adds "
        f"{percent(_added(cosa))} to these layers' operations (LoRA {percent(_added(lora))}); "
        f"training takes {memory(cosa['memory_bytes'])} besides the model (LoRA "
        f"{memory(lora['memory_bytes'])}). {_expressed(cosa)}"
    )


def _expressed(cosa: Mapping[Any, Any]) -> str:
    if cosa["trainable"] == cosa["base_weights"]:
        return (
            "Its cores are as large as the layers and express every update, as full fine-tuning "
            "does: smaller ones are what CoSA is for."
        )
    if cosa["kind"] in INFORMED:
        if pd.isna(cosa["energy"]):
            return (
                "What its best core captures depends on the layers' inputs: give moments of the "
                "base model for an estimate."
            )
        return (
            f"By the moments its best core is expected to capture {percent(cosa['energy'])} of an "
            "update's energy, which is an estimate and no law."
        )
    return (
        f"Its best core captures {percent(cosa['energy'])} of an update's energy on average, "
        "whatever the update; LoRA's best matrix captures more as soon as the leading singular "
        "values carry more than that: measure an update of yours with `cosa-theory spectrum BASE "
        "TUNED`, and see `cosa-theory report`."
    )


def _added(row: Mapping[Any, Any]) -> float:
    return float(row["flops_per_token"] / row["base_flops_per_token"])


def _quantities(first: Mapping[Any, Any]) -> dict[str, Callable[[Mapping[Any, Any]], str]]:
    """Return the lines of the totals, and how each is filled from a method's row."""
    return {
        "trainable parameters": lambda row: count(row["trainable"]),
        "trained weights, float32": lambda row: memory(row["trainable_bytes"]),
        "gradients, float32": lambda row: memory(row["gradient_bytes"]),
        f"{first['optimizer']} state, float32": lambda row: memory(row["optimizer_bytes"]),
        f"frozen projections, {first['dtype']}": lambda row: memory(row["frozen_bytes"]),
        "activations kept per token": lambda row: memory(row["saved_bytes_per_token"]),
        "products kept per step": lambda row: memory(row["formed_bytes"]),
        f"all of it at {count(first['tokens'])} tokens": lambda row: memory(row["memory_bytes"]),
        "operations added per token": lambda row: _operations(row["flops_per_token"]),
        "the same, of the layers' own": lambda row: percent(_added(row)),
        "largest rank of an update": lambda row: _span(row["least_rank"], row["most_rank"]),
        "energy of an update": _energy,
        "adapter file": lambda row: memory(row["file_bytes"]),
    }


def _energy(row: Mapping[Any, Any]) -> str:
    return f"{'≥ ' if row['method'] == 'lora' else ''}{percent(row['energy'])}"


def _filled(row: Mapping[Any, Any], show: Callable[[Mapping[Any, Any]], str]) -> str:
    return show(row)


def _totals_view(document: Document) -> View:
    rows = document.tables["totals"].to_dict("records")
    first = rows[0]
    columns = (
        Column(0, "in total", text=True),
        *(Column(1, _METHODS[row["method"]], cell=partial(_filled, row)) for row in rows),
    )
    shared = ", projections shared by layers of one size" if first["shared"] else ""
    own = first["base_flops_per_token"]
    title = (
        f"{first['architecture']}: {_layers(first)}, "
        f"{count(first['base_weights'])} weights, {_operations(own)} per token forward and "
        f"backward; {first['kind']}{shared}"
    )
    return View.of(title, columns, _quantities(first).items())


def _recommended_view(document: Document) -> View:
    table = document.tables["recommended"].to_dict("records")
    *others, first = table
    patterns = ", ".join(f"{row['pattern']!r}: [{row['a']}, {row['b']}]" for row in others)
    pattern = f", shape_pattern={{{patterns}}}" if others else ""
    columns = (
        Column("pattern", "layers", text=True),
        Column("a", "a", cell=count),
        Column("b", "b", cell=count),
    )
    title = f"{_advice(document)}: CosaConfig(a={first['a']}, b={first['b']}{pattern})"
    return View.of(title, columns, table)


def _advice(document: Document) -> str:
    """Recommend a·m = b·n where it saves memory in all, with its price in operations."""
    totals = {row["method"]: row for row in document.tables["totals"].to_dict("records")}
    asked, other = totals["cosa"], totals["cosa_balanced"]
    share = other["trainable"] / asked["trainable"]
    many = "as many" if share > 0.99 else f"{percent(share)} of the"
    takes = (
        f"at {many} trainable parameters training takes {memory(other['memory_bytes'])}, not "
        f"{memory(asked['memory_bytes'])}, and a step adds {percent(_added(other))}, not "
        f"{percent(_added(asked))}"
    )
    if other["memory_bytes"] < asked["memory_bytes"]:
        return f"Recommended for memory, a·m = b·n ({takes})"
    return f"The shapes a·m = b·n, which save no memory here ({takes})"


def _shape(row: Mapping[Any, Any]) -> str:
    return f"r = {row['rank']}" if pd.isna(row["a"]) else f"{row['a']} × {row['b']}"


_ORDERS = {"through": "L(Y(Rx))", "left": "(LY)(Rx)", "right": "L((YR)x)"}

_SHAPES = (
    Column("pattern", "layers", "numbers in names as *", text=True),
    Column("layers", "count", cell=count),
    Column(None, "m × n", "out × in features", lambda row: f"{row['m']} × {row['n']}"),
    Column("method", "method", cell=_METHODS.__getitem__, text=True),
    Column(None, "size", "core a × b, or LoRA's rank", _shape),
    Column("trainable", "trainable", "parameters of all these layers", count),
    Column("frozen_bytes", "frozen", "bytes of the projections that no earlier layer has", memory),
    Column("gradient_bytes", "gradients", "bytes, float32", memory, detail=True),
    Column("optimizer_bytes", "optimiser", "bytes of its state, float32", memory),
    Column(
        "saved_bytes_per_token", "kept/token", "activations saved for backward at dropout 0", memory
    ),
    Column("flops_per_token", "added/token", "operations, forward and backward", _operations),
    Column(
        None,
        "of own",
        "added operations over the layers' own, 4mn",
        lambda row: percent(_added(row)),
    ),
    Column(
        "order",
        "order",
        "of products: L(Y(R x)), or with L Y or Y R formed",
        lambda order: _ORDERS.get(order, MISSING),
        text=True,
        detail=True,
    ),
    Column(None, "energy", "of an update; LoRA's is the least, at a flat spectrum", _energy),
)


def _views(document: Document) -> list[View]:
    views = [_totals_view(document)]
    if "recommended" in document.tables:
        views.append(_recommended_view(document))
    return views


PRESENTATION = Presentation(
    title="What an adapter costs and can express",
    tables=("totals", "shapes", "recommended"),
    views=_views,
    detail_views=lambda document: [View.of("By kind of layer", _SHAPES, document.tables["shapes"])],
    terms=(
        (
            "CoSA",
            "ΔW = α L Y R with a trained core Y (a × b) and frozen random L (m × a), R (b × n) "
            "drawn from a seed: neither the adapter's file nor the optimiser has them.",
        ),
        ("LoRA of equal size", "rank r = ab/(m + n) to the nearest whole number, layer by layer."),
        (
            "activations kept",
            "of CoSA R x, b numbers a token and layer; of LoRA A x, and its input x once where "
            "layers share it, which is the least an implementation can keep. At dropout 0.",
        ),
        (
            "products kept",
            "of CoSA L Y, Y R or the rounded core, by the order of its products: once per step "
            "and layer, whatever the number of tokens.",
        ),
        (
            "operations",
            "a multiplication and an addition are two. The layers' own are 4mn a token, forward "
            "and backward to their input; CoSA's are those of the cheapest order of its products "
            "for this number of tokens; LoRA's 6r(m + n).",
        ),
        (
            "energy",
            "the share of ‖ΔW‖² that the best adapter of this size has. Of CoSA on average ab/(mn) "
            "for every ΔW; of LoRA at least r/min(m, n), reached if all singular values are equal, "
            "and up to 1. So CoSA's share is at most (m + n)/max(m, n) ≤ 2 times LoRA's, and "
            "smaller where the spectrum decays. Of an informed kind it is what its directions hold "
            "of the inputs' energy: an estimate. Totals are for equally large entries everywhere.",
        ),
    ),
)
