"""Projections that random tokens made, restored by running the base model instead of being stored.

An adapter then keeps a recipe (how many seeded random tokens) and, of every R, a sketch: uᵀ R g for
64 pairs of seeded Gaussian probes. E (uᵀ D g)² = ‖D‖², so that the mean square of the differences
of two sketches estimates ‖R′ − R‖² without bias, to a third of it at worst. What a difference does
to the update is bounded by ‖ΔW′ − ΔW‖ ≤ ‖alpha · L Y‖₂ ‖R′ − R‖.

Single eigenvectors with close eigenvalues turn into each other with small changes of C. A power of
C is a continuous function of it, so that only projections with the option ``power`` are restored.
Seen on the embedded encoder, 36 layers, 64 texts of 64 tokens, b = 32, the largest ‖R′ − R‖/‖R‖ of
a layer:

==============================  ============  ========  ========
what differs                    eigenvectors  power 1   power 2
==============================  ============  ========  ========
number of threads               0             0         0
order of float32 operations     1.2e-5        6.0e-6    4.4e-6
model in bfloat16               0.71          0.031     0.043
batches of the same texts       1.4           0.82      1.0
==============================  ============  ========  ========

(Operations differ in the two implementations of attention. Batches belong to the recipe, since
which tokens are taken depends on them.)
"""

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.informed import informed_projections, needed_sides
from cosa_theory.nn.moments import Moments, layer_moments, random_batches
from cosa_theory.nn.projection import ProjectionSpec
from cosa_theory.nn.settings import LayerSpec
from cosa_theory.projections import stream

__all__ = ["difference", "gathered_moments", "recipe_for", "restored_projections", "sketch"]

TOLERANCE = 0.05
"""The largest ‖R′ − R‖/‖R‖ that is accepted."""

_PROBES = 64
_FEWEST_DIRECTIONS = 256  # that are kept of a layer too wide for all of its moments
_LENGTH, _FEWEST_TEXTS, _TOKENS_PER_DIRECTION = 64, 64, 16


def sketch(R: Tensor) -> str:
    """Return uᵀ R g for the probes of its shape (b × n), in single precision and base 64."""
    return base64.b64encode(_products(R).astype("<f4").tobytes()).decode()


def difference(R: Tensor, known: str) -> float:
    """Return an estimate of ‖R′ − R‖/‖R′‖ for the R′ given and the sketch of R.

    An InputError tells of a sketch that is none.
    """
    try:
        held = np.frombuffer(base64.b64decode(known, validate=True), "<f4").astype(np.float64)
    except (binascii.Error, ValueError):
        held = np.empty(0)
    if len(held) != _PROBES:
        raise InputError(f"sketch is {known[:20]!r}: it must be {_PROBES} numbers in base 64")
    error = _products(R).astype("<f4").astype(np.float64) - held
    return math.sqrt(np.mean(error**2)) / max(float(R.double().norm()), 1e-30)


def _products(R: Tensor) -> NDArray[np.float64]:
    b, n = R.shape
    probes = stream(0, "probes of a restored projection", b, n)
    U, G = probes.standard_normal((_PROBES, b)), probes.standard_normal((_PROBES, n))
    values = R.detach().to("cpu", torch.float64).numpy()
    found: NDArray[np.float64] = np.einsum("pn,pn->p", U @ values, G)
    return found


def recipe_for(model: nn.Module, specs: Mapping[str, LayerSpec], seed: int) -> dict[str, int]:
    """Return the random tokens for the layers of a model: arguments of `random_batches`."""
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    most = getattr(config, "max_position_embeddings", None)
    length = min(_LENGTH, most) if isinstance(most, int) and most > 0 else _LENGTH
    tokens = _TOKENS_PER_DIRECTION * max(one.k for one in needed_sides(specs).values())
    count = max(_FEWEST_TEXTS, math.ceil(tokens / length))
    return {"count": count, "length": length, "seed": seed, "size": 16}


def gathered_moments(
    model: nn.Module,
    bases: Mapping[str, nn.Module],
    specs: Mapping[str, LayerSpec],
    batches: Iterable[Mapping[str, Any]],
    *,
    gradients: str = "labels",
    seed: int = 0,
    progress: bool = False,
) -> Moments:
    """Return what projections of some layers are made from, by the layers' plain names.

    `bases` are the layers themselves, wherever they are in the model's tree; its adapters are off.
    Gradients of the loss `gradients` are gathered where some L lies among them.
    """
    if any(one.device.type == "meta" for one in model.parameters()):
        raise InputError("the model is on the meta device: load its weights before its adapters")
    tree = {module: name for name, module in model.named_modules()}
    weights = {f"{tree[base]}.weight": f"{name}.weight" for name, base in bases.items()}
    needed = needed_sides(specs)
    found = layer_moments(
        model,
        batches,
        list(weights),
        gradients=gradients if any(role == "L" for _, role in needed) else None,
        seed=seed,
        directions=max([_FEWEST_DIRECTIONS, *(one.k for one in needed.values())]),
        progress=progress,
    )
    inputs, by_output = (
        {weights[name]: one for name, one in side.items()}
        for side in (found.inputs, found.gradients)
    )
    return Moments(inputs, by_output, model=found.model, texts=found.texts)


def restored_projections(
    model: nn.Module,
    bases: Mapping[str, nn.Module],
    specs: Mapping[str, LayerSpec],
    sketches: Mapping[str, str | None],
    recipe: Mapping[str, int],
    dtype: str,
) -> dict[ProjectionSpec, Tensor]:
    """Return R of every layer, made again from the model's own moments on random tokens.

    Parameters
    ----------
    model, bases, specs
        As for `gathered_moments`.
    sketches : mapping of str to str
        Of the R that each layer was trained with.
    recipe : mapping
        Arguments of `random_batches`.
    dtype : {"float32", "bfloat16"}
        As for `informed_projections`.

    Raises
    ------
    InputError
        Naming the layer whose R differs most, by more than `TOLERANCE`.
    """
    batches = random_batches(model, **recipe)
    moments = gathered_moments(model, bases, specs, batches, seed=recipe["seed"])
    made = informed_projections(specs, moments, dtype)
    found = {
        name: difference(made[spec.right], known)
        for name, spec in specs.items()
        if (known := sketches.get(name)) is not None
    }
    worst = max(found, key=found.__getitem__, default=None)
    if worst is not None and not found[worst] <= TOLERANCE:
        raise InputError(
            f"R of {worst}, made again by running this model on random tokens, differs from that "
            f"of the training by {found[worst]:.2g} of its norm (at most {TOLERANCE}): take the "
            "base model of the training in its type, and the same version of cosa_theory, or save "
            "the adapter there with save_projections"
        )
    return made
