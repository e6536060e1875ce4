"""What the README tells a newcomer to type works as written."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_commands_are_make_report_and_make_test():
    first = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert first == ["make report", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"report", "test"} <= set(targets)


def test_the_python_example_runs_as_written(tmp_path):
    rng = np.random.default_rng(0)
    base = {"q.weight": rng.standard_normal((48, 32)).astype(np.float32)}
    save_file(base, tmp_path / "base.safetensors")
    tuned = {name: value + rng.standard_normal(value.shape) / 9 for name, value in base.items()}
    tuned = {name: value.astype(np.float32) for name, value in tuned.items()}
    save_file(tuned, tmp_path / "tuned.safetensors")
    (example,) = blocks("python")
    check = "\nassert abs(basis.captured_energy(dW) - 0.0208) < 0.002\nprint(Y.shape)"
    run = subprocess.run(
        [sys.executable, "-c", example + check], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("q.weight ")
    assert run.stdout.endswith("(128, 96)\n")


@pytest.mark.parametrize("path", re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README))
def test_every_picture_it_shows_is_there(path):
    assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
