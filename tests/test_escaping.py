"""What comes from the environment, from files or from a library's exceptions is escaped wherever it
is printed, and settings that libraries crash on are errors."""

import re
import sys
import zipfile

import pytest
from cli import assert_clean, assert_error, assert_silent, at_terminal, header, inside, run

from xentcli.backends import _start_cpu, numba_start
from xentcli.errors import FileError, OptionError


@pytest.mark.parametrize("value", ["0", "-1", "1025", "100000", "9" * 4000, " 0", "1_000_000"])
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_b100_a_number_of_threads_that_numba_cannot_start_is_an_error(
    value, backend, files, capfdbinary, monkeypatch
):
    """100,000 threads are a segmentation fault."""
    _start_cpu.cache_clear()  # the environment is read once in a process
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--backend", backend)
    assert_error(result, 2, f"NUMBA_NUM_THREADS is '{value}', allowed are 1 to 1024")


@pytest.mark.parametrize("value", ["1", " 1", "001", "1024", "", "abc", "4.0", "9" * 5000])
def test_b100_a_number_of_threads_that_numba_can_start_or_ignores_is_not(
    value, files, capfdbinary, monkeypatch
):
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    assert_silent(inside(capfdbinary, "loss", "l.npy", "t.npy", "--backend", "cpu", "-q"))


RAW = "x\x1b[31m\a\x9b"


@pytest.mark.parametrize(
    "name", ["NUMBA_THREADING_LAYER", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_NUM_THREADS"]
)
def test_what_numba_and_llvm_would_print_of_the_environment_is_escaped(name, files):
    """In a process of its own: the environment is read where the kernels start."""
    result = run("loss", "l.npy", "t.npy", "--backend", "cpu", env={name: RAW})
    assert_error(result, 2, name, r"x\x1b[31m\x07\x9b")


@pytest.mark.parametrize(
    "name", ["XENT_BACKEND", "XENT_TEMPERATURE", "XENT_QUIET", "XENT_FORMAT", "XENT_UPSTREAM"]
)
def test_what_the_environment_says_of_an_option_is_escaped(name, files, capfdbinary, monkeypatch):
    monkeypatch.setenv(name, RAW)
    assert_error(inside(capfdbinary, "grad", "l.npy", "t.npy"), 2, r"x\x1b[31m\x07\x9b")


def test_info_shows_the_environment_escaped(files, capfdbinary, monkeypatch):
    for name in ("XENT_CACHE_DIR", "CUDA_VISIBLE_DEVICES", "NUMBA_CUDA_DRIVER"):
        monkeypatch.setenv(name, f"{files}/{RAW}")
    for form in ([], ["--json"]):
        assert_clean(inside(capfdbinary, "info", *form).text.replace("\t", " "))
    assert_clean(re.sub(r"\x1b\[[0-9;]*m", "", at_terminal("info").text))


@pytest.mark.parametrize("kind", [OSError, ImportError, RuntimeError, ValueError, FileError])
def test_the_text_of_any_exception_is_escaped(kind, files, capfdbinary, monkeypatch):
    from xentcli.files.npy import reader

    def broken(*arguments):
        raise kind("why", RAW) if kind is FileError else kind(RAW)

    monkeypatch.setattr(reader, "read_header", broken)
    for flags in ([], ["--debug"]):
        result = inside(capfdbinary, "grad", "l.npy", "t.npy", *flags)
        assert r"x\x1b[31m\x07\x9b" in result.err
        assert all(line.isprintable() for line in result.err.split("\n")), result.err


def test_the_text_of_an_error_is_escaped_for_python_callers_too():
    assert str(OptionError(RAW, ("a", RAW), RAW)).isprintable()


@pytest.mark.parametrize("name", ["s\x1b.npy", "m\a.npz"])
def test_what_is_wrong_with_a_file_is_escaped(name, files, capfdbinary):
    """Zip and NumPy repeat bytes of the file in their exceptions."""
    data = {"s": header(b"{'descr': '\x1b[31m\x07', 'fortran_order': False, 'shape': (2, 3)}")}
    with zipfile.ZipFile(files / "m\a.npz", "w") as archive:
        archive.writestr("\x1b]0;x\x07.npy", b"\x93NUMPY\x07\x07")
    (files / "s\x1b.npy").write_bytes(data["s"])
    for command in (["softmax", name], ["inspect", name]):
        assert_error(inside(capfdbinary, *command), 1)


@pytest.mark.parametrize(("megabytes", "backend"), [(50, "numpy"), (200, "cpu"), (300, "cpu")])
def test_too_little_memory_to_load_a_library_is_not_a_bug_and_not_about_a_file(
    megabytes, backend, files
):
    arguments = ["loss", "l.npy", "t.npy", "--backend", backend]
    env = {"XENT_CACHE_DIR": str(files / "empty")}  # so that the kernel has to be compiled
    result = run(*arguments, "-q", memory=megabytes * 1_000_000, env=env)
    assert_error(result, 4, "not enough memory")
    assert "<stdout>" not in result.err


def test_what_numba_takes_is_asked_for_only_once(monkeypatch):
    """Later calls of a process in which it runs already need no more memory."""
    monkeypatch.setattr(numba_start, "_address_space_left", lambda: 0)
    monkeypatch.setitem(sys.modules, "numba", None)
    numba_start.check_memory()
    monkeypatch.delitem(sys.modules, "numba")
    with pytest.raises(FileError, match="not enough memory"):
        numba_start.check_memory()
