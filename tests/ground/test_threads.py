"""Small steps run on one thread, and what was set before comes back."""

import numpy as np  # noqa: F401  loads a BLAS to be limited
from threadpoolctl import threadpool_info, threadpool_limits

from cosa_theory.ground.threads import one_thread


def threads():
    """Return the threads of every BLAS; a solver may bring one that was built for one thread."""
    blas = [each for each in threadpool_info() if each["user_api"] == "blas"]
    return {each["filepath"]: each["num_threads"] for each in blas}


def test_one_thread_holds_within_the_block_only():
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        assert 2 in before.values()
        with one_thread():
            assert set(threads().values()) == {1}
        assert threads() == before
