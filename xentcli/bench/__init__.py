"""Speed, next to the machine's limit and other libraries; each answer is checked before timing.

In every round all contestants and the limits run in turn, so that other load on the machine slows
all of them alike. Reported are medians, the ratio to the time that moving the same bytes takes, and
the largest error in units in the last place over some rows. With `cuda` all arrays are in device
memory, and a time includes waiting for the device.

The variants of the kernels that were tried are in `.github/TUNING.md`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xentcli.bench.case import Case, Data
from xentcli.bench.exact import ExactResult
from xentcli.bench.peers import DEVICE_PEERS, PEERS, Answer, CannotError, Machine, ours
from xentcli.bench.places import Memory, memory_of
from xentcli.errors import OptionError


@dataclass
class Contestant:
    """One line of the table: the seconds of each round, or why it was not timed."""

    name: str
    seconds: list[float] = field(default_factory=list)
    loss_ulp: float | None = None
    grad_ulp: float | None = None
    why_not: str | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass
class BenchResult:
    """A case, its contestants, and the seconds of the limits."""

    case: Case
    contestants: list[Contestant]
    limits: dict[str, list[float]]
    limit_bytes: int

    def limit(self) -> float:
        """Seconds for moving the bytes of this case, at the measured rates."""
        of = {name: statistics.median(seconds) for name, seconds in self.limits.items()}
        name = "in place" if self.case.in_place else "copy" if self.case.gradient else "read"
        both = 2 if self.case.gradient else 1
        extra = self.case.moved - both * self.case.nbytes
        return (of[name] * self.case.nbytes + of["read"] * extra) / self.limit_bytes

    def rates(self) -> dict[str, float]:
        """Bytes per second of each limit."""
        return {
            name: self.limit_bytes * (1 if name == "read" else 2) / statistics.median(seconds)
            for name, seconds in self.limits.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        """The table as dicts; None where there is no number."""
        mine = self.contestants[0]
        return [self._row(one, mine) for one in self.contestants]

    def _row(self, one: Contestant, mine: Contestant) -> dict[str, Any]:
        timed = one.why_not is None
        return {
            "who": one.name,
            "median_ms": one.median * 1e3 if timed else None,
            "min_ms": min(one.seconds) * 1e3 if timed else None,
            "max_ms": max(one.seconds) * 1e3 if timed else None,
            "gb_per_s": self.case.moved / one.median / 1e9 if timed else None,
            "of_the_limit": self.limit() / one.median if timed else None,
            "times_ours": one.median / mine.median if timed and mine.seconds else None,
            "loss_ulp": one.loss_ulp,
            "grad_ulp": one.grad_ulp,
            "why_not": one.why_not,
        }


@dataclass(frozen=True)
class Plan:
    """The contestants, and the number of rounds."""

    against: tuple[str, ...] = tuple(PEERS)
    warmup: int = 1
    runs: int = 5
    seed: int = 0
    machine: Machine = ("cpu", None)

    def __post_init__(self) -> None:
        names = dict.fromkeys([*PEERS, *DEVICE_PEERS])
        unknown = [name for name in self.against if name not in names]
        if unknown:
            known = ", ".join(names)
            raise OptionError("against", f"{unknown[0]!r} is not known", f"one of {known}")


def measure(case: Case, plan: Plan, notify: Callable[[str], None]) -> BenchResult:
    """Check, warm up and time all contestants; `notify` is called with the progress."""
    memory = memory_of(plan.machine)
    part = Data.make(case, plan.seed)
    exact = ExactResult.of(case, part)
    data, limits = memory.whole(case, part), memory.limits(case.nbytes)
    timed: dict[str, Callable[[], object]] = dict(limits.functions())
    contestants = []
    for name in ("xent", *plan.against):
        notify(f"{name}: first run and check")
        one = Contestant(name)
        contestants.append(one)
        run = _prepared(one, case, data, memory, exact)
        if run is not None:
            timed[name] = run
    seconds = _rounds({name: memory.awaited(run) for name, run in timed.items()}, plan, notify)
    for one in contestants:
        one.seconds = seconds.get(one.name, [])
    found = {name: seconds[name] for name in limits.functions()}
    return BenchResult(case, contestants, found, limits.nbytes)


def _prepared(
    one: Contestant, case: Case, data: Data, memory: Memory, exact: ExactResult
) -> Callable[[], Answer] | None:
    """Run a contestant once, and check its answer; None if it will not be timed."""
    try:
        contestant = ours if one.name == "xent" else memory.peer(one.name)
        run = contestant(case, data, memory.machine)
        loss, grad = run()
        one.loss_ulp, one.grad_ulp = exact.errors(case, loss, grad)
    except CannotError as reason:
        one.why_not = str(reason)
    except Exception as error:  # another library may fail in any way; the rest goes on
        if one.name == "xent":
            raise
        one.why_not = f"failed: {type(error).__name__}"
    else:
        if exact.is_wrong(case, loss, grad):
            one.why_not = "gives a wrong answer"
    return None if one.why_not else run


def _rounds(
    timed: dict[str, Callable[[], object]], plan: Plan, notify: Callable[[str], None]
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in range(plan.warmup + plan.runs):
        notify(f"round {round_ + 1} of {plan.warmup + plan.runs}")
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            if round_ >= plan.warmup:
                seconds[name].append(taken)
    return seconds
