"""CoSA adapters in PEFT's folder format: what a folder says of its layers, and their factors.

A CoSA layer stands for ΔW = alpha · L Y R. Its folder stores the core Y (a × b); L (m × a) and
R (b × n) are stored beside it, or drawn again from the seed and checked by their fingerprints.
Nothing here needs torch. Folders of the code released with arXiv 2602.05148 are read too, if they
carry L and R: that code draws them from a salted hash, so no seed brings them back.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.cosa_records import CosaRecord, cosa_records, ensemble_of
from cosa_theory.deltas.cosa_released import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PEFT_TYPES,
    WRAPPER,
    is_released,
    translated_settings,
)
from cosa_theory.deltas.opening import open_checkpoint
from cosa_theory.deltas.wrapped_names import known_name
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.swap import reading
from cosa_theory.ground.tensor_files import read_bytes
from cosa_theory.projections import ENSEMBLES, draw_fingerprint, fingerprint, make_projection

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "WRAPPER",
    "CosaFolder",
    "CosaRecord",
    "core_digest",
    "is_released",
    "read_cosa_folder",
    "refuse_other_draws",
]


@dataclass(frozen=True)
class CosaFolder:
    """An adapter folder whose headers were read and checked."""

    label: str
    stored: Checkpoint
    settings: dict[str, Any]  # in this library's names even for a folder of the released code
    layers: dict[str, CosaRecord]  # by the module's name in the base model
    # Tensors that replace those of the base model (`modules_to_save`, biases): name in the base
    # model to name in the file.
    whole: dict[str, str]
    released: bool  # whether the released code wrote it
    # Draws that several layers use, with their fingerprints, kept once they are made.
    shared: dict[tuple[str, str, int, int], tuple[Any, str]] = field(
        default_factory=dict, repr=False
    )

    @property
    def others(self) -> dict[str, str]:
        """`whole` without what nothing uses.

        With trained biases PEFT also writes those of a module that its trained copy stands for.
        """
        return {name: one for name, one in self.whole.items() if ".original_module." not in name}

    @property
    def tied(self) -> bool:
        """Whether modules saved whole were trained as one with what the model ties them to.

        So did `save_cosa` before it described the cores; since then, and in PEFT, they are copies.
        """
        entries = (self.settings.get("layers") or {}).values()
        return "peft_version" not in self.settings and not any("Y" in one for one in entries)

    def named_as(self, places: Collection[str]) -> "CosaFolder":
        """Return the adapter with the names that a model has for its layers and tensors."""
        names = {name: known_name(name, places) for name in self.layers}
        layers = {names[name]: replace(one, name=names[name]) for name, one in self.layers.items()}
        whole = {}
        for name, tensor in self.whole.items():
            place, _, last = name.rpartition(".")
            whole[f"{known_name(place, places)}.{last}".removeprefix(".")] = tensor
        return replace(self, layers=layers, whole=whole)

    def renamed(self, names: Mapping[str, str]) -> "CosaFolder":
        """Return the adapter with other names for some of its layers, drawn as before."""
        layers = {
            names.get(name, name): replace(one, name=names.get(name, name))
            for name, one in self.layers.items()
        }
        return replace(self, layers=layers)

    def core(self, name: str) -> np.ndarray:
        """Return a layer's core Y, shape (a, b), in float32 (float64 if stored so).

        An InputError tells of a core that is not the one the configuration was saved with.
        """
        record = self.layers[name]
        values = self.stored.load(record.core)
        if record.digest not in (None, core_digest(read_bytes(self.stored.infos[record.core]))):
            if not np.isfinite(values).all():
                return values  # damaged, which those who use it tell
            raise InputError(
                f"{self.label}: the core of {name} is not the one that {ADAPTER_CONFIG} was saved "
                "with: the two files are of different savings; save the adapter again, or remove "
                "the layer's Y there if you changed the core yourself."
            )
        return values

    def projections(self, name: str) -> tuple[Any, Any]:
        """Return a layer's Lᵀ (a × m) and R (b × n) in float32: stored, or drawn and compared.

        Arrays, csr arrays or SRHTs at their true scale. An InputError tells of a draw that differs
        from the one the adapter was trained with.
        """
        one = self.layers[name]
        stored = {"L": one.left, "R": one.right}
        left, right = (
            self.stored_projection(name, role) if stored[role] else self._drawn(one, role, k, d)
            for role, k, d in (("L", one.a, one.m), ("R", one.b, one.n))
        )
        return left, right

    def stored_projection(self, name: str, role: str) -> np.ndarray:
        """Return Lᵀ (a × m) for role "L", R (b × n) for "R", of a layer that stores it.

        An InputError tells of one made from data that is not what the configuration was saved with.
        """
        record = self.layers[name]
        tensor = record.left if role == "L" else record.right
        assert tensor is not None
        values = self.stored.load(tensor)
        values = values.T if (role == "L") != record.transposed else values
        expected = record.fingerprints["LR".index(role)]
        kind, _ = ensemble_of(self.settings, record, role)
        if ENSEMBLES[kind].data_dependent and expected not in (None, fingerprint(values)):
            if not np.isfinite(values).all():
                return values  # damaged, which those who use it tell
            raise InputError(
                f"{self.label}: {role} of {name} is not the one that {ADAPTER_CONFIG} was saved "
                "with: the two files are of different savings; save the adapter again."
            )
        return values

    def _drawn(self, record: CosaRecord, role: str, k: int, d: int) -> Any:
        """Draw a projection, or take the draw that another layer had; compare its fingerprint."""
        if ENSEMBLES[ensemble_of(self.settings, record, role)[0]].data_dependent:
            raise InputError(
                f"{self.label}: {role} of {record.name} is not stored but made by running the base "
                "model: load the adapter with load_cosa, and store it with save_cosa"
            )
        place = (record.key, role, k, d)
        drawn, found = self.shared.get(place) or _draw(self.label, record, self.settings, *place)
        if sum(one.key == record.key for one in self.layers.values()) > 1:
            self.shared[place] = drawn, found
        expected = record.fingerprints["LR".index(role)]
        refuse_other_draws(
            self.label, self.settings["seed"], [(f"{role} of {record.name}", found, expected)]
        )
        return drawn


def core_digest(values: bytes) -> str:
    """Return what tells the bytes of a core from those of another."""
    return hashlib.blake2b(values, digest_size=8).hexdigest()


def refuse_other_draws(label: str, seed: int, draws: Iterable[tuple[str, str, str | None]]) -> None:
    """Refuse projections that are not those an adapter was trained with.

    `draws` are what each is, its fingerprint, and that of the training, if it is known; the error
    names the first that differs.
    """
    different = [draw for draw in draws if draw[2] not in (None, draw[1])]
    if not different:
        return
    what, found, expected = different[0]
    others = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
    raise InputError(
        f"{label}: {what}{others}, drawn from seed {seed}, has the fingerprint {found}, and the "
        f"adapter was trained with {expected}: use the versions of cosa-theory and numpy that "
        "saved it, or save it there with save_projections."
    )


def _draw(
    label: str, record: CosaRecord, settings: Mapping[str, Any], key: str, role: str, k: int, d: int
) -> tuple[Any, str]:
    """Draw a k × d projection in float32; return it with its fingerprint."""
    kind, options = ensemble_of(settings, record, role)
    arguments: dict[str, Any] = {
        "seed": settings["seed"],
        "scale": settings["scale"],
        "key": (key, role),
        "dtype": "float32",
        **options,
    }
    try:
        drawn = make_projection(kind, k, d, **arguments)
        if ENSEMBLES[kind].source is not None:  # the last bits depend on the BLAS
            return drawn, draw_fingerprint(kind, k, d, **arguments)
        return drawn, fingerprint(drawn)
    except ValueError as error:
        raise InputError(f"{label}: {record.name}: {role} cannot be drawn: {error}.") from error


def read_cosa_folder(folder: Path | str) -> CosaFolder:
    """Read the configuration and the header of an adapter folder, and check one by the other.

    Parameters
    ----------
    folder : path
        With adapter_config.json and adapter_model.safetensors.

    Returns
    -------
    CosaFolder
        No entry of a tensor has been read.

    Raises
    ------
    InputError
        Naming every problem found.
    """
    with reading(folder):  # finishes what an interrupted saving left
        return _read_folder(Path(folder))


def _read_folder(folder: Path) -> CosaFolder:
    config, weights = folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS
    if not folder.is_dir():
        what = "a file, not a folder" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {what}: name that of a saved CoSA adapter.")
    if not weights.is_file() and weights.with_suffix(".bin").is_file():
        raise InputError(
            f"{folder}: holds {weights.stem}.bin, a pickle, which can run code and is not read: "
            "save the adapter again as safetensors."
        )
    problems = [
        f"{folder}: no {path.name} here: name the folder of a saved CoSA adapter."
        for path in (config, weights)
        if not path.is_file()
    ]
    if problems:
        raise InputError(*problems)
    settings = read_json(config)
    if settings.get("peft_type") not in PEFT_TYPES:
        raise InputError(
            f"{folder}: peft_type is {settings.get('peft_type')!r} in {ADAPTER_CONFIG}; this reads "
            "CoSA adapters, whose peft_type is 'COSA'."
        )
    stored = open_checkpoint(weights, "adapter")
    released = is_released(settings)
    settings = translated_settings(settings, stored.infos, str(folder))
    layers, whole = cosa_records(settings, stored.infos, str(folder))
    return CosaFolder(str(folder), stored, settings, layers, whole, released)
