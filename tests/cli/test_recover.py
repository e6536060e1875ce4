"""`cosa-theory recover` as a stranger uses it, with good input and bad."""

import io
import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cosa_theory import CosaBasis
from cosa_theory.cli import main
from cosa_theory.ground.cells import read_array_cell
from cosa_theory.projections import draw_fingerprint, fingerprint, stream
from cosa_theory.recovery import METHODS, RecoveryProblem, recover
from cosa_theory.studies.recovery import iterates
from cosa_theory.studies.recovery.tables import recovery_limits

M, N, A, B, S = 40, 32, 26, 22, 12
SHAPE = ("--shape", str(M), str(N))
KEY = ("--key", "q_proj")


def sparse_update(nonzeros=S, seed=0):
    draw = stream(seed, "recover command")
    update = np.zeros(M * N)
    update[draw.choice(M * N, nonzeros, replace=False)] = draw.standard_normal(nonzeros)
    return update.reshape(M, N)


@pytest.fixture(scope="module")
def layer():
    return CosaBasis.sample(M, N, A, B, key="q_proj", seed=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory, layer):
    """A folder with what a user has: a core, its projections, the update for scoring."""
    folder = tmp_path_factory.mktemp("files")
    update = sparse_update()
    marks = {
        f"fingerprint_{name}": draw_fingerprint(
            "gaussian", k, d, seed=3, scale="synthesis", key=("q_proj", name)
        )
        for name, k, d in (("L", A, M), ("R", B, N))
    }
    save_file({"core": layer.encode(update)}, folder / "core.safetensors", metadata=marks)
    np.save(folder / "core.npy", layer.encode(update))
    np.save(folder / "best.npy", layer.best_core(update))
    np.save(folder / "delta.npy", update)
    np.save(folder / "weight.npy", stream(1, "weight").standard_normal((M, N)))
    save_file({"L": layer.L.copy(), "R": layer.R}, folder / "projections.safetensors")
    return folder


def drawn(files, *more, core="core.safetensors"):
    return ["recover", str(files / core), *SHAPE, *KEY, "--seed", "3", *more]


@pytest.fixture
def without_pages(monkeypatch):
    """Leave out page and figures, which take most of the time of a small run."""
    monkeypatch.setattr("cosa_theory.studies.shown.write_document_page", lambda _, folder: folder)


def document(capsys, arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def errors(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    """The folder of one complete run, of a method that looks at its certificate at every step."""
    out = tmp_path_factory.mktemp("made") / "out"
    options = ("--method", "fista", "--truth", str(files / "delta.npy"), "--out", str(out))
    assert main(drawn(files, *options)) == 0
    return out


def test_the_first_line_is_the_verdict_with_certificate_residual_and_error(files, capsys):
    assert main(drawn(files, "--truth", str(files / "delta.npy"))) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    found = "basis_pursuit found an update that fits the core to a relative residual of"
    assert lines[0].startswith(found)
    assert f"with {S} of 1,280 entries nonzero. It minimised ‖x‖₁ subject to Φx = y" in lines[0]
    assert "to a duality gap of " in lines[0]
    assert "tolerance 1.0e-8" in lines[0]
    assert "Beyond 11 nonzero entries some updates share their core" in lines[0]
    assert "debiased), 100 % of ‖ΔW‖² comes back; least norm has 0." in lines[0]
    for title in ("Against the truth", "The answer", "How sparse an update must be"):
        assert any(line.startswith(title) for line in lines)
    assert "note:" not in printed.err
    named = ["recover", f"{files / 'core.safetensors'}:core", *SHAPE, *KEY, "--seed", "3"]
    assert main([*named, "--method", "least_norm"]) == 0
    assert capsys.readouterr().err == ""  # its metadata are found under the name of a tensor too


def test_json_is_one_document_alone_on_standard_output(files, capsys):
    found = document(capsys, drawn(files, "--method", "basis_pursuit"))
    (row,) = found["result"]
    assert found["command"] == "recover"
    assert (row["status"], row["holds"], row["certificate"]) == ("optimal", True, "duality gap")
    assert (row["m"], row["n"], row["a"], row["b"]) == (M, N, A, B)
    assert row["nonzeros"] == S
    assert row["limit_every"] == 11
    assert row["relative"] <= row["tolerance"]
    assert "scores" not in found
    assert found["provenance"]["seed"] == 3
    assert found["provenance"]["arguments"]["key"] == "q_proj"


def test_out_holds_the_estimate_tables_figures_and_page_and_report_renders_them_again(made, capsys):
    tables = {"result", "history", "spectrum", "magnitudes", "scores"}
    assert {path.name for path in made.iterdir()} == {
        *(f"{name}.parquet" for name in tables),
        *("recover.json", "report.html", "figures", "estimate.safetensors", ".cosa-theory.json"),
    }
    names = {path.name for path in (made / "figures").iterdir()}
    assert names == {f"{n}.{e}" for n in ("convergence", "estimate") for e in ("pdf", "png")}
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == 2
    assert main(["report", str(made)]) == 0
    assert capsys.readouterr().out.startswith("fista found an update")
    assert (made / "report.html").read_text(encoding="utf-8") == page


def test_the_stored_estimate_is_the_update_with_its_core_and_where_it_comes_from(made, layer):
    tensors = load_file(made / "estimate.safetensors")
    update = sparse_update()
    assert set(tensors) == {"delta", "core", "debiased"}
    assert np.linalg.norm(tensors["delta"] - update) < 1e-4 * np.linalg.norm(update)
    assert np.allclose(tensors["debiased"], update, atol=1e-12)
    assert np.allclose(tensors["core"], layer.best_core(tensors["delta"]), atol=1e-10)
    with safe_open(made / "estimate.safetensors", framework="numpy") as file:
        about = file.metadata()
    drawn_with = {"seed": 3, "scale": "synthesis", "key": ("q_proj", "L")}
    assert about["fingerprint_L"] == draw_fingerprint("gaussian", A, M, **drawn_with)
    assert about["method"] == "fista"
    assert about["status"] == "optimal"
    assert (about["kind"], about["scale"]) == ("gaussian", "synthesis")
    assert (about["seed"], about["key"]) == ("3", "q_proj")
    assert about["certificate"].startswith("duality gap ")
    assert about["objective"].startswith("½‖Φx − y‖² + λ‖x‖₁")


def test_the_stored_estimate_scores_and_starts_another_run(files, made, capsys):
    estimate = f"{made / 'estimate.safetensors'}:debiased"
    cold = document(capsys, drawn(files))
    warm = document(capsys, drawn(files, "--start", estimate, "--truth", estimate))
    assert warm["result"][0]["iterations"] < cold["result"][0]["iterations"]
    assert warm["scores"][0]["relative_error"] < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_and_says_how_good_it_is(method, layer, tmp_path, capsys):
    small = CosaBasis.sample(12, 10, 9, 8, seed=1)
    update = np.zeros((12, 10))
    update[3, 4], update[7, 1] = 1.0, -2.0
    np.save(tmp_path / "core.npy", small.encode(update))
    np.save(tmp_path / "delta.npy", update)
    arguments = ["recover", str(tmp_path / "core.npy"), "--shape", "12", "10", "--seed", "1"]
    more = ("--method", method, "--truth", str(tmp_path / "delta.npy"))
    found = document(capsys, [*arguments, *more])
    (row,) = found["result"]
    assert row["method"] == method
    assert row["status"] in ("optimal", "fitted", "iteration limit", "stalled", "diverged")
    assert found["verdict"].startswith(method)
    assert ("found an update" in found["verdict"]) == (row["status"] in ("optimal", "fitted"))
    if row["sparse"] and row["status"] in ("optimal", "fitted"):
        assert found["scores"][0]["relative_error"] < 1e-3


def test_the_help_names_every_method(capsys):
    assert main(["recover", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "cosa-theory recover core.safetensors:core --shape 4096 4096 --seed 0" in text
    listed = text.partition("The solver: ")[2].partition(".")[0]
    assert set(METHODS) <= set(listed.replace(" or ", ", ").split(", "))


def test_a_best_core_says_the_same_as_the_measurements(files, capsys):
    measured = document(capsys, drawn(files, "--method", "basis_pursuit"))
    best = document(
        capsys,
        drawn(files, "--method", "basis_pursuit", "--core-is", "best", core="best.npy"),
    )
    assert best["result"][0]["nonzeros"] == S
    norms = [found["result"][0]["core_norm"] for found in (measured, best)]
    assert norms[0] == pytest.approx(norms[1])


def test_projections_may_be_read_and_the_unchecked_is_told(files, capsys):
    read = ("--projections", str(files / "projections.safetensors"))
    found = document(capsys, ["recover", str(files / "core.npy"), *read])
    assert found["result"][0]["nonzeros"] == S
    assert found["provenance"]["seed"] is None
    (notice,) = found["notices"]
    assert "core.npy does not name the fingerprints of its projections" in notice
    # The fingerprint of the draw is that of the transposed content, for a dense ensemble.
    found = document(capsys, ["recover", str(files / "core.safetensors"), *read])
    assert found["notices"] == []


@pytest.mark.parametrize("kind", ["haar", "srht", "sjlt", "very_sparse"])
def test_a_core_may_name_its_projections_by_content_or_by_draw(kind, tmp_path, capsys):
    basis = CosaBasis.sample(M, N, A, B, kind=kind, scale="analysis", seed=5)
    settings = {"scale": "analysis", "seed": 5}
    marks = {
        "fingerprint_L": fingerprint(basis.L),
        "fingerprint_R": draw_fingerprint(kind, B, N, key=("R",), **settings),
    }
    save_file({"c": basis.encode(sparse_update())}, tmp_path / "c.safetensors", metadata=marks)
    given = ("--kind", kind, "--scale", "analysis", "--seed", "5")
    found = document(capsys, ["recover", str(tmp_path / "c.safetensors"), *SHAPE, *given])
    assert found["result"][0]["status"] == "optimal"
    assert found["notices"] == []


def test_an_update_that_is_sparse_in_another_basis_is_found_there(layer, files, tmp_path, capsys):
    from cosa_theory.linear.transforms import DCT, SingularBasis, Wavelet

    weight = np.load(files / "weight.npy")
    bases = {"dct": DCT(), "wavelet": Wavelet(), "singular": SingularBasis(weight)}
    for name, transform in bases.items():
        update = transform.inverse(sparse_update())
        np.save(tmp_path / "core.npy", layer.encode(update))
        np.save(tmp_path / "delta.npy", update)
        more = ("--weight", str(files / "weight.npy")) if name == "singular" else ()
        truth = ("--truth", str(tmp_path / "delta.npy"))
        arguments = ["recover", str(tmp_path / "core.npy"), *SHAPE, *KEY, "--seed", "3"]
        found = document(capsys, [*arguments, "--basis", name, *more, *truth])
        assert found["scores"][0]["relative_error"] < 1e-4
        assert found["result"][0]["nonzeros"] == S
        assert "coefficients" in found["verdict"]


def test_noise_is_allowed_for_and_named(layer, tmp_path, capsys):
    noise = 1e-3 * stream(2, "noise").standard_normal((A, B))
    np.save(tmp_path / "core.npy", layer.encode(sparse_update()) + noise)
    level = f"{np.linalg.norm(noise):.6g}"
    arguments = ["recover", str(tmp_path / "core.npy"), *SHAPE, *KEY, "--seed", "3"]
    found = document(capsys, [*arguments, "--method", "bpdn", "--noise-level", level])
    (row,) = found["result"]
    assert row["noise_level"] == float(level)
    assert row["residual"] == pytest.approx(float(level) / row["core_norm"], rel=1e-3)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.usefixtures("without_pages")
def test_single_precision_and_torch_give_the_same_update(device, files, tmp_path, capsys):
    more = () if device is None else ("--device", device)
    out = tmp_path / "out"
    assert main(drawn(files, "--dtype", "float32", "--out", str(out), *more)) == 0
    tensors = load_file(out / "estimate.safetensors")
    update = sparse_update()
    assert tensors["delta"].dtype == np.float32
    assert np.linalg.norm(tensors["debiased"] - update) < 1e-4 * np.linalg.norm(update)


def test_an_answer_that_is_not_sparse_enough_is_not_taken_for_the_update(layer, tmp_path, capsys):
    np.save(tmp_path / "core.npy", layer.encode(stream(3, "dense").standard_normal((M, N))))
    arguments = ["recover", str(tmp_path / "core.npy"), *SHAPE, *KEY, "--seed", "3"]
    verdict = document(capsys, [*arguments, "--method", "basis_pursuit"])["verdict"]
    limit = math.floor(recovery_limits((M, N), (A, B))["random"])
    assert f"nonzero entries are more than the about {limit} up to which ℓ1 can be" in verdict
    assert "do not take it for the update that was measured" in verdict


def test_what_no_update_explains_is_an_error_with_nothing_written(tmp_path, capsys):
    basis = CosaBasis.sample(8, 6, 12, 4, seed=1)  # more rows than ΔW has
    np.save(tmp_path / "core.npy", stream(4, "no image").standard_normal((12, 4)))
    assert basis.sensing().range_shape == (12, 4)
    arguments = ["recover", str(tmp_path / "core.npy"), "--shape", "8", "6", "--seed", "1"]
    assert main([*arguments, "--method", "bpdn", "--out", str(tmp_path / "out")]) == 2
    line = errors(capsys)[-1]
    assert line.startswith("error: bpdn has no answer to give, infeasible: the measurements are ")
    assert not (tmp_path / "out").exists()


def test_a_core_that_no_update_has_is_noted(tmp_path, capsys):
    basis = CosaBasis.sample(8, 6, 12, 4, seed=1)  # more rows than ΔW has
    draw = stream(4, "no image")
    cores = {
        "some": basis.encode(draw.standard_normal((8, 6))),
        "none": draw.standard_normal((12, 4)),
    }
    for name, core in cores.items():
        np.save(tmp_path / "core.npy", core)
        arguments = ["recover", str(tmp_path / "core.npy"), "--shape", "8", "6", "--seed", "1"]
        notices = document(capsys, [*arguments, "--method", "least_norm"])["notices"]
        noted = [one for one in notices if one.startswith("no update of 8 × 6 has this core of 12")]
        assert len(noted) == (name == "none")


def test_an_answer_of_zero_is_said_to_be_one(files, capsys):
    verdict = document(capsys, drawn(files, "--lam-ratio", "1.5"))["verdict"]
    assert verdict.startswith("fista found nothing but the zero update. It minimised ")
    assert "take a smaller" in verdict
    assert "nonzero" not in verdict


def test_the_analysis_operator_is_chosen_by_name(layer, tmp_path, capsys):
    blocks = np.zeros((M, N))
    blocks[5:20, 4:17] = 1.0
    np.save(tmp_path / "core.npy", layer.encode(blocks))
    np.save(tmp_path / "delta.npy", blocks)
    command = ["recover", str(tmp_path / "core.npy"), *SHAPE, *KEY, "--seed", "3"]
    command += ["--method", "analysis", "--truth", str(tmp_path / "delta.npy")]
    found = document(capsys, [*command, "--omega", "differences"])
    assert found["scores"][0]["relative_error"] < 1e-4
    assert "Ω = differences" in found["result"][0]["formula"]
    assert main([*command, "--omega", "laplace"]) == 2
    assert "--omega is 'laplace': it must be one of differences, dct+identity" in errors(capsys)[-1]
    assert main([*command, "--basis", "dct"]) == 2
    assert (
        "--basis is 'dct': it must be left out, because analysis does not look for"
        in errors(capsys)[-1]
    )


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ([], "basis_pursuit"),
        (["--noise-level", "0.01"], "fista"),
        (["--lam", "0.1"], "fista"),
        (["--dtype", "float32"], "basis_pursuit"),
    ],
)
def test_the_default_method_follows_what_is_known_and_is_named(files, capsys, options, method):
    found = document(capsys, drawn(files, *options))
    assert found["result"][0]["method"] == method
    assert found["provenance"]["arguments"]["method"] == method


def test_a_run_that_ends_early_says_so_first(files, capsys):
    assert main(drawn(files, "--max-iterations", "1")) == 0
    verdict = capsys.readouterr().out.splitlines()[0]
    said = "basis_pursuit did not converge: after 1 iteration its duality gap is "
    assert verdict.startswith(said)
    assert "above the tolerance of 1.0e-8; raise --max-iterations. Its best iterate" in verdict


def test_a_sparsity_above_the_wall_is_a_note_with_the_number(files, capsys):
    assert main(drawn(files, "--method", "omp", "--sparsity", "12")) == 0
    printed = capsys.readouterr()
    assert "note: sparsity is 12: " in printed.err
    assert "at most 11 nonzero entries" in printed.err
    assert main(drawn(files, "--method", "omp", "--sparsity", "11")) == 0
    assert "nonzero entries" not in capsys.readouterr().err


BAD = {
    "no file": (["absent.npy", *SHAPE], "CORE is absent.npy: there is no such file"),
    "shape": ([], "--shape is missing: it must be the sizes M N of the update"),
    "zero shape": (["--shape", "0", "4"], "--shape is (0, 4): it must be two whole numbers"),
    "haar": ([*SHAPE[:1], "20", "20", "--kind", "haar"], "cannot be drawn: "),
    "kind": (
        [*SHAPE, "--kind", "gauss"],
        "--kind is 'gauss': it must be one of gaussian, rademacher",
    ),
    "empty kind": ([*SHAPE, "--kind", ""], "--kind is '': it must be one of gaussian"),
    "method": (
        [*SHAPE, "--method", "lasso"],
        "--method is 'lasso': it must be one of least_norm, ",
    ),
    "basis": ([*SHAPE, "--basis", "fourier"], "--basis is 'fourier': it must be one of coordinate"),
    "no weight": ([*SHAPE, "--basis", "singular"], "--weight is missing and the basis is singular"),
    "idle weight": ([*SHAPE, "--weight", "w.npy"], "--weight is given and the basis is coordinate"),
    "idle option": (
        [*SHAPE, "--method", "omp", "--lam", "0.1"],
        "--lam is 0.1: it must be left out, because omp takes --sparsity, --tol",
    ),
    "both penalties": (
        [*SHAPE, "--lam", "1", "--lam-ratio", "0.1"],
        "--lam is 1.0: it must be left out with --lam-ratio",
    ),
    "negative": ([*SHAPE, "--lam", "-1"], "--lam is -1"),
    "tolerance": ([*SHAPE, "--method", "fista", "--tolerance", "0"], "--tolerance is 0"),
    "noise": (
        [*SHAPE, "--noise-level", "1e6"],
        "--noise-level is 1000000.0: it must be below the norm",
    ),
    "noise sign": ([*SHAPE, "--noise-level", "-1"], "--noise-level is -1.0: it must be at least 0"),
    "sparsity": ([*SHAPE, "--method", "omp", "--sparsity", "0"], "--sparsity is 0"),
    "iterations": ([*SHAPE, "--max-iterations", "0"], "--max-iterations"),
    "device": ([*SHAPE, "--device", "tpu9"], "--device is 'tpu9', which torch cannot use here"),
    "host only": ([*SHAPE, "--method", "omp", "--device", "cpu"], "omp computes with numpy"),
    "two sources": (
        ["--projections", "p.safetensors", "--kind", "haar"],
        "--kind is 'haar': it must be left out with --projections",
    ),
    "no projections": (["--projections", "p.safetensors"], "p.safetensors: there is no such file"),
    "not safetensors": (["--projections", "p.npy"], "give a .safetensors file with the tensors L"),
    "reference": ([*SHAPE, "--method", "reference"], "1,280"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_plain_line_and_nothing_written(name, files, tmp_path, capsys):
    arguments, message = BAD[name]
    core = [] if name == "no file" else [str(files / "core.npy")]
    assert main(["recover", *core, *arguments, "--out", str(tmp_path / "out")]) == 2
    (line,) = (line for line in errors(capsys) if not line.startswith("note:"))
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


CORES = {
    "zero": (np.zeros((A, B)), "holds only zeros, which a zero update explains"),
    "vector": (np.ones(3), "has shape (3,): it must be a matrix"),
    "empty": (np.ones((0, 4)), "has shape (0, 4): it must be a matrix with entries"),
    "nan": (np.array([[1.0, np.nan]]), "has a NaN or infinite entry, first at (0, 1)"),
    "complex": (
        np.ones((A, B), complex),
        "complex128",
    ),
    "pickled": (np.array([{"a": 1}], dtype=object), "pickled objects, which are never loaded"),
}


@pytest.mark.parametrize("name", CORES)
def test_a_core_that_is_no_matrix_of_numbers_is_named(name, tmp_path, capsys):
    array, message = CORES[name]
    np.save(tmp_path / "core.npy", array, allow_pickle=True)
    arguments = ["recover", str(tmp_path / "core.npy"), *SHAPE, "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"error: {tmp_path / 'core.npy'}")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_matrices_of_another_size_are_named(files, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((3, 4)))
    x = str(tmp_path / "x.npy")
    for option, more in (
        ("--truth", ()),
        ("--start", ()),
        ("--weight", ("--basis", "singular")),
    ):
        assert main(drawn(files, option, x, *more)) == 2
        (line,) = errors(capsys)
        assert "x.npy has shape (3, 4): it must be 40 × 32" in line
    np.save(tmp_path / "x.npy", np.zeros((M, N)))
    assert main(drawn(files, "--truth", x)) == 2
    assert "holds only zeros: no error is relative to that" in errors(capsys)[0]


def test_projections_of_another_size_are_named_by_tensor(files, layer, tmp_path, capsys):
    core, path = str(files / "core.npy"), str(tmp_path / "p.safetensors")
    save_file({"L": np.ones((M, A + 1)), "R": np.ones((B + 2, N))}, path)
    assert main(["recover", core, "--projections", path]) == 2
    first, second = errors(capsys)
    assert f"p.safetensors: tensor 'L' has 27 columns, the core of {A} × {B} needs 26" in first
    assert f"p.safetensors: tensor 'R' has 24 rows, the core of {A} × {B} needs 22" in second
    save_file({"L": layer.L.copy()}, path)
    assert main(["recover", core, "--projections", path]) == 2
    assert "has no tensor 'R'" in errors(capsys)[0]
    save_file({"L": np.full((M, A), np.inf), "R": layer.R}, path)
    assert main(["recover", core, "--projections", path]) == 2
    assert "p.safetensors:L has a NaN or infinite entry, first at (0, 0)" in errors(capsys)[0]
    read = ("--projections", str(files / "projections.safetensors"))
    assert main(["recover", core, *read, "--shape", "3", "4"]) == 2
    assert "are for updates of 40 × 32, --shape is 3 4" in errors(capsys)[0]


def test_projections_with_another_fingerprint_are_refused_by_tensor(files, layer, tmp_path, capsys):
    out = ("--out", str(tmp_path / "out"))
    core = str(files / "core.safetensors")
    assert main(["recover", core, *SHAPE, *KEY, "--seed", "4", *out]) == 2
    lines = errors(capsys)
    assert len(lines) == 2
    for line, factor in zip(lines, "LR", strict=True):
        assert f"core.safetensors says it belongs to a projection {factor} with fing" in line
        assert f"{factor} of --kind gaussian --scale synthesis --seed 4 --key q_proj has " in line
        assert line.endswith("give the projections that measured the core")
    path = str(tmp_path / "p.safetensors")
    wrong = layer.R.copy()
    wrong[0, 0] = np.nextafter(wrong[0, 0], 1)
    save_file({"L": layer.L.copy(), "R": wrong}, path)
    assert main(["recover", core, "--projections", path, *out]) == 2
    (line,) = errors(capsys)
    assert "says it belongs to a projection R" in line
    marks = {"fingerprint_R": fingerprint(layer.R)}
    save_file({"L": layer.L.copy(), "R": wrong}, path, metadata=marks)
    assert main(["recover", str(files / "core.npy"), "--projections", path, *out]) == 2
    assert f"error: {path} says it belongs to a projection R" in errors(capsys)[0]
    assert not (tmp_path / "out").exists()


def test_the_settings_that_a_core_names_are_the_remedy(files, layer, tmp_path, capsys):
    marks = {"fingerprint_L": "0" * 32, "kind": "haar", "seed": "7"}
    save_file({"c": np.ones((A, B))}, tmp_path / "c.safetensors", metadata=marks)
    assert main(["recover", str(tmp_path / "c.safetensors"), *SHAPE]) == 2
    assert errors(capsys)[0].endswith("(its metadata name --kind haar --seed 7)")


def interrupt_after(checks, monkeypatch):
    """Have Ctrl-C come at the n-th check of the certificate."""
    original, seen = iterates.Iterates.monitor, []

    def monitor(self, iteration, certificate, coefficients):
        original(self, iteration, certificate, coefficients)
        seen.append(iteration)
        if len(seen) == checks:
            raise KeyboardInterrupt

    monkeypatch.setattr(iterates.Iterates, "monitor", monitor)


@pytest.mark.parametrize("method", ["fista", "basis_pursuit"])
@pytest.mark.usefixtures("without_pages")
def test_an_interrupted_run_resumes_with_fewer_iterations_left(
    method, layer, tmp_path, capsys, monkeypatch
):
    update = sparse_update(110)
    np.save(tmp_path / "core.npy", layer.encode(update))
    np.save(tmp_path / "delta.npy", update)
    command = ["recover", str(tmp_path / "core.npy"), *SHAPE, *KEY, "--seed", "3"]
    command += ["--method", method, "--truth", str(tmp_path / "delta.npy")]
    out = tmp_path / "out"
    whole = document(capsys, command)
    total = whole["result"][0]["iterations"]
    checks = len(whole["history"])
    with monkeypatch.context() as patch:
        interrupt_after(checks - 2, patch)
        assert main([*command, "--out", str(out)]) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    said = printed.err.splitlines()[-1]
    assert said.startswith(f"interrupted: the iterate is kept in {out / '.cells'}")
    assert said.endswith("the same command resumes")
    assert [path.name for path in out.iterdir()] == [".cells"]
    other = [*command, "--tolerance", "1e-7", "--out", str(out)]
    assert main(other) == 0  # other settings do not take it up
    assert "resumed" not in capsys.readouterr().err
    found = document(capsys, [*command, "--out", str(out)])
    (row,) = found["result"]
    assert 0 < row["resumed_from"] < total
    assert row["iterations"] < total
    assert row["status"] == "optimal"
    assert not (out / ".cells").exists()
    errors_of = [run["scores"][0]["relative_error"] for run in (whole, found)]
    assert errors_of[1] == pytest.approx(errors_of[0], abs=1e-4)


def test_an_interruption_without_out_or_monitor_keeps_nothing(files, capsys, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert main(drawn(files)) == 130
    assert errors(capsys)[-1] == (
        "interrupted: nothing is kept, the same command starts from the beginning"
    )

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cosa_theory.recovery.recover", interrupted)
    out = tmp_path / "out"
    assert main(drawn(files, "--method", "least_norm", "--out", str(out))) == 130
    assert errors(capsys)[-1].startswith("interrupted: nothing is kept")
    assert not out.exists()


@pytest.mark.usefixtures("without_pages")
def test_a_damaged_iterate_is_not_taken_up(files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert main(drawn(files, "--out", str(out))) == 130
    (cell,) = (out / ".cells").iterdir()
    cell.write_bytes(b"damaged")
    capsys.readouterr()
    assert main(drawn(files, "--out", str(out))) == 0
    assert "resumed" not in capsys.readouterr().err


def test_the_iterate_of_a_long_run_is_written_from_time_to_time(tmp_path, monkeypatch):
    path = tmp_path / "cells" / "one.iterate"
    kept = iterates.Iterates(path, lambda X: X)
    kept.monitor(1, 0.5, np.ones((2, 3)))
    assert not path.exists()  # a short run writes nothing
    monkeypatch.setattr(iterates, "_EVERY", 0.0)
    kept.monitor(7, 0.25, np.full((2, 3), 2.0))
    again = iterates.Iterates(path, lambda X: X)
    assert np.array_equal(again.start(), np.full((2, 3), 2.0))
    assert again.begun == 7
    again.monitor(3, 0.125, np.full((2, 3), np.nan))  # not a point to start from
    assert np.array_equal(read_array_cell(path)[1], np.full((2, 3), 2.0))
    again.monitor(4, 0.125, np.full((2, 3), 3.0))
    assert read_array_cell(path)[0] == {"iteration": 11}
    again.discard()
    assert not path.parent.exists()


def test_a_terminal_shows_iteration_and_certificate(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")  # on a dumb terminal nothing can be redrawn
    monkeypatch.setattr("sys.stderr", terminal)
    watched = iterates.Iterates(None, lambda X: X)
    watched.begun = 1000
    with watched.shown("fista"):
        watched.monitor(234, 0.00124, np.ones((2, 3)))
        time.sleep(0.2)  # the bar is drawn ten times a second
    shown = terminal.getvalue()
    assert "fista" in shown
    assert "1234" in shown
    assert "certificate 1.2e-03" in shown


def test_an_error_leaves_the_earlier_results_as_they_are(files, made, tmp_path, capsys):
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for bad in (("--lam", "-1"), ("--noise-level", "1e6"), ("--method", "omp", "--sparsity", "0")):
        assert main(drawn(files, *bad, "--out", str(made))) == 2
    after = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.usefixtures("without_pages")
def test_a_disk_that_is_full_leaves_the_earlier_estimate_whole(
    files, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    assert main(drawn(files, "--method", "least_norm", "--out", str(out))) == 0
    before = (out / "estimate.safetensors").read_bytes()
    capsys.readouterr()

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cosa_theory.studies.recovery.compute.write_arrays", full)
    assert main(drawn(files, "--out", str(out))) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("basis_pursuit found")  # the result is printed all the same
    assert "error: No space left on device" in printed.err
    assert (out / "estimate.safetensors").read_bytes() == before
    assert not list(out.glob(".estimate*"))


@pytest.mark.usefixtures("without_pages")
def test_results_of_another_command_take_the_place_of_the_estimate_too(files, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(drawn(files, "--method", "least_norm", "--out", out)) == 0
    assert (tmp_path / "out" / "estimate.safetensors").exists()
    assert main(["jl", "--points", "10", "--out", out]) == 0
    assert not (tmp_path / "out" / "estimate.safetensors").exists()
    (tmp_path / "out" / "estimate.safetensors").write_text("of somebody else")
    assert main(["jl", "--points", "10", "--out", out]) == 0
    assert (tmp_path / "out" / "estimate.safetensors").exists()


def test_the_truth_changes_the_scores_alone(files, tmp_path, capsys):
    plain = document(capsys, drawn(files))
    np.save(tmp_path / "other.npy", stream(9, "other").standard_normal((M, N)))
    scored = document(capsys, drawn(files, "--truth", str(tmp_path / "other.npy")))
    assert scored["scores"][0]["relative_error"] > 0.5
    drop = {"seconds"}
    (one,), (two,) = (
        [{k: v for k, v in row.items() if k not in drop} for row in found["result"]]
        for found in (plain, scored)
    )
    assert one == two


def test_the_limits_are_those_of_the_two_factors():
    from cosa_theory.laws.recovery import l1_weak_threshold

    limits = recovery_limits((128, 100), (64, 30))
    assert limits["every"] == 15
    assert limits["random"] == pytest.approx(64 * 30 * l1_weak_threshold(64 * 30 / 12800))
    assert limits["column"] == pytest.approx(64 * l1_weak_threshold(0.5))
    assert limits["row"] == pytest.approx(30 * l1_weak_threshold(0.3))
    assert set(recovery_limits((4, 4), (5, 4)).values()) == {np.inf}
    one_sided = recovery_limits((4, 10), (6, 5))
    assert (one_sided["every"], one_sided["column"]) == (2, np.inf)
    assert one_sided["random"] == pytest.approx(4 * 5 * l1_weak_threshold(0.5))


def test_a_stored_history_ends_with_the_certificate(made):
    history = pd.read_parquet(made / "history.parquet")
    result = pd.read_parquet(made / "result.parquet").iloc[0]
    assert history["iteration"].iloc[-1] == result["iterations"]
    assert history["certificate"].iloc[-1] == result["relative"]


def test_a_folder_in_place_of_a_file_is_called_a_folder(tmp_path, capsys):
    assert main(["recover", str(tmp_path), *SHAPE]) == 2
    assert errors(capsys)[-1].endswith("that is a folder, name a file in it.")


def test_a_prior_takes_the_moments_of_its_layer(files, tmp_path, capsys, layer, without_pages):
    from cosa_theory.nn.moments import Moments, write_moments
    from cosa_theory.projections import SecondMoments

    inputs = {
        name: SecondMoments(np.diag(scale ** np.arange(N)).astype(np.float32), count=99)
        for name, scale in (("q_proj.weight", 0.8), ("k_proj.weight", 0.5))
    }
    write_moments(Moments(inputs), tmp_path / "moments.safetensors")
    path, out = str(tmp_path / "moments.safetensors"), tmp_path / "out"
    arguments = drawn(files, "--method", "prior", "--moments", path, "--out", str(out))
    found = document(capsys, arguments)
    assert found["verdict"].startswith("prior found an update that fits the core")
    assert "no law is known" in found["verdict"]
    problem = RecoveryProblem(layer.sensing(), layer.encode(sparse_update()))
    expected = recover(problem, "prior", moments=inputs["q_proj.weight"]).estimate
    np.testing.assert_allclose(load_file(out / "estimate.safetensors")["delta"], expected)
    assert main(drawn(files, "--method", "prior", "--moments", f"{path}:v_proj")) == 2
    (message,) = errors(capsys)
    assert "v_proj" in message
    assert "k_proj.weight" in message
    assert main(drawn(files, "--method", "omp", "--moments", path)) == 2
    assert "moments" in errors(capsys)[0]
