"""The machine's limit: copying, reading, or reading and writing back as many bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

LINE = 64  # bytes
LONGEST_ROW = 1 << 13  # lines of a row that stay in the cache until they are written, 512 KiB


class Limits(Protocol):
    """Kernels that only move memory, timed in the same rounds as the contestants."""

    nbytes: int

    def functions(self) -> dict[str, Callable[[], None]]:
        """The functions to time: "copy", "read", "in place", and other ways of copying."""


class HostLimits:
    """Host memory; the copy uses streaming stores.

    Memory that is read for a while and then written may be copied faster than line by line: rows
    are copied too, as the kernels write their gradients.
    """

    def __init__(self, nbytes: int, row: int, threads: int | None) -> None:
        from xentcli.backends.cpu.bandwidth import MemoryKernels

        count = max(1 << 16, nbytes // 4)
        self.source, self.target = np.ones(count, np.float32), np.zeros(count, np.float32)
        self.nbytes = self.source.nbytes
        self._row = min(max(1, row // LINE), LONGEST_ROW)
        self._kernels = MemoryKernels(threads)

    def functions(self) -> dict[str, Callable[[], None]]:
        """The functions to time, by name."""
        source, target = self.source, self.target
        return {
            "copy": lambda: self._kernels.copy(source, target),
            "copy of rows": lambda: self._kernels.copy(source, target, self._row),
            "read": lambda: self._kernels.read(source),
            "in place": lambda: self._kernels.rewrite(target),
        }


class DeviceLimits:
    """Device memory; the copy is the driver's."""

    def __init__(self, nbytes: int) -> None:
        from xentcli.backends.cuda import bandwidth, bench_arrays

        count, one = max(1, nbytes // 8), np.ones(1)
        self.source, self.target = (bench_arrays.repeated(one, count).data for _ in range(2))
        self.nbytes = 8 * count
        self._kernels = bandwidth

    def functions(self) -> dict[str, Callable[[], None]]:
        """The functions to time, by name."""
        source, target = self.source, self.target
        return {
            "copy": lambda: self._kernels.copy(source, target),
            "read": lambda: self._kernels.read(source),
            "in place": lambda: self._kernels.rewrite(target),
        }
