"""Sums of a pass that is under way, stored now and then, so that a killed one can go on."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.tensor_files import read_header, read_metadata, read_tensor
from cosa_theory.nn.moments.hooks import Gathering
from cosa_theory.nn.moments.sums import Sum

__all__ = ["Resume"]

_EVERY = 60.0  # seconds between two times that sums are stored, at least, ...
_SPARE = 20  # ... and so many times longer than storing them takes


class Resume:
    """A file of sums.

    Parameters
    ----------
    path : path
        Where it is; another for every process.
    identity : mapping
        All that decides the sums beside the texts, as plain JSON values.
    process : int
        Number of this process.

    Attributes
    ----------
    done : int
        Batches that are summed already.
    texts : str
        Their digest.
    """

    def __init__(
        self, path: str | os.PathLike[str], identity: Mapping[str, Any], process: int
    ) -> None:
        path = Path(path)
        self.path = path.with_name(f"{path.stem}-{process}{path.suffix}") if process else path
        self.done, self.texts = 0, ""
        self._identity = dict(identity)
        self._due = time.monotonic() + _EVERY

    def other(self, what: str) -> InputError:
        """Return the error that the file is of something else."""
        return InputError(
            f"{self.path}: its sums are of {what}: delete it, or name another file",
            argument="resume",
        )

    def load(self, gathering: Gathering, new_sum: Callable[[str, str], Sum]) -> None:
        """Take over what is stored, if there is a file; refuse one of another pass."""
        if not self.path.exists():
            return
        try:
            infos = read_header(self.path)
            state = json.loads(read_metadata(os.fspath(self.path))["pass"])
        except (InputError, KeyError, ValueError) as error:
            raise self.other("no pass that can go on") from error
        if state["identity"] != self._identity:
            raise self.other("another model or other settings")
        for key, info in infos.items():
            side, part, name = key.split(" ", 2)
            sums = getattr(gathering, side)
            if name not in sums:
                sums[name] = new_sum(side, name)
            sums[name].arrays()[part][...] = read_tensor(info)
        gathering.owners.update(state["owners"])
        self.done, self.texts = state["done"], state["texts"]

    def store(self, gathering: Gathering, done: int, texts: str) -> None:
        """Store the sums, if it is time."""
        begun = time.monotonic()
        if begun < self._due:
            return
        tensors = {
            f"{side} {part} {name}": torch.from_numpy(values)
            for side in ("inputs", "gradients")
            for name, one in getattr(gathering, side).items()
            for part, values in one.arrays().items()
        }
        state = {"identity": self._identity, "owners": gathering.owners, "done": done}
        with atomic_path(self.path) as temporary:
            save_file(tensors, temporary, {"pass": json.dumps(state | {"texts": texts})})
        ended = time.monotonic()
        self._due = ended + max(_EVERY, _SPARE * (ended - begun))

    def finish(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
