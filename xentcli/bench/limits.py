"""What this machine can do with as many bytes: copy past the caches, read, read and write back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class Limits:
    """Timed by the same clock in the same rounds as the contestants."""

    def __init__(self, nbytes: int, threads: int | None) -> None:
        from xentcli.kernels.limits import MemoryKernels

        count = max(1 << 16, nbytes // 4)
        self.source, self.target = np.ones(count, np.float32), np.zeros(count, np.float32)
        self.nbytes = self.source.nbytes
        self._kernels = MemoryKernels(threads)

    def functions(self) -> dict[str, Callable[[], None]]:
        """What is timed, by name."""
        source, target = self.source, self.target
        return {
            "copy": lambda: self._kernels.copy(source, target),
            "read": lambda: self._kernels.read(source),
            "in place": lambda: self._kernels.rewrite(target),
        }

    def rate(self, name: str, seconds: float) -> float:
        """Bytes per second that were moved."""
        return self.nbytes * (1 if name == "read" else 2) / seconds
