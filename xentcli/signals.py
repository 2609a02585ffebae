"""The end of a process, by a signal or by itself.

A signal may arrive inside a compilation, where an exception would be swallowed, so the handler
does not raise: it removes the temporary files registered here and ends the process by the signal.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

# Each is a path, and the descriptor of the folder that it is relative to, as in `os.unlink`.
temporary_files: set[tuple[str, int | None]] = set()
temporary_folders: set[str] = set()  # paths
# What restores the terminal, such as showing the cursor, and what undoes that.
_terminal: list[tuple[bytes, bytes]] = []
_pending: list[int] = []
_deferring = [False]
_unwinding = [False]


def watch_signals() -> None:
    """Clean up and exit on SIGINT, SIGTERM and SIGHUP; ignored signals stay ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


class Stopped(BaseException):
    """A signal that ends the process, once what it has started elsewhere is ended."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def unwinding() -> Iterator[None]:
    """The first signal raises `Stopped` inside, so that other processes are ended in order."""
    _unwinding[0] = True
    try:
        yield
    finally:
        _unwinding[0] = False


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals, while several files are renamed into place."""
    _deferring[0] = True
    try:
        yield
    finally:
        _deferring[0] = False
        if _pending:
            _stop(_pending[0], None)


def _stop(number: int, frame: Any) -> None:
    if _deferring[0]:
        _pending.append(number)
        return
    if _unwinding[0]:
        _unwinding[0] = False
        raise Stopped(number)
    for name, folder in list(temporary_files):
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
    for folder_path in list(temporary_folders):
        remove_folder(folder_path)
    for restored, _ in _terminal:
        _write_terminal(restored)
    die(number)


def remove_folder(path: str) -> None:
    """Remove a folder and what is in it; other threads and processes may still write into it."""
    with suppress(OSError):
        renamed = f"{path.removesuffix('.tmp')}-removed.tmp"
        os.rename(path, renamed)  # noqa: PTH104 (nothing can be added by the old path any more)
        for folder, inner, names in os.walk(renamed, topdown=False):
            for name in [*names, *inner]:
                _remove(os.path.join(folder, name))  # noqa: PTH118 (imports little)
        os.rmdir(renamed)  # noqa: PTH106 (likewise)


def _remove(path: str) -> None:
    with suppress(OSError):
        is_folder = os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 (likewise)
        (os.rmdir if is_folder else os.unlink)(path)


@contextmanager
def changed_terminal(restored: bytes, changed: bytes) -> Iterator[None]:
    """The terminal is `changed` inside, and `restored` when the process ends or stops (Ctrl-Z).

    When it goes on in the foreground the terminal is changed again. Stopping is left to the system
    where it is ignored, or handled by somebody else.
    """
    stop: Any = getattr(signal, "SIGTSTP", None)
    mine = stop is not None and signal.getsignal(stop) is signal.SIG_DFL
    _terminal.append((restored, changed))
    if mine:
        signal.signal(stop, _suspend)
    try:
        yield
    finally:
        if mine:
            signal.signal(stop, signal.SIG_DFL)
        _terminal.remove((restored, changed))


def _suspend(number: int, frame: Any) -> None:
    for restored, _ in _terminal:
        _write_terminal(restored)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)  # the process stops here, until it is told to go on
    signal.signal(number, _suspend)
    with suppress(OSError):
        if os.tcgetpgrp(2) == os.getpgrp():  # after `bg` the terminal is still the shell's
            for _, changed in _terminal:
                _write_terminal(changed)


def _write_terminal(text: bytes) -> None:
    with suppress(OSError):
        os.write(2, text)


def leave(code: object) -> NoReturn:
    """End the process with this exit code, or as `sys.exit` does where it is none.

    What Python does at its end, besides what is registered for it, takes 20 ms: it frees every
    module and all memory, which the system does by itself. Everything is flushed already.
    """
    others = any(not thread.daemon for thread in threading.enumerate()[1:])
    if not isinstance(code, int) or others or sys.gettrace() or sys.getprofile():
        sys.exit(code)  # type: ignore[arg-type] # whatever it is, it comes from sys.exit
    atexit._run_exitfuncs()
    os._exit(code)


def die(number: int) -> NoReturn:
    """End by the signal itself, so that the shell and `make` see it in the exit status."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
