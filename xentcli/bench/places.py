"""Where a case is computed: in the host's memory, or in that of a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from xentcli import backends
from xentcli.bench.case import Case, Data
from xentcli.bench.limits import DeviceLimits, HostLimits, Limits
from xentcli.bench.peers import DEVICE_PEERS, PEERS, CannotError, Machine, Peer

Timed = Callable[[], object]


class Place(Protocol):
    """What `measure` needs of it."""

    @property
    def machine(self) -> Machine:
        """Our backend, and how many threads each may use."""

    def whole(self, case: Case, part: Data) -> Data:
        """The arrays of a case from its part."""

    def limits(self, nbytes: int) -> Limits:
        """How fast memory can be moved here."""

    def peer(self, name: str) -> Peer:
        """Another implementation that computes here."""

    def awaited(self, run: Timed) -> Timed:
        """The same, but it returns only when everything is done."""


def place_of(machine: Machine) -> Place:
    """The place of a backend; `UnavailableError` where there is no device."""
    return DevicePlace(machine) if machine[0] == "cuda" else HostPlace(machine)


@dataclass(frozen=True)
class HostPlace:
    """NumPy's arrays."""

    machine: Machine

    def whole(self, case: Case, part: Data) -> Data:
        """The part, repeated."""
        return part.whole(case)

    def limits(self, nbytes: int) -> Limits:
        """Measured with the threads of the place."""
        return HostLimits(nbytes, self.machine[1])

    def peer(self, name: str) -> Peer:
        """`CannotError` for peers that need a device."""
        if name not in PEERS:
            raise CannotError("computes on a device only")
        return PEERS[name]

    def awaited(self, run: Timed) -> Timed:
        """Functions of the host return when they are done."""
        return run


class DevicePlace:
    """Arrays in the current device's memory; nothing is moved while the time runs."""

    def __init__(self, machine: Machine) -> None:
        backends.get(machine[0], 0)
        from xentcli.backends.cuda import bench_arrays

        bench_arrays.require_memory()
        self.machine, self._arrays = machine, bench_arrays

    def whole(self, case: Case, part: Data) -> Data:
        """Only the part is moved; the device repeats it."""
        repeated, first = self._arrays.repeated, case.shape[0]
        is_whole = first == len(part.logits)
        targets = repeated(part.targets, len(part.targets) if is_whole else first)
        weight = None if part.weight is None else repeated(part.weight, len(part.weight))
        return Data(repeated(part.logits, first), targets, weight)

    def limits(self, nbytes: int) -> Limits:
        """Measured in separate buffers."""
        return DeviceLimits(nbytes)

    def peer(self, name: str) -> Peer:
        """`CannotError` for peers that compute in host memory."""
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
