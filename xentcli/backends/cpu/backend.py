"""The CPU backend: rows split among threads, by kernels that are compiled once and cached.

The kernels of a row are in `long_rows_fast`, `long_rows` and `short_rows`; how rows are split
changes no bit of their results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from threading import RLock
from typing import Any

import numba
import numpy as np
from numba import njit, prange, types
from numba.core import event

from xentcli.arrays.dtypes import Array, bits, compute_dtype
from xentcli.backends import Scalars
from xentcli.backends.cache import locked, prepare
from xentcli.backends.cpu.dispatch import (
    SHORT,
    fast_boxes,
    general_boxes,
    short_boxes,
    softmax_boxes,
)

# A gradient of at least this many bytes is written with streaming stores, past the caches: it
# would not stay there, and a normal store reads each cache line before writing it.
STREAM_FROM = 1 << 22

# Up to this many classes float32 lanes can count equal exponentials: each of the 16 sums of ones
# saturates at 2²⁴, and 3·10⁸ equal logits had a loss of 19.408 instead of 19.519.
FAST_MAX_CLASSES = 1 << 26

_config: Any = numba.config  # its attributes are set at import, unknown to type checkers


class _ThreadState:
    """What this process knows of Numba's threads: a lock, and whether they were started here.

    Numba's workqueue layer aborts when two threads run parallel kernels at once; its OpenMP
    layer when a forked child runs one at all. So one parallel kernel runs at a time, and the
    forked child of a process that has run one computes serially, with the same bits.
    """

    lock = RLock()
    started = False
    forked = False

    @classmethod
    def after_fork(cls) -> None:
        cls.lock = RLock()  # the old one may be held by a thread of the parent
        cls.forked = cls.started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ThreadState.after_fork)


def fast_rows(split, logits, targets, weight, scale, scalars, results, grad, work):
    """Long rows with an index target and no option but weights and z-loss."""
    parts, streaming = split
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        fast_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def general_rows(split, logits, targets, weight, scale, scalars, results, grad, work):
    """Long rows with any target and any option."""
    parts, streaming = split
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        general_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def short_rows(split, logits, targets, weight, scale, scalars, results, grad, work):
    """Short rows with any target and any option."""
    parts, streaming = split
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, streaming
        short_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def softmax_rows(split, logits, scalars, log, out, work):
    """Probabilities, or their logarithms."""
    parts, _ = split
    n = logits.shape[0] * logits.shape[2]
    for part in prange(parts):
        softmax_boxes((part * n // parts, (part + 1) * n // parts), logits, scalars, log, out, work)


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba types. Arguments before the scalars are inputs, and may be read-only memory."""
    scalars = next(i for i, value in enumerate(arguments) if isinstance(value, Scalars))
    return tuple(
        types.Array(
            numba.from_dtype(value.dtype),
            value.ndim,
            "C" if value.ndim == 1 else "A",
            readonly=i < scalars,
        )
        if isinstance(value, np.ndarray)
        else numba.typeof(value)
        for i, value in enumerate(arguments)
    )


@cache
def _compiled(
    function: Callable[..., None], signature: tuple[Any, ...], parallel: bool
) -> Callable[..., None]:
    """One specialisation of a kernel, from the cache folder or compiled now."""
    compiler: Any = partial(njit, [signature], parallel=parallel, nogil=True, error_model="numpy")
    path = prepare()
    if path is not None:
        # Numba's index does not include `parallel`: one folder for each value.
        folder = path / ("parallel" if parallel else "serial")
        with locked(path), _cache_in(folder):
            for _ in range(2):
                try:
                    return compiler(cache=True)(function)  # type: ignore[no-any-return] # Numba's decorator
                except Exception:  # noqa: BLE001 (a damaged cache fails in any way)
                    rmtree(folder, ignore_errors=True)
    return compiler()(function)  # type: ignore[no-any-return] # Numba's decorator


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _config.CACHE_DIR = before


class _Listener(event.Listener):
    """Notifies once that a compilation has begun."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.say = say

    def on_start(self, event: Any) -> None:
        """Called first for the outermost of nested compilations."""
        if self.say:
            self.say("compiling the kernel, a few seconds, once for this kind of job")
            self.say = None

    def on_end(self, event: Any) -> None:
        """Nothing to notify."""


def _uses_streaming_stores(logits: Array, grad: Array | None) -> bool:
    """Whether a gradient is too large for the caches, and does not overwrite the logits."""
    if grad is None or grad.nbytes < STREAM_FROM:
        return False
    return grad.ctypes.data != logits.ctypes.data


def is_jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set."""
    return bool(_config.DISABLE_JIT)


class CpuBackend:
    """The kernels as a backend."""

    name = "cpu"
    block = 1 << 25  # logits: less than the 200 ms that Ctrl-C may take
    slabs = 1

    def __init__(
        self, threads: int | None = None, notify: Callable[[str], None] | None = None
    ) -> None:
        most = _config.NUMBA_NUM_THREADS
        if not _ThreadState.forked:
            _ThreadState.started = True
            numba.get_num_threads()  # starts the threads; invalid settings fail here
        self.threads = min(threads or most, most)
        self.notify = notify

    def rows(
        self,
        logits: Array,
        targets: Array,
        weight: Array,
        scale: Array,
        scalars: Scalars,
        results: Array,
        grad: Array | None,
    ) -> None:
        """Losses, log-sum-exps and gradients."""
        dtypes = logits.dtype, grad.dtype if grad is not None else logits.dtype
        fast = targets.ndim == 1 and scalars == Scalars(z_loss=scalars.z_loss)
        fast &= logits.shape[1] <= FAST_MAX_CLASSES
        kernel = fast_rows if fast else general_rows
        arguments = (
            bits(logits),
            targets if targets.ndim == 1 else bits(targets),
            weight,
            scale,
            scalars,
            results,
            None if grad is None else bits(grad),
            np.empty(0, compute_dtype(*dtypes)),
        )
        split = min(results.shape[1], self.threads), _uses_streaming_stores(logits, grad)
        self.run(short_rows if logits.shape[1] <= SHORT else kernel, split, *arguments)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        work = np.empty(0, compute_dtype(logits.dtype, out.dtype))
        split = min(logits.shape[0] * logits.shape[2], self.threads), False
        self.run(softmax_rows, split, bits(logits), scalars, log, bits(out), work)

    def run(self, function: Callable[..., None], split: tuple[int, int], *arguments: Any) -> None:
        if split[0] == 0:
            return
        signature = _signature((split, *arguments))
        with _ThreadState.lock, event.install_listener("numba:compile", _Listener(self.notify)):
            kernel = _compiled(function, signature, not _ThreadState.forked)
            if _ThreadState.forked:
                kernel(split, *arguments)
                return
            before = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                kernel(split, *arguments)
            finally:
                numba.set_num_threads(before)
