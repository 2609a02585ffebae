"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath


def available() -> int:
    """Processors in the affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """As many threads as there are processors, or fewer where a control group allows less time."""
    return max(1, math.ceil(min(available(), _own_quota())))


@cache
def _own_quota() -> float:
    return quota()


def quota(root: Path = Path("/")) -> float:
    """How many processors' time the control groups of this process allow; inf without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return math.inf
    return min((limit for line in lines for limit in _limits(root, line)), default=math.inf)


def _limits(root: Path, line: str) -> Iterator[float]:
    """The limits of one line, like `0::/user.slice` or `4:cpu,cpuacct:/docker/12ab`, and of all
    groups around it. In a container the path may be that of the host, which is not to be seen."""
    _, _, rest = line.partition(":")
    controllers, _, name = rest.partition(":")
    if controllers and "cpu" not in controllers.split(","):
        return
    mount = root / "sys/fs/cgroup" / controllers
    group = PurePosixPath(name)
    for inside in (group, *group.parents):
        folder = mount / str(inside).lstrip("/")
        if controllers:
            files = [folder / f"cpu.cfs_{kind}_us" for kind in ("quota", "period")]
        else:
            files = [folder / "cpu.max"]
        yield _ratio(files)


def _ratio(files: list[Path]) -> float:
    """Quota / period; `max` or −1 is no limit."""
    try:
        used, period = " ".join(path.read_text() for path in files).split()
        return int(used) / int(period) if int(used) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
