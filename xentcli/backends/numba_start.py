"""What has to be right before Numba is imported: it crashes, or prints what it should not, else."""

from __future__ import annotations

import os
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
    """An error for variables that Numba crashes on, or prints as they are."""
    for name, value in os.environ.items():
        if name.startswith("NUMBA_") and not value.isprintable():
            raise _invalid(name, value, "which cannot be printed")
    number_of_threads()


def number_of_threads() -> int | None:
    """NUMBA_NUM_THREADS; an error for a number that Numba cannot start, None for no number."""
    given = os.environ.get("NUMBA_NUM_THREADS")
    try:
        number = int(given or "")
    except ValueError:  # Numba ignores what is no integer
        return None
    if not 1 <= number <= MOST_THREADS:
        raise _invalid("NUMBA_NUM_THREADS", str(given), f"allowed are 1 to {MOST_THREADS}")
    return number


def _invalid(name: str, value: str, why: str) -> OptionError:
    return OptionError("backend", f"numba does not start: {name} is '{value}', {why}")


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
