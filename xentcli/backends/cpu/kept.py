"""Machine code of kernels: from this process, from the cache, or compiled now and kept.

`import numba` happens only where something has to be compiled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import RLock

import llvmlite

from xentcli.backends import cache as cache_folder
from xentcli.backends import entries, file_lock, numba_start
from xentcli.backends.cpu import loader
from xentcli.backends.cpu.activity import activity, prepare_for_numba
from xentcli.backends.cpu.kernel import Kernel
from xentcli.backends.cpu.loader import CannotLoadError, MachineCode
from xentcli.backends.entries import Entry
from xentcli.backends.private_folder import (
    DamagedError,
    PrivateFolder,
    UntrustedError,
    open_private,
)
from xentcli.errors import FileError, UnavailableError, visible

Notify = Callable[[str], None] | None

WAIT = 30.0  # seconds to wait for another process that compiles the same kernel
POLL = 0.05
NOTIFY_AFTER = 0.3
ROOM = 1 << 18  # bytes, more than the machine code of a kernel

# Variables of Numba that change no machine code.
HARMLESS = ("NUM_THREADS", "CACHE_DIR", "THREADING_LAYER", "CUDA_", "ENABLE_CUDASIM", "DISABLE_JIT")

# One thread looks for a kernel at a time: several would compile it several times.
_locks: dict[Kernel, RLock] = {}
_loaded: dict[Kernel, MachineCode | None] = {}


if hasattr(os, "register_at_fork"):  # threads that hold a lock are not in the child
    os.register_at_fork(after_in_child=_locks.clear)


def find(kernel: Kernel, notify: Notify = None) -> MachineCode | None:
    """A kernel's machine code; None where none can be loaded."""
    try:
        return _loaded[kernel]
    except KeyError:
        pass
    with _locks.setdefault(kernel, RLock()):
        if kernel not in _loaded:
            _loaded[kernel] = _Search(kernel, notify).machine_code()
        return _loaded[kernel]


def keep(kernel: Kernel) -> bool:
    """Compile a kernel unless the cache has it; whether it was compiled. An error if it cannot be
    kept."""
    with _locks.setdefault(kernel, RLock()):
        search = _Search(kernel, None)
        _loaded[kernel] = search.machine_code()
    if _loaded[kernel] is None:
        raise UnavailableError("cpu", "this Numba or llvmlite has no machine code to keep")
    if search.obstacle:
        raise FileError(
            str(cache_folder.root()), f"compiled kernels cannot be kept: {search.obstacle}"
        )
    return search.compiled


@cache
def machine_key() -> str:
    """What all machine code depends on, as text: versions, sources, processor, settings."""
    settings = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and not name[6:].startswith(HARMLESS)
    }
    try:
        own_settings = Path(".numba_config.yaml").read_text()  # which Numba reads, too
    except (OSError, ValueError):
        own_settings = ""
    parts = [
        llvmlite.__version__,
        _numba_version(),
        *loader.processor(),
        str(settings),
        own_settings,
    ]
    return "\n".join([_folder_name(), *parts])


def _numba_version() -> str:
    """Numba's version; from the file that it reads itself, which is quicker than its metadata."""
    numba = find_spec("numba")
    try:
        return Path(str(numba and numba.origin)).with_name("_version.py").read_text()
    except (OSError, ValueError):
        from importlib import metadata

        return metadata.version("numba")


@cache
def _folder_name() -> str:
    return cache_folder.folder_name()


class _Search:
    """The way of one kernel from the cache, or from Numba into the cache."""

    def __init__(self, kernel: Kernel, notify: Notify) -> None:
        self.kernel = kernel
        self.key = f"{kernel}\n{machine_key()}"
        self.name = entries.name_of(self.key)
        self._notify = notify
        self._damage = ""
        self.obstacle = ""  # why it is not kept
        self.compiled = False

    def machine_code(self) -> MachineCode | None:
        with ExitStack() as stack:
            try:
                path = cache_folder.root() / _folder_name()
                with suppress(FileNotFoundError), open_private(path) as folder:
                    if found := self._read(folder):
                        return found
                folder = stack.enter_context(open_private(path, create=True))
            except (OSError, UntrustedError, RuntimeError) as error:
                # RuntimeError: there is no home folder.
                return self._compiled(None, _reason(error))
            return self._wait_or_compile(folder)

    def _read(self, folder: PrivateFolder) -> MachineCode | None:
        """The kernel from the cache, or None; what is wrong with it is remembered for the note."""
        try:
            data = folder.read(self.name)
            if data is None:
                return None
            entry = entries.unpack(self.key, data)
            return MachineCode(entry.symbol, entry.code)
        except (DamagedError, CannotLoadError) as error:
            self._damage = visible(str(error))
            return None

    def _wait_or_compile(self, folder: PrivateFolder) -> MachineCode | None:
        begin = time.monotonic()
        silent = True
        while True:
            with file_lock.attempt(folder, f"{self.name}.lock") as ours:
                if found := self._read(folder):
                    return found
                waited = time.monotonic() - begin
                if ours or waited > WAIT:
                    return self._compiled(folder, _full(folder))
            if silent and waited > NOTIFY_AFTER and self._notify:
                silent = False
                self._notify("waiting for another process that compiles the kernel")
            time.sleep(POLL)

    def _compiled(self, folder: PrivateFolder | None, obstacle: str) -> MachineCode | None:
        """Compile it, and keep it unless something is in the way."""
        self.obstacle, self.compiled = obstacle, True
        if self._notify:
            self._notify(_sentence(self._damage, obstacle))
        numba_start.check_environment()
        numba_start.check_memory()
        prepare_for_numba()
        with activity:
            with numba_start.starting("numba"):
                from xentcli.backends.cpu import kernels
            try:
                entry = Entry(*kernels.compile_kernel(self.kernel))
                code = MachineCode(entry.symbol, entry.code)
            except CannotLoadError:
                return None
        if folder and not obstacle:
            try:
                folder.write(self.name, entries.pack(self.key, entry))
            except OSError as error:  # there was room a moment ago
                self.obstacle = _reason(error)
        return code


def _full(folder: PrivateFolder) -> str:
    """Why nothing can be written, or nothing."""
    try:
        folder.require_room(ROOM)
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return visible(str(getattr(error, "strerror", None) or error))


def _sentence(damage: str, obstacle: str) -> str:
    """The one note about a compilation."""
    text = "compiling the kernel, a few seconds"
    if damage:
        text = f"a compiled kernel in the cache is damaged ({damage}); compiling it again"
    if obstacle:
        return f"{text}; it cannot be kept: {obstacle}"
    return f"{text}, once for this kind of job" if not damage else text
