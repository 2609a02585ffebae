"""The machine and the installation, as facts."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from xentcli import __version__
from xentcli.errors import visible
from xentcli.kernels import AUTO_LIMIT, NAMES, cache


def describe() -> dict[str, str]:
    """What `xent info` shows; Numba is not started for it."""
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "click", "rich")}
    return {
        "xent": __version__,
        "python": f"{platform.python_version()} ({visible(sys.executable)})",
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "threads": str(threads()),
        "backends": ", ".join(NAMES),
        "auto": f"numpy up to {AUTO_LIMIT:,} logits, cpu beyond",
        "cache": _cache(),
    }


def _cache() -> str:
    try:
        return visible(str(cache.folder()))
    except RuntimeError:  # there is no home folder
        return "none: kernels are compiled for each process"


def threads() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [row.partition(":")[2].strip() for row in lines if row.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
