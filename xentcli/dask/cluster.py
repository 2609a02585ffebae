"""Running a graph on a cluster: progress, interruption, and errors that say what to do."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
import dask.array as da
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm import CommClosedError

from xentcli.dask.graphs import fused
from xentcli.errors import FileError, UnavailableError, XentError, reason, visible

PAUSE = 0.02  # seconds between looks at what is done

# Of the workers of this machine, for glibc. dask lets it return memory at once, so each chunk and
# each result get new pages, which the kernel fills with zeros: that takes as long as the work. One
# heap for all threads keeps what the next chunk takes; what is larger is returned as before.
MALLOC = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 1 << 27,
    "MALLOC_TRIM_THRESHOLD_": 1 << 27,
}
MORE_MEMORY = "use smaller chunks, or workers with more memory"


@contextmanager
def quiet() -> Iterator[None]:
    """No output of dask's loggers, here and in workers that are started meanwhile, but what is
    critical: our errors say what happened."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with dask.config.set({"logging.distributed": "critical"}):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def connected(address: str, patience: int = 20) -> Iterator[Client]:
    """A client of the scheduler at an address, which answers within so many seconds."""
    with quiet():
        try:
            client = Client(address, timeout=patience)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            what = f"no scheduler of dask answers at {visible(address)}: {reason(error)}"
            raise UnavailableError("cluster", what) from error
        with client:
            yield client


@contextmanager
def local(workers: int, threads: int = 1, memory: int | None = None) -> Iterator[Client]:
    """A client of processes on this machine, which end with the context.

    They listen on the loopback device only, without a dashboard. `memory` is the limit of each in
    bytes, by default its share of the machine's.
    """
    environment = {f"distributed.nanny.pre-spawn-environ.{key}": n for key, n in MALLOC.items()}
    place = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # any free port
    limits = {"threads_per_worker": threads, "memory_limit": "auto" if memory is None else memory}
    kwargs = {"scheduler_kwargs": {"dashboard": False}, "silence_logs": logging.CRITICAL}
    with quiet(), dask.config.set(environment), ExitStack() as stack:
        with _without_interrupts():
            cluster = LocalCluster(n_workers=workers, processes=True, **place, **limits, **kwargs)
            stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started inside never gets SIGINT, which a terminal sends to all processes of a
    command: half started they would end with tracebacks. Here it arrives at the end."""
    mask: Any = getattr(signal, "pthread_sigmask", None)
    if not mask:  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which unblocks signals, where it is started later
    before = mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)


def run(
    client: Client,
    wanted: Sequence[Any],
    parts: Sequence[tuple[int, Any]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Compute delayed objects, and return their values.

    `parts` are pairs of a number of rows and what is done when they are; `progress` is called with
    the rows done and their number. On an error or Ctrl-C everything is cancelled.

    Errors: those of the tasks; `FileError` where a worker cannot read or write; `UnavailableError`
    where workers die or run out of memory, or the scheduler is gone.
    """
    futures: list[Any] = []
    # Of a list with arrays `client.compute` returns the futures in another order.
    asked = [dask.delayed(item) if isinstance(item, da.Array) else item for item in wanted]
    try:
        with fused():
            futures = client.compute([*asked, *(part for _, part in parts)])
        rows = [0] * len(wanted) + [count for count, _ in parts]
        _watch(client, dict(zip(futures, rows, strict=True)), progress)
        return list(client.gather(futures[: len(wanted)]))
    except XentError:
        _cancel(client, futures)
        raise
    except (CommClosedError, CancelledError, TimeoutError, OSError) as error:
        _cancel(client, futures)
        what = "the connection to the scheduler was lost; what was not complete is discarded"
        raise UnavailableError("cluster", what) from error
    except BaseException:
        _cancel(client, futures)
        raise


def _watch(
    client: Client, waiting: dict[Any, int], progress: Callable[[int, int], None] | None
) -> None:
    """Wait for all futures, which have numbers of rows; raise the first error."""
    done, total = 0, sum(waiting.values())
    while waiting:
        ready = [future for future in waiting if future.done()]
        for future in ready:
            if future.status == "error":
                error = future.exception()
                raise explained(error) from error
            if future.status != "finished":
                raise CancelledError(future.key)
            count = waiting.pop(future)
            done += count
            if progress and count:
                progress(done, total)
        if not ready:
            if client.status != "running":
                raise CancelledError(client.status)
            time.sleep(PAUSE)


def _cancel(client: Client, futures: list[Any]) -> None:
    """Let the cluster forget these tasks; there may be no cluster any more."""
    with suppress(Exception):
        client.cancel(futures, force=True)


def explained(error: BaseException) -> BaseException:
    """The error of a task as one that says what happened and what to do, where that is known."""
    if isinstance(error, KilledWorker):
        what = "workers died one after the other on the same chunk; usually they run out of memory"
        return UnavailableError("cluster", what, MORE_MEMORY)
    if isinstance(error, MemoryError):
        return UnavailableError("cluster", "a worker has too little memory", MORE_MEMORY)
    if isinstance(error, OSError):
        where = visible(str(error.filename)) if error.filename else "cluster"
        return FileError(where, f"failed on a worker: {error.strerror or reason(error)}")
    return error
