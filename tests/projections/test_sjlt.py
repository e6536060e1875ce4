"""The sparse Johnson-Lindenstrauss transform: its columns, their places and their signs."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import make_projection, sjlt, stream
from tests.projections.test_bernoulli import chi_square_p_value

Z = 4.5


@pytest.mark.parametrize("zeta", [1, 2, 8, 20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sjlt_columns_have_exactly_zeta_nonzeros_and_unit_norm(zeta, dtype):
    A = make_projection("sjlt", 20, 500, nonzeros=zeta, dtype=dtype)
    assert A.has_canonical_format
    assert set(np.diff(A.tocsc().indptr)) == {zeta}
    assert set(np.abs(A.data)) == {np.dtype(dtype).type(math.sqrt(1 / zeta))}


@pytest.mark.parametrize(("k", "zeta"), [(5, 2), (6, 3), (4, 4), (7, 1), (6, 5)])
def test_sjlt_takes_every_set_of_rows_equally_often(k, zeta):
    A = make_projection("sjlt", k, 20_000, seed=6, nonzeros=zeta).tocsc()
    rows = np.sort(A.indices.reshape(-1, zeta), axis=1)
    sets = list(combinations(range(k), zeta))
    counts = Counter(map(tuple, rows.tolist()))
    assert set(counts) == set(sets)
    if len(sets) > 1:
        assert chi_square_p_value([counts[s] for s in sets], [1 / len(sets)] * len(sets)) > 1e-4


def test_sjlt_signs_are_fair_in_every_row_and_independent_between_columns():
    A = make_projection("sjlt", 16, 50_000, seed=7, nonzeros=4)
    signs = np.sign(A.toarray())
    row_sums = signs.sum(axis=1) / np.sqrt(np.diff(A.indptr))
    assert np.abs(row_sums).max() < Z
    products = signs[:, 1:] * signs[:, :-1]
    assert abs(products.sum()) / math.sqrt(np.count_nonzero(products)) < Z


def test_sjlt_by_default_has_eight_nonzeros_or_as_many_as_rows():
    assert make_projection("sjlt", 9, 50).nnz == 400
    assert make_projection("sjlt", 8, 50).nnz == 400
    assert make_projection("sjlt", 3, 50).nnz == 150


@pytest.mark.parametrize("nonzeros", [0, -1, 6, 2.0, True, "2"])
def test_sjlt_refuses_a_number_of_nonzeros_that_no_column_can_hold(nonzeros):
    with pytest.raises(InputError, match=r"nonzeros is .* from 1 to 5") as error:
        make_projection("sjlt", 5, 60, nonzeros=nonzeros)
    assert error.value.argument == "nonzeros"


def test_positions_do_not_depend_on_the_size_of_the_chunks(monkeypatch):
    whole = sjlt._distinct_rows(stream(5), 50, 100, 8, np.int32)
    monkeypatch.setattr(sjlt, "CHUNK", 37)
    assert np.array_equal(sjlt._distinct_rows(stream(5), 50, 100, 8, np.int32), whole)
