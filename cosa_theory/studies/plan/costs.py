"""What an adapter will cost and can express, before anything is drawn or trained.

The shapes come from `CosaSettings.layers`, the operations from `update_flops` and the bytes from
the projections' own classes: what the planner says is what the layer does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cosa_theory.deltas.cosa_adapters import WRAPPER
from cosa_theory.ground.checks import choice, whole
from cosa_theory.ground.tensor_writer import file_header
from cosa_theory.laws import energy_law, equal_budget_rank
from cosa_theory.nn.forward import cheapest_order, update_flops
from cosa_theory.nn.hadamard_form import hadamard_pays
from cosa_theory.nn.projection import (
    DenseProjection,
    FrozenProjection,
    ProjectionSpec,
    frozen_projection,
)
from cosa_theory.nn.settings import CosaSettings, LayerSpec
from cosa_theory.nn.shapes import ModelLayers
from cosa_theory.projections import ENSEMBLES

if TYPE_CHECKING:
    import torch

__all__ = [
    "DTYPES",
    "OPTIMIZERS",
    "Budget",
    "LayerBudget",
    "TrainingStep",
    "cosa_budget",
    "equal_ranks",
    "file_bytes",
    "lora_budget",
]

DTYPES = ("bfloat16", "float16", "float32")
"""Types a model computes in."""

OPTIMIZERS = {"adamw": 2, "momentum": 1, "sgd": 0}
"""How many float32 numbers an optimiser keeps for each trainable one."""

_FLOAT32 = 4  # bytes: cores, LoRA's factors, gradients and moments are kept in single precision


@dataclass(frozen=True)
class TrainingStep:
    """One step of training, as far as costs depend on it.

    Parameters
    ----------
    tokens : int
        Vectors that pass through every layer in a step: batch size times length.
    dtype : str
        One of `DTYPES`: that of the projections and of the activations.
    optimizer : str
        One of `OPTIMIZERS`.

    Raises
    ------
    InputError
        For a value outside these.
    """

    tokens: int = 4096
    dtype: str = "bfloat16"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        whole("tokens", self.tokens)
        choice("dtype", self.dtype, DTYPES)
        choice("optimizer", self.optimizer, OPTIMIZERS)

    @property
    def itemsize(self) -> int:
        """Bytes of one number of the activations."""
        return self.torch_dtype.itemsize

    @property
    def torch_dtype(self) -> "torch.dtype":
        """Their type, of torch."""
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found


@dataclass(frozen=True)
class LayerBudget:
    """What an adapter costs on one m × n layer, and what it can express.

    `energy` is a share of ‖ΔW‖²: of CoSA the mean that its best core captures, ab/(mn), whatever
    ΔW is; of LoRA the least that its best rank-r matrix captures, r/min(m, n), reached if all
    singular values of ΔW are equal.
    """

    name: str
    m: int
    n: int
    shape: tuple[int, ...]  # (a, b) of a core, or (r,) of LoRA
    trainable: int  # numbers that are trained
    frozen_bytes: int  # of the projections that no earlier layer has
    saved: int  # numbers kept for backward per token, in the model's type
    formed: int  # numbers kept once per step: the core as it is multiplied, L Y or Y R
    flops: int  # of a step, forward and backward, in the order that the layer takes
    energy: float
    order: str = ""  # of the products; see `cosa_theory.nn.forward.ORDERS`. Empty for LoRA

    @property
    def rank(self) -> int:
        """The largest rank an update can have: min(a, b), or r."""
        return min(self.shape)


@dataclass(frozen=True)
class Budget:
    """What an adapter costs on a model, for one `step`, and what it can express."""

    layers: tuple[LayerBudget, ...]  # in the order of the model
    step: TrainingStep
    file_bytes: int  # size of adapter_model.safetensors

    def _sum(self, value: Callable[[LayerBudget], int]) -> int:
        return sum(value(layer) for layer in self.layers)

    @property
    def base_weights(self) -> int:
        """Entries of the adapted layers' own weights."""
        return self._sum(lambda layer: layer.m * layer.n)

    @property
    def trainable(self) -> int:
        """Numbers that are trained."""
        return self._sum(lambda layer: layer.trainable)

    @property
    def trainable_bytes(self) -> int:
        """Bytes of the trained numbers, in float32; their gradients take as many."""
        return _FLOAT32 * self.trainable

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimiser's state, in float32."""
        return OPTIMIZERS[self.step.optimizer] * self.trainable_bytes

    @property
    def frozen_bytes(self) -> int:
        """Bytes of the projections."""
        return self._sum(lambda layer: layer.frozen_bytes)

    @property
    def saved_bytes(self) -> int:
        """Bytes of activations kept for backward per token, at dropout 0."""
        return self.step.itemsize * self._sum(lambda layer: layer.saved)

    @property
    def formed_bytes(self) -> int:
        """Bytes of what is formed and kept for backward once per step."""
        return self.step.itemsize * self._sum(lambda layer: layer.formed)

    @property
    def memory_bytes(self) -> int:
        """Bytes that training takes besides the model: all of the above for one step."""
        kept = self.step.tokens * self.saved_bytes + self.formed_bytes
        return 2 * self.trainable_bytes + self.optimizer_bytes + self.frozen_bytes + kept

    @property
    def flops(self) -> float:
        """Operations that a step adds per token, forward and backward."""
        return self._sum(lambda layer: layer.flops) / self.step.tokens

    @property
    def base_flops(self) -> int:
        """Operations of the adapted layers themselves per token, forward and to the input: 4mn."""
        return 4 * self.base_weights

    @property
    def energy(self) -> float:
        """The layers' `energy`, for an update whose entries are equally large in all of them."""
        held = sum(layer.energy * layer.m * layer.n for layer in self.layers)
        return held / self.base_weights


def cosa_budget(model: ModelLayers, settings: CosaSettings, step: TrainingStep) -> Budget:
    """Count what CoSA costs on a model; errors and warnings as of `CosaSettings.layers`.

    The number of nonzeros of a very sparse projection is random: one is drawn for each size, and
    stands for all layers of the size.
    """
    dtype = step.torch_dtype
    costs: dict[ProjectionSpec, FrozenProjection] = {}
    seen: set[ProjectionSpec] = set()

    def form(spec: ProjectionSpec) -> FrozenProjection:
        size = replace(spec, key=(), seed=0)
        if size not in costs:
            costs[size] = _undrawn(size, dtype)
        return costs[size]

    layers = []
    specs = settings.layers(model.sizes)
    for spec in specs.values():
        new = {spec.left, spec.right} - seen
        seen |= new
        frozen = sum(form(one).nbytes for one in new)
        layers.append(_cosa_layer(spec, form(spec.left), form(spec.right), frozen, step))
    return Budget(tuple(layers), step, file_bytes(_stored(specs)))


def _stored(specs: Mapping[str, LayerSpec]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the adapter's file holds: cores, and what is made from data."""
    stored: dict[str, tuple[int, ...]] = {}
    for name, spec in specs.items():
        stored[f"{WRAPPER}{name}.cosa_Y"] = spec.a, spec.b
        for role, one in (("L", spec.left), ("R", spec.right)):
            if ENSEMBLES[one.kind].data_dependent:
                stored[f"{WRAPPER}{name}.cosa_{role}"] = one.d, one.k
    return stored


def _undrawn(spec: ProjectionSpec, dtype: "torch.dtype") -> FrozenProjection:
    """Return a projection that costs as much as the drawn one; dense ones without their values."""
    import torch

    product = ENSEMBLES[spec.kind].product
    if product == "dense" or (product == "transform" and not hadamard_pays(spec.k, spec.d)):
        values = torch.empty(spec.k, spec.d, dtype=dtype, device="meta")
        return DenseProjection(
            {"values": values}, k=spec.k, d=spec.d, factor=1.0, fingerprint="", spec=spec
        )
    return frozen_projection(spec, dtype=dtype)


def _cosa_layer(
    spec: LayerSpec,
    left: FrozenProjection,
    right: FrozenProjection,
    frozen: int,
    step: TrainingStep,
) -> LayerBudget:
    tokens, dtype = step.tokens, step.torch_dtype
    order = cheapest_order(tokens, left, right, dtype=dtype)
    return LayerBudget(
        name=spec.name,
        m=spec.m,
        n=spec.n,
        shape=(spec.a, spec.b),
        trainable=spec.a * spec.b,
        frozen_bytes=frozen,
        saved=spec.b,
        formed=_formed(spec, order, step),
        flops=update_flops(order, tokens, left, right),
        energy=float(energy_law(spec.m, spec.n, spec.a, spec.b)),
        order=order,
    )


def _formed(spec: LayerSpec, order: str, step: TrainingStep) -> int:
    if order == "left":
        return spec.m * spec.b
    if order == "right":
        return spec.a * spec.n
    # A core that is neither rounded nor scaled is multiplied itself.
    signs = any(ENSEMBLES[one.kind].signs for one in (spec.left, spec.right))
    scaled = spec.alpha != 1 or signs
    return spec.a * spec.b if scaled or step.dtype != "float32" else 0


def lora_budget(model: ModelLayers, ranks: Mapping[str, int], step: TrainingStep) -> Budget:
    """Count what LoRA (Hu et al., ICLR 2022) of these ranks costs on a model.

    Kept for backward are A x and the input x of A, once where several layers share it, in the
    model's type: the least that it can be.
    """
    layers, factors = [], {}
    for name, (m, n) in model.sizes.items():
        r = ranks[name]
        layers.append(
            LayerBudget(
                name=name,
                m=m,
                n=n,
                shape=(r,),
                trainable=r * (m + n),
                frozen_bytes=0,
                saved=r + (n if model.inputs[name] == name else 0),
                formed=0,
                # Two products forward, two for the gradients of A and B, two back to the input.
                flops=6 * r * (m + n) * step.tokens,
                energy=min(1.0, r / min(m, n)),
            )
        )
        factors[f"{WRAPPER}{name}.lora_A.weight"] = (r, n)
        factors[f"{WRAPPER}{name}.lora_B.weight"] = (m, r)
    return Budget(tuple(layers), step, file_bytes(factors))


def equal_ranks(budget: Budget) -> dict[str, int]:
    """Return the rank at which LoRA trains as much on every layer, to the nearest, at least 1.

    A layer has no more than min(m, n) ranks.
    """
    ranks = {}
    for layer in budget.layers:
        equal = round(float(equal_budget_rank(layer.m, layer.n, *layer.shape)))
        ranks[layer.name] = min(layer.m, layer.n, max(1, equal))
    return ranks


def file_bytes(tensors: Mapping[str, tuple[int, ...]]) -> int:
    """Return the size of a safetensors file of float32 tensors, with the metadata of PEFT."""
    header, sizes = file_header({name: ("float32", tensors[name]) for name in sorted(tensors)})
    return len(header) + sum(sizes.values())
