"""The backends, and which one `auto` chooses.

A backend has two functions over a box of logits, an array (outer, C, inner) whose n = outer·inner
rows are numbered in C order:

    rows(logits, targets, weight, scale, scalars, results, grad)
    softmax(logits, scalars, log, out)

Logits, probabilities and gradients are float16, bfloat16, float32 or float64, not necessarily the
same, in native byte order and contiguous along the inner axis, or along the class axis where inner
is 1. `targets` is int64 (n,) with −1 for ignored rows, or probabilities, a box like the logits.
`weight` is (C,); `scale`, (n,) or (1,), multiplies each row's gradient and not its loss. `results`
(2, n) receives the losses and the log-sum-exps, float64; `grad` is a box like the logits, or None,
or `logits` itself. The bits of a row depend on that row alone, and not on its memory layout.
Ignored rows get loss 0, log-sum-exp NaN and gradient +0.0.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, get_args

from xentcli import options
from xentcli.arrays.dtypes import Array
from xentcli.backends import devices, numba_start
from xentcli.backends.scalars import Scalars
from xentcli.errors import OptionError, Setting, UnavailableError

if TYPE_CHECKING:
    from xentcli.backends.cpu.backend import CpuBackend
    from xentcli.backends.cuda.teacher import CudaTeacher
    from xentcli.backends.teacher import TeacherBackend

__all__ = [
    "NAMES",
    "Backend",
    "Scalars",
    "StatisticsBackend",
    "choose",
    "for_statistics",
    "for_teacher",
    "get",
    "require_known",
]

NAMES = tuple(name for name in get_args(options.Backend) if name != "auto")

# Up to this many logits NumPy is chosen: what is typed by hand does not wait for a compilation.
# Measured on 2 cores with kept kernels, processor time:
#
#     logits        100      1,000     10,000     30,000
#     in a loop    0.5 ms    0.6 ms    2 ms       5 ms       NumPy (the float64 reference)
#                  0.03 ms   0.04 ms   0.06 ms    0.08 ms    kernels
#     a command    0.10 s    0.10 s    0.10 s     0.11 s     NumPy
#                  0.13 s    0.13 s    0.13 s     0.13 s     kernels, of which 0.03 s to load them
#
# So a loop is 15 to 60 times as fast with the kernels, and a command up to 0.03 s slower below
# 150,000 logits; its first job of a kind takes 3 or 4 s more, which `xent compile` does ahead.
# Neither is known here: the rule depends on the size alone, so that the same job always gives the
# same bits.
AUTO_LIMIT = 64

# The same for the statistics of rows, which nobody computes in a loop.
STATISTICS_LIMIT = 50_000

KERNEL_CLASSES = 1 << 24  # up to so many classes the kernel of statistics can count in float32

# `auto` never sends arrays in host memory to a CUDA device; this is estimated, not measured. For a
# float32 logit and its gradient the CPU kernels read and write 8 bytes, at about 60 % of the rate
# of a memory copy: as long as copying 13 bytes. For a device the same cores copy them into
# page-locked memory and out of it, 16 bytes, and the device reads and writes 8 more. The link
# alone, 4 bytes each way at 25 or 50 GB/s, would allow 6 or 12 billion logits per second; two cores
# compute 3 billion, and copy no more than that into page-locked memory and out. And a process takes
# about a second to start with a device.


class Backend(Protocol):
    """The interface that the module docstring describes."""

    name: str
    block: int  # about how many logits to pass at a time
    slabs: int  # how many slabs of a stream to pass at a time

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

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""


class StatisticsBackend(Protocol):
    """The interface that `fields` describes."""

    name: str
    block: int  # about how many logits to pass at a time

    def statistics(self, logits: Array, targets: Array, scalars: Scalars, results: Array) -> None:
        """The fields of the rows of a box."""

    def divergence(self, base: Array, model: Array, scalars: Scalars, results: Array) -> None:
        """KL(base‖model) of the rows of two boxes, float64 (n,): see `reference_divergence`."""


def get(
    name: str, entries: int, threads: int | None = None, notify: Callable[[str], None] | None = None
) -> Backend:
    """The backend of that name; for `auto` the one that is fastest for this many logits.

    `auto` is for arrays in host memory, and never chooses `cuda`: copying them does not pay.

    `notify` is called with a sentence when something takes long, such as a compilation.
    """
    name, threads = require_known(name, threads)
    name = choose(name, entries)
    if name == "numpy":
        from xentcli.backends.reference import NumpyBackend

        return NumpyBackend()
    if name == "cpu":
        return _cpu(threads, notify)
    return _cuda(threads, notify)


def choose(name: str, entries: int) -> str:
    """The name of a backend; for `auto` that of the fastest one for this many logits."""
    if name != "auto":
        return name
    return "numpy" if entries <= AUTO_LIMIT else "cpu"


def for_statistics(
    name: str,
    shape: tuple[int, int],
    threads: int | None = None,
    notify: Callable[[str], None] | None = None,
) -> StatisticsBackend:
    """The backend of that name for the fields of `fields`; for `auto` the one that is fastest.

    `shape` is rows and classes.
    """
    name, threads = require_known(name, threads)
    rows, classes = shape
    if classes > KERNEL_CLASSES:
        name = "numpy"
    if name == "cuda":
        what = "the statistics of rows are computed by numpy and cpu, not by cuda"
        raise OptionError("backend", what, ("use ", Setting("backend", "cpu")))
    if name == "numpy" or (name == "auto" and rows * classes <= STATISTICS_LIMIT):
        from xentcli.backends.reference_statistics import NumpyStatistics

        return NumpyStatistics()
    return _cpu(threads, notify)


def for_teacher(
    name: str,
    entries: int,
    weight: Array | None = None,
    threads: int | None = None,
    notify: Callable[[str], None] | None = None,
    *,
    plain: bool = True,
) -> TeacherBackend:
    """The backend of that name for losses against a teacher; for `auto` the one that is fastest.

    Class weights, and a softcap (`plain` is false), are computed by the reference alone.
    """
    name, threads = require_known(name, threads)
    if name == "cuda" and (weight is not None or not plain):
        what = "class weights and a softcap beside a teacher are computed by numpy, not by cuda"
        raise OptionError("backend", what, ("use ", Setting("backend", "numpy")))
    small = name == "auto" and entries <= AUTO_LIMIT
    if name == "numpy" or small or weight is not None or not plain:
        from xentcli.backends.reference_teacher import NumpyTeacher

        return NumpyTeacher(weight)
    if name == "cuda":
        return _cuda(threads, notify)
    _start_cpu()
    from xentcli.backends.cpu.teacher import CpuTeacher

    return CpuTeacher(threads, notify)


def require_known(name: str, threads: int | None) -> tuple[str, int | None]:
    """A backend and a number of threads in Python's own types; an error if one is not allowed."""
    if threads is not None:
        threads = options.allowed("threads", threads, options.THREADS)
    return options.allowed("backend", name, options.BACKEND), threads


def _cpu(threads: int | None, notify: Callable[[str], None] | None) -> CpuBackend:
    return _start_cpu()(threads, notify)


@functools.cache
def _start_cpu() -> type[CpuBackend]:
    """Import the CPU backend, once: reading the whole environment takes longer than a small job.

    An error unless compiled kernels can run here.
    """
    numba_start.check_environment()
    with numba_start.starting("llvmlite"):
        from xentcli.backends.cpu import backend
    if backend.is_jit_disabled():
        what = "NUMBA_DISABLE_JIT is set, and these kernels run only compiled"
        hint = Setting("backend", "numpy"), " computes without Numba"
        raise OptionError("backend", what, hint)
    return backend.CpuBackend


def _cuda(threads: int | None, notify: Callable[[str], None] | None) -> CudaTeacher:
    numba_start.check_environment()
    driver = None if devices.is_simulated() else devices.find()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that numba-cuda is newer than Numba's own target
            from xentcli.backends import cuda
            from xentcli.backends.cuda.teacher import CudaTeacher

            cuda.check(driver)
            return CudaTeacher(threads, notify if driver else None)
    except UnavailableError:
        raise
    except Exception as error:  # a broken installation fails in any way
        what = numba_start.not_started("numba.cuda", f"{type(error).__name__}: {error}")
        raise UnavailableError("backend", what, devices.extra(driver)) from error
