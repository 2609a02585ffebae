"""The CPU backend: rows split among threads, by kernels whose machine code is kept.

The kernels of a row are in `long_rows_fast`, `long_rows` and `short_rows`; how rows are split
changes no bit of their results. Nothing here imports Numba: see `kept`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array, bits
from xentcli.backends import Scalars, numba_start, processors
from xentcli.backends.cpu import kept, threads
from xentcli.backends.cpu.kernel import Dtype, Kernel, address, box, kernel_of
from xentcli.backends.cpu.workspace import LINE, SHORT, space_for, space_for_copies

# A gradient of at least this many bytes is written with streaming stores, past the caches: it
# would not stay there, and a normal store reads each cache line before writing it.
STREAM_FROM = 1 << 22

# Up to this many classes float32 lanes can count equal exponentials: each of the 16 sums of ones
# saturates at 2²⁴, and 3·10⁸ equal logits had a loss of 19.408 instead of 19.519.
FAST_MAX_CLASSES = 1 << 26

# There is a thread for each so many logits, which take 40 µs: to wake it takes as long.
LEAST_PART = 1 << 17

# Work space of up to so many bytes is kept for the next call: the kernel of 131,072 classes needs
# 3 MiB, and the system takes 0.4 ms to map as much anew.
KEPT_SPACE = 1 << 23

_thread = threading.local()


class Work(NamedTuple):
    """How much a kernel has to do: rows, work space for some of them, and on how many threads.

    A thread takes at least so many rows at a time.
    """

    rows: int
    space: Callable[[int], int]  # bytes
    threads: int
    streaming: bool = False
    least: int = 1


@lru_cache(maxsize=64)  # a training loop asks for the same in every step
def shares_of(rows: int, threads: int, least: int) -> tuple[tuple[int, int], ...]:
    """Rows in shares that get smaller, so that threads that begin late end at the same time.

    Source: Polychronopoulos, Kuck, Guided self-scheduling, IEEE Transactions on Computers (1987).

    >>> shares_of(100, 2, 10)
    ((0, 33), (33, 55), (55, 70), (70, 80), (80, 90), (90, 100))
    """
    ends = [0]
    while rest := rows - ends[-1]:
        ends.append(ends[-1] + min(max(least, rest // (threads + 1)), rest))
    return tuple(pairwise(ends))


def uses_streaming_stores(logits: Array, grad: Array | None) -> bool:
    """Whether a gradient is too large for the caches, and does not overwrite the logits."""
    if grad is None or grad.nbytes < STREAM_FROM:
        return False
    return address(grad) != address(logits)


@lru_cache(maxsize=256)  # a training loop asks for the same in every step
def _kernel_of_rows(
    length: tuple[int, bool],
    logits: Dtype,
    probs: Dtype | None,
    grad: Dtype | None,
    scalars: Scalars,
) -> Kernel:
    """The kernel of losses and gradients. `length`: classes, and whether float32 counts them."""
    name, (classes, countable) = "general", length
    single = logits.itemsize < 8 and (grad is None or grad.itemsize < 8)
    if classes <= SHORT:
        fast = probs is None and single and scalars.are_default and classes > 1
        name = "short_fast" if fast else "short"
    elif probs is None and countable:
        if scalars.are_plain:
            name = "fast"
        elif single and scalars.are_tempered:
            name = "tempered"
    return kernel_of(name, logits, probs, grad)


def is_jit_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set; as for Numba, what is no integer is not there."""
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT", 0)) != 0
    except ValueError:
        return False


def most_threads() -> int:
    """How many threads to use: NUMBA_NUM_THREADS, or what this process may use."""
    return numba_start.number_of_threads() or processors.default_threads()


def work_space(nbytes: int) -> Array:
    """At least so many bytes from a cache line on; this thread's next call gets the same."""
    space: Array | None = getattr(_thread, "space", None)
    if space is None or space.nbytes < nbytes:
        memory = np.empty(nbytes + LINE, np.uint8)
        skip = -address(memory) % LINE
        space = memory[skip : skip + nbytes]
        _thread.space = space if nbytes <= KEPT_SPACE else None
    return space


class CpuBackend:
    """The kernels as a backend."""

    name = "cpu"
    block = 1 << 25  # logits: less than the 200 ms that Ctrl-C may take
    slabs = 1

    def __init__(
        self, threads: int | None = None, notify: Callable[[str], None] | None = None
    ) -> None:
        self.notify, self._asked = notify, threads

    @cached_property
    def threads(self) -> int:
        """How many threads large jobs get; to ask the system takes as long as a small job."""
        most = most_threads()
        return min(self._asked, max(most, processors.available())) if self._asked else most

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
        _, classes, inner = logits.shape
        probs = targets if targets.ndim == 3 else None
        losses = address(results)
        numbers = (
            *box(logits),
            address(targets) if probs is None else 0,
            *box(probs),
            address(weight),
            *scalars,
            address(scale),
            int(len(scale) > 1),
            losses,
            losses + results.strides[0],
            *box(grad),
        )
        arrays = logits, targets, weight, scale, scalars, results, grad
        streaming = uses_streaming_stores(logits, grad)
        work = self._work(logits, lambda rows: space_for(classes, rows, inner), streaming)
        dtypes = None if probs is None else probs.dtype, None if grad is None else grad.dtype
        length = classes, classes <= FAST_MAX_CLASSES
        kernel = _kernel_of_rows(length, logits.dtype, *dtypes, scalars)
        self.run(kernel, work, numbers, arrays)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        _, classes, inner = logits.shape
        numbers = *box(logits), *scalars, int(log), *box(out)
        arrays = logits, scalars, int(log), out
        work = self._work(logits, lambda rows: space_for(classes, rows, inner))
        self.run(Kernel.of("softmax", logits, None, out), work, numbers, arrays)

    def statistics(self, logits: Array, targets: Array, scalars: Scalars, results: Array) -> None:
        """The fields of `backends.fields`, for class indices."""
        _, classes, inner = logits.shape
        fields = address(results), results.strides[0] // results.itemsize
        numbers = *box(logits), address(targets), *scalars, *fields
        arrays = logits, targets, scalars, results
        work = self._work(logits, lambda rows: space_for_copies(classes, inner))
        self.run(Kernel.of("statistics", logits, None, None), work, numbers, arrays)

    def divergence(self, base: Array, model: Array, scalars: Scalars, results: Array) -> None:
        """KL(base‖model) of each row."""
        _, classes, inner = model.shape
        numbers = *box(base), *box(model), *scalars, address(results)
        arrays = base, model, scalars, results
        work = self._work(model, lambda rows: space_for_copies(classes, inner))
        self.run(Kernel.of("divergence", model, base, None), work, numbers, arrays)

    def _work(self, logits: Array, space: Callable[[int], int], streaming: bool = False) -> Work:
        outer, classes, inner = logits.shape
        rows, most = outer * inner, logits.size // LEAST_PART
        threads = min(rows, most, self.threads) if most > 1 else 1
        return Work(rows, space, threads, streaming, max(1, LEAST_PART // 2 // classes))

    def run(
        self, kernel: Kernel, work: Work, numbers: tuple[int | float, ...], arrays: tuple[Any, ...]
    ) -> None:
        """Run a kernel on threads. It takes numbers, in the order of `kernels.signature`; `arrays`
        are the same arguments for Numba."""
        if work.rows == 0:
            return
        code = kept.find(kernel, self.notify)
        if code is None:
            self._run_parallel(kernel, work, arrays)
            return
        streaming = int(work.streaming)
        if work.threads == 1:
            space = work_space(work.space(work.rows))
            code(0, work.rows, streaming, *numbers, address(space))
            return
        shares = shares_of(work.rows, work.threads, work.least)
        nbytes = work.space(shares[0][1])  # the first one is the largest

        def compute(begin: int, end: int) -> None:
            code(begin, end, streaming, *numbers, address(work_space(nbytes)))

        threads.run(compute, shares, work.threads)

    def _run_parallel(self, kernel: Kernel, work: Work, arrays: Any) -> None:
        numba_start.check_environment()
        with numba_start.starting("numba"):
            from xentcli.backends.cpu import parallel

            parallel.start()
        nbytes = work.space(-(-work.rows // work.threads)) // LINE * LINE + LINE
        space = work_space(nbytes * work.threads)[: nbytes * work.threads]
        space = space.view(kernel.compute).reshape(work.threads, -1)
        arguments = tuple(bits(a) if isinstance(a, np.ndarray) else a for a in arrays)
        split = work.threads, int(work.streaming)
        parallel.run(kernel.function, split, arguments, space, self.threads)
