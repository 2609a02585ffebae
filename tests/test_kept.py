"""Kept machine code: what is loaded is what was written, and nobody waits for ever."""

import errno
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding
from test_cache import COPY, LOSS, NOBODY, entries_in, needs_root, run

from xentcli.backends import cache, entries, private_folder
from xentcli.backends.cpu import kept, loader
from xentcli.backends.cpu.bandwidth import MemoryKernels
from xentcli.backends.cpu.kernel import Kernel
from xentcli.backends.entries import Entry
from xentcli.backends.machine import describe
from xentcli.backends.private_folder import DamagedError, UntrustedError, open_private

REWRITE = Kernel("rewrite", "float32")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def object_code(body, symbol="f"):
    """An object file with the interface of the kernel `rewrite`; `body` is LLVM's."""
    source = f"""
    declare void @no_such_function()
    define i32 @{symbol}(ptr %r, ptr %e, i64 %a, i64 %b, i64 %s, ptr %x, ptr %y, double %f, ptr %w)
    {{ {body} ret i32 0 }}
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(jit=True, codemodel="jitdefault", reloc="static")
    return machine.emit_object(binding.parse_assembly(source))


def sevens():
    """Code that writes 7 where the kernel writes what it read."""
    return Entry("f", object_code("store float 7.0, ptr %y"))


def rewritten():
    """What the kernel `rewrite` gives, and the notes about it."""
    said, x = [], np.full(64, 1.5, "f4")
    kept._loaded.clear()
    MemoryKernels(1, said.append).rewrite(x)
    return x, said


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache for this process, and the file that the kernel `rewrite` has there."""
    monkeypatch.setenv("XENT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_loaded", {})
    yield cache.folder() / entries.name_of(f"{REWRITE}\n{kept.machine_key()}")
    kept._loaded.clear()


@pytest.fixture
def compiles_at_once(monkeypatch):
    """Compiling the kernel `rewrite` takes no time, so that it can be damaged often."""
    from xentcli.backends.cpu import kernels

    made = kernels.compile_kernel(REWRITE)
    monkeypatch.setattr(kernels, "compile_kernel", lambda kernel: made)


def test_every_bit_of_an_entry_counts():
    data = entries.pack("key", Entry("symbol", b"code"))
    assert entries.unpack("key", data) == Entry("symbol", b"code")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            entries.unpack("key", bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(DamagedError):
            entries.unpack("key", data[:size])
    with pytest.raises(DamagedError, match="another kernel"):
        entries.unpack("other", data)


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_anywhere_is_compiled_again_with_one_note(own_cache, compiles_at_once, step):
    assert rewritten()[1] == ["compiling the kernel, a few seconds, once for this kind of job"]
    data = own_cache.read_bytes()
    for place in range(0, len(data), step):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        own_cache.write_bytes(damaged)
        x, said = rewritten()
        assert (x == 1.5).all()
        assert len(said) == 1, place
        assert "damaged" in said[0]
        assert own_cache.read_bytes() == data
    assert rewritten()[1] == []


def test_an_entry_is_what_is_run(own_cache, compiles_at_once):
    """So the tests that somebody's code does not run can fail."""
    rewritten()
    plant(own_cache)
    x, said = rewritten()
    assert said == []
    assert x[0] == 7


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path):
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


def let_others_write(path):
    path.chmod(0o666)


DAMAGE = (
    truncate, empty, zero, lengthen, flip, replace_by_folder, replace_by_fifo, replace_by_link,
    let_others_write,
)  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="modes and FIFOs")
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_a_damaged_entry_is_replaced_with_one_note(own_cache, compiles_at_once, damage):
    rewritten()
    data = own_cache.read_bytes()
    damage(own_cache)
    x, said = rewritten()
    assert (x == 1.5).all()
    assert len(said) == 1
    assert said[0].startswith("a compiled kernel in the cache is damaged")
    assert own_cache.read_bytes() == data
    assert not own_cache.is_symlink()
    assert rewritten()[1] == []


@pytest.mark.skipif(os.name != "posix", reason="folders of a user are private on Windows")
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o720, 0o702], ids=oct)
@pytest.mark.parametrize("level", [1, 2])
def test_a_folder_that_others_may_write_is_not_trusted(own_cache, compiles_at_once, level, mode):
    """Neither read nor written, with one note that says which; only the innermost may not have
    the sticky bit."""
    rewritten()
    plant(own_cache)
    folder = own_cache.parents[level - 1]
    folder.chmod(mode)
    x, said = rewritten()
    if level == 2 and mode & 0o1000:
        assert x[0] == 7
    else:
        assert (x == 1.5).all()
        assert len(said) == 1
        assert f"others may write to {folder}" in said[0]
        assert f"not used: others may write to {folder}" in describe()["cache"]
    folder.chmod(0o700)
    assert describe()["cache"] == str(own_cache.parent)


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_belongs_to_somebody_else_is_not_trusted(own_cache, compiles_at_once, level):
    rewritten()
    plant(own_cache)
    os.chown([own_cache, *own_cache.parents][level], NOBODY, NOBODY)
    x, said = rewritten()
    assert (x == 1.5).all()
    assert len(said) == 1
    assert "belongs to another user" in said[0]


@needs_root
@linux
@pytest.mark.parametrize("options", ["ro,size=4m", "size=16k"])
def test_a_read_only_or_full_disk_changes_no_result(
    own_cache, compiles_at_once, monkeypatch, options
):
    """One note says why the kernel is not kept, and nothing is left behind."""
    mount = own_cache.parents[1] / "disk"
    mount.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        monkeypatch.setenv("XENT_CACHE_DIR", str(mount / "cache"))
        for _ in range(2):
            x, said = rewritten()
            assert (x == 1.5).all()
            assert len(said) == 1
            assert re.search("cannot be kept: (Read-only file|No space left)", said[0])
        assert not entries_in(mount)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def plant(path):
    """Put somebody's code there, under a checksum that is right."""
    path.write_bytes(entries.pack(f"{REWRITE}\n{kept.machine_key()}", sevens()))


@pytest.mark.slow
def test_random_bits_and_pages_of_large_entries(tmp_path):
    """Of whole processes: the right number, exit code 0."""
    assert run(tmp_path, LOSS) == "compiled"
    (entry,) = entries_in(tmp_path)
    data = entry.read_bytes()
    choose = random.Random(5)
    for number in range(3):
        damaged = bytearray(data)
        if number % 2:
            page = choose.randrange(len(data) // 4096)
            damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        else:
            damaged[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        entry.write_bytes(damaged)
        assert run(tmp_path, LOSS) == "compiled"
        assert run(tmp_path, LOSS) == "found"
        assert entry.read_bytes() == data


def test_a_symbol_that_does_not_exist_is_an_error_and_not_the_end_of_the_process():
    code = object_code("call void @no_such_function()")
    with pytest.raises(loader.CannotLoadError, match="Failed to materialize"):
        loader.MachineCode("f", code)
    with pytest.raises(loader.CannotLoadError):
        loader.MachineCode("f", b"no object file")
    with pytest.raises(loader.CannotLoadError, match=r"Failed|not found"):
        loader.MachineCode("other", object_code(""))


def test_code_that_cannot_be_loaded_is_compiled_again(own_cache, compiles_at_once):
    """Valid by its checksum, and yet not for this machine."""
    rewritten()
    key = f"{REWRITE}\n{kept.machine_key()}"
    for code in (b"no object file", object_code("call void @no_such_function()")):
        own_cache.write_bytes(entries.pack(key, Entry("f", code)))
        x, said = rewritten()
        assert (x == 1.5).all()
        assert len(said) == 1
        assert rewritten()[1] == []


# Exchanges two folders until it is killed.
SWAP = f"""
import ctypes, os, sys
os.setgid({NOBODY}); os.setuid({NOBODY})
libc, (a, b) = ctypes.CDLL(None, use_errno=True), [name.encode() for name in sys.argv[1:]]
exchange = lambda: libc.syscall(316, -100, a, -100, b, 2)
assert exchange() == 0, os.strerror(ctypes.get_errno())
print("ready", flush=True)
while True:
    exchange()
"""


@contextmanager
def swapping(a, b):
    """Another user exchanges two folders all the time."""
    swapper = subprocess.Popen([sys.executable, "-c", SWAP, a, b], stdout=subprocess.PIPE)
    try:
        if swapper.stdout.readline() != b"ready\n":
            pytest.skip("nothing can be exchanged here")
        yield
    finally:
        swapper.kill()
        swapper.communicate()


@needs_root
@linux
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of the system call")
@pytest.mark.parametrize("rounds", [300, pytest.param(8_000, marks=pytest.mark.slow)])
def test_a_folder_that_another_user_exchanges_never_runs_his_code(
    tmp_path, monkeypatch, compiles_at_once, rounds
):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    ours, evil = shared / "ours", shared / "evil"
    monkeypatch.setenv("XENT_CACHE_DIR", str(ours))
    (evil / cache.folder().name).mkdir(parents=True)
    ours.mkdir(mode=0o700)
    key = f"{REWRITE}\n{kept.machine_key()}"
    planted = evil / cache.folder().name / entries.name_of(key)
    planted.write_bytes(entries.pack(key, sevens()))
    with swapping(str(ours), str(evil)):
        for _ in range(rounds):
            x, said = rewritten()
            assert (x == 1.5).all()
            assert "others may write" in said[0]
    kept._loaded.clear()


@pytest.mark.skipif(os.name != "posix", reason="folders of a user are private on Windows")
def test_links_on_the_way_are_followed_once_and_folders_then_checked(tmp_path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    with open_private(tmp_path / "link" / "inner", create=True) as folder:
        folder.write("name", b"data")
        assert folder.read("name") == b"data"
        assert folder.read("other") is None
    assert (real / "inner" / "name").read_bytes() == b"data"
    real.chmod(0o770)
    with (
        pytest.raises(UntrustedError, match="real; chmod go-w"),
        open_private(tmp_path / "link" / "inner"),
    ):
        pass
    real.chmod(0o1777)  # nobody may remove what is inside
    with open_private(tmp_path / "link" / "inner"):
        pass
    with pytest.raises(UntrustedError), open_private(tmp_path / "link"):
        pass


# Compiles and is then stopped by itself, with the lock in its hands.
STOPPED = """
import os, signal
from xentcli.backends.cpu import kernels
def stop(kernel):
    os.kill(os.getpid(), signal.SIGSTOP)
kernels.compile_kernel = stop
"""


@pytest.mark.slow
@linux
def test_a_run_that_was_stopped_while_it_compiled_stops_no_other(tmp_path):
    stopped = subprocess.Popen(
        [sys.executable, "-c", STOPPED + COPY],
        env={**os.environ, "XENT_CACHE_DIR": str(tmp_path)},
    )
    try:
        wait_for(lambda: state_of(stopped.pid) == "T")
        patient = "from xentcli.backends.cpu import kept\nkept.WAIT = 0.7\n" + COPY
        told = "\nassert said[0].startswith('waiting for another process'), said\n"
        assert run(tmp_path, patient + told) == "compiled"
        # What is in the cache is read without a lock: this one would wait for 30 s otherwise.
        impatient = "from xentcli.backends.cpu import kept\nkept.POLL = 1e9\n" + COPY
        assert run(tmp_path, impatient) == "found"
    finally:
        stopped.kill()
        stopped.wait()


def state_of(pid):
    """The letter that Linux gives the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition):
    """Until it is true; the time limit is a guard against hanging."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class FailingOnce:
    """The module `os`, of which one call fails."""

    def __init__(self, when, error):
        self.left, self.error, self.failed = when, error, None

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.failing(real) if name in OPERATIONS else real

    def failing(self, real):
        def call(*arguments, **named):
            self.left -= 1
            if self.left == 0:
                self.failed = real.__name__
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **named)

        return call


OPERATIONS = ("open", "fdopen", "fstat", "mkdir", "write", "replace", "unlink", "rmdir")


@linux
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "error", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.ESTALE]
)
def test_any_single_operation_on_the_cache_may_fail(
    own_cache, compiles_at_once, monkeypatch, error, warm
):
    """The result is right, with one note at most, and nothing half written is left."""
    rewritten()
    opened = len([*Path("/proc/self/fd").iterdir()])
    for when in range(1, 100):
        shutil.rmtree(own_cache.parents[1], ignore_errors=True)
        if warm:
            rewritten()
        failing = FailingOnce(when, error)
        monkeypatch.setattr(private_folder, "os", failing)
        x, said = rewritten()
        monkeypatch.setattr(private_folder, "os", os)
        assert (x == 1.5).all()
        assert len(said) <= 1
        assert failing.failed == "unlink" or not [*own_cache.parent.glob(".*")]
        assert len([*Path("/proc/self/fd").iterdir()]) == opened
        if failing.left > 0:
            return  # the operations were fewer
    raise AssertionError("no end")


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP])
def test_where_files_cannot_be_locked_nobody_waits(own_cache, compiles_at_once, monkeypatch, error):
    """As on some network file systems."""

    def refuse(descriptor, operation):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    x, said = rewritten()
    assert (x == 1.5).all()
    assert len(said) == 1
    assert rewritten()[1] == []


def test_one_thread_that_waits_for_a_kernel_does_not_keep_others_from_theirs(
    own_cache, compiles_at_once, monkeypatch
):
    """Not while another process compiles it, nor while this one does."""
    from xentcli.backends.cpu import kernels

    rewritten()
    begun, go_on, made = threading.Event(), threading.Event(), kernels.compile_kernel(REWRITE)

    def slowly(kernel):
        begun.set()
        assert go_on.wait(60)
        return made

    monkeypatch.setattr(kernels, "compile_kernel", slowly)
    other = threading.Thread(target=kept.find, args=(Kernel("copy", "float32"),))
    other.start()
    assert begun.wait(60)
    x, said = rewritten()
    assert (x == 1.5).all()
    assert said == []
    go_on.set()
    other.join()


# A process forks while its other thread compiles; both then compute. The child has its own cache
# of nothing, so it compiles too, and it must hold no lock of its parent's.
FORK = """
import os, signal, sys, threading, time, warnings
import numpy as np
warnings.simplefilter("ignore")  # that a process with threads forks
from xentcli.backends.cpu import kept, kernels
from xentcli.backends.cpu.bandwidth import MemoryKernels
compile_kernel, begun = kernels.compile_kernel, threading.Event()
def slowly(kernel):
    begun.set()
    time.sleep(0.5)
    return compile_kernel(kernel)
kernels.compile_kernel = slowly
def job(results):
    x = np.full(1 << 12, 1.5, "f4")
    MemoryKernels(2).rewrite(x)
    results.append(float(x.sum()))
    MemoryKernels(2).copy(x, np.empty_like(x))  # another kernel
results = []
thread = threading.Thread(target=job, args=(results,))
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(100)
    files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{fd}")]
    assert not any(name.endswith(".lock") for name in files), files
    found = []
    job(found)
    os._exit(0 if found == [6144.0] else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
thread.join()
sys.exit(code or results != [6144.0])
"""


@pytest.mark.slow
@linux
def test_a_child_that_was_forked_while_another_thread_compiled_computes(tmp_path):
    environment = {**os.environ, "XENT_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, timeout=300)
    assert done.returncode == 0


def test_settings_and_processors_that_change_machine_code_have_entries_of_their_own(monkeypatch):
    def key():
        kept.machine_key.cache_clear()
        return kept.machine_key()

    for name in ("NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_THREADING_LAYER", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    plain = key()
    for name, differs in (
        ("NUMBA_OPT", True),
        ("NUMBA_CPU_NAME", True),
        ("NUMBA_NUM_THREADS", False),
        ("NUMBA_THREADING_LAYER", False),
        ("NUMBA_CACHE_DIR", False),
    ):
        monkeypatch.setenv(name, "1")
        assert (key() != plain) == differs, name
        monkeypatch.delenv(name)
    assert key() == plain
    monkeypatch.setattr(loader, "processor", lambda: ("x86_64", "another", "+one,-feature"))
    assert key() != plain
    monkeypatch.undo()
    kept.machine_key.cache_clear()


def test_the_status_that_a_kernel_returns_is_not_ignored():
    x = np.zeros(1, "f4")
    at = x.__array_interface__["data"][0]
    loader.MachineCode("f", object_code("store float 7.0, ptr %y"))(0, 1, 0, at, at, 1.0, at)
    assert x[0] == 7
    failing = loader.MachineCode("f", object_code("ret i32 3 dead:"))
    with pytest.raises(RuntimeError, match="status 3"):
        failing(0, 1, 0, at, at, 1.0, at)
