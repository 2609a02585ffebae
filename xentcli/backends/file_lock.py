"""A lock among processes, held at most by one, for which nobody waits for ever.

Where files cannot be locked nobody waits, which is safe: files are replaced as a whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xentcli.backends.private_folder import PrivateFolder

_held: set[int] = set()
_changing = threading.Lock()  # held while a file is opened and noted, and by fork


def _after_fork() -> None:
    """A forked child holds no lock: its copy of an open file would keep the lock after the parent
    has ended, and the child would wait for itself."""
    _changing.release()
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_after_fork
    )


@contextmanager
def attempt(folder: PrivateFolder, name: str) -> Iterator[bool]:
    """Hold the lock, or not: whether nobody else holds it."""
    descriptor = _open(folder, name)
    try:
        yield descriptor is None or _lock(descriptor)
    finally:
        with _changing:
            if descriptor in _held:
                _held.discard(descriptor)
                os.close(descriptor)  # which gives the lock back, as the end of the process does


def _open(folder: PrivateFolder, name: str) -> int | None:
    try:
        with _changing:
            descriptor = folder.open(name, os.O_RDWR | os.O_CREAT)
            _held.add(descriptor)
    except OSError:
        return None
    return descriptor


def _lock(descriptor: int) -> bool:
    """Whether the lock is ours, or nobody's because there are no locks here."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True
