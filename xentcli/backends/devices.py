"""The CUDA devices of this machine, from the NVIDIA driver.

The driver is called directly, through ctypes: Numba takes a second to start, and does not
distinguish a missing driver, a missing device and missing parts of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from xentcli.errors import Setting, UnavailableError, Words, visible

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...

_OLDEST_FOR_CUDA_13 = (7, 5)  # its compiler has dropped older devices

INSTEAD: Words = (Setting("backend", "cpu"), " computes without one")


class Device(NamedTuple):
    """A device: name, memory in bytes, compute capability."""

    name: str
    memory: int
    capability: tuple[int, int]

    def __str__(self) -> str:
        size = f"{self.memory / (1 << 30):.1f} GiB"
        return f"{self.name}, {size}, compute capability {self.capability[0]}.{self.capability[1]}"


class Driver(NamedTuple):
    """The driver's own version, if known, the CUDA version that it supports, and its devices."""

    version: str | None
    cuda: tuple[int, int]
    devices: tuple[Device, ...]

    def __str__(self) -> str:
        own = f"{self.version}, " if self.version else ""
        return f"{own}CUDA {self.cuda[0]}.{self.cuda[1]}"


def is_simulated() -> bool:
    """Whether NUMBA_ENABLE_CUDASIM is set: to an integer other than 0, as Numba reads it."""
    try:
        return int(os.environ.get("NUMBA_ENABLE_CUDASIM", "0")) != 0
    except ValueError:
        return False


def extra(driver: Driver | None) -> str:
    """The command that installs the extra for this driver and its devices.

    >>> extra(Driver("580.82", (13, 0), (Device("Tesla V100", 16 << 30, (7, 0)),)))
    "pip install 'xentcli[cuda12]'"
    """
    newest = driver is None or driver.cuda >= (13, 0)
    if driver and any(device.capability < _OLDEST_FOR_CUDA_13 for device in driver.devices):
        newest = False
    return f"pip install 'xentcli[{'cuda13' if newest else 'cuda12'}]'"


def find() -> Driver:
    """The driver and its devices, at least one; an `UnavailableError` says what is missing."""
    library = _library()
    if library is None:
        what = "no NVIDIA driver is installed" + _variable("NUMBA_CUDA_DRIVER")
        raise UnavailableError("backend", what, INSTEAD)
    code = library.cuInit(0)
    if code not in (0, _NO_DEVICE):
        name = _error_name(library, code)
        raise UnavailableError("backend", f"the NVIDIA driver does not start: {name}", INSTEAD)
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    if code == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        what = "the NVIDIA driver finds no device" + _variable("CUDA_VISIBLE_DEVICES")
        raise UnavailableError("backend", what, INSTEAD)
    found = tuple(_device(library, number) for number in range(count.value))
    return Driver(_own_version(), (version.value // 1000, version.value % 1000 // 10), found)


def _variable(name: str) -> str:
    """A variable that may be the reason, if it is set."""
    value = os.environ.get(name)
    return "" if value is None else f"; {name} is {visible(value)!r}"


def _library() -> Any:
    """The driver's library, or None. NUMBA_CUDA_DRIVER may say where it is."""
    names = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1", "libcuda.so"]
    given = os.environ.get("NUMBA_CUDA_DRIVER")
    for name in [given] if given else names:
        try:
            return ctypes.CDLL(name)  # CUDA's functions are cdecl; on 64 bits there is no other
        except OSError:
            continue
    return None


def _error_name(library: Any, code: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(name))
    return visible((name.value or b"error").decode("ascii", "replace")) + f" ({code})"


def _device(library: Any, number: int) -> Device:
    name, memory, value = ctypes.create_string_buffer(256), ctypes.c_size_t(0), ctypes.c_int(0)
    device = ctypes.c_int(0)
    library.cuDeviceGet(ctypes.byref(device), number)
    library.cuDeviceGetName(name, 256, device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    text = visible(name.value.decode("utf-8", "replace"))
    return Device(text, memory.value, (capability[0], capability[1]))


def _own_version() -> str | None:
    try:
        return visible(Path("/sys/module/nvidia/version").read_text().strip())
    except OSError:
        return None
