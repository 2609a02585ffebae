"""Facts about the machine and the installation."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from xentcli import __version__
from xentcli.backends import AUTO_LIMIT, NAMES, cache, devices, processors
from xentcli.backends.private_folder import UntrustedError, open_private
from xentcli.errors import UnavailableError, visible


def describe() -> dict[str, str]:
    """What `xent info` shows; Numba is not imported for it."""
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "click", "rich")}
    has_cuda, cuda = _cuda()
    return {
        "xent": __version__,
        "python": f"{platform.python_version()} ({visible(sys.executable)})",
        **versions,
        "numba-cuda": _version("numba-cuda"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "threads": str(processors.default_threads()),
        "cuda": cuda,
        "backends": ", ".join(name for name in NAMES if name != "cuda" or has_cuda),
        "auto": f"numpy up to {AUTO_LIMIT:,} logits, cpu beyond; cuda only for arrays on a device",
        "cache": _cache(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> tuple[bool, str]:
    """Whether there is a device, and which, or why not."""
    if devices.is_simulated():
        return True, "simulated: NUMBA_ENABLE_CUDASIM is set"
    try:
        driver = devices.find()
    except UnavailableError as error:
        return False, f"none: {error.what}"
    return True, "; ".join([*map(str, driver.devices), f"driver {driver}"])


def _cache() -> str:
    try:
        path = cache.folder()
    except RuntimeError:  # there is no home folder
        return "none: kernels are compiled for each process"
    try:
        with suppress(FileNotFoundError), open_private(path):
            pass
    except (OSError, UntrustedError) as error:
        return visible(f"{path}, not used: {getattr(error, 'strerror', None) or error}")
    return visible(str(path))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [row.partition(":")[2].strip() for row in lines if row.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
