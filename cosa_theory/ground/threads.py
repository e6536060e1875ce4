"""Small steps of linear algebra on one thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["one_thread"]


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and LAPACK use one thread inside the block.

    For steps that are too small to share: on two threads the reflections of a thin panel took 30
    times as long as on one. And numpy and scipy carry a BLAS each, whose waiting threads get in
    each other's way where large products of the one alternate with small steps of the other.
    """
    # What the controller's own context does, without describing every library at each entry: that
    # took longer than the steps themselves.
    before = [(library, library.get_num_threads()) for library in _controller().lib_controllers]
    shared = [(library, threads) for library, threads in before if threads not in (None, 1)]
    for library, _ in shared:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in shared:
            library.set_num_threads(threads)
