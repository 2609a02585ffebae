"""Fixtures for all tests."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backends import BACKENDS
from cli import LOGITS, TARGETS

from xentcli.backends.processors import available

# Scripts that read their own arguments, or need PyTorch.
collect_ignore = ["compiling.py", "pytorch/make.py", "tables/make.py"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config):
    """Whole folders are tested in some processes, at most four; named files in this one.

    There is one more than there are cores, because many tests only wait.
    """
    if to_be_shared_out(config):
        config.option.numprocesses = min(4, available() + 1)
        config.option.dist = "loadfile"  # what the tests of a file share is made once
        # In the order of names: by default files of few tests, which take minutes, come last.
        config.option.loadscopereorder = False


def to_be_shared_out(config):
    """Whether nobody has said how many processes, or wants to look on, or has named a file."""
    if hasattr(config, "workerinput"):
        return False  # this is one of the processes
    unasked = getattr(config.option, "numprocesses", 0) is None
    watched = config.option.usepdb or config.option.capture == "no"
    return unasked and not watched and all(Path(argument).is_dir() for argument in config.args)


def pytest_configure(config):
    # Compiled kernels are kept with pytest's own cache, apart from the user's.
    os.environ["XENT_CACHE_DIR"] = str(config.cache.mkdir("kernels"))
    if to_be_compiled_ahead(config):
        compile_ahead()
    config.addinivalue_line("markers", "backends: runs on every backend of tests/backends.py")


def to_be_compiled_ahead(config):
    """Whether the tests are shared out, and this process is the one that shares them out."""
    return getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput")


def compile_ahead():
    """Usual kernels, a process per dtype: a test that needs one first would see the note on it."""
    command = [sys.executable, "-m", "xentcli", "compile", "-q", "--dtype"]
    for process in [subprocess.Popen([*command, dtype]) for dtype in ("f32", "f64")]:
        process.wait()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items):
    for item in items:
        if "backend" in getattr(item, "fixturenames", ()):
            item.add_marker("backends")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Every backend that exists here, or that somebody asked for."""
    return request.param


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder, with l.npy and t.npy in it."""
    np.save(tmp_path / "l.npy", LOGITS)
    np.save(tmp_path / "t.npy", TARGETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)
