"""The benchmark of small inputs runs the command, in one checkout or in two."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from experiments import bench_startup

HERE = Path(bench_startup.__file__).parents[1]


def test_the_pair_is_three_matrices_of_64_columns_that_differ(tmp_path):
    base, tuned = map(load_file, bench_startup.small_pair(tmp_path))
    assert [matrix.shape[1] for matrix in base.values()] == [64] * 3
    assert all((base[name] != tuned[name]).all() for name in base)


def test_both_checkouts_are_measured_in_turn_and_compared(monkeypatch):
    ran = []

    def cpu_seconds(words, checkout):
        ran.append((words[0], checkout))
        return 2.0 if checkout == HERE else 5.0

    monkeypatch.chdir(HERE)
    monkeypatch.setattr(bench_startup, "_cpu_seconds", cpu_seconds)
    table = bench_startup.run(bench_startup.Config(rounds=2, against="/"))
    assert ran == 2 * [
        (word, where) for where in (HERE, Path("/")) for word in ("--help", "spectrum", "spectrum")
    ]
    assert (table["ratio"] == 2 / 5).all()
    assert table["command"].iloc[0] == "cosa-theory --help"


def test_imports_are_told_by_package():
    imports = bench_startup.import_times(["--help"], HERE)
    assert "numpy" in set(imports["package"])
    assert imports["share"].is_monotonic_decreasing
    assert 0 < imports["share"].sum() < 1


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(RuntimeError, match="exit code 2"):
        bench_startup._cpu_seconds(["spectrum", "/nowhere", "/nowhere"], HERE)
