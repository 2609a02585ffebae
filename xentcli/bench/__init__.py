"""Speed compared with the machine's limit and other libraries; every answer is checked first.

All contestants and the limits take turns in every round, so that a machine that others use too
slows all of them alike. What is reported are medians, the share of the time that moving the same
bytes takes, and the largest error in units in the last place over some rows. With `cuda` all of
it is in the memory of a device, and a time ends when the device has done everything.

Variants of the CPU kernels that were tried, loss and gradient, float32, N·C = 2²⁷, 2 cores with
AVX-512, a streaming copy of the same bytes 29 ms; medians of one hour, ±10 %. Failures are here
too, so that nobody has to try them again:

| variant                                                           | C = 1,000 | C = 32,768 |
|-------------------------------------------------------------------|-----------|------------|
| one row after the other, all lanes float64 (from 2²⁴)             |    144 ms |     136 ms |
| 16 lanes of float32, difference with its error, two-word factor   |     89 ms |      86 ms |
| the same, next row prefetched while this one is computed          |     66 ms |      68 ms |
| three rows in flight in one loop, ends of rows as a line of their |           |            |
| own that overlaps what was streamed                               |     83 ms |      53 ms |
| the same, ends of rows with a mask                                |     56 ms |      54 ms |
| the same, maximum in one instruction, no clamp: a third fewer     |           |            |
| instructions, no less time                                        |     61 ms |      52 ms |
| four or eight vectors of each row at a time                       |   no gain |    no gain |
| prefetch into the second cache only, or 16 KiB ahead              |   no gain |    no gain |
| without the exponentials, only their reading and writing          |     40 ms |      42 ms |

Of these the last but three was taken, with six instructions more for a sum and an exponential
that keep all their digits. Rows of 2 to 64 classes took 200 ns each one by one; 16 of them at a
time 540 ns (C = 2) through stores of single numbers and 250 ns through gathers. Calls of the C
library's exp, log1p and tanh take 150 to 220 ns each, Numba's arrays in place of pointers in the
loops 4 ns a logit.

Then, in ns for 16 logits on one core (4.1 GHz, Zen 5), float32, loss and gradient:

| variant                                                              | before | after    |
|----------------------------------------------------------------------|--------|----------|
| C = 32,768: each step begins one exponential, continues and ends two |        |          |
| others (`kernels.flow`), loss only                                   |    5.8 |      4.7 |
| the same, loss and gradient                                          |    5.9 |      5.4 |
| the same, float64, and sums by the larger and the smaller one        |   13.1 |     11.1 |
| the same in C, loss only, in the cache                               |   4.65 |     3.65 |
| in C: two or four vectors interleaved                                |   4.65 |  no gain |
| in C: additions as multiplications by 1 with addition                |   3.55 |  no gain |
| in C: four steps in place of three                                   |   3.35 |     3.28 |
| in C: a branch where an e is 1, in place of masks                    |   3.35 |     3.20 |
| in C: the maximum rounded, so that the difference's error is simpler;|        |          |
| not taken: a shift of all logits would change bits                   |   3.60 |     3.35 |
| in C: sums without what rounding took of each e; not taken: the loss |        |          |
| could be off by 0.85 ULP                                             |   4.65 |     3.70 |
| C = 100: the target's entry written with its neighbours              |     47 |       18 |
| C = 64: 16 rows turned round in registers                            |     50 |       23 |
| C = 64 in rows of their own: costs as much from C = 80 on            |     23 |       25 |
| C = 2: picked by comparing, not by gathers                           |     86 |  no gain |
| C = 2: 16 rows put together in memory, then stored                   |     86 |  no gain |
| C = 2: logits and targets asked for ahead, loss only                 |     54 |       41 |

All in all, 2²⁴ logits with gradient on two quiet cores: C = 64 27.6 to 14.9 ms, C = 10 43.0 to
21.9 ms, C = 2 70.5 to 59.3 ms.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xentcli.bench.case import Case, Data
from xentcli.bench.exact import Exact
from xentcli.bench.peers import DEVICE_PEERS, PEERS, Answer, CannotError, Machine, ours
from xentcli.bench.places import Place, place_of
from xentcli.errors import OptionError


@dataclass
class Contestant:
    """One line of the table: the seconds of every round, or why there are none."""

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
class Result:
    """A case, its contestants, and the seconds of the limits."""

    case: Case
    contestants: list[Contestant]
    limits: dict[str, list[float]]
    limit_bytes: int

    def limit(self) -> float:
        """Seconds that moving the bytes of this case takes at the rate that was measured."""
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
        """Plain data, for tables and files; None where there is no number."""
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
    """Which peers are timed, and for how many rounds."""

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


def measure(case: Case, plan: Plan, notify: Callable[[str], None]) -> Result:
    """Check, warm up and time every contestant; `notify` is called with what is going on."""
    place = place_of(plan.machine)
    part = Data.make(case, plan.seed)
    exact = Exact.of(case, part)
    data, limits = place.whole(case, part), place.limits(case.nbytes)
    timed: dict[str, Callable[[], object]] = dict(limits.functions())
    contestants = []
    for name in ("xent", *plan.against):
        notify(f"{name}: first run and check")
        one = Contestant(name)
        contestants.append(one)
        run = _prepared(one, case, data, place, exact)
        if run is not None:
            timed[name] = run
    seconds = _rounds({name: place.awaited(run) for name, run in timed.items()}, plan, notify)
    for one in contestants:
        one.seconds = seconds.get(one.name, [])
    found = {name: seconds[name] for name in limits.functions()}
    return Result(case, contestants, found, limits.nbytes)


def _prepared(
    one: Contestant, case: Case, data: Data, place: Place, exact: Exact
) -> Callable[[], Answer] | None:
    """Compute once with a contestant, and compare the answer."""
    try:
        contestant = ours if one.name == "xent" else place.peer(one.name)
        run = contestant(case, data, place.machine)
        loss, grad = run()
        one.loss_ulp, one.grad_ulp = exact.errors(case, loss, grad)
    except CannotError as reason:
        one.why_not = str(reason)
    except Exception as error:  # others fail in ways of their own, and the rest goes on
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
