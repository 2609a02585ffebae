"""The CPU kernels beyond what the semantics say: every way through them gives the same bits."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli import cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import NAMES, narrow, widen
from xentcli.backends.cpu import backend

KINDS = ["f16", "bf16", "f32", "f64"]
CLASSES = [2, 16, 64, 65, 100, 1000]  # 16 rows at a time up to 64, then row after row
OPTIONS = {
    "plain": {},
    "weighted, z-loss": {"z_loss": 0.01, "weight": True},
    "temperature": {"temperature": 0.7, "z_loss": 0.01, "weight": True},
    "smoothing": {"label_smoothing": 0.1},
    "all": {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 20.0, "temperature": 0.7},
}


def problem(classes, kind, rows=37, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, classes)) * 5
    x[::5, 0] += 30
    y = rng.integers(0, classes, rows)
    y[::5] = 0
    y[4:5] = -100
    return narrow(x.astype("f4") if kind != "f64" else x, NAMES[kind]), y


def options_of(name, classes):
    options = dict(OPTIONS[name])
    if options.pop("weight", False):
        options["weight"] = np.linspace(0.5, 2, classes)
    return options


def in_kind(shape, kind):
    """A buffer full of something else than a gradient."""
    return narrow(np.full(shape, 7.0), NAMES[kind])


@pytest.mark.parametrize("past_caches", [True, False])
@pytest.mark.parametrize(
    ("kind", "classes"),
    [("f16", 2), ("f16", 64), *itertools.product(KINDS, [65, 100, 1000])],  # each is compiled
)
def test_every_kind_and_width_against_the_reference(monkeypatch, classes, kind, past_caches):
    """Written past the caches or not, at every alignment that rows of this width come to."""
    monkeypatch.setattr(backend, "STREAM_FROM", 0 if past_caches else 1 << 60)
    x, y = problem(classes, kind)
    a = cross_entropy(x, y, backend="cpu", out=in_kind(x.shape, kind))
    b = cross_entropy(x, y, backend="numpy", out=in_kind(x.shape, "f64"))
    digits = {"f16": 1e-3, "bf16": 1e-2, "f32": 3e-7, "f64": 1e-14}[kind]
    smallest = {"f16": 6e-8, "bf16": 1e-40, "f32": 1e-44, "f64": 1e-320}[kind]
    np.testing.assert_allclose(widen(a.grad, NAMES["f64"]), b.grad, rtol=digits, atol=smallest)
    np.testing.assert_allclose(a.loss, b.loss, rtol=3e-8)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", CLASSES)
def test_no_way_through_memory_changes_a_bit(monkeypatch, classes, name):
    x, y = problem(classes, "f32")
    options = {**options_of(name, classes), "backend": "cpu"}
    expected = cross_entropy(x, y, **options)

    def same(*arguments, **more):
        found = cross_entropy(*arguments, **{**options, **more})
        assert_same_bits(np.asarray(found.grad).reshape(-1), expected.grad.reshape(-1))
        assert found.loss == expected.loss
        assert found.lse.tobytes() == expected.lse.tobytes()

    same(np.asfortranarray(x), y)
    for offset in (1, 5):
        room = np.empty(x.size + offset, "f4")
        room[offset:] = x.reshape(-1)
        same(room[offset:].reshape(x.shape), y)
        out = np.empty(x.size + offset, "f4")[offset:].reshape(x.shape)
        same(x, y, out=out)
    wide = np.zeros((len(x), classes + 3), "f4")
    wide[:, :classes] = x
    same(wide[:, :classes], y)
    in_place = x.copy()
    same(in_place, y, out=in_place)
    for threads in (1, 2, 3):
        same(x, y, threads=threads)
    monkeypatch.setattr(backend, "STREAM_FROM", 0)
    same(x, y)
    bare = cross_entropy(x, y, grad=False, **options)
    assert bare.loss == expected.loss
    assert bare.lse.tobytes() == expected.lse.tobytes()


HALVES = ["f16", "bf16"]


@pytest.mark.parametrize("out", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("classes", [65, 96, 97, 1000])
def test_halves_have_the_same_bits_any_way_through_memory(monkeypatch, classes, kind, out):
    """32 at a time, a line of memory, from whichever class a line begins with; the loss also with
    a gradient of other bits, and without any."""
    x, y = mixed_rows(classes, kind, 40)
    options = {"backend": "cpu", "reduction": "none", "weight": np.linspace(0.5, 2, classes)}
    expected = cross_entropy(x, y, out=in_kind(x.shape, out), **options)
    reference = cross_entropy(x, y, **{**options, "backend": "numpy"}, out=in_kind(x.shape, "f64"))
    digits = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-22}[out] * 1.001
    smallest = {"f16": 2.0**-25, "bf16": 1e-40, "f32": 1e-44}[out] * 1.001
    found = widen(expected.grad, NAMES["f64"])
    np.testing.assert_allclose(found, reference.grad, rtol=digits, atol=smallest)
    np.testing.assert_allclose(expected.loss, reference.loss, rtol=2.0**-22)
    assert not np.signbit(found[found == 0]).any()
    for streaming, offset in itertools.product((0, 1 << 60), range(0, 40, 3)):
        monkeypatch.setattr(backend, "STREAM_FROM", streaming)
        room = in_kind((x.size + offset + 40,), out)
        place = room[offset : offset + x.size].reshape(x.shape)
        r = cross_entropy(x, y, out=place, **options)
        assert_same_bits(place, expected.grad)
        assert_same_bits(r.loss, expected.loss)
        assert (widen(room, NAMES["f32"])[:offset] == 7).all()
        assert (widen(room, NAMES["f32"])[offset + x.size :] == 7).all()
    bare = cross_entropy(x, y, grad=False, **options)
    assert_same_bits(bare.loss, expected.loss)
    assert_same_bits(bare.lse, expected.lse)
    if out == kind:
        in_place = x.copy()
        cross_entropy(in_place, y, out=in_place, threads=2, **options)
        assert_same_bits(in_place, expected.grad)


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("classes", [83, 84])
def test_the_target_of_halves_at_every_place(monkeypatch, kind, classes):
    """Among the first numbers of a row, which are no whole line, in a line, or after."""
    x, _ = problem(classes, kind, rows=classes)
    y = np.arange(classes)
    monkeypatch.setattr(backend, "STREAM_FROM", 0)
    a = cross_entropy(x, y, backend="cpu", out=in_kind(x.shape, kind))
    b = cross_entropy(x, y, backend="numpy", out=in_kind(x.shape, "f64"))
    digits = {"f16": 2.0**-11, "bf16": 2.0**-8}[kind] * 1.001
    smallest = {"f16": 2.0**-25, "bf16": 1e-40}[kind]
    np.testing.assert_allclose(widen(a.grad, NAMES["f64"]), b.grad, rtol=digits, atol=smallest)


@pytest.mark.parametrize("kind", [*HALVES, "f32"])
@pytest.mark.parametrize("scale", [-1.0, 1e-30, -1e-38, 1e4, -1e30])
def test_halves_of_any_factor_are_no_negative_zeros(kind, scale):
    """Nor the smallest numbers, which are rounded to a multiple of the smallest of all."""
    x, y = problem(100, kind)
    options = {"reduction": "sum", "upstream": scale}
    a = cross_entropy(x, y, backend="cpu", out=in_kind(x.shape, kind), **options)
    b = cross_entropy(x, y, backend="numpy", out=in_kind(x.shape, kind), **options)
    found, expected = widen(a.grad, NAMES["f64"]), widen(b.grad, NAMES["f64"])
    digits = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-22}[kind]
    smallest = {"f16": 2.0**-24, "bf16": 2.0**-133, "f32": 2.0**-149}[kind]
    np.testing.assert_allclose(found, expected, rtol=digits, atol=smallest)
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 32, 33, 64, 100])
def test_nothing_but_the_rows_is_written(rows):
    """Short rows are written 16 numbers at a time, over what comes after them and is not yet
    written; in place that is also what is not yet read."""
    for classes, threads in itertools.product((1, 2, 3, 7, 15, 16, 17, 40, 65), (1, 2, 3)):
        x, y = problem(classes, "f32", rows=rows)
        room = np.full(x.size + 64, 7.0, "f4")
        inside = room[32 : 32 + x.size].reshape(x.shape)
        inside[...] = x
        expected = cross_entropy(x, y, backend="cpu", threads=1).grad
        cross_entropy(inside, y, backend="cpu", threads=threads, out=inside)
        assert_same_bits(inside, expected)
        assert (room[:32] == 7).all()
        assert (room[32 + x.size :] == 7).all()
        p = softmax(x, backend="cpu")
        inside[...] = x
        assert_same_bits(softmax(inside, backend="cpu", threads=threads, out=inside), p)


def mixed_rows(classes, kind, rows):
    """Ordinary rows, ignored ones, some out of the range of float32, some without an answer."""
    x, y = problem(classes, "f32", rows)
    x[7::40, 0] += 150
    x[9::50, -1], x[11::60], x[13::70, 0], x[15::90, 0] = np.nan, -np.inf, np.inf, -np.inf
    y[13::35] = -100
    return narrow(x, NAMES[kind]), y


@pytest.mark.parametrize("past_caches", [True, False])
@pytest.mark.parametrize("kind", ["f32", "bf16"])
@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 64])
def test_blocks_of_short_rows_have_the_bits_of_single_rows(monkeypatch, classes, kind, past_caches):
    """At any alignment, from any number of threads, along any axis, and in place."""
    monkeypatch.setattr(backend, "STREAM_FROM", 0 if past_caches else 1 << 60)
    monkeypatch.setattr(backend, "LEAST_PART", 1)
    x, y = mixed_rows(classes, kind, 610)
    options = {"backend": "cpu", "reduction": "none", "weight": np.linspace(0.5, 2, classes)}
    pairs = [(slice(i, i + 5), x[i : i + 5]) for i in range(0, 610, 5)]
    few = [cross_entropy(part, y[rows], out=part.copy(), **options) for rows, part in pairs]
    grad = np.concatenate([part.grad for part in few])
    for threads, offset in ((1, 0), (2, 1), (3, 4)):
        room = in_kind(x.size + offset, kind)
        out = room[offset:].reshape(x.shape)
        out[...] = x
        found = cross_entropy(x, y, out=in_kind(x.shape, kind), threads=threads, **options)
        assert_same_bits(found.grad, grad)
        assert_same_bits(found.loss, np.concatenate([part.loss for part in few]))
        assert_same_bits(found.lse, np.concatenate([part.lse for part in few]))
        assert_same_bits(cross_entropy(out, y, out=out, threads=threads, **options).grad, grad)
    image = np.ascontiguousarray(x.reshape(2, 305, classes).transpose(0, 2, 1))
    out, both = in_kind(image.shape, kind), {**options, "class_axis": 1}
    cross_entropy(image, y.reshape(2, 305), out=out, **both)
    assert_same_bits(np.ascontiguousarray(out.transpose(0, 2, 1)).reshape(x.shape), grad)


def test_results_of_very_many_rows_are_written_past_the_caches():
    """From 2¹⁹ rows of a thread on; the numbers begin and end within lines of memory."""
    x, y = mixed_rows(2, "f32", (1 << 19) + 21)
    whole = cross_entropy(x, y, backend="cpu", reduction="none", threads=1)
    for rows in (slice(0, 300), slice(1 << 18, (1 << 18) + 300), slice(-300, None)):
        part = cross_entropy(x[rows], y[rows], backend="cpu", reduction="none")
        assert_same_bits(whole.loss[rows], part.loss)
        assert_same_bits(whole.lse[rows], part.lse)
        assert_same_bits(whole.grad[rows], part.grad)


@pytest.mark.parametrize("past_caches", [True, False])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=str)
def test_a_target_at_every_place(monkeypatch, past_caches, options):
    """It is among the first numbers of a row, which are no whole line, in a line, or after."""
    monkeypatch.setattr(backend, "STREAM_FROM", 0 if past_caches else 1 << 60)
    x, _ = problem(83, "f32", rows=83)
    y = np.arange(83)
    a = cross_entropy(x, y, backend="cpu", **options)
    b = cross_entropy(x.astype("f8"), y, backend="numpy", **options)
    np.testing.assert_allclose(a.grad, b.grad, rtol=3e-7, atol=1e-12 if options else 1e-44)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [3, 70])
@pytest.mark.parametrize("inner", [1, 3, 16, 33])
def test_a_class_axis_in_the_middle_changes_no_bit(classes, inner, name):
    x, y = problem(classes, "f32", rows=2 * inner)
    options = {**options_of(name, classes), "backend": "cpu"}
    rows = cross_entropy(x, y, **options)
    image = np.ascontiguousarray(x.reshape(2, inner, classes).transpose(0, 2, 1))
    found = cross_entropy(image, y.reshape(2, inner), class_axis=1, **options)
    assert_same_bits(found.grad.transpose(0, 2, 1).reshape(x.shape), rows.grad)
    assert found.loss == rows.loss


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("classes", CLASSES)
def test_softmax_has_the_same_bits_along_any_axis(function, classes):
    x, _ = problem(classes, "f32", rows=34)
    rows = function(x, backend="cpu")
    image = np.ascontiguousarray(x.reshape(2, 17, classes).transpose(0, 2, 1))
    found = function(image, class_axis=1, backend="cpu")
    assert_same_bits(found.transpose(0, 2, 1).reshape(x.shape), rows)
    np.testing.assert_allclose(rows, function(x, backend="numpy"), rtol=3e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e37, -1.0, 0.0])
def test_factors_that_leave_float32_on_the_way_do_not_leave_it_at_the_end(scale):
    """The product e·factor is taken in float32 only where both are in the middle of its range."""
    x, y = problem(100, "f32")
    a = cross_entropy(x, y, backend="cpu", reduction="sum", upstream=scale)
    b = cross_entropy(x, y, backend="numpy", reduction="sum", upstream=scale)
    np.testing.assert_allclose(a.grad, b.grad, rtol=3e-7, atol=3e-45)
    assert not np.signbit(a.grad[a.grad == 0]).any()


@pytest.mark.parametrize("classes", [64, 1000, 131072])
def test_equal_small_terms_are_summed_without_drift(classes):
    """Beside the largest, which is 1, each of them is rounding error; together they count."""
    for gap in (12.3, 20.1, 40.0):
        x = np.full((2, classes), -gap, "f4")
        x[:, classes // 3] = 0
        y = np.full(2, classes // 3)
        a = cross_entropy(x, y, backend="cpu", reduction="sum")
        b = cross_entropy(x.astype("f8"), y, backend="numpy", reduction="sum")
        np.testing.assert_allclose(a.loss, b.loss, rtol=6e-8)
        np.testing.assert_allclose(a.grad, b.grad, rtol=1.3e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 15, 63, 64, 66])
def test_a_row_without_an_answer_leaves_its_neighbours_alone(place, value):
    x, y = problem(67, "f32", rows=9)
    expected = cross_entropy(x, y, reduction="none", backend="cpu")
    x[3, place] = value
    found = cross_entropy(x, y, reduction="none", backend="cpu")
    assert np.isnan(found.loss[3])
    assert np.isnan(found.grad[3]).all()
    others = np.arange(9) != 3
    assert_same_bits(found.grad[others], expected.grad[others])
    assert_same_bits(found.loss[others], expected.loss[others])


SCRIPT = """
import hashlib, warnings
warnings.simplefilter("ignore")
import numpy as np
from xentcli import cross_entropy
rng = np.random.default_rng(0)
digest = hashlib.sha256()
every = {"label_smoothing": 0.1, "softcap": 30.0, "temperature": 0.7, "z_loss": 0.01}
for classes, kind, options in (100, "f2", {}), (3, "f4", every), (3, "f2", {}), (2, "f4", {}):
    x = (rng.normal(size=(19, classes)) * 5).astype(kind)
    x[3, 1], x[4, -1] = np.nan, -np.inf
    r = cross_entropy(x, rng.integers(0, classes, 19), reduction="none",
                      backend="cpu", out=np.empty_like(x), **options)
    digest.update(r.grad.tobytes() + r.loss.tobytes())
print(digest.hexdigest())
"""


PROCESSORS = {
    "here": {},
    "generic": {"NUMBA_CPU_NAME": "generic"},
    "x86-64-v3": {"NUMBA_CPU_NAME": "x86-64-v3"},
}


@pytest.fixture(scope="module")
def digests(request):
    """What the script prints with each of them; each has a cache of its own, kept by pytest."""
    running = {}
    for name, variables in PROCESSORS.items():
        cache = request.config.cache.mkdir(f"kernels-{name}")
        own = {"XENT_CACHE_DIR": str(cache)} if variables else {}
        running[name] = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **variables, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ended = {name: process.communicate(timeout=300) for name, process in running.items()}
    assert not any(process.returncode for process in running.values()), ended
    return {name: out for name, (out, _) in ended.items()}


@pytest.mark.slow  # four processes; on a fresh cache they compile for a minute
def test_the_same_bits_on_other_processors(digests):
    """Vectors of 2 or 4 float64, halves converted by hand, a multiplication with addition that is
    a function call: only the speed may differ. NaN and infinity keep their rules too."""
    assert digests["generic"] == digests["x86-64-v3"] == digests["here"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize(
    "kind", ["f32", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("f64", *HALVES))]
)
def test_the_kernels_stay_inside_their_arrays(side, kind):
    """They use pointers, so NUMBA_BOUNDSCHECK sees nothing: each array ends at a forbidden page."""
    script = Path(__file__).with_name("guard_pages.py")
    command = [sys.executable, script, side, kind]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, b"inside\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_the_check_of_the_arrays_can_fail():
    code = """
import guard_pages
from xentcli.backends.cpu import backend
real = backend.space_for
backend.space_for = lambda *shape: real(*shape) - 4096
guard_pages.main("behind", "f32")
"""
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=tests, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGSEGV
