"""Parts of a job on several threads of Python; kernels run without the interpreter's lock.

The thread that asks works too, and takes whatever part no other has begun. So a job ends even where
no thread can be started, many callers may ask at once, and nothing is left of a job that has ended.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from queue import SimpleQueue

Part = tuple[int, int]

SPIN = 50e-6  # seconds; to wake a thread takes as long


class _Job:
    """Parts that are not begun yet, and how many threads are at it."""

    def __init__(self, function: Callable[[int, int], None], parts: Sequence[Part]) -> None:
        self._function, self.parts = function, deque(parts)
        self.error: BaseException | None = None
        self._closed = False
        self._helping = 0
        self._changed = threading.Condition()

    def work(self) -> None:
        """Take parts until none is left."""
        while True:
            try:
                part = self.parts.popleft()
            except IndexError:
                return
            self._function(*part)

    def help(self) -> None:
        """Take parts, unless the job has ended."""
        with self._changed:
            if self._closed:
                return
            self._helping += 1
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 (it is raised where the job was given)
            self.error = error
            self.parts.clear()
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify()

    def end(self) -> None:
        """Wait for the parts that are begun; Ctrl-C waits too, as they write to the caller's
        arrays, and is raised then."""
        interrupted: BaseException | None = None
        while True:
            try:
                self.parts.clear()
                with self._changed:
                    self._closed = True
                self._spin()
                with self._changed:
                    self._changed.wait_for(lambda: not self._helping)
                break
            except BaseException as error:  # noqa: BLE001 (raised below)
                interrupted = error
        if interrupted or self.error:
            raise interrupted or self.error  # type: ignore[misc] # one of them is an exception

    def _spin(self) -> None:
        """Wait for the last parts, which are short, without sleep."""
        end = time.perf_counter() + SPIN
        while self._helping and time.perf_counter() < end:
            _let_others_run()


def _let_others_run() -> None:
    """Give the interpreter's lock to another thread that wants it."""
    os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)


class _Helpers:
    """The threads of this process that wait for jobs."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._count = 0
        self._lock = threading.Lock()

    def invite(self, job: _Job, count: int) -> None:
        """Ask so many threads to help."""
        with self._lock:
            while self._count < count and self._start():
                self._count += 1
        for _ in range(count):
            self._jobs.put(job)

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._wait, name="xent", daemon=True).start()
        except RuntimeError:  # too many threads, or the interpreter ends
            return False
        return True

    def _wait(self) -> None:
        jobs = self._jobs
        while True:
            jobs.get().help()


_helpers = _Helpers()


def _after_fork() -> None:
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def equal_parts(length: int, count: int) -> list[Part]:
    """So many equal parts of a range, at least one and none that is empty unless the range is.

    >>> equal_parts(10, 3), equal_parts(2, 3), equal_parts(0, 3)
    ([(0, 3), (3, 6), (6, 10)], [(0, 1), (1, 2)], [(0, 0)])
    """
    count = max(1, min(count, length))
    ends = [length * part // count for part in range(count + 1)]
    return [*pairwise(ends)]


def run(function: Callable[[int, int], None], parts: Sequence[Part], most: int) -> None:
    """Call a function for all parts, on at most so many threads, in any order."""
    job = _Job(function, parts)
    try:  # whatever is raised from here on, helpers may be writing to the caller's arrays
        _helpers.invite(job, min(most, len(parts)) - 1)
        job.work()
    finally:
        job.end()
