"""The transformer is scikit-learn's in behaviour and this library's in its numbers."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import cosa_theory
from cosa_theory import projections
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry import jl_min_dim
from cosa_theory.linear.operators import Factor
from cosa_theory.projections import KINDS, make_projection
from cosa_theory.sklearn import RandomProjection

X = np.random.default_rng(0).standard_normal((30, 40))


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_the_checks_of_scikit_learn(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tiny data that are not reduced, and of skipped checks
        check_estimator(RandomProjection(2, kind=kind))


def test_its_defaults_pass_them_too():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(RandomProjection())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_it_does_is_the_projection_of_the_seed(kind, dtype):
    found = RandomProjection(8, kind=kind, scale="synthesis", random_state=5)
    data = X.astype(dtype)
    given = make_projection(kind, 8, 40, seed=5, scale="synthesis", dtype=dtype)
    dense = Factor(given).dense(np.dtype(dtype))
    expected = data @ dense.T
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    forms = (data, sparse.csr_array(data), sparse.csc_matrix(data), sparse.coo_array(data))
    for form in forms:
        projected = found.fit(form).transform(form)
        assert (type(projected), projected.dtype) == (np.ndarray, data.dtype)
        np.testing.assert_allclose(projected, expected, rtol=tolerance, atol=tolerance)
    back = found.inverse_transform(projected)
    np.testing.assert_allclose(back @ dense.T, projected, atol=10 * tolerance)
    np.testing.assert_allclose(back, back @ np.linalg.pinv(dense) @ dense, atol=10 * tolerance)


def test_auto_is_what_the_lemma_asks_for_and_never_more_than_the_features():
    wide = sparse.csr_array((50, 5000))
    found = RandomProjection(eps=0.5).fit(wide)
    assert found.n_components_ == jl_min_dim(50, 0.5)
    assert found.get_feature_names_out()[-1] == f"randomprojection{found.n_components_ - 1}"
    with pytest.warns(DataDimensionalityWarning, match="40 features"):
        assert RandomProjection().fit(X).n_components_ == 40
    with pytest.warns(DataDimensionalityWarning, match="n_components is 64"):
        RandomProjection(64).fit(X)


def test_a_seed_repeats_a_draw_and_none_does_not():
    assert RandomProjection(3, random_state=7).fit(X).seed_ == 7
    once, again = (RandomProjection(3, random_state=None).fit(X).seed_ for _ in range(2))
    assert once != again
    drawn = [RandomProjection(3, random_state=np.random.RandomState(1)).fit(X) for _ in range(2)]
    np.testing.assert_array_equal(drawn[0].components_, drawn[1].components_)


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("n_components", {"n_components": 0}),
        ("n_components", {"n_components": "some"}),
        ("n_components", {"n_components": 2.5}),
        ("eps", {"eps": 1.5}),
        ("kind", {"n_components": 2, "kind": "normal"}),
        ("scale", {"n_components": 2, "scale": "unit"}),
        ("random_state", {"n_components": 2, "random_state": -1}),
        ("n_components", {"n_components": 41, "kind": "haar"}),
        ("n_components", {"n_components": 65, "kind": "srht"}),
        ("kind", {"n_components": 2, "kind": "activation"}),
    ],
)
def test_bad_settings_are_named_at_fit(argument, settings):
    with pytest.raises(InputError) as error:
        RandomProjection(**settings).fit(X)
    assert error.value.argument == argument


def test_it_is_found_where_one_looks_and_works_in_a_pipeline():
    assert cosa_theory.RandomProjection is projections.RandomProjection is RandomProjection
    assert make_pipeline(StandardScaler(), RandomProjection(4)).fit_transform(X).shape == (30, 4)


def test_without_scikit_learn_the_extra_is_named_and_nothing_else_fails():
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None\n"
        "from cosa_theory import *; import cosa_theory.projections\n"
        "import cosa_theory\ncosa_theory.RandomProjection"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].startswith("ImportError: RandomProjection")
    assert "pip install 'cosa-theory[sklearn]'" in run.stderr
