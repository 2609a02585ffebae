"""The script that runs the fuzzing harnesses finds what there is to find."""

import math
from importlib import import_module

import fuzz
import pytest
from hypothesis import strategies as st


def test_a_finding_is_made_small_and_kept_once():
    def check(number):
        assert number < 100, "too large"

    harness = fuzz.Harness(st.integers(0, 10**6), check)
    for number in range(3):
        harness.batch(number, end=math.inf)
    ((_, example, trace),) = harness.findings.values()
    assert example == 100
    assert "too large" in trace
    assert harness.executions > 1


def test_where_nothing_is_wrong_nothing_is_found():
    harness = fuzz.Harness(st.integers(), lambda number: None)
    harness.batch(1, end=math.inf)
    assert harness.executions == fuzz.BATCH
    assert not harness.findings


def test_a_harness_runs_until_its_time_is_over():
    harness = fuzz.Harness(st.integers(), lambda number: None)
    harness.run(0.1)
    assert not harness.findings


@pytest.mark.parametrize("name", fuzz.NAMES)
def test_every_harness_has_examples_and_a_check(name, monkeypatch):
    monkeypatch.syspath_prepend(fuzz.FOLDER)
    module = import_module(f"test_fuzz_{name}")
    assert isinstance(module.EXAMPLES, st.SearchStrategy)
    assert callable(module.check)


def test_the_harnesses_are_found():
    assert {"csv", "npy", "pipeline"} <= set(fuzz.NAMES)
