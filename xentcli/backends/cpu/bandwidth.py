"""Copying, reading and rewriting memory on the threads of the kernels: the limit of all others."""

from __future__ import annotations

from xentcli.arrays.dtypes import Array
from xentcli.backends.cpu.backend import CpuBackend, Work
from xentcli.backends.cpu.kernel import Kernel, address
from xentcli.backends.cpu.workspace import LANES, LINE

LEAST = 1 << 12  # lines that a thread takes at a time


class MemoryKernels(CpuBackend):
    """For flat float32 arrays of at least a few cache lines."""

    def copy(self, source: Array, target: Array, block: int = 1) -> None:
        """Copy every whole cache line of the target; the elements before the first are left out.

        `block` lines are read, then written, as kernels do with a row.
        """
        first = -address(target) % LINE // target.itemsize
        self._move("copy", source[first:], target[first:], float(block))

    def read(self, source: Array) -> None:
        """Read every cache line."""
        self._move("read", source, source)

    def rewrite(self, target: Array) -> None:
        """Read and write back every cache line."""
        self._move("rewrite", target, target)

    def _move(self, function: str, source: Array, target: Array, factor: float = 1.0) -> None:
        lines = len(source) // LANES
        work = Work(lines, lambda rows: LINE, min(lines, self.threads), least=LEAST)
        numbers = address(source), address(target), factor
        self.run(Kernel(function, "float32"), work, numbers, (source, target, factor))
