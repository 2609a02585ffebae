"""Two folders that change their names at once, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

AT_FDCWD, NO_REPLACE, EXCHANGE = -100, 1, 2  # Linux: renameat2
SWAP, EXCLUSIVE = 2, 4  # macOS: renamex_np


def exchange(one: str, other: str) -> None:
    """Give each of two folders the name of the other.

    Where the system or the file system cannot do that at once, `other` has no folder for a moment.
    """
    if _renamed(one, other, EXCHANGE, SWAP):
        return
    aside = f"{one.removesuffix('.tmp')}-old.tmp"
    os.rename(other, aside)  # noqa: PTH104 (Path would change the name)
    try:
        os.rename(one, other)  # noqa: PTH104 (likewise)
    except OSError:
        os.rename(aside, other)  # noqa: PTH104 (likewise)
        raise
    os.rename(aside, one)  # noqa: PTH104 (likewise)


def move(old: str, new: str) -> None:
    """Rename a folder; FileExistsError if something has the new name."""
    if _renamed(old, new, NO_REPLACE, EXCLUSIVE):
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(old, new)  # noqa: PTH104 (Path would change the name)


def _renamed(old: str, new: str, on_linux: int, on_macos: int) -> bool:
    """Whether the system could do a special rename; an OSError where it could, and it failed."""
    number = _special_rename(os.fsencode(old), os.fsencode(new), on_linux, on_macos)
    if number in (0, None, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return number == 0
    raise OSError(number, os.strerror(number))


def _special_rename(old: bytes, new: bytes, on_linux: int, on_macos: int) -> int | None:
    """The error number of a special rename, 0 for none; None where there is no such function."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(old, new, ctypes.c_uint(on_macos))
        else:
            at = ctypes.c_int(AT_FDCWD)
            failed = library.renameat2(at, old, at, new, ctypes.c_uint(on_linux))
    except (AttributeError, OSError, TypeError):  # Windows, and C libraries without it
        return None
    return ctypes.get_errno() if failed else 0
