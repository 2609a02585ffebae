"""The CPU backend: ranges of rows dealt out to threads, compiled once and kept.

What a row goes through is in `rows`; nothing here changes a bit of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from threading import RLock
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types
from numba.core import event

from xentcli.dtypes import Array
from xentcli.kernels import Scalars
from xentcli.kernels.cache import prepare
from xentcli.kernels.ranges import goes_past_caches, index_range, prob_range, softmax_range

_config: Any = numba.config  # its names are made at import, unknown to type checkers


class _Process:
    """What is true of this process: one lock, and whether its threads are its own.

    Numba's workqueue layer aborts when two threads run parallel kernels at once; its OpenMP
    layer when a forked child runs one at all. So parallel kernels take turns, and a child of a
    process that has run one computes serially, with the same bits.
    """

    lock = RLock()
    started = False
    forked = False

    @classmethod
    def after_fork(cls) -> None:
        cls.lock = RLock()  # the old one may be held by a thread that is not here
        cls.forked = cls.started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.after_fork)


def index_rows(parts, logits, targets, weight, scale, scalars, loss, lse, grad):
    """Deal rows out to threads; a gradient without rows stays so."""
    n = len(logits)
    past = goes_past_caches(logits, grad)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        x, y, u, g = logits[a:b], targets[a:b], scale[a:b], grad[a:b]
        index_range(x, y, weight, u, scalars, loss[a:b], lse[a:b], g, past)


def prob_rows(parts, logits, targets, weight, scale, scalars, loss, lse, grad):
    """Deal rows out to threads; a gradient without rows stays so."""
    n = len(logits)
    past = goes_past_caches(logits, grad)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        x, y, u, g = logits[a:b], targets[a:b], scale[a:b], grad[a:b]
        prob_range(x, y, weight, u, scalars, loss[a:b], lse[a:b], g, past)


def softmax_rows(parts, logits, scalars, log, out):
    """Deal rows out to threads."""
    n = len(logits)
    for part in prange(parts):
        a, b = part * n // parts, (part + 1) * n // parts
        softmax_range(logits[a:b], scalars, log, out[a:b])


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba types. What comes before the scalars is input, and may be read-only memory."""
    scalars = next(i for i, value in enumerate(arguments) if isinstance(value, Scalars))
    return tuple(
        types.Array(numba.from_dtype(value.dtype), value.ndim, "C", readonly=i < scalars)
        if isinstance(value, np.ndarray)
        else numba.typeof(value)
        for i, value in enumerate(arguments)
    )


@cache
def _compiled(
    function: Callable[..., None], signature: tuple[Any, ...], parallel: bool
) -> Callable[..., None]:
    """One specialisation, from the cache folder or compiled now."""
    compiler: Any = partial(njit, [signature], parallel=parallel, nogil=True, error_model="numpy")
    path = prepare()
    if path is None:
        return compiler()(function)  # type: ignore[no-any-return] # Numba's decorator
    before = _config.CACHE_DIR
    # Numba's index knows the types and not the flag: one folder for each.
    _config.CACHE_DIR = str(path / ("parallel" if parallel else "serial"))
    try:
        return compiler(cache=True)(function)  # type: ignore[no-any-return] # Numba's decorator
    except Exception:  # noqa: BLE001 (a damaged cache fails in any way; what else is wrong, the next line says)
        return compiler()(function)  # type: ignore[no-any-return] # Numba's decorator
    finally:
        _config.CACHE_DIR = before


class _Listener(event.Listener):
    """Says once that a compilation has begun."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.say = say

    def on_start(self, event: Any) -> None:
        """The outermost of the nested compilations comes first."""
        if self.say:
            self.say("compiling the kernel, a few seconds, once for this kind of job")
            self.say = None

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


class CpuBackend:
    """The kernels as a backend."""

    name = "cpu"
    block = 1 << 22  # logits: 16 MiB of float32, far below the 200 ms that Ctrl-C may wait

    def __init__(
        self, threads: int | None = None, notify: Callable[[str], None] | None = None
    ) -> None:
        most = _config.NUMBA_NUM_THREADS
        if not _Process.forked:
            _Process.started = True
            numba.get_num_threads()  # starts the threads; impossible settings fail here
        self.threads = min(threads or most, most)
        self.notify = notify

    def index_rows(self, *buffers: Any) -> None:
        """Rows with one class index each."""
        self._run(index_rows, *buffers)

    def prob_rows(self, *buffers: Any) -> None:
        """Rows with a probability for each class."""
        self._run(prob_rows, *buffers)

    def softmax_rows(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        self._run(softmax_rows, logits, scalars, log, out)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        parts = min(len(arguments[0]), 4 * self.threads)
        signature = _signature((parts, *arguments))
        with _Process.lock, event.install_listener("numba:compile", _Listener(self.notify)):
            kernel = _compiled(function, signature, not _Process.forked)
            if _Process.forked:
                kernel(parts, *arguments)
                return
            before = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                kernel(parts, *arguments)
            finally:
                numba.set_num_threads(before)
