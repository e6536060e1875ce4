"""The benchmark of the basis runs, and says of itself what it measured."""

import sys

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from experiments import bench_basis, bench_isometry, bench_spectrum, bench_startup


def test_the_unavoidable_products_are_the_three_of_the_closed_form():
    L, R, dW = bench_basis.draw(bench_basis.Config(m=40, n=30, a=8, b=6, dtype="float64"))
    for sides in ((L, R, dW), (R.T, L.T, dW.T)):  # either order is the cheaper in one of them
        left, right, update = sides
        gram_L, gram_R, core = bench_basis.products(left, right, update)
        np.testing.assert_allclose(gram_L, left.T @ left)
        np.testing.assert_allclose(gram_R, right @ right.T)
        np.testing.assert_allclose(core, left.T @ update @ right.T)


def test_every_quantity_is_measured_against_the_products_or_the_allowance():
    table = bench_basis.run(bench_basis.Config(m=60, n=50, a=8, b=6, rounds=2))
    assert table["quantity"].is_unique
    assert table["quantity"].iloc[0] == "unavoidable products"
    assert table["ratio"].iloc[0] == 1
    assert (table["value"] > 0).all()
    assert set(table["unit"]) == {"s", "MiB"}


def test_the_command_leads_with_its_verdict(monkeypatch, capsys):
    arguments = ["--m", "60", "--n", "50", "--a", "8", "--b", "6", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_basis", *arguments])
    bench_basis.main()
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("The best core takes")
    assert first.endswith("times as long as the products it cannot avoid.")


@pytest.mark.parametrize("bench", [bench_basis, bench_isometry, bench_spectrum, bench_startup])
def test_a_benchmark_of_no_rounds_is_refused(bench):
    with pytest.raises(InputError, match="rounds is 0"):
        bench.Config(rounds=0)
