"""What a task takes from the worker that it runs on."""

from __future__ import annotations

import logging
import threading
from typing import cast

from xentcli.engine.cross_entropy import Run
from xentcli.options import Backend


def run_for(backend: str, threads: int | None) -> Run:
    """How to compute in this task: its share of the worker's threads, unless a number is given."""
    return Run(cast(Backend, backend), threads or share(), say)


def share() -> int | None:
    """The threads of a worker, divided among the tasks that run there now.

    distributed limits OpenMP and BLAS to one thread per worker, and knows nothing of our kernels.
    Of dask's own schedulers, that of threads runs as many tasks as there are cores; None, all
    cores, is for the one that runs all tasks in the caller's thread.
    """
    try:
        from distributed import get_worker

        state = get_worker().state
    except (ImportError, ValueError, AttributeError):
        return None if threading.current_thread() is threading.main_thread() else 1
    return max(1, int(state.nthreads) // max(1, len(state.executing)))


def say(text: str) -> None:
    """Tell whoever looks that something takes long, such as a compilation: the topic `xentcli` of
    the scheduler, and the worker's log."""
    try:
        from distributed import get_worker

        get_worker().log_event("xentcli", text)
    except (ImportError, ValueError):
        return
    logging.getLogger("distributed.worker.xentcli").info(text)
