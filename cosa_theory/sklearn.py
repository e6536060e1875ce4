"""The ensembles as a transformer of scikit-learn, which the extra `sklearn` installs."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry import jl_min_dim
from cosa_theory.linear.operators import Factor
from cosa_theory.projections import ENSEMBLES, KINDS, make_projection

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import DataDimensionalityWarning
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "RandomProjection is a transformer of scikit-learn, which is not installed (or older than "
        "1.6): pip install 'cosa-theory[sklearn]'"
    ) from error

__all__ = ["RandomProjection"]

_ROWS = 1024  # of a sparse X made dense at a time, for a projection known by its products


class RandomProjection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Reduce features by a random projection x ↦ Ax of any of the seven ensembles.

    Parameters
    ----------
    n_components : int or "auto", default "auto"
        Rows k of A. "auto": what the lemma of Johnson and Lindenstrauss asks for to keep all
        distances of the samples within `eps`, and at most the number of features.
    kind : str, default "gaussian"
        An ensemble, from `cosa_theory.projections.KINDS`.
    eps : float, default 0.1
        Distortion of squared distances for "auto", between 0 and 1.
    scale : {"analysis", "synthesis"}, default "analysis"
        E‖Ax‖² = ‖x‖², or √(k/d) times that.
    random_state : int, RandomState or None, default 0
        The seed of `cosa_theory.projections.make_projection`; another one at each fit with None, or
        the next of a generator.

    Attributes
    ----------
    components_ : ndarray, csr_array or SRHT, shape (k, d)
        A, as `make_projection` draws it, in the type of the X it was fitted to.
    n_components_ : int
        k.
    seed_ : int
        The seed that was used.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_normal((20, 500))
    >>> RandomProjection(64, kind="srht").fit_transform(X).shape
    (20, 64)
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        kind: str = "gaussian",
        eps: float = 0.1,
        scale: str = "analysis",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.kind = kind
        self.eps = eps
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw A for the number of features of X, an array or sparse array (samples × features).

        Raises
        ------
        InputError
            For an argument outside what is listed above; it is a ValueError.

        Warns
        -----
        sklearn.exceptions.DataDimensionalityWarning
            Where the projection does not reduce the number of features.
        """
        X = self._checked(X, reset=True)
        samples, features = X.shape
        ensemble = ENSEMBLES[choice("kind", self.kind, KINDS)]
        wanted = self.n_components
        if isinstance(wanted, str) and wanted == "auto":
            needed = int(jl_min_dim(samples, self.eps))
            k = min(max(needed, 1), features)
            if needed > features:
                self._warn(f"{samples} samples need {needed} components to keep eps = {self.eps}")
        else:
            k = whole("n_components", wanted)
            if not ensemble.has(k, features):
                must = f"at most the rows that {self.kind} has with {features} features"
                raise refuse("n_components", k, must)
            if k > features:
                self._warn(f"n_components is {k}")
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        self.seed_, self.n_components_ = whole("random_state", seed, 0), k
        self.components_ = make_projection(
            self.kind, k, features, seed=self.seed_, scale=self.scale, dtype=X.dtype.name
        )
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return X Aᵀ, a dense array (samples × k) in the type of X."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        A = self.components_
        if not sparse.issparse(X):
            return np.ascontiguousarray(Factor(A).right(X))
        if hasattr(A, "apply_transpose"):
            parts = range(0, X.shape[0], _ROWS)
            blocks = [Factor(A).right(X[start : start + _ROWS].toarray()) for start in parts]
            return np.concatenate(blocks)
        product = X @ A.T.astype(X.dtype)
        return product.toarray() if sparse.issparse(product) else np.asarray(product)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Return X (A⁺)ᵀ: of all samples with these projections, the least in norm."""
        check_is_fitted(self)
        X = check_array(X, dtype=(np.float64, np.float32))
        if X.shape[1] != self.n_components_:
            must = f"as many as there are components, {self.n_components_}"
            raise InputError(f"X has {X.shape[1]} columns: it must have {must}", argument="X")
        inverse = np.linalg.pinv(Factor(self.components_).dense(X.dtype))
        return X @ inverse.T

    def _checked(self, X: Any, *, reset: bool) -> Any:
        types = [np.float64, np.float32]
        return validate_data(self, X, accept_sparse=("csr", "csc"), dtype=types, reset=reset)

    def _warn(self, what: str) -> None:
        text = f"{what}, and there are {self.n_features_in_} features: this is no reduction"
        warnings.warn(text, DataDimensionalityWarning, stacklevel=3)

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
