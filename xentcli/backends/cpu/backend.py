"""The CPU backend: ranges of rows dealt out to threads, compiled once and kept.

What a row goes through is in `pipeline`, `rows` and `tiles`; nothing here changes a bit of it.
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
    general_boxes,
    plain_boxes,
    short_boxes,
    softmax_boxes,
)

# Bytes of gradient from which on it is written past the caches: it would not stay there, and a
# plain store reads each line before it writes it.
STREAM_FROM = 1 << 22

# Classes up to which float32 lanes can count equal exponentials: each of the 16 sums of ones
# stops at 2²⁴, and 3·10⁸ equal logits had a loss of 19.408 in place of 19.519.
PLAIN_MOST = 1 << 26

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


def plain_rows(deal, logits, targets, weight, scale, scalars, results, grad, work):
    """Long rows with an index target and without options."""
    parts, past_caches = deal
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, past_caches
        plain_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def general_rows(deal, logits, targets, weight, scale, scalars, results, grad, work):
    """Long rows with any target and any option."""
    parts, past_caches = deal
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, past_caches
        general_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def short_rows(deal, logits, targets, weight, scale, scalars, results, grad, work):
    """Short rows with any target and any option."""
    parts, past_caches = deal
    n = results.shape[1]
    for part in prange(parts):
        span = part * n // parts, (part + 1) * n // parts, past_caches
        short_boxes(span, logits, targets, weight, scale, scalars, results, grad, work)


def softmax_rows(deal, logits, scalars, log, out, work):
    """Probabilities, or their logarithms."""
    parts, _ = deal
    n = logits.shape[0] * logits.shape[2]
    for part in prange(parts):
        softmax_boxes((part * n // parts, (part + 1) * n // parts), logits, scalars, log, out, work)


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba types. What comes before the scalars is input, and may be read-only memory."""
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
    """One specialisation, from the cache folder or compiled now."""
    compiler: Any = partial(njit, [signature], parallel=parallel, nogil=True, error_model="numpy")
    path = prepare()
    if path is not None:
        # Numba's index knows the types and not the flag: one folder for each.
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


def _goes_past_caches(logits: Array, grad: Array | None) -> bool:
    """Whether a gradient is too large to stay in a cache, and not in place of the logits."""
    if grad is None or grad.nbytes < STREAM_FROM:
        return False
    return grad.ctypes.data != logits.ctypes.data


def is_switched_off() -> bool:
    """Whether Numba was told to compile nothing."""
    return bool(_config.DISABLE_JIT)


class CpuBackend:
    """The kernels as a backend."""

    name = "cpu"
    block = 1 << 25  # logits: below the 200 ms that Ctrl-C may wait
    slabs = 1

    def __init__(
        self, threads: int | None = None, notify: Callable[[str], None] | None = None
    ) -> None:
        most = _config.NUMBA_NUM_THREADS
        if not _Process.forked:
            _Process.started = True
            numba.get_num_threads()  # starts the threads; impossible settings fail here
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
        plain = targets.ndim == 1 and scalars == Scalars(z_loss=scalars.z_loss)
        plain &= logits.shape[1] <= PLAIN_MOST
        kernel = plain_rows if plain else general_rows
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
        deal = min(results.shape[1], self.threads), _goes_past_caches(logits, grad)
        self.run(short_rows if logits.shape[1] <= SHORT else kernel, deal, *arguments)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        work = np.empty(0, compute_dtype(logits.dtype, out.dtype))
        deal = min(logits.shape[0] * logits.shape[2], self.threads), False
        self.run(softmax_rows, deal, bits(logits), scalars, log, bits(out), work)

    def run(self, function: Callable[..., None], deal: tuple[int, int], *arguments: Any) -> None:
        if deal[0] == 0:
            return
        signature = _signature((deal, *arguments))
        with _Process.lock, event.install_listener("numba:compile", _Listener(self.notify)):
            kernel = _compiled(function, signature, not _Process.forked)
            if _Process.forked:
                kernel(deal, *arguments)
                return
            before = numba.get_num_threads()
            numba.set_num_threads(self.threads)
            try:
                kernel(deal, *arguments)
            finally:
                numba.set_num_threads(before)
