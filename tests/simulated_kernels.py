"""Kernels whose rows have many parts, on Numba's simulator; `test_cuda_kernels.py` runs this.

Parts have thousands of classes and blocks up to 256 threads; here parts have 16 and blocks 4, two
warps of 2, so that short rows go every way that long ones go.
"""

from threading import Thread
from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_same_bits
from numba import cuda

from xentcli.arrays.dtypes import NAMES, narrow, widen
from xentcli.backends import Scalars
from xentcli.backends.cuda import launch, parts, reductions
from xentcli.backends.cuda.box import Box
from xentcli.backends.reference import NumpyBackend

BITS = {"f16": "u2", "bf16": "i2", "f32": "f4", "f64": "f8"}  # what kernels take for a kind
ROUNDING = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-22, "f64": 1e-12}  # 2 ULP, at most
LEAST = {"f16": 2.0**-24, "bf16": 1e-40, "f32": 2.0**-149, "f64": 2.0**-1074}
PLAIN = Scalars()
OPTIONS = [
    Scalars(z_loss=0.01),
    Scalars(label_smoothing=0.2),
    Scalars(label_smoothing=0.1, temperature=1.7, z_loss=0.02),
    Scalars(temperature=0.3),
    Scalars(softcap=5.0),
    Scalars(label_smoothing=1.0, softcap=3.0, temperature=2.0),
]
SPECIAL = ["usual", "ties", "masked", "part masked", "confident", "nan", "+inf", "-inf", "far"]
CLASSES = 45  # three parts of 16 classes: the last one is short

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of kernels that run as Python


def slow(parameter):
    """A parameter of the slow tests."""
    return pytest.param(parameter, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch):
    monkeypatch.setattr(launch, "FAST_PART", 16)
    monkeypatch.setattr(launch, "GENERAL_PART", 16)
    monkeypatch.setattr(launch, "SHORT", 16)
    monkeypatch.setattr(launch, "threads_for", lambda size: 4)
    for module in (reductions, parts):
        monkeypatch.setattr(module, "WARP", 2)


class Place(NamedTuple):
    """How a box lies in memory: where it begins, and what lies between."""

    kind: str
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]
    first: int = 0

    def indices(self):
        o, c, i = np.ogrid[tuple(slice(n) for n in self.shape)]
        outer, classes, inner = self.strides
        return self.first + o * outer + c * classes + i * inner

    def memory(self, values):
        """The numbers in their place, on the device, and 7 where nothing may be written."""
        at = self.indices()
        host = narrow(np.full(at.max() + 4, 7.0), NAMES[self.kind])
        host[at] = narrow(values, NAMES[self.kind])
        return cuda.to_device(host.view(BITS[self.kind]))

    def box(self, memory):
        return Box(memory[self.first : self.indices().max() + 1], self.shape, self.strides)

    def fetch(self, memory):
        """The numbers; what lies between them is what it was."""
        host, at = memory.copy_to_host().view(NAMES[self.kind]), self.indices()
        between = np.ones(len(host), bool)
        between[at] = False
        assert (widen(host[between], NAMES["f64"]) == 7).all()
        return host[at]


def rows_of(kind, shape, pad=0, first=0):
    """Rows one after the other."""
    return Place(kind, shape, ((shape[1] + pad) * shape[2], shape[2], 1), first)


def any_place(rng, kind, shape):
    _, classes, inner = shape
    pad = int(rng.integers(0, 3))
    turned = Place(kind, shape, (inner * (classes + pad), 1, classes + pad))
    place = turned if inner > 1 and rng.random() < 0.5 else rows_of(kind, shape, pad)
    return place._replace(first=int(rng.integers(0, 4)))


def logits_of(rng, special, shape):
    x = rng.normal(size=shape) * rng.choice([0.1, 3.0, 40.0])
    row, classes = x[0, :, 0], shape[1]
    where = rng.integers(0, classes, 3)
    if special == "ties":
        row[where] = row.max() + 1
    if special == "masked":
        row[rng.random(classes) < 0.6] = -np.inf
    if special == "part masked":
        row[16 : min(32, classes - 1)] = -np.inf
    if special == "confident":
        row[where[0]] += rng.choice([30, 90, 200])
    if special in ("nan", "+inf"):
        row[where[0]] = float(special)
    if special == "-inf":
        row[:] = -np.inf
    if special == "far":
        x[0, 20:] -= rng.choice([160, 2000])
        x[-1] += rng.choice([-1e4, 3e4])
    return x


class Job(NamedTuple):
    """What a kernel gets, as numbers of the host."""

    x: np.ndarray
    targets: np.ndarray
    scalars: Scalars = PLAIN
    weight: np.ndarray = np.ones(CLASSES)
    scale: np.ndarray = np.ones(1)

    def run(self, place, result=None, grad=True):
        """Results and gradient; in place without a place for the gradient."""
        memory = place.memory(self.x)
        out = place.memory(self.x) if result is None else result.memory(self.x)
        targets = cuda.to_device(self.targets)
        if self.targets.ndim == 3:
            q = rows_of("f32", self.targets.shape, 1)
            targets = q.box(q.memory(self.targets))
        logits, result = (place.box(out), place) if result is None else (place.box(memory), result)
        given = targets, cuda.to_device(self.weight), cuda.to_device(self.scale), self.scalars
        results = cuda.to_device(np.full((2, self.x.shape[0] * self.x.shape[2]), 5.0))
        launch.rows(logits, *given, results, result.box(out) if grad else None)
        return results.copy_to_host(), result.fetch(out)

    def expected(self, kind):
        """By the reference, of the logits as they were stored."""
        q = self.targets
        if q.ndim == 3:
            q = widen(narrow(q, NAMES["f32"]), NAMES["f64"])
        x = widen(narrow(self.x, NAMES[kind]), NAMES["f64"])
        results, grad = np.empty((2, x.shape[0] * x.shape[2])), np.empty(x.shape)
        NumpyBackend().rows(x, q, self.weight, self.scale, self.scalars, results, grad)
        return results, grad

    def terms(self, lse):
        """About how large what is subtracted can be."""
        lse = np.nan_to_num(lse)
        return np.max(np.abs(self.weight)) + 2 * self.scalars.z_loss * np.max(np.abs(lse))


def assert_near(found, expected, relative, absolute):
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute)


def any_job(rng, special):
    inner = int(rng.choice([1, 1, 2]))
    shape = 2, int(rng.choice([33, CLASSES, 48])), inner
    n = 2 * inner
    x = logits_of(rng, special, shape)
    targets = rng.integers(0, shape[1], n)
    if rng.random() < 0.5:
        targets[0] = rng.choice([15, 16, 31, 32, np.argmax(x[0, :, 0])])  # at a part's border
    if rng.random() < 0.3:
        targets[-1] = -1
    weight = rng.uniform(0, 2, shape[1])
    scale = rng.choice([1e-33, 1.0, -0.01, 1e12], n if rng.random() < 0.5 else 1)
    scalars = OPTIONS[rng.integers(len(OPTIONS))] if rng.random() < 0.6 else PLAIN
    if rng.random() < 0.3:
        targets = rng.dirichlet(np.ones(shape[1]), (2, inner)).transpose(0, 2, 1).copy()
    return Job(x, targets, scalars, weight, scale)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_rows_of_many_parts_are_those_of_the_reference(special, seed):
    rng = np.random.default_rng([seed, SPECIAL.index(special)])
    job = any_job(rng, special)
    kind, result = rng.choice(list(BITS)), rng.choice(list(BITS))
    place = any_place(rng, kind, job.x.shape)
    target = any_place(rng, result, job.x.shape) if rng.random() < 0.6 else None
    results, grad = job.run(place, target)
    kind, result = place.kind, target.kind if target else place.kind
    (loss, lse), exact = job.expected(kind)
    terms = job.terms(lse)
    assert_near(results[0], loss, 2.0**-24, 1e-13 * terms)
    assert_near(results[1], lse, 2.0**-24, 1e-13)
    scale = np.broadcast_to(job.scale, results[0].shape).reshape(2, 1, -1)
    exact = widen(narrow(exact, NAMES[result]), NAMES["f64"])
    found = widen(grad, NAMES["f64"])
    plain = job.targets.ndim == 1 and job.scalars == PLAIN
    absolute = LEAST[result] + (0 if plain else 1e-13 * terms * np.abs(scale))
    for one, other, limit in zip(found, exact, np.broadcast_to(absolute, found.shape), strict=True):
        close = np.abs(one - other) <= limit + ROUNDING[result] * np.abs(other)
        assert (close | (one == other) | (np.isnan(one) & np.isnan(other))).all()


@pytest.mark.parametrize("scale", [1e-33, -1e-20, 1e12, 1e30])
def test_gradients_of_any_size(scale):
    """Also those whose factor two words of float32 cannot say."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, CLASSES, 1)) * 5
    job = Job(x, np.array([20]), PLAIN, np.full(CLASSES, 1.5), np.array([scale]))
    _, grad = job.run(rows_of("f32", x.shape))
    exact = job.expected("f32")[1]
    assert_near(widen(grad, NAMES["f64"]), exact, ROUNDING["f32"], LEAST["f32"])


def test_losses_of_any_size():
    """Of float32, also where the others' probabilities are nothing in float32."""
    x = np.full((1, CLASSES, 1), -np.inf)
    x[0, [3, 5, 9], 0] = 0, -160, -155  # of one part
    job = Job(x, np.array([3]), PLAIN, np.full(CLASSES, 1e37))
    results, grad = job.run(rows_of("f32", x.shape))
    expected, exact = job.expected("f32")
    assert_near(results, expected, 2.0**-24, 0)
    assert_near(widen(grad, NAMES["f64"]), exact, ROUNDING["f32"], 0)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("special", ["masked", "nan", "-inf"])
def test_probabilities_of_many_parts(special, log):
    rng = np.random.default_rng(3)
    x = logits_of(rng, special, (2, CLASSES, 1))
    place = rows_of("f64", x.shape, 1)
    memory, scalars = place.memory(x), Scalars(temperature=1.5)
    launch.softmax(place.box(memory), scalars, log, place.box(memory))
    expected = np.empty_like(x)
    NumpyBackend().softmax(x, scalars, log, expected)
    assert_near(place.fetch(memory), expected, 1e-13, 0)


class Backwards:
    """NumPy, as the simulator sees it, whose blocks run in another order."""

    def __getattr__(self, name):
        return getattr(np, name)

    def ndindex(self, *shape):
        return reversed(list(np.ndindex(*shape)))


@pytest.fixture(params=["plain", slow("smooth"), "probs", slow("f64")])
def three(request):
    """Three rows of which the last is ignored, and their kind."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(3, CLASSES, 1)) * 4
    x[1, 40] = 12
    targets = np.array([16, 40, -1])
    if request.param == "probs":
        targets = rng.dirichlet(np.ones(CLASSES), (3, 1)).reshape(3, CLASSES, 1)
    scalars = Scalars(0.1, 1.3, z_loss=0.01) if request.param in ("smooth", "probs") else PLAIN
    kind = "f64" if request.param == "f64" else "f32"
    return Job(x, targets, scalars, rng.uniform(0, 2, CLASSES), np.array([0.3])), kind


def test_the_bits_of_a_row_are_those_of_the_row_alone(three, monkeypatch):
    """Whatever rows it comes with, wherever it lies, whichever block was the last to be ready."""
    job, kind = three
    results, grad = job.run(rows_of(kind, job.x.shape))

    def assert_same(found, row=slice(None)):
        assert_same_bits(found[0], results[:, row])
        assert_same_bits(found[1], grad[row])

    for row in (slice(0, 1), slice(1, 2)):
        alone = job._replace(x=job.x[row], targets=job.targets[row])
        assert_same(alone.run(rows_of(kind, alone.x.shape)), row)
    assert_same(job.run(Place(kind, job.x.shape, (1, 3, 1))))
    without, _ = job.run(rows_of(kind, job.x.shape), grad=False)
    assert_same_bits(without, results)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "_phase", lambda data: 3)
        assert_same(job.run(rows_of(kind, job.x.shape, 2), rows_of(kind, job.x.shape, 1)))
    with monkeypatch.context() as patch:
        patch.setattr(launch, "MAX_POLLS", 0)
        patch.setattr("numba.cuda.simulator.kernel.np", Backwards())
        assert_same(job.run(rows_of(kind, job.x.shape)))


def test_threads_that_share_a_stream_do_not_share_what_blocks_tell_each_other(monkeypatch):
    """The kernels of another thread come between ours."""
    rng = np.random.default_rng(11)
    place = rows_of("f32", (2, CLASSES, 1))
    mine, other = (Job(rng.normal(size=place.shape), np.array([3, 40])) for _ in range(2))
    expected, between = mine.run(place), []
    configured = launch.configured

    def interrupted(kernel, *configuration):
        if kernel is launch.fast_rows and not between:
            between.append(None)
            thread = Thread(target=lambda: between.append(other.run(place)))
            thread.start()
            thread.join()
        return configured(kernel, *configuration)

    monkeypatch.setattr(launch, "configured", interrupted)
    found = mine.run(place)
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(a, b)
    for a, b in zip(between[1], other.run(place), strict=True):
        assert_same_bits(a, b)
