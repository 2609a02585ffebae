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
    "for_statistics",
    "for_teacher",
    "get",
    "require_known",
]

NAMES = tuple(name for name in get_args(options.Backend) if name != "auto")

# Up to this many logits NumPy is chosen. Measured on 2 cores with kept kernels: a command of 50,000
# logits takes 0.158 s of processor time by NumPy and 0.182 s by the kernels, which are loaded in
# 0.03 s; in a loop the kernels are faster at any size, 0.3 ms against 1 ms for 100 logits and 16 ms
# for 30,000. The rule depends on the size alone, so that the same job always gives the same bits.
AUTO_LIMIT = 50_000

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
    if name == "auto":
        name = "numpy" if entries <= AUTO_LIMIT else "cpu"
    if name == "numpy":
        from xentcli.backends.reference import NumpyBackend

        return NumpyBackend()
    if name == "cpu":
        return _cpu(threads, notify)
    return _cuda(threads, notify)


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
    if name == "numpy" or (name == "auto" and rows * classes <= AUTO_LIMIT):
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
    _check_cpu()
    from xentcli.backends.cpu.teacher import CpuTeacher

    return CpuTeacher(threads, notify)


def require_known(name: str, threads: int | None) -> tuple[str, int | None]:
    """A backend and a number of threads in Python's own types; an error if one is not allowed."""
    if threads is not None:
        threads = options.allowed("threads", threads, options.THREADS)
    return options.allowed("backend", name, options.BACKEND), threads


def _cpu(threads: int | None, notify: Callable[[str], None] | None) -> CpuBackend:
    _check_cpu()
    from xentcli.backends.cpu.backend import CpuBackend

    return CpuBackend(threads, notify)


def _check_cpu() -> None:
    """An error unless compiled kernels can run here."""
    numba_start.check_environment()
    with numba_start.starting("llvmlite"):
        from xentcli.backends.cpu import backend
    if backend.is_jit_disabled():
        what = "NUMBA_DISABLE_JIT is set, and these kernels run only compiled"
        hint = Setting("backend", "numpy"), " computes without Numba"
        raise OptionError("backend", what, hint)


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
