"""A Dask cluster that is already running, checked before it is given any work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from cosa_theory.ground.errors import InputError

__all__ = ["connected"]

_PATIENCE = 10.0  # seconds for the scheduler to answer, and for a first worker to be there


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a `distributed.Client` of the cluster at an address, such as "tcp://10.0.0.1:8786".

    The address is the scheduler's, and the client is closed afterwards. Raises `InputError` if the
    packages are missing, nothing answers there, there is no worker, or a worker does not have this
    version of the library.
    """
    try:
        from distributed import Client, Security
        from distributed.comm import connect
    except ImportError as error:
        raise InputError(
            "a Dask cluster needs the packages dask and distributed: install cosa-theory[cluster]"
        ) from error
    security = Security()  # from Dask's own configuration, for clusters that ask for TLS

    async def answers() -> None:
        comm = await connect(address, timeout=_PATIENCE, **security.get_connection_args("client"))
        await comm.close()

    try:
        # Asked first: a client whose scheduler is not there takes long to be got rid of.
        asyncio.run(answers())
    except (OSError, ValueError) as error:  # OSError includes TimeoutError
        raise InputError(
            f"no Dask scheduler answers at {address}: check the address, and that "
            "`dask scheduler` is running"
        ) from error
    with Client(address, timeout=_PATIENCE, set_as_default=False, security=security) as client:
        _check_workers(client, address)
        yield client


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        raise InputError(
            f"the Dask cluster at {address} has no worker: start some with `dask worker {address}`"
        ) from error
    here = worker_version()
    for worker, there in client.run(worker_version, on_error="return").items():
        if there != here:
            raise InputError(
                f"the Dask worker {worker} has {there!r} where this process has {here!r}: start "
                "it with the same version, in the same environment (of a checkout, within it)"
            )


def worker_version() -> str:
    """Return the version of the library; it can only run where the library is at hand."""
    return f"cosa-theory {version('cosa-theory')}"
