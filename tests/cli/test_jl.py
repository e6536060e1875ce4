"""`cosa-theory jl` as a stranger uses it, with good input and bad."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from cosa_theory.cli import main
from cosa_theory.projections import KINDS
from cosa_theory.studies.jl import compute
from cosa_theory.studies.jl.comparison import chi_square_dimension

QUICK = ("--draws", "3", "--count", "20")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two small checkpoints: a flat update, a rank-one update, and a matrix that did not move."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    base = {f"layers.{i}.weight": rng.standard_normal((24, 16)).astype("float32") for i in range(3)}
    tuned = dict(base)
    tuned["layers.0.weight"] = base["layers.0.weight"] + rng.standard_normal((24, 16), "float32")
    rank_one = np.outer(rng.standard_normal(24), rng.standard_normal(16)).astype("float32")
    tuned["layers.1.weight"] = base["layers.1.weight"] + rank_one
    save_file(base, folder / "base.safetensors")
    save_file(tuned, folder / "tuned.safetensors")
    return str(folder / "base.safetensors"), str(folder / "tuned.safetensors")


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    """The folder of one complete run."""
    out = tmp_path_factory.mktemp("made") / "out"
    options = ("--core", "6", "4", "--eps", "0.6", "--out", str(out), *QUICK)
    assert main(["jl", "--pair", *pair, *options]) == 0
    return out


def document(capsys, *arguments):
    """The one JSON document on standard output."""
    assert main(["jl", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def errors(capsys, *arguments):
    """The lines on standard error of a command that must fail; standard output must be empty."""
    assert main(["jl", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return lines


def test_points_alone_print_their_dimension_and_nothing_else(capsys):
    assert main(["jl", "--points", "10000", "--eps", "0.1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        "10,000 points keep all squared distances within 10 % in 7,895 dimensions"
    )
    assert len(printed.out.splitlines()) == 1


def test_json_holds_verdict_tables_and_provenance(capsys):
    found = document(capsys, "--points", "100", "--eps", "0.5")
    assert found["dimension"] == [{"points": 100, "eps": 0.5, "k": 222}]
    assert found["provenance"]["arguments"]["points"] == 100
    assert "needed" not in found


def test_synthetic_vectors_compare_all_ensembles_on_two_extremes(capsys):
    found = document(capsys, "--dim", "60", "--eps", "0.5", "--points", "50", *QUICK)
    rows = {(row["vectors_of"], row["kind"]): row for row in found["ensembles"]}
    assert set(rows) == {(name, kind) for name in ("Gaussian vectors", "spikes") for kind in KINDS}
    assert rows["spikes", "gaussian"]["k"] == chi_square_dimension(0.5)
    assert rows["spikes", "rademacher"]["max"] < 1e-12
    assert rows["spikes", "very_sparse"]["max"] > 0.5
    needed = {(row["vectors_of"], row["kind"]): row["k"] for row in found["needed"]}
    assert needed["spikes", "sjlt"] == 1
    assert found["verdict"].startswith(
        "The lemma promises 50 points of length 60 no shorter projection within 50 %: it asks for "
        "188 dimensions."
    )
    assert "The cheapest ensemble that keeps 95 % of the squared norms" in found["verdict"]


def test_the_cheapest_of_the_verdict_meets_the_target_on_every_set(capsys):
    found = document(capsys, "--dim", "200", "--eps", "0.5", *QUICK)
    table = pd.DataFrame(found["needed"])
    table = table[table["k"].notna()]
    whole = [
        max(group.to_dict("records"), key=lambda row: (row["k"], row["seconds"]))
        for _, group in table.groupby("kind")
        if len(group) == 2 and group["k"].max() < 200
    ]
    best = min(whole, key=lambda row: row["seconds"])
    assert f"{best['k']:.0f} rows" in found["verdict"]
    assert best["kind"] != "very_sparse"


def test_k_chooses_the_rows_and_says_which_ensembles_cannot_have_them(capsys):
    found = document(capsys, "--dim", "20", "--k", "40", "--eps", "0.5", *QUICK)
    assert {row["k"] for row in found["ensembles"]} == {40}
    assert {row["kind"] for row in found["ensembles"]} == set(KINDS) - {"haar", "srht"}
    assert any("haar, srht cannot have 40 rows where d = 20" in text for text in found["notices"])


def test_where_nothing_is_saved_the_verdict_says_so(capsys):
    found = document(capsys, "--dim", "10", "--eps", "0.01", *QUICK)
    assert found["verdict"].startswith("No ensemble keeps 95 % of the squared norms")


def test_vectors_are_read_from_npy_and_safetensors(tmp_path, capsys):
    rows = np.random.default_rng(0).standard_normal((30, 40))
    np.save(tmp_path / "rows.npy", rows)
    save_file({"x": rows, "y": rows[:, :7].copy()}, tmp_path / "rows.safetensors")
    for spec, width in (("rows.npy", 40), ("rows.safetensors:y", 7)):
        found = document(capsys, "--vectors", str(tmp_path / spec), "--eps", "0.7", *QUICK)
        assert {row["d"] for row in found["ensembles"]} == {width}
        assert {row["vectors"] for row in found["ensembles"]} == {20}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npy", "there is no such file"),
        ("text.npy", "cannot be read as an array of numbers"),
        ("text.safetensors", "not a safetensors file"),
        ("text.csv", "is neither .npy nor .safetensors"),
        ("two.safetensors", "has 2 tensors: name one as"),
        ("two.safetensors:z", "has no tensor 'z': name one as"),
        ("nan.npy", "nan.npy has a NaN or infinite entry, first at (0, 1)"),
        ("zero.npy", "every row is zero"),
        ("cube.npy", "cube.npy has shape (3, 4, 5)"),
    ],
)
def test_a_file_without_usable_vectors_is_one_plain_error(tmp_path, capsys, name, message):
    for text in ("text.npy", "text.safetensors", "text.csv"):
        (tmp_path / text).write_text("no numbers")
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(tmp_path / "zero.npy", np.zeros((3, 4)))
    np.save(tmp_path / "cube.npy", np.ones((3, 4, 5)))
    save_file({"x": np.ones((2, 2)), "y": np.ones((2, 2))}, tmp_path / "two.safetensors")
    (line,) = errors(capsys, "--vectors", str(tmp_path / name))
    assert message in line


def test_all_problems_of_the_options_are_listed_at_once(capsys):
    lines = errors(capsys, "--eps", "1.5", "--core", "3", "0", "--kind", "round")
    assert len(lines) == 5
    assert lines[0].startswith("error: --eps is 1.5")
    assert "exclude each other" in errors(capsys, "--dim", "3", "--vectors", "x.npy")[0]
    assert "raise it" in errors(capsys, "--points", "4", "--eps", "1e-12")[0]
    assert "--dim" in errors(capsys, "--dim", "0")[0]


def test_equal_models_are_an_error(pair, capsys):
    (line,) = errors(capsys, "--pair", pair[0], pair[0])
    assert line.startswith("error: --pair: the matrices that were read do not differ")


def test_updates_with_rows_of_another_length_are_left_out_by_name(pair, tmp_path, capsys):
    files = []
    for number, file in enumerate(pair):
        wide = np.full((2, 20), float(number), "float32")
        save_file({**load_file(file), "wide.weight": wide}, tmp_path / f"{number}.safetensors")
        files.append(str(tmp_path / f"{number}.safetensors"))
    found = document(capsys, "--pair", *files, "--eps", "0.7", *QUICK)
    assert {row["d"] for row in found["ensembles"]} == {16}
    told = "1 update is of rows that are not 16 long and left out: wide.weight."
    assert told in found["notices"]


def test_a_matrix_with_nan_is_named_and_can_be_skipped(pair, tmp_path, capsys):
    tensors = load_file(pair[1])
    name = sorted(tensors)[0]
    tensors[name][0, 0] = np.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    files = ("--pair", pair[0], str(tmp_path / "nan.safetensors"))
    (line,) = errors(capsys, *files)
    assert line.startswith(f"error: {name}: 1 NaN, first at [0, 0]")
    assert line.endswith("or pass --on-nonfinite skip.")
    found = document(capsys, *files, "--on-nonfinite", "skip", "--eps", "0.7", *QUICK)
    assert any("skipped" in notice for notice in found["notices"])


def test_options_that_would_do_nothing_are_refused(capsys):
    assert "--include needs --pair" in errors(capsys, "--dim", "9", "--include", "q_proj")[0]
    several = ("--on-shape", "skip", "--flatten")
    assert "--on-shape and --flatten need --pair" in errors(capsys, "--dim", "9", *several)[0]
    assert "--k needs --dim" in errors(capsys, "--points", "9", "--k", "3")[0]
    assert "--kind needs --core" in errors(capsys, "--dim", "9", "--kind", "haar")[0]


def test_one_point_and_one_row_are_told_in_the_singular(tmp_path, capsys):
    assert document(capsys, "--points", "1")["verdict"] == (
        "A single point has no distances to keep and needs no dimension."
    )
    np.save(tmp_path / "spikes.npy", np.eye(4, 6))  # whose norms signs alone keep, in one row
    found = document(capsys, "--vectors", str(tmp_path / "spikes.npy"), "--eps", "0.5", *QUICK)
    assert "1 row," in found["verdict"]


def test_out_holds_tables_summary_figures_and_page(made):
    names = {path.name for path in made.iterdir()}
    tables = {f"{name}.parquet" for name in ("ensembles", "needed", "curves", "kronecker")}
    assert tables | {"jl.json", "report.html", "figures"} <= names
    figures = {path.name for path in (made / "figures").iterdir()}
    endings = ("pdf", "png")
    assert figures == {f"{name}.{end}" for name in ("failures", "kronecker") for end in endings}
    page = (made / "report.html").read_text()
    assert "Kronecker variance law, Gaussian factors" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_kronecker_table_tells_a_flat_update_from_a_rank_one_update(made):
    table = pd.read_parquet(made / "kronecker.parquet").set_index("layer")
    assert list(table.index) == ["layers.0.weight", "layers.1.weight"]  # the third did not move
    rank_one = table.loc["layers.1.weight"]
    assert rank_one["participation_ratio"] == pytest.approx(1.0, rel=1e-4)
    assert rank_one["law"] == pytest.approx(2 / 24 * 12, rel=1e-4)  # 1 + (6 + 4 + 1)/1 times
    assert table.loc["layers.0.weight", "law"] < rank_one["law"] / 4
    assert (table["draws"] == 200).all()
    verdict = json.loads((made / "jl.json").read_text())["verdict"]
    assert "the participation ratio exceeds a + b + 1 = 11 in 0 of 2 matrices" in verdict


def test_updates_that_are_zero_are_counted_in_one_notice(made):
    notices = json.loads((made / "jl.json").read_text())["notices"]
    assert "1 update is zero and left out: layers.2.weight." in notices


def test_the_same_command_gives_the_same_numbers(made, pair, capsys):
    found = document(capsys, "--pair", *pair, "--core", "6", "4", "--eps", "0.6", *QUICK)
    stored = pd.read_parquet(made / "kronecker.parquet")
    assert [row["variance"] for row in found["kronecker"]] == list(stored["variance"])


def test_a_core_that_is_cut_to_the_matrices_is_said(made, pair, capsys):
    notices = json.loads((made / "jl.json").read_text())["notices"]
    assert not any("does not fit" in text for text in notices)
    main(["jl", "--pair", *map(str, pair), "--core", "9999", "4", "--eps", "0.6", *QUICK])
    assert "note: A core of 9999 × 4 does not fit" in capsys.readouterr().err


def test_an_interruption_is_one_plain_line(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(compute, "jl_ensembles", interrupted)
    assert main(["jl", "--dim", "20"]) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("interrupted: nothing is kept")


def test_help_shows_examples(capsys):
    assert main(["jl", "--help"]) == 0
    assert "cosa-theory jl --points 10000 --eps 0.1" in " ".join(capsys.readouterr().out.split())
