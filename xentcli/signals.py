"""What has to be put away when the process is told to stop.

A signal may arrive inside a compilation, where an exception would be swallowed; so nothing is
unwound. The handler removes the temporary files that are listed here and dies by the signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

temporaries: set[str] = set()
terminal: list[bytes] = []  # what puts a terminal in order whose cursor is hidden

_waiting: list[int] = []
_held = [False]


def watch_signals() -> None:
    """Ctrl-C, TERM and HUP clean up and end the process; what is ignored stays ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def held() -> Iterator[None]:
    """Signals wait until several files have been put in place together."""
    _held[0] = True
    try:
        yield
    finally:
        _held[0] = False
        if _waiting:
            _stop(_waiting[0], None)


def _stop(number: int, frame: Any) -> None:
    if _held[0]:
        _waiting.append(number)
        return
    for name in list(temporaries):
        with suppress(OSError):
            Path(name).unlink()
    for text in terminal:
        with suppress(OSError):
            os.write(2, text)
    die(number)


def die(number: int) -> NoReturn:
    """Die by the signal, so that the shell and `make` see what happened."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
