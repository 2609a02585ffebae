"""Whether chunks fit into the memory of workers, before any work is done."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from xentcli.arrays.layout import Layout
from xentcli.errors import DataError

COPIES = 3  # of a chunk and its result, beside those in use: read buffers, what waits to be written
MIB = 2**20


class WorkerMemory(NamedTuple):
    """The limit of the worker with the least memory per thread, in bytes, and its threads."""

    limit: int
    threads: int

    @property
    def per_thread(self) -> int:
        """What a task may use."""
        return self.limit // self.threads


def of_client(client: Any = None) -> WorkerMemory | None:
    """Of the workers of a client, by default the current one; None where there is no limit."""
    try:
        from distributed import default_client

        client = client or default_client()
    except (ImportError, ValueError):
        return None
    if client.asynchronous:
        return None
    workers = client.scheduler_info()["workers"].values()
    found = [WorkerMemory(w["memory_limit"], w["nthreads"]) for w in workers if w["memory_limit"]]
    return min(found, key=lambda worker: worker.per_thread, default=None)


def require_fit(
    logits: da.Array, layout: Layout, result: np.dtype[Any] | None, memory: WorkerMemory | None
) -> None:
    """An error where a chunk, its result and what is in use beside them do not fit into a worker.

    The error proposes chunks that do.
    """
    if memory is None:
        return
    each = logits.dtype.itemsize + (result.itemsize if result else 0)
    largest = [max(sizes, default=0) for sizes in logits.chunks]
    needed = prod(largest) * each * COPIES
    if needed <= memory.per_thread:
        return
    fitting, axis = memory.per_thread // (each * COPIES), layout.class_axis
    chunks = tuple(largest)
    what = (
        f"its largest chunk, {chunks}, needs {-(-needed // MIB)} MiB in a worker; the limit is "
        f"{memory.per_thread // MIB} MiB per thread"
    )
    raise DataError("logits", what, f"use logits.rechunk({proposal(largest, axis, fitting)})")


def proposal(largest: list[int], axis: int, entries: int) -> tuple[int, ...]:
    """Chunks of at most so many entries: fewer rows, and classes in parts where one is too long.

    >>> proposal([4096, 131072], 1, 2**23)
    (64, 131072)
    >>> proposal([4096, 131072], 1, 2**16)
    (1, 65536)
    """
    chunks = list(largest)
    for place in [i for i in range(len(chunks)) if i != axis] + [axis]:
        others = prod(chunks) // max(1, chunks[place])
        chunks[place] = max(1, min(chunks[place], entries // max(1, others)))
    return tuple(chunks)
