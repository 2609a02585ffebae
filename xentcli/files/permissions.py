"""Owner, group and mode of a file that replaces another one."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


def keep_owner(number: int, old: os.stat_result) -> int:
    """Give an open new file the owner and group of the file it replaces; the mode it may have.

    The mode is the old one, unless the owner or the group cannot be kept: then nobody may do more
    with the new file than with the old one, its new owner apart.
    """
    mode, new = stat.S_IMODE(old.st_mode), os.fstat(number)
    for owner in (old.st_uid, -1):  # without privileges a group may be kept, but no other owner
        if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            with suppress(PermissionError):
                _chown(number, owner, old.st_gid)
            new = os.fstat(number)
    if new.st_uid != old.st_uid:
        mode &= ~stat.S_ISUID
    if new.st_gid != old.st_gid:  # who was in the group is one of the others now, and vice versa
        both = mode >> 3 & mode & 0o7
        mode = mode & 0o5700 | both << 3 | both
    return mode


def _chown(number: int, owner: int, group: int) -> None:
    """Change an open file's owner and group; PermissionError for an owner that cannot be here."""
    try:
        os.chown(number, owner, group)
    except OSError as error:
        if error.errno == errno.EINVAL:  # not mapped in this namespace of users
            raise PermissionError(error.errno, error.strerror) from error
        raise
