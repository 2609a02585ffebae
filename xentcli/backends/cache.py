"""The folder of compiled kernels.

Whoever can write to the folder can run code in every later process. So it belongs to xent alone,
only its owner may write to it (`private_folder`), and every file has a checksum (`entries`). Its
name contains the version and a hash of the sources. Without such a folder kernels are compiled in
each process, which takes seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from xentcli import __version__
from xentcli.backends import Scalars
from xentcli.backends.checksum import checksum


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


def folder_name() -> str:
    """The version, and a hash of the sources."""
    digest = checksum(*(path.read_bytes() for path in sources()))
    return f"{__version__}-{digest.hex()[:16]}"


def folder() -> Path:
    """The folder for these kernels; it is not created."""
    return root() / folder_name()
