"""The cluster of a command: one that is there already, or processes of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client

from xentcli.dask.cluster import local
from xentcli.errors import OptionError, UnavailableError, reason, visible

PATIENCE = 20  # seconds for a scheduler to answer


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of so many processes that end with it.

    distributed logs nothing meanwhile: what fails is raised.
    """
    for name in ("distributed", "distributed.client", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set({"logging.distributed": "critical"}):  # of the workers
        if workers is not None:
            with local(workers) as client:
                yield client
            return
        if "@" in str(address):  # errors of dask would show what is before it
            what = "an address of dask, such as tcp://host:8786, has no user and password"
            raise OptionError("cluster", what)
        try:
            client = Client(address, timeout=PATIENCE)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            what = f"no scheduler of dask answers at {visible(str(address))}: {reason(error)}"
            raise UnavailableError("cluster", what) from error
        with client:
            yield client
