"""Only one's own, unchanged files of a folder are replaced or deleted; all others are named."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.manifest import MANIFEST, check_folder, own_files
from cosa_theory.ground.swap import reading


def _store(folder, part="results", **files):
    with own_files(folder, part) as new:
        for name, text in files.items():
            path = new / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def _read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def _refused(folder, *about, **files):
    """Check that writing is refused, before a computation and after it, and changes nothing."""
    before = _read(folder)
    names = [name.replace("__", "/").replace("_", ".") for name in files]
    for attempt in (
        lambda: check_folder(folder, "results", names),
        lambda: _store(folder, **files),
    ):
        with pytest.raises(InputError) as raised:
            attempt()
        (text,) = raised.value.problems
        assert all(word in text for word in (*about, "another folder (--out)"))
        assert len(text) <= 300
        assert _read(folder) == before


def test_own_files_are_replaced_and_deleted_and_others_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    _store(tmp_path, page_html="1", figures__a_png="1", figures__b_png="1")
    (tmp_path / "figures" / "photo.png").write_text("mine")
    _store(tmp_path, part="figures", c_png="1")
    check_folder(tmp_path, "results", ["page.html", "figures/a.png"])
    _store(tmp_path, page_html="2", figures__a_png="2")
    assert _read(tmp_path) == {
        "notes.txt": "mine",
        "figures/photo.png": "mine",
        "c.png": "1",
        "page.html": "2",
        "figures/a.png": "2",
    }


def test_a_file_of_somebody_else_in_the_way_is_named_and_kept(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("mine")
    _refused(tmp_path, "figures/a.png", page_html="1", figures__a_png="1")
    (tmp_path / "figures" / "a.png").rename(tmp_path / "a.png")
    _store(tmp_path, page_html="1", figures__a_png="1")


def test_a_file_that_was_changed_is_named_and_kept(tmp_path):
    _store(tmp_path, page_html="1", table_csv="1")
    (tmp_path / "table.csv").write_text("edited")
    _refused(tmp_path, "table.csv", "changed", page_html="2", table_csv="2")
    _refused(tmp_path, "table.csv", "changed", page_html="2")  # it would be deleted
    (tmp_path / "table.csv").unlink()
    precious = tmp_path.parent / f"{tmp_path.name}.txt"
    precious.write_text("1")
    (tmp_path / "table.csv").symlink_to(precious)
    _refused(tmp_path, "table.csv", "changed", page_html="2", table_csv="2")
    assert precious.read_text() == "1"
    (tmp_path / "table.csv").unlink()
    (tmp_path / "table.csv").mkdir()
    _refused(tmp_path, "table.csv", page_html="2", table_csv="2")


def test_folders_links_and_files_in_the_way_of_folders_are_named(tmp_path):
    elsewhere = tmp_path.parent / f"{tmp_path.name}.elsewhere"
    elsewhere.mkdir()
    (tmp_path / "figures").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"figures.*link"):
        check_folder(tmp_path, "results", ["figures/a.png"])
    with pytest.raises(InputError, match=r"\.cells.*file"):
        (tmp_path / ".cells").write_text("mine")
        check_folder(tmp_path, "results", [], folders=[".cells"])
    assert not any(elsewhere.iterdir())


def test_results_of_a_version_without_a_list_stay_and_the_remedy_is_said(tmp_path):
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "audit.json").write_text('{"verdict": "", "provenance": {}}')
    _refused(tmp_path, "older version", "move or delete", page_html="1")


@given(text=st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_a_damaged_list_lists_nothing(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("results")
    _store(folder, page_html="1")
    (folder / MANIFEST).write_bytes(text)
    _refused(folder, "page.html", page_html="2")


@pytest.mark.parametrize(
    "name", ["../precious.txt", "/etc/x", "a/../../precious.txt", "\0", "\ud800", "n" * 300]
)
def test_a_forged_list_reaches_nothing_outside(tmp_path, name):
    folder = tmp_path / "run"
    _store(folder, page_html="1")
    (tmp_path / "precious.txt").write_text("mine")
    content = json.loads((folder / MANIFEST).read_text())
    digest = "5ec9a9bd1b7ad3ee4ba2a8e0f2f6bc5e5b9a8f2e"
    content["files"][name] = {"part": "results", "sha256": digest}
    (folder / MANIFEST).write_text(json.dumps(content))
    _store(folder, page_html="2")
    assert _read(tmp_path) == {"precious.txt": "mine", "run/page.html": "2"}


def test_inputs_in_the_folder_are_refused_by_every_way_to_them(tmp_path, monkeypatch):
    out, apart = tmp_path / "out", tmp_path / "apart"
    (out / "pair").mkdir(parents=True)
    (out / "pair" / "base.bin").write_text("mine")
    apart.mkdir()
    (apart / "base.bin").symlink_to(out / "pair" / "base.bin")
    (tmp_path / "link").symlink_to(out)
    (out / "outwards").symlink_to(apart)
    monkeypatch.chdir(tmp_path)
    inside = ["out", out, "out/pair/base.bin", "link/pair", apart, "out/pair/base.bin:W"]
    inside += ["out/pair/base.bin:dense/kernel:0"]
    for given_ in [*inside, "apart/../out/pair", "out/outwards"]:
        for folder in (out, "out", "link"):
            with pytest.raises(InputError, match="inside"):
                check_folder(folder, "results", [], inputs=[None, "org/model", given_])
    (apart / "base.bin").unlink()
    check_folder(out, "results", [], inputs=[apart, "org/model", "q:r", None])
    check_folder(out / "new", "results", [], inputs=[out / "pair"])


def test_a_place_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    places = ["file.txt", "file.txt/deep", "n" * 300, "dangling", "pipe", "a/" * 2100]
    for place in places:
        with pytest.raises(InputError) as raised:
            check_folder(tmp_path / place, "results", ["page.html"])
        assert len(str(raised.value)) <= 300
        assert "--out" in str(raised.value)
    with pytest.raises(InputError, match="--out"):
        check_folder(tmp_path, "results", ["n" * 300])
    assert not (tmp_path / "a").exists()


def test_a_check_leaves_no_folder(tmp_path):
    check_folder(tmp_path / "deep" / "run", "results", ["page.html"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_with_the_results_around_it_is_in_their_list(tmp_path):
    _store(tmp_path, page_html="1", audit__page_html="1", audit__table_csv="1")
    stays = ["table.csv"]
    check_folder(tmp_path / "audit", "results", ["page.html"], stays=stays.__contains__)
    with own_files(tmp_path / "audit", "results", stays=stays.__contains__) as new:
        (new / "page.html").write_text("2")
    found = {"page.html": "1", "audit/page.html": "2", "audit/table.csv": "1"}
    assert _read(tmp_path) == found
    assert not (tmp_path / "audit" / MANIFEST).exists()
    _store(tmp_path, page_html="3")
    assert _read(tmp_path) == {"page.html": "3"}
    with reading(tmp_path / "audit"):  # is no error where nothing is
        pass
