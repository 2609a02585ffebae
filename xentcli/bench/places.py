"""The memory that a case is computed in: the host's, or a CUDA device's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from xentcli import backends
from xentcli.bench.case import Case, Data
from xentcli.bench.limits import DeviceLimits, HostLimits, Limits
from xentcli.bench.peers import DEVICE_PEERS, PEERS, CannotError, Contestant, Machine
from xentcli.records import dataclass

Timed = Callable[[], object]


class Memory(Protocol):
    """What `measure` needs."""

    @property
    def machine(self) -> Machine:
        """xent's backend, and the number of threads for every implementation."""

    def whole(self, case: Case, part: Data) -> Data:
        """The arrays of a case, made from its part."""

    def limits(self, case: Case) -> Limits:
        """Kernels that only move memory."""

    def peer(self, name: str) -> Contestant:
        """Another library that computes in this memory."""

    def awaited(self, run: Timed) -> Timed:
        """The same function, but it returns only when everything is done."""


def memory_of(machine: Machine) -> Memory:
    """The memory of a backend; `UnavailableError` where there is no device."""
    return DeviceMemory(machine) if machine[0] == "cuda" else HostMemory(machine)


@dataclass(frozen=True)
class HostMemory:
    """NumPy arrays."""

    machine: Machine

    def whole(self, case: Case, part: Data) -> Data:
        """The part, repeated."""
        return part.whole(case)

    def limits(self, case: Case) -> Limits:
        """With the same number of threads."""
        row = case.nbytes // case.layout.rows
        return HostLimits(case.nbytes, row, self.machine[1])

    def peer(self, name: str) -> Contestant:
        """`CannotError` for those that need a device."""
        if name not in PEERS:
            raise CannotError("computes on a device only")
        return PEERS[name]

    def awaited(self, run: Timed) -> Timed:
        """Functions on the host return when they are done."""
        return run


class DeviceMemory:
    """Arrays in the memory of the current device; nothing is copied while timing."""

    def __init__(self, machine: Machine) -> None:
        backends.get(machine[0], 0)
        from xentcli.backends.cuda import bench_arrays

        bench_arrays.require_memory()
        self.machine, self._arrays = machine, bench_arrays

    def whole(self, case: Case, part: Data) -> Data:
        """Only the part is copied; the device repeats it."""
        repeated, first = self._arrays.repeated, case.shape[0]
        is_whole = first == len(part.logits)
        targets = repeated(part.targets, len(part.targets) if is_whole else first)
        weight = None if part.weight is None else repeated(part.weight, len(part.weight))
        return Data(repeated(part.logits, first), targets, weight)

    def limits(self, case: Case) -> Limits:
        """With their own buffers."""
        return DeviceLimits(case.nbytes)

    def peer(self, name: str) -> Contestant:
        """`CannotError` for those that compute in host memory."""
        if name not in DEVICE_PEERS:
            raise CannotError("is timed in the host's memory only")
        return DEVICE_PEERS[name]

    def awaited(self, run: Timed) -> Timed:
        """A launch returns at once: wait for the device."""

        def both() -> Any:
            answer = run()
            self._arrays.synchronize()
            return answer

        return both
