"""Owner, group, mode and access list of a file, for the file that replaces it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from xentcli.records import dataclass

_ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Permissions:
    """What a file allows, and to whom; `acl` are the bytes of its POSIX access list, if any."""

    owner: int
    group: int
    mode: int
    acl: bytes | None = None

    @classmethod
    def of(cls, path: str, state: os.stat_result) -> Permissions:
        """Those of a file with this `os.stat`."""
        return cls(state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode), _acl(path))

    def keep(self, number: int) -> int:
        """Give them to an open new file, but for the mode, which is returned.

        Where the owner, the group or the access list cannot be kept, the mode is such that nobody
        but the new owner may do more with the new file than with the old one.
        """
        new, mode = os.fstat(number), self.mode
        for owner in (self.owner, -1):  # without privileges a group may be kept, but no other owner
            if hasattr(os, "chown") and (self.owner, self.group) != (new.st_uid, new.st_gid):
                _chown(number, owner, self.group)
                new = os.fstat(number)
        if new.st_uid != self.owner:
            mode &= ~stat.S_ISUID
        if new.st_gid != self.group:  # its members are among the others now, and others may be in
            both = mode >> 3 & mode & 0o7
            mode = mode & 0o5700 | both << 3 | both
        return mode if self._acl_is_kept(number) else mode & 0o700

    def _acl_is_kept(self, number: int) -> bool:
        """Whether an open file could get this access list, or lose what its folder gave it."""
        with suppress(OSError):
            if self.acl is not None:
                os.setxattr(number, _ACL, self.acl)
            elif _acl(number) is not None:
                os.removexattr(number, _ACL)
        return _acl(number) == self.acl


def _acl(file: str | int) -> bytes | None:
    if hasattr(os, "getxattr"):
        with suppress(OSError):  # there is none, or the file system has no such lists
            return os.getxattr(file, _ACL)
    return None


def _chown(number: int, owner: int, group: int) -> None:
    """Change an open file's owner and group, where that is allowed."""
    try:
        os.chown(number, owner, group)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):  # or not in this namespace
            raise
