"""Errors of CUDA and Numba, translated to `UnavailableError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xentcli.backends import devices
from xentcli.errors import Setting, UnavailableError, XentError, visible

_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_INCOMPATIBLE = (209, 218, 222)  # no binary for this device, invalid PTX, PTX of a newer CUDA

# Modules of what the driver, the compiler and their bindings raise; a TypingError is our bug.
_OF_CUDA = ("numba.cuda.cudadrv", "cuda.", "numba.cuda.simulator.cudadrv")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn errors of the driver or the compiler into an `UnavailableError`."""
    try:
        yield
    except XentError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(_OF_CUDA):
            raise
        raise as_unavailable(error) from error


def as_unavailable(error: Exception) -> UnavailableError:
    """The error that says why CUDA does not work, with a hint."""
    code = getattr(error, "code", None)
    code = int(code) if code is not None else None
    reason = in_one_line(error)
    if code == _MEMORY:
        what = "not enough memory on the CUDA device, or of page-locked memory on the host"
        hint = Setting("backend", "cpu"), " needs neither"
        return UnavailableError("backend", f"{what}: {reason}", hint)
    fitting = _extra()
    if code in _INCOMPATIBLE:
        what = "numba.cuda compiles for another CUDA version or device than the installed one"
        return UnavailableError("backend", f"{what}: {reason}", fitting)
    if code is not None:
        return UnavailableError("backend", f"the CUDA device failed: {reason}", devices.INSTEAD)
    return UnavailableError("backend", f"numba.cuda does not work: {reason}", fitting)


def in_one_line(error: BaseException) -> str:
    """An error's class and text in one line."""
    text = " ".join(str(error).split())
    return visible(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _extra() -> str:
    try:
        return devices.extra(None if devices.is_simulated() else devices.find())
    except UnavailableError:
        return devices.extra(None)
