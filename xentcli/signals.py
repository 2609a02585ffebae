"""Clean-up when a signal ends the process.

A signal may arrive inside a compilation, where an exception would be swallowed, so the handler
does not raise: it removes the temporary files registered here and ends the process by the signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

# Each is a path, and the descriptor of the folder that it is relative to, as in `os.unlink`.
temporary_files: set[tuple[str, int | None]] = set()
terminal: list[bytes] = []  # sequences that restore the terminal, such as showing the cursor

_pending: list[int] = []
_deferring = [False]


def watch_signals() -> None:
    """Clean up and exit on SIGINT, SIGTERM and SIGHUP; ignored signals stay ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


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
    for name, folder in list(temporary_files):
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
    for text in terminal:
        with suppress(OSError):
            os.write(2, text)
    die(number)


def die(number: int) -> NoReturn:
    """End by the signal itself, so that the shell and `make` see it in the exit status."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
