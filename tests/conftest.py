"""Fixtures for all tests."""

import os

import numpy as np
import pytest
from backends import BACKENDS, SIMULATED
from cli import LOGITS, TARGETS


def pytest_configure(config):
    # Compiled kernels are kept with pytest's own cache, apart from the user's.
    os.environ["XENT_CACHE_DIR"] = str(config.cache.mkdir("kernels"))
    if SIMULATED:
        from simulated import hurry

        hurry()
    config.addinivalue_line("markers", "backends: runs on every backend of tests/backends.py")


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
