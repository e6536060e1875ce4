"""What the commands of experiments share: options, settings, errors, the stored table."""

import dataclasses
import json
from functools import partial

import pandas as pd
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.sweep import run_cells
from experiments.command import (
    check_table,
    chosen_config,
    command_parser,
    read_config,
    run_command,
    sweep_command,
    sweep_parser,
    sweep_settings,
    write_table,
)
from tests.ground.cells import cells, compute


@dataclasses.dataclass(frozen=True)
class Settings:
    sizes: tuple[tuple[int, int], ...] = ((4, 4),)
    trials: int = 3
    seed: int = 0

    def __post_init__(self):
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}: it must be at least 1")


def test_settings_come_from_preset_file_and_command_line_in_that_order(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("sizes = [[2, 3], [4, 5]]\nseed = 4\n")
    assert read_config(Settings(), None) == Settings()
    expected = Settings(((2, 3), (4, 5)), 3, 4)
    assert read_config(Settings(), path, seed=None) == expected
    assert read_config(Settings(), path, seed=7).seed == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trails = 3", "no field 'trails', only sizes"),
        ("trials = 0", "trials is 0"),
        ("trials = 'x'", "trials is 'x': it must be a whole number"),
        ("trials = 1.5", "trials is 1.5: it must be a whole number"),
        ("trials = true", "trials is True"),
        (f"trials = {10**20}", f"trials is {10**20}: it must be a whole number, at most"),
        ("sizes = [[1, 2], [1]]", "sizes is .* an item must be an array of 2"),
        ("sizes = [[1, 2], [1, inf]]", "sizes is .* an item must be a whole number"),
        (f"trials = {'1' * 5000}", "configuration .*a.toml"),
        (f"trials = {'[' * 3000}", "configuration .*a.toml: nested too deep"),
        ("sizes = 3", "sizes is 3: it must be an array"),
        ("=", "TOML"),
    ],
)
def test_a_broken_file_of_settings_is_named(content, words, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=words if words != "TOML" else "configuration .*a.toml"):
        read_config(Settings(), path)
    with pytest.raises(InputError, match=r"b\.toml: there is no such file"):
        read_config(Settings(), tmp_path / "b.toml")


def test_the_options_of_a_command_are_those_of_a_sweep(tmp_path, capsys):
    parser = sweep_parser("cells", "Draws.", {"quick": Settings(), "full": Settings()})
    chosen = parser.parse_args(["--jobs", "2", "--out", str(tmp_path), "--timeout", "60"])
    settings = sweep_settings(chosen)
    table = run_cells(compute, cells(2), name="cells", version=1, progress=False, **settings)
    assert len(table) == 4
    assert len(list((tmp_path / "cells").iterdir())) == 2
    for bad in (["--jobs", "0"], ["--timeout", "0"], ["--timeout", "nan"]):
        assert run_command(lambda bad=bad: sweep_settings(parser.parse_args(bad))) == 2
        assert capsys.readouterr().err.startswith(f"error: {bad[0]} is {bad[1]}")


def test_results_do_not_go_where_a_file_is(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run_command(lambda out=out: check_table(out, "cells")) == 2
        line = f"error: {out}: a file is in the way: name a folder (--out)\n"
        assert capsys.readouterr().err == line


def test_a_table_of_somebody_else_and_an_input_in_the_folder_are_named(tmp_path):
    check_table(tmp_path, "cells")
    with pytest.raises(InputError, match="inside"):
        check_table(tmp_path, "cells", inputs=[str(tmp_path / ".")])
    (tmp_path / "cells.parquet").write_text("mine")
    for attempt in (check_table, partial(write_table, pd.DataFrame(), arguments={}, verdict="")):
        with pytest.raises(InputError, match=r"cells\.parquet"):
            attempt(out=tmp_path, name="cells")
    assert (tmp_path / "cells.parquet").read_text() == "mine"


def test_where_no_cell_was_finished_the_verdict_says_so(tmp_path, capsys):
    late = pd.DataFrame([{"cell": "0", "status": "timed out"}])
    arguments = ["--out", str(tmp_path), "--timeout", "2"]
    presets = {"quick": Settings()}
    code = sweep_command("cells", "Draws.", presets, lambda *_, **__: late, no_verdict, arguments)
    assert code == 0
    assert capsys.readouterr().out.startswith("No cell was finished within 2 s: raise --timeout.")


def test_settings_that_name_nothing_to_compute_are_refused(tmp_path, capsys):
    def run(config, **settings):
        return run_cells(compute, [], name="cells", version=1, progress=False, **settings)

    presets = {"quick": Settings()}
    assert sweep_command("cells", "Draws.", presets, run, no_verdict, ["--out", str(tmp_path)]) == 2
    assert "nothing to compute" in capsys.readouterr().err
    assert not (tmp_path / "cells.json").exists()


def no_verdict(table, config):
    raise KeyError("share")


def test_failed_cells_are_lines_and_exit_code_1(tmp_path, capsys):
    todo, settings = cells(2, act="raise"), {"name": "cells", "version": 1, "jobs": 1}
    assert run_command(lambda: run_cells(compute, todo, folder=tmp_path, **settings)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: 1 of 2 cells failed; the others are finished and kept"
    assert lines[1].startswith("error: Cell(number=1,")


def test_a_stored_table_says_what_it_shows_and_where_it_comes_from(tmp_path):
    table = pd.DataFrame({"number": [1, 2], "draw": [0.25, 0.125]})
    write_table(table, tmp_path, "cells", arguments={"count": 6}, verdict="Six cells.", seed=0)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cells.parquet"), table)
    document = json.loads((tmp_path / "cells.json").read_text())
    assert document["verdict"] == "Six cells."
    assert document["provenance"]["arguments"] == {"count": 6}


def test_fields_of_settings_become_options(capsys):
    parser = command_parser("experiments.x", "Draws.", config=Settings(), fields=("trials", "seed"))
    assert chosen_config(Settings(), parser.parse_args(["--trials", "5"])) == Settings(trials=5)
    bad = parser.parse_args(["--trials", "0"])
    assert run_command(lambda: chosen_config(Settings(), bad)) == 2
    assert capsys.readouterr().err == "error: trials is 0: it must be at least 1\n"
