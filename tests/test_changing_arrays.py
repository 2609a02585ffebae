"""Arrays that somebody else writes into while they are used: shared memory, a map, a thread.

What is checked is what is computed with: class indices and weights are copied before they are
checked. Logits and probabilities are not; whatever they become, only numbers depend on them.
"""

import threading

import numpy as np
import pytest
from backends import SIMULATED, up_to
from helpers import assert_same_bits

from xentcli import XentError, backends, cross_entropy
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.options import LossOptions

N = up_to(40, 3)
CLASSES = [5] if SIMULATED else [5, 70]
CALLS = up_to(30, 2)
FAR = 1 << 40  # a class index that far off is a segmentation fault


def case(classes, kind="i8"):
    rng = np.random.default_rng(classes)
    return {
        "logits": rng.normal(size=(N, classes)),
        "targets": rng.integers(0, classes, N).astype(kind),
        "weight": rng.uniform(1, 2, classes),
        "sample_weight": rng.uniform(1, 2, N),
        "upstream": rng.uniform(1, 2, N),
    }


class Changing:
    """A backend that calls back just before it computes, when everything has been checked."""

    def __init__(self, backend, change):
        self.backend, self.change = backend, change
        self.name, self.block = backend.name, backend.block

    def rows(self, *arguments):
        self.change()
        self.backend.rows(*arguments)


def changed_before_the_kernel(monkeypatch, given, change, backend):
    """The result where the caller's arrays change between the check and the computation."""
    get = backends.get
    with monkeypatch.context() as patch:
        patch.setattr(backends, "get", lambda *how: Changing(get(*how), change))
        return cross_entropy(**given, reduction="none", backend=backend)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", ["i8", "i4", "f8"])
def test_arrays_that_change_after_the_check_do_not_matter(monkeypatch, kind, classes, backend):
    given = case(classes, kind)
    expected = cross_entropy(**given, reduction="none", backend=backend)

    def change():
        for name in ("targets", "weight", "sample_weight", "upstream"):
            given[name][:] = np.iinfo("i4").max if kind == "i4" else FAR

    found = changed_before_the_kernel(monkeypatch, given, change, backend)
    assert (given["targets"] > classes).all(), "the change came too early or not at all"
    assert_same_bits(found.loss, expected.loss)
    assert_same_bits(found.grad, expected.grad)


class ChangesWhenLookedAt(np.ndarray):
    """Targets that are right when they are checked, and wrong afterwards."""

    def max(self, *args, **kwargs):
        found = np.asarray(self).max(*args, **kwargs)
        np.asarray(self)[...] = FAR
        return found


@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_targets_are_copied_before_they_are_checked(ignore_index):
    targets = case(5)["targets"].view(ChangesWhenLookedAt)
    plain = np.array(targets)
    options = LossOptions(ignore_index=ignore_index)
    indices = build((N, 5), Whole(targets), options, Extras()).targets
    assert indices.tolist() == np.where(plain == ignore_index, -1, plain).tolist()


def while_written(write, compute, calls=CALLS):
    """Results and errors of calls while a thread writes without a pause."""
    stop, found = threading.Event(), []

    def keep_writing():
        while not stop.is_set():
            write()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(calls):
            try:
                found.append(compute())
            except XentError as error:
                found.append(error)
    finally:
        stop.set()
        writer.join()
    return found


@pytest.mark.parametrize("classes", CLASSES)
def test_targets_that_a_thread_changes_are_right_or_an_error(classes, backend):
    given = case(classes)
    shared, right = given["targets"], given["targets"].copy()
    expected = cross_entropy(**given, reduction="none", backend=backend)

    def write():
        shared[:] = FAR
        shared[:] = right

    def compute():
        return cross_entropy(**given, reduction="none", backend=backend)

    for found in while_written(write, compute):
        if isinstance(found, XentError):
            assert "outside 0 to" in str(found)
        else:
            assert_same_bits(found.grad, expected.grad)


@pytest.mark.parametrize("name", ["logits", "targets"])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", [pytest.param("f4", marks=pytest.mark.slow), "f8"])
def test_logits_that_a_thread_changes_only_change_numbers(kind, classes, name, backend):
    given = {
        "logits": case(classes)["logits"].astype(kind),
        "targets": np.eye(N, classes, dtype=kind),
    }
    bits = given[name].view("u1")
    rng = np.random.default_rng(0)
    memory = np.full((N + 2, classes), 7.0, kind)
    before = np.array(given["targets" if name == "logits" else "logits"])

    def write():
        bits[:] = rng.integers(0, 256, bits.shape, dtype=np.uint8)  # every sort of number

    def compute():
        cross_entropy(**given, out=memory[1:-1], backend=backend, label_smoothing=0.1)
        return cross_entropy(given["logits"], case(classes)["targets"], backend=backend)

    while_written(write, compute, calls=up_to(20, 1))
    assert (memory[[0, -1]] == 7).all()
    assert_same_bits(given["targets" if name == "logits" else "logits"], before)
