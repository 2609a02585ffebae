"""Fixtures for all tests."""

import os

import numpy as np
import pytest


def pytest_configure(config):
    # Compiled kernels are kept with pytest's own cache, apart from the user's.
    os.environ["XENT_CACHE_DIR"] = str(config.cache.mkdir("kernels"))


@pytest.fixture(params=["numpy", "cpu"])
def backend(request):
    """Every backend that exists here."""
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)
