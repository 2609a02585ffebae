"""The folder of compiled kernels.

Numba's cache is pickle, so whoever can write to the folder can run code in every later process;
and Numba recompiles a kernel only when the kernel's own file has changed. So the folder belongs
to xent alone, only its owner may write to it, and its name contains the version and a hash of the
sources. Without such a folder kernels are compiled in each process, which takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xentcli import __version__
from xentcli.backends import Scalars


def root() -> Path:
    """The folder for all versions: $XENT_CACHE_DIR, else the user's cache folder."""
    if own := os.environ.get("XENT_CACHE_DIR"):
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~").expanduser() / ".cache") / "xentcli"


def sources() -> list[Path]:
    """The source files of the CPU kernels: everything that is compiled into them.

    Besides `backends/cpu` that is `elementary`, and the file that defines `Scalars`, because the
    order of its fields is compiled in.
    """
    here = Path(__file__).parent
    scalars = Path(str(sys.modules[Scalars.__module__].__file__))
    return sorted({*here.joinpath("cpu").rglob("*.py"), here / "elementary.py", scalars})


def folder() -> Path:
    """The folder for these kernels; it is not created."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return root() / f"{__version__}-{digest.hexdigest()[:16]}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process compiles, others wait and then read: 16 first runs would compile 16 times.

    Where files cannot be locked nobody waits, which is safe: Numba replaces files as a whole.
    """
    file = _lock_file(path / "lock")
    try:
        yield
    finally:
        if file:
            file.close()  # which releases the lock, as the end of the process does


def _lock_file(path: Path) -> IO[str] | None:
    try:
        import fcntl

        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return None
    return file


def prepare() -> Path | None:
    """The folder, created and private, or None where that is not possible."""
    try:
        path = folder()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = path.stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    if os.name == "posix":
        private = state.st_uid == os.geteuid() and not stat.S_IMODE(state.st_mode) & 0o022
        if not private:
            return None
    return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None
