"""What has to be right before Numba is imported: it crashes, or prints what it should not, else."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xentcli.errors import FileError, OptionError, Setting, UnavailableError, lacks_memory

MOST_THREADS = 1024  # each takes memory at once, and 100,000 end in a segmentation fault
# Address space that importing Numba and compiling a kernel take, measured with two threads. LLVM
# and OpenMP end the process where there is less.
ADDRESS_SPACE = 300_000_000


def check_environment() -> None:
    """An error for variables that Numba ignores, crashes on, or prints as they are."""
    given = os.environ.get("NUMBA_NUM_THREADS", "").strip()
    if given and not (re.fullmatch("[0-9]{1,9}", given) and 1 <= int(given) <= MOST_THREADS):
        what = f"'{given}' is not allowed; expected an integer from 1 to {MOST_THREADS}"
        raise OptionError("NUMBA_NUM_THREADS", what)
    for name, value in os.environ.items():
        if name.startswith("NUMBA_") and not value.isprintable():
            raise OptionError(name, f"'{value}' holds characters that cannot be printed")


def check_memory() -> None:
    """An error where the process may not use as much memory as Numba takes (`ulimit -v`)."""
    left = None if "numba" in sys.modules else _address_space_left()
    if left is not None and left < ADDRESS_SPACE:
        raise no_memory()


@contextmanager
def starting(library: str) -> Iterator[None]:
    """Import Numba or a part of it, with one error for whatever is in the way.

    Its warnings are about settings that it then replaces.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, RuntimeError) as error:  # Numba's variables are invalid
        raise OptionError("backend", not_started(library, error)) from error
    except (ImportError, OSError, MemoryError) as error:
        if lacks_memory(error):
            raise no_memory() from error
        raise UnavailableError("backend", not_started(library, error)) from error


def not_started(library: str, why: object) -> str:
    """That a library does not start, and why, in one line."""
    return " ".join(f"{library} does not start: {why}".split())


def no_memory() -> FileError:
    """The error for too little memory."""
    hint = Setting("backend", "numpy"), " needs less"
    return FileError("backend", "not enough memory to start Numba", hint)


def _address_space_left() -> int | None:
    """Bytes of address space that this process may still use; None for no limit, or unknown."""
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        if limit != resource.RLIM_INFINITY:
            return limit - pages * resource.getpagesize()
    return None
