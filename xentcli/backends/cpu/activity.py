"""What must not be going on in another thread while a process forks."""

from __future__ import annotations

import os
import threading
from functools import cache

FORK_WAITS = 120.0  # seconds at most


class _Activity:
    """What LLVM and Numba are doing, imports of Numba included, by any number of threads at once.

    Forking waits until nothing is going on: a child that began in the middle could use neither ever
    again.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._going_on = 0
        self._forking = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._going_on += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._going_on -= 1
            self._changed.notify_all()

    def _before_fork(self) -> None:
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._going_on, timeout=FORK_WAITS)
            self._forking = idle  # nothing begins until the fork is over

    def _after_in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def let_forks_wait(self) -> None:
        """From now on. What is registered last is asked first when a process forks."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_in_parent,
                after_in_child=self._begin,  # threads that hold or wait for it are not there
            )


activity = _Activity()
activity.let_forks_wait()


@cache
def prepare_for_numba() -> None:
    """Forks that wait for Numba must not have the lock of `logging` already, which it needs."""
    import logging  # noqa: F401 (it is what registers a lock of its own; Numba imports it)

    activity.let_forks_wait()
