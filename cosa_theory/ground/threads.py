"""Small steps of linear algebra on one thread."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS and LAPACK use one thread.

    For steps that are too small to share: on two threads the reflections of a thin panel took 30
    times as long as on one. And numpy and scipy carry a BLAS each, whose waiting threads get in
    each other's way where large products of the one alternate with small steps of the other.
    """
    return _controller().limit(limits=1)
