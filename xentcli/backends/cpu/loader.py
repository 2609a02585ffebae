"""Object code in memory, as a function of Python, without Numba, and mostly without LLVM."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xentcli.backends.cpu import elf
from xentcli.backends.cpu.activity import activity

CPU_INFO = Path("/proc/cpuinfo")
IDENTIFYING = {"vendor_id", "cpu family", "model", "flags"}  # and nothing that changes by itself


class CannotLoadError(Exception):
    """This llvmlite or this platform loads no object code."""


class MachineCode:
    """A C function in memory, `int f(void **result, void **error, numbers …)`, for ever."""

    def __init__(self, symbol: str, code: bytes) -> None:
        try:
            self._address = _link(symbol, code)
        except Exception as error:  # llvmlite has only RuntimeError, and ORC may be missing
            raise CannotLoadError(str(error)) from error
        self._unused = (ctypes.c_void_p * 2)()  # where None is returned to, and no error either
        begin = ctypes.addressof(self._unused)
        self._ignored = begin, begin + ctypes.sizeof(ctypes.c_void_p)
        self._function: Any = None

    def prepare(self, numbers: Sequence[int | float]) -> None:
        """Learn from one list of numbers which of them are float64."""
        if self._function is None:
            kinds = [ctypes.c_double if isinstance(n, float) else ctypes.c_int64 for n in numbers]
            pointers = [ctypes.c_void_p] * 2
            make = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, *kinds)
            self._function = make(self._address)

    def __call__(self, *numbers: int | float) -> None:
        """Run it, without the interpreter's lock."""
        if self._function is None:
            self.prepare(numbers)
        if status := self._function(*self._ignored, *numbers):
            raise RuntimeError(f"a kernel ended with status {status}")


def _link(symbol: str, code: bytes) -> int:
    try:
        return elf.link(code, symbol)
    except elf.NeedsLinkerError:
        with activity:
            from xentcli.backends.cpu import llvm

            return llvm.link(code, symbol)


def processor() -> tuple[str, ...]:
    """What tells the processors apart for which Numba compiles different code."""
    try:
        with CPU_INFO.open() as lines:
            known = identity(lines)
    except (OSError, ValueError):
        known = ()
    if len(known) == len(IDENTIFYING):
        return sys.platform, os.uname().machine, str(sys.maxsize), *known
    with activity:
        from xentcli.backends.cpu import llvm

        return llvm.processor()


def identity(lines: Iterable[str]) -> tuple[str, ...]:
    """Of the first processor in Linux's list of them, as it is written for x86-64.

    >>> identity(["model\\t\\t: 143", "cpu MHz\\t\\t: 2596.1", "flags\\t: fpu sse", "", "model: 1"])
    ('model: 143', 'flags: fpu sse')
    """
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            break
        if name.strip() in IDENTIFYING:
            found.append(f"{name.strip()}: {value.strip()}")
    return tuple(found)
