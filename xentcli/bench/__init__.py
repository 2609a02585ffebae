"""Speed, next to the machine's limit and other libraries; each answer is checked before timing.

In every round all contestants and the limits run in turn, so that other load on the machine slows
all of them alike. Reported are medians, the ratio to the time that moving the same bytes takes, and
the largest error in units in the last place over some rows. With `cuda` all arrays are in device
memory, and a time includes waiting for the device.

In a loop (`Plan.loop`), as in training, each call makes a new output, and many calls are timed
together; there is no limit then, as small arrays stay in the caches. `processes` times whole
commands.

The variants of the kernels that were tried are in `.github/TUNING.md`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Any

from xentcli.bench.case import Case, Data
from xentcli.bench.columns import OF_CALLS, cell
from xentcli.bench.exact import ExactResult
from xentcli.bench.peers import DEVICE_PEERS, PEERS, Answer, CannotError, Machine, ours
from xentcli.bench.places import Memory, memory_of
from xentcli.errors import OptionError
from xentcli.records import dataclass

IN_A_LOOP = "in a loop"
LOOP = 0.01  # seconds of calls in a loop that are timed together


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
        """Seconds for moving the bytes of this case, at the best rates of each round.

        Whoever is faster than the kernels that only move memory shows that memory is faster: in a
        round no share of the limit is above 1, and so the median is not.
        """
        rounds = range(len(self.limits["read"]))
        return statistics.median(self._limit_of(number) for number in rounds)

    def _limit_of(self, number: int) -> float:
        case = self.case
        kind = "in place" if case.in_place else "copy" if case.gradient else "read"
        best = min(taken[number] for name, taken in self.limits.items() if name.startswith(kind))
        extra = case.moved - (2 if case.gradient else 1) * case.nbytes
        moving = best * case.nbytes + self.limits["read"][number] * extra
        return min([moving / self.limit_bytes, *(c.seconds[number] for c in self._timed())])

    def _timed(self) -> list[Contestant]:
        return [one for one in self.contestants if one.seconds]

    def rates(self) -> dict[str, float]:
        """Bytes per second of each limit."""
        return {
            name: self.limit_bytes * (1 if name == "read" else 2) / statistics.median(seconds)
            for name, seconds in self.limits.items()
        }

    @property
    def title(self) -> str:
        """The case in words."""
        return self.case.title("" if self.limits else IN_A_LOOP)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; those about memory only where there is a limit."""
        memory = () if self.limits else ("gb_per_s", "of_the_limit")
        return tuple(name for name in OF_CALLS if name not in memory)

    def words(self) -> str:
        """The limit, and the machine's rates, as a sentence."""
        if not self.limits:
            return "a new output in every call"
        rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in self.rates().items())
        limit = cell("median_ms", self.limit() * 1e3)
        return f"limit: {limit} ms; GB/s of moving as many bytes: {rates}"

    def about(self) -> dict[str, Any]:
        """The facts for JSON, besides the table."""
        facts = {"case": self.title, "shape": list(self.case.shape), "dtype": self.case.dtype}
        if not self.limits:
            return facts
        rates = {name: rate / 1e9 for name, rate in self.rates().items()}
        limit_ms = self.limit() * 1e3
        return {
            **facts,
            "bytes_moved": self.case.moved,
            "limit_ms": limit_ms,
            "limits_gb_per_s": rates,
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
            "of_the_limit": self.limit() / one.median if timed and self.limits else None,
            "times_ours": one.median / mine.median if timed and mine.seconds else None,
            "loss_ulp": one.loss_ulp,
            "grad_ulp": one.grad_ulp,
            "why_not": one.why_not,
            "seconds": one.seconds,
        }


@dataclass(frozen=True)
class Plan:
    """The contestants, and the number of rounds; `loop`: as many calls as a training loop makes."""

    against: tuple[str, ...] = tuple(PEERS)
    warmup: int = 1
    runs: int = 5
    seed: int = 0
    machine: Machine = ("cpu", None)
    loop: bool = False

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
    data, limits = memory.whole(case, part), None if plan.loop else memory.limits(case)
    timed: dict[str, Callable[[], object]] = dict(limits.functions()) if limits else {}
    moving = tuple(timed)
    contestants = []
    for name in ("xent", *plan.against):
        notify(f"{name}: first run and check")
        one = Contestant(name)
        contestants.append(one)
        run = _prepared(one, case, data, memory, exact, plan)
        if run is not None:
            timed[name] = run
    seconds = _rounds({name: memory.awaited(run) for name, run in timed.items()}, plan, notify)
    for one in contestants:
        one.seconds = seconds.get(one.name, [])
    found = {name: seconds[name] for name in moving}
    return BenchResult(case, contestants, found, limits.nbytes if limits else 0)


def _prepared(
    one: Contestant, case: Case, data: Data, memory: Memory, exact: ExactResult, plan: Plan
) -> Callable[[], Answer] | None:
    """Run a contestant once, and check its answer; None if it will not be timed."""
    mine = partial(ours, new_output=plan.loop)
    try:
        contestant = mine if one.name == "xent" else memory.peer(one.name)
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
    calls = {name: _calls(run) if plan.loop else 1 for name, run in timed.items()}
    for round_ in range(plan.warmup + plan.runs):
        notify(f"round {round_ + 1} of {plan.warmup + plan.runs}")
        for name, run in timed.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
            taken = (time.perf_counter() - start) / calls[name]
            if round_ >= plan.warmup:
                seconds[name].append(taken)
    return seconds


def _calls(run: Callable[[], object]) -> int:
    """How many calls to time together."""
    start = time.perf_counter()
    run()
    return max(1, int(LOOP / (time.perf_counter() - start)))
