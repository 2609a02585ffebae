"""The CUDA backend for arrays in host memory.

Rows are copied to the device and back in pieces. A row's bits depend on that row alone, so the size
of the pieces changes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any

from numba import cuda
from numba.cuda.cudadrv import nvvm

from xentcli.arrays.dtypes import Array
from xentcli.arrays.layout import Block, Layout
from xentcli.backends import Scalars, devices
from xentcli.backends.cuda import launch
from xentcli.backends.cuda.box import boxed
from xentcli.backends.cuda.errors import in_one_line
from xentcli.backends.cuda.staging import (
    Copiers,
    Transfer,
    check_process,
    device_weight,
    exclusive_device,
    run,
)
from xentcli.errors import UnavailableError

# Logits in a piece; estimated, not measured: 8 MiB of float32 cross PCIe in about 0.2 to 0.4 ms,
# longer than the Python calls for a piece take.
PIECE = 1 << 21

NOTIFY_AFTER = 0.5  # seconds
STARTING = "starting the CUDA device and compiling its kernels, a few seconds"


def check(driver: devices.Driver | None) -> None:
    """Raise an `UnavailableError` where Numba's CUDA does not work; None is the simulator."""
    check_process()
    if driver is None:
        return
    try:
        nvvm.NVVM()
        nvvm.LibDevice()
    except Exception as error:  # it looks for its parts in many places
        what = (
            f"the driver is installed ({driver}), but not the CUDA compiler: {in_one_line(error)}"
        )
        raise UnavailableError("backend", what, devices.extra(driver)) from error
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "it does not say why").split())
        what = f"numba.cuda cannot use the driver ({driver}): {reason}"
        raise UnavailableError("backend", what, devices.extra(driver))


@dataclass(frozen=True)
class _LaunchRows:
    """Launches the loss and the gradient of a piece."""

    shape: tuple[int, int, int]
    probs: bool
    weight: Any
    scalars: Scalars

    def __call__(self, inputs: list[Any], outputs: list[Any], stream: Any) -> None:
        logits, targets, scale = inputs
        results, *grad = outputs
        launch.rows(
            boxed(logits, self.shape),
            boxed(targets, self.shape) if self.probs else targets,
            self.weight,
            scale,
            self.scalars,
            results.reshape(2, results.size // 2),
            boxed(grad[0], self.shape) if grad else None,
            stream,
        )


@dataclass(frozen=True)
class _LaunchSoftmax:
    """Launches the probabilities of a piece, or their logarithms."""

    shape: tuple[int, int, int]
    scalars: Scalars
    log: bool

    def __call__(self, inputs: list[Any], outputs: list[Any], stream: Any) -> None:
        logits, out = inputs[0], outputs[0]
        launch.softmax(
            boxed(logits, self.shape), self.scalars, self.log, boxed(out, self.shape), stream
        )


class CudaBackend:
    """The kernels as a backend. `piece` is about how many logits are copied at a time."""

    name = "cuda"
    block = 1 << 27  # logits: 64 pieces; Ctrl-C waits for those in flight only
    slabs = 8  # four pieces, so that they overlap

    def __init__(
        self,
        threads: int | None = None,
        notify: Callable[[str], None] | None = None,
        piece: int = PIECE,
    ) -> None:
        self._copiers = Copiers(threads)
        self._notify = notify
        self._piece = piece

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
        probs = targets.ndim == 3

        def pieces() -> Iterator[Transfer]:
            for block, shape in self._split(logits):
                q = block.of(targets) if probs else targets[block.rows]
                v = scale if len(scale) == 1 else scale[block.rows]
                outputs = [results[:, block.rows]] + ([] if grad is None else [block.of(grad)])
                start = _LaunchRows(shape, probs, shared, scalars)
                yield Transfer((block.of(logits), q, v), tuple(outputs), start)

        with exclusive_device(), self._notified():
            shared = device_weight(weight)
            run(pieces(), self._copiers)

    def softmax(self, logits: Array, scalars: Scalars, log: bool, out: Array) -> None:
        """Probabilities, or their logarithms."""
        pieces = (
            Transfer((block.of(logits),), (block.of(out),), _LaunchSoftmax(shape, scalars, log))
            for block, shape in self._split(logits)
        )
        with exclusive_device(), self._notified():
            run(pieces, self._copiers)

    @contextmanager
    def _notified(self) -> Iterator[None]:
        """Notify once why the first rows take so long, if they do."""
        notify, self._notify = self._notify, None
        timer = Timer(NOTIFY_AFTER, notify, [STARTING]) if notify else None
        if timer:
            timer.start()
        try:
            yield
        finally:
            if timer:
                timer.cancel()

    def _split(self, logits: Array) -> Iterator[tuple[Block, tuple[int, int, int]]]:
        """Blocks of rows of about `piece` logits, and their shapes.

        With few classes, fewer logits: each row has 32 bytes beside them.
        """
        classes = logits.shape[1]
        most = min(self._piece, self._piece // 8 * classes)
        for block in Layout(logits.shape, 1).blocks(most):
            yield block, block.of(logits).shape
