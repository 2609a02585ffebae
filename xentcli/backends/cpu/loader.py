"""Object code in memory, as a function of Python: by llvmlite alone, without Numba.

LLVM's ORC is used because a symbol that does not exist is an error there. LLVM's older MCJIT, which
Numba uses, ends the process.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any

from llvmlite import binding

FORK_WAITS = 120.0  # seconds at most
_library_numbers = count()


class _Activity:
    """What LLVM and Numba are doing, imports of Numba included, by any number of threads at once.

    Forking waits until nothing is going on: a child that began in the middle could use neither ever
    again.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._going_on = 0
        self._forking = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._going_on += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._going_on -= 1
            self._changed.notify_all()

    def _before_fork(self) -> None:
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._going_on, timeout=FORK_WAITS)
            self._forking = idle  # nothing begins until the fork is over

    def _after_in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def let_forks_wait(self) -> None:
        """From now on. What is registered last is asked first when a process forks."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_in_parent,
                after_in_child=self._begin,  # threads that hold or wait for it are not there
            )


activity = _Activity()
activity.let_forks_wait()


@cache
def prepare_for_numba() -> None:
    """Forks that wait for Numba must not have the lock of `logging` already, which it needs."""
    import logging  # noqa: F401 (it is what registers a lock of its own; Numba imports it)

    activity.let_forks_wait()


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
    with activity:
        name = f"xent{next(_library_numbers)}"
        builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
        library = builder.export_symbol(symbol).link(_jit(), name)
        address: int = library[symbol]
        library.detach()  # never unloaded: a thread may still run it when the process ends
        return address


@cache
def _jit() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(suppress_errors=True)  # on stderr; they are raised


def processor() -> tuple[str, str, str]:
    """The platform, the processor's name and its features, for which Numba compiles."""
    with activity:
        features = binding.get_host_cpu_features().flatten()
        return binding.get_process_triple(), binding.get_host_cpu_name(), features
