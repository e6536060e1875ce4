"""CoSA adapters as ordinary LoRA adapters: L Y and R are the factors of ΔW = alpha · L Y R."""

import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosa_theory.deltas.cosa_adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WRAPPER,
    CosaFolder,
    read_cosa_folder,
)
from cosa_theory.deltas.cosa_products import thin_factors
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import choice, real, whole
from cosa_theory.ground.errors import InputError, Problems
from cosa_theory.ground.manifest import check_folder, own_files
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.tensor_files import read_bytes
from cosa_theory.ground.tensor_writer import file_order, write_tensors
from cosa_theory.nn.card import CARD, loading_lines, write_card
from cosa_theory.nn.lora_factors import (
    Array,
    as_bytes,
    balanced,
    product_norm,
    rank_for,
    rounded,
    rounding_error,
    truncated,
    zero_padded,
)
from cosa_theory.nn.lora_folder import (
    Layout,
    lora_settings,
    mistaken_by_peft,
    model_type,
    refused_by_peft,
    server_rank,
    tensor_layout,
)
from cosa_theory.spectrum import singular_values_of_product

__all__ = ["LORA_DTYPES", "LoraExport", "LoraLayer", "to_lora"]

_PART = "adapter"

LORA_DTYPES = ("float32", "float16", "bfloat16")
"""Types in which the factors can be stored."""


@dataclass(frozen=True)
class LoraLayer:
    """One layer of the exported adapter: m × n, from a core of a × b."""

    name: str  # of the module in the base model
    m: int
    n: int
    a: int
    b: int
    rank: int  # of the update as it was exported
    norm: float  # ‖ΔW‖, Frobenius, of the CoSA layer
    energy_lost: float  # share of ‖ΔW‖² that the truncation took away; 0 where nothing was cut
    rounding: float  # ‖Δ̂W − ΔW‖/‖ΔW‖ of the stored factors, beside the truncation; 0 for ΔW = 0


@dataclass(frozen=True)
class LoraExport:
    """What `to_lora` wrote.

    Attributes
    ----------
    folder : Path
        The LoRA adapter.
    layers : tuple of LoraLayer
        One for each adapted module.
    rank : int
        The rank in the configuration, the largest of all layers.
    energy_lost : float
        Share of Σ‖ΔW‖² over all layers that truncation took away.
    rounding : float
        The largest of all layers.
    cosa_bytes, lora_bytes : int
        Sizes of the two safetensors files.
    carried : tuple of str
        Tensors that were copied as they are: `modules_to_save` and biases.
    padded : bool
        Whether smaller ranks were filled up with zeros.
    expression : bool
        Whether `target_modules` is a regular expression, as no list is known to be exact.
    mistaken : tuple of str
        Layers that PEFT takes for others, see `cosa_theory.nn.lora_folder.mistaken_by_peft`.
    """

    folder: Path
    layers: tuple[LoraLayer, ...]
    rank: int
    energy_lost: float
    rounding: float
    cosa_bytes: int
    lora_bytes: int
    carried: tuple[str, ...]
    padded: bool
    expression: bool
    mistaken: tuple[str, ...]

    @property
    def server_rank(self) -> int | None:
        """The smallest ``--max-lora-rank`` of vLLM that takes the adapter; None if none does."""
        return server_rank(self.rank)


def to_lora(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    keep_ranks: bool = False,
    dtype: str = "float32",
    progress: Callable[[int, int, str], None] | None = None,
) -> LoraExport:
    """Write a CoSA adapter as a LoRA adapter in PEFT's folder format.

    Without `rank` and `energy` the export is exact: a layer gets rank min(a, b), with B = alpha ·
    L Y and A = R for b ≤ a, else B = alpha · L and A = Y R, from products in float64. A power of
    two, which rounds nothing, is moved between them so that their norms are within a factor of
    two of each other. The configuration has lora_alpha = r, so that ΔW = B A without a factor;
    smaller ranks are filled up with zeros, because software that reads no patterns scales a layer
    by lora_alpha over the rank of its tensors. (A core larger than its layer, as
    the released code allows, gets rank min(m, n) by the decomposition below, which cuts nothing.)

    Otherwise the product is truncated by the singular value decomposition of its small middle: B =
    Q₁ T₁, Aᵀ = Q₂ T₂ and T₁ T₂ᵀ = U S Vᵀ, which is the best approximation of its rank [1]_ and
    never forms ΔW. The factors are then Q₁ U √S and √S Vᵀ Q₂ᵀ.

    Parameters
    ----------
    folder : path
        A CoSA adapter, with or without stored projections, or one of the released code with them.
    out : path
        The folder of the LoRA adapter. An earlier export in it is replaced, as a whole; any other
        file in the way is refused, and the rest stays.
    rank : int, optional
        The largest rank of a layer.
    energy : float, optional
        Share of ‖ΔW‖² that every layer has to keep, in (0, 1): each gets the smallest rank that
        does, but no more than `rank`.
    keep_ranks : bool, default False
        Whether smaller ranks stay, in `rank_pattern` and `alpha_pattern`, which PEFT reads and
        other software (llama.cpp) does not.
    dtype : {"float32", "float16", "bfloat16"}, default "float32"
        Of the stored factors.
    progress : callable, optional
        Called as ``progress(done, total, name)`` after each step.

    Returns
    -------
    LoraExport

    Raises
    ------
    InputError
        If the adapter cannot be read, an option is invalid, a core holds NaN or Inf, the factors
        overflow `dtype`, PEFT takes no LoRA on a layer, or `out` holds an adapter that is no LoRA
        adapter. An adapter in `out` is then as it was, and no new folder is left.
    OSError
        If `out` cannot be written, with the same promise.

    Warns
    -----
    UserWarning
        If PEFT would take layers for parts of a model's experts.

    References
    ----------
    .. [1] C. Eckart, G. Young, "The approximation of one matrix by another of lower rank",
       Psychometrika 1 (1936), 211-218.
    """
    adapter, out = read_cosa_folder(Path(folder)), Path(out)
    _check(adapter, out, rank, energy, dtype)
    check_folder(out, _PART, (ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD), inputs=(folder,))
    done, total = itertools.count(1), len(adapter.layers) * (1 if energy is None else 2)

    def step(name: str) -> None:
        if progress is not None:
            progress(next(done), total, name)

    ranks = _ranks(adapter, rank, energy, step)
    stored = ranks if keep_ranks else dict.fromkeys(ranks, max(ranks.values()))
    settings = lora_settings(adapter, stored)
    layout = tensor_layout(adapter, stored, dtype)
    layers: dict[str, LoraLayer] = {}
    # Readers that do not finish what a kill interrupts find no configuration then, and no mixture.
    with _named_on_error(out), own_files(out, _PART, last=ADAPTER_CONFIG) as new:
        contents = _contents(adapter, layout, ranks, layers, step)
        write_tensors(new / ADAPTER_WEIGHTS, layout, contents)
        text = json.dumps(settings, indent=2, sort_keys=True)
        (new / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
        base = settings["base_model_name_or_path"]
        write_card(out, new, ("lora", "peft"), base, _section(settings, layers))
    mistaken = mistaken_by_peft(adapter.settings, ranks)
    if mistaken:
        warnings.warn(
            f"PEFT takes {len(mistaken)} layers for parts of the experts of this model, and loads "
            f"another update there: {first_few(mistaken, 3)}; merge the adapter instead",
            stacklevel=2,
        )
    whole_energy = math.fsum(layer.norm**2 for layer in layers.values())
    lost = math.fsum(layer.energy_lost * layer.norm**2 for layer in layers.values())
    return LoraExport(
        folder=out,
        layers=tuple(layers[name] for name in ranks),
        rank=max(ranks.values()),
        energy_lost=lost / whole_energy if whole_energy > 0 else 0.0,
        rounding=max(layer.rounding for layer in layers.values()),
        cosa_bytes=(Path(folder) / ADAPTER_WEIGHTS).stat().st_size,
        lora_bytes=(out / ADAPTER_WEIGHTS).stat().st_size,
        carried=tuple(adapter.others.values()),
        padded=stored != ranks,
        expression=isinstance(settings["target_modules"], str),
        mistaken=tuple(mistaken),
    )


def _check(
    adapter: CosaFolder, out: Path, rank: int | None, energy: float | None, dtype: str
) -> None:
    """Refuse what can be refused before a tensor is read."""
    found = Problems()
    with found:
        if rank is not None:
            whole("rank", rank)
    with found:
        if energy is not None:
            real("energy", energy, above=0, below=1)
    with found:
        choice("dtype", dtype, LORA_DTYPES)
    if "" in adapter.layers:
        found.add(
            f"{adapter.label}: adapts a model that is one linear layer itself; LoRA needs a layer "
            "inside a model: wrap it in a module."
        )
    if (out / ADAPTER_CONFIG).is_file():
        kind = read_json(out / ADAPTER_CONFIG).get("peft_type")
        if kind != "LORA":
            found.add(
                f"{out}: holds a {kind} adapter, which is not replaced: name another folder "
                "(--out)."
            )
    refused = refused_by_peft(adapter.settings, adapter.layers)
    if refused:
        found.add(
            f"{adapter.label}: PEFT takes no LoRA on {first_few(refused, 3)}, whose weight the "
            f"kernels of a {model_type(adapter.settings)} model read directly: merge the adapter, "
            "or train one without these layers (exclude_modules)."
        )
    found.report()


@contextmanager
def _named_on_error(out: Path) -> Iterator[None]:
    """Name `out` in nameless errors: "no space left on device" does not say where."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(out)
        raise


def _section(settings: Mapping[str, Any], layers: Mapping[str, LoraLayer]) -> str:
    """Return what the card of a LoRA adapter says."""
    ranks = {layer.rank for layer in layers.values()}
    rank, cut = settings["r"], any(layer.energy_lost for layer in layers.values())
    server = server_rank(rank)
    return f"""# LoRA adapter

Converted from a CoSA adapter (ΔW = alpha · L Y R, arXiv 2602.05148), \
{"cut to its largest singular values" if cut else "uncut"}.

| | |
|---|---|
| rank | {rank} |
| lora_alpha | {rank} |
| Layers | {len(layers)}, with updates of rank {min(ranks)} to {max(ranks)} |
| vLLM | {f"`--max-lora-rank {server}`" if server else "does not load this rank"} |

It is read without the library that wrote it:

{loading_lines(settings)}
"""


def _ranks(
    adapter: CosaFolder, rank: int | None, energy: float | None, step: Callable[[str], None]
) -> dict[str, int]:
    """Return the rank that each layer is exported with."""
    ranks = {}
    for name, record in adapter.layers.items():
        full = min(record.a, record.b, record.m, record.n)
        ranks[name] = min(rank or full, full)
        if energy is not None:
            values = singular_values_of_product(*_factors(adapter, name))
            ranks[name] = min(ranks[name], rank_for(values, energy))
            step(name)
    return ranks


def _factors(adapter: CosaFolder, name: str) -> tuple[Array, Array]:
    """Return B and A of a layer, and refuse what is not finite."""
    wrong = "core"
    if np.isfinite(adapter.core(name)).all():
        left, right = thin_factors(adapter, name)
        if np.isfinite(left).all() and np.isfinite(right).all():
            return left, right
        wrong = "L, R or alpha"
    raise InputError(
        f"{adapter.label}: the {wrong} of {name} is not finite (NaN or Inf): export an earlier "
        "checkpoint."
    )


def _contents(
    adapter: CosaFolder,
    layout: Layout,
    ranks: Mapping[str, int],
    layers: dict[str, LoraLayer],
    step: Callable[[str], None],
) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of every tensor in the order of the file; note each layer on the way."""
    waiting: dict[str, bytes] = {}
    for tensor in file_order(layout):
        name, _, factor = tensor.removeprefix(WRAPPER).removesuffix(".weight").rpartition(".lora_")
        if name not in ranks or tensor in adapter.stored.infos:
            yield tensor, read_bytes(adapter.stored.infos[tensor])
            continue
        if factor == "A":
            dtype, (stored_rank, _) = layout[tensor]
            layers[name], left, right = _export(adapter, name, ranks[name], stored_rank, dtype)
            waiting[name] = left
            yield tensor, right
            step(name)
        else:
            yield tensor, waiting.pop(name)


def _export(
    adapter: CosaFolder, name: str, rank: int, stored_rank: int, dtype: str
) -> tuple[LoraLayer, bytes, bytes]:
    """Return what is to be said of a layer, and the bytes of B and A."""
    record = adapter.layers[name]
    B, A = _factors(adapter, name)
    norm, lost = product_norm(B, A), 0.0
    if rank < B.shape[1]:
        B, A, lost = truncated(B, A, rank)
    else:
        B, A = balanced(B, A)
    stored = rounded(B, dtype), rounded(A, dtype)
    if not all(torch.isfinite(tensor).all() for tensor in stored):
        raise InputError(
            f"{adapter.label}: the factors of {name} overflow {dtype}: export float32 or bfloat16."
        )
    layer = LoraLayer(
        name, record.m, record.n, record.a, record.b, rank, norm, lost, rounding_error(B, A, stored)
    )
    left, right = zero_padded(*stored, stored_rank)
    return layer, as_bytes(left), as_bytes(right)
