"""Arrays on a device, on Numba's simulator; `test_device_arrays.py` runs this in a process."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helpers import assert_close
from simulated import Stream, Tensor, complete

import xentcli.engine.device as of_devices
from xentcli import cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import BF16, narrow, widen
from xentcli.arrays.sums import RunningSum
from xentcli.errors import (
    DataError,
    DtypeError,
    OptionError,
    ShapeError,
    TargetError,
    UnavailableError,
)

N, C = 6, 5
X = np.random.default_rng(1).normal(size=(N, C)) * 3
Y = np.array([0, 4, 2, -100, 1, 3])
Q = np.random.default_rng(2).dirichlet(np.ones(C), size=N)
ROWS = np.array([1.0, 0.5, 2.0, 7.0, 0.0, 1.5])
OPTIONS = {
    "weight": np.array([0.5, 2.0, 0.0, 1.25, 3.0]),
    "sample_weight": ROWS,
    "label_smoothing": 0.2,
    "temperature": 2.5,
    "softcap": 4.0,
    "z_loss": 0.1,
    "upstream": np.array(-2.0),
}


@pytest.fixture(autouse=True)
def device(monkeypatch):
    complete()
    monkeypatch.setattr(Stream, "waited", [])


def host(array):
    """The numbers of an array on the device."""
    return array.array if isinstance(array, Tensor) else array.copy_to_host()


def there(value):
    return Tensor(value) if isinstance(value, np.ndarray) else value


def assert_same(found, expected, per_row):
    """The device's result is the host's, and its arrays are on the device."""
    assert found.backend == "cuda"
    assert (found.rows, found.ignored) == (expected.rows, expected.ignored)
    assert found.notes == expected.notes
    loss = host(found.loss) if per_row else found.loss
    assert per_row or isinstance(loss, float)
    assert_close(loss, expected.loss, scale=10)
    assert_close(host(found.lse), expected.lse)
    np.testing.assert_allclose(host(found.grad), expected.grad, rtol=1e-12, atol=1e-14)


def both(x, targets, reduction="mean", **options):
    """The same on the device and on the host."""
    moved = {name: there(value) for name, value in options.items()}
    found = cross_entropy(Tensor(x), there(targets), reduction=reduction, **moved)
    expected = cross_entropy(x, targets, reduction=reduction, backend="numpy", **options)
    assert_same(found, expected, reduction == "none")
    return found


@pytest.mark.parametrize("targets", [Y, Q], ids=["index", "probs"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name, targets):
    both(X, targets, **{name: OPTIONS[name]})


@pytest.mark.parametrize("targets", [Y, Q], ids=["index", "probs"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_reduction(reduction, targets):
    both(X, targets, reduction)
    both(X, targets, reduction, **OPTIONS)


def test_the_other_arrays_may_be_on_the_host():
    options = {"weight": OPTIONS["weight"].tolist(), "sample_weight": ROWS, "upstream": 3}
    for targets in (Y, Q, Q.astype(">f4"), Y.tolist(), np.eye(C, dtype=int)[np.abs(Y) % C]):
        found = cross_entropy(Tensor(X), targets, **options)
        assert_same(found, cross_entropy(X, targets, backend="numpy", **options), False)
    found = cross_entropy(Tensor(X), Y, reduction="none", upstream=ROWS)
    assert_same(found, cross_entropy(X, Y, reduction="none", upstream=ROWS), True)


@pytest.mark.parametrize("kind", ["f2", "bf16", "f4", "f8"])
def test_every_dtype_and_every_dtype_of_out(kind):
    x = narrow(X, BF16) if kind == "bf16" else X.astype(kind)
    expected = cross_entropy(x, Y, backend="cuda")
    name = "torch.bfloat16" if kind == "bf16" else kind
    found = cross_entropy(Tensor(x, dtype=name), Tensor(Y))
    assert found.loss == expected.loss
    assert host(found.grad).dtype == expected.grad.dtype
    assert host(found.grad).tobytes() == expected.grad.tobytes()
    for out in (np.empty_like(X, "f2"), np.empty(X.shape, BF16), np.empty_like(X)):
        given = Tensor(out, dtype="bfloat16" if out.dtype == BF16 else "")
        found = cross_entropy(Tensor(x, dtype=name), Tensor(Y), out=given)
        assert found.grad is given
        expected = cross_entropy(x, Y, out=np.empty_like(out), backend="cuda").grad
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
def test_every_dtype_of_targets(kind):
    targets = np.abs(Y % C).astype(kind)
    both(X, targets, ignore_index=2)
    targets[[1, 4]] = [5, 9]
    with pytest.raises(TargetError, match="2 of 6 targets are outside 0 to 4; first: row 1 is 5"):
        cross_entropy(Tensor(X), Tensor(targets))


@pytest.mark.parametrize(
    "targets",
    [
        np.array([0, 1, 5, -3, 2, 5]),
        np.array([0, 1, -1, 3, 2, 2**62]),
        np.array([0, 1, 2, 2**64 - 100, 2, 2], np.uint64),
        np.array([0, 1, 2.5, 3, np.nan, 2]),
        np.array([0, 1, 2, 3, 2.5, 2]),
        np.array([0, 1, 2, 3, 1e300, 2]),
        np.array([0, 1, 2, 3, -np.inf, 2], np.float32),
    ],
    ids=str,
)
def test_wrong_targets_are_told_as_on_the_host_and_nothing_is_written(targets):
    out = np.full_like(X, 7)
    with pytest.raises(TargetError) as expected:
        cross_entropy(X, targets)
    with pytest.raises(TargetError) as found:
        cross_entropy(Tensor(X), Tensor(targets), out=Tensor(out))
    assert str(found.value) == str(expected.value)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("targets", "ignore_index"),
    [(Y % C, 2**64), ((Y % C).astype(np.uint64), 2), ((Y % C).astype(np.float16), 2)],
    ids=["ignore_index", "uint64", "float16"],
)
def test_numbers_that_no_kernel_compares_rightly_go_over_the_host(
    targets, ignore_index, monkeypatch
):
    """On the simulator a kernel could do it: there numbers are Python's."""
    monkeypatch.setattr("xentcli.backends.cuda.stream.Queue.indices", None)
    both(X, targets, ignore_index=ignore_index)


@pytest.mark.parametrize("axis", [1, 2])
def test_the_classes_may_lie_on_any_axis(axis, rng):
    x = np.moveaxis(rng.normal(size=(2, 3, 4)), 2, axis).copy()
    targets = rng.integers(0, 4, (2, 3))
    for reduction in ("mean", "none"):
        found = both(x, targets, reduction, class_axis=axis)
        assert host(found.lse).shape == (2, 3)
    both(x, x**2 / (x**2).sum(axis=axis, keepdims=True), class_axis=axis)


def test_one_row():
    for reduction in ("mean", "none"):
        both(X[0], np.array(3), reduction)
        both(X[:1], np.array([3]), reduction, upstream=np.array([2.0]))


def test_strides_that_a_kernel_can_follow_are_followed(rng):
    wide = rng.normal(size=(4, 3 * C))
    both(wide[:, C : 2 * C], Y[::2].repeat(2)[:4] % C)
    both(np.broadcast_to(X[0], X.shape), Y)
    both(np.moveaxis(rng.normal(size=(4, C, 3)), 0, 1)[:, :2], np.ones((C, 3), int), class_axis=1)
    out = Tensor(np.empty_like(wide)[:, :C])
    cross_entropy(Tensor(wide[:, C : 2 * C]), Tensor(Y[:4] % 3), out=out)
    expected = cross_entropy(wide[:, C : 2 * C], Y[:4] % 3)
    np.testing.assert_allclose(out.array, expected.grad, rtol=1e-12)


def test_rows_and_classes_may_lie_in_any_order(rng):
    """As after PyTorch's transpose(1, 2), and in Fortran order; a new result lies as they do."""
    turned = rng.normal(size=(2, 3, C)).transpose(0, 2, 1)
    q = rng.dirichlet(np.ones(C), size=(2, 3)).transpose(0, 2, 1)
    upright, p = np.asfortranarray(X), np.asfortranarray(Q)
    for x, targets in ((turned, Y.reshape(2, 3)), (turned, q), (upright, Y), (upright, p)):
        grad = host(both(x, targets, class_axis=1).grad)
        assert grad.strides == x.strides
        out = np.empty_like(x)
        cross_entropy(Tensor(x), Tensor(targets), class_axis=1, out=Tensor(out))
        np.testing.assert_array_equal(out, grad)
        cross_entropy(Tensor(x), targets, class_axis=1, out=Tensor(out))
        np.testing.assert_array_equal(out, grad)


def test_arrays_that_lie_in_different_orders_are_an_error():
    with pytest.raises(
        ShapeError, match=r"^out: strides .* together with those of logits .*contiguous"
    ):
        softmax(Tensor(np.asfortranarray(X)), out=Tensor(np.empty_like(X)))


def test_targets_and_weights_lie_anywhere():
    grid = np.arange(24).reshape(6, 4)
    both(X, (grid % C)[:, 1])
    cubes = np.ascontiguousarray(np.stack([X[:3].T, X[3:].T]))
    both(cubes, (grid % C)[1:3, 1:], class_axis=1)
    both(X, Y[:, None])
    both(X, Y, sample_weight=(grid[:, 2] / 8).astype("f4"), upstream=grid[:, 0], reduction="none")
    box = np.random.default_rng(3).normal(size=(2, 2, 3, C))
    # axes that cannot be seen as one: they go over the host
    both(box, (grid % C).reshape(2, 3, 4)[:, :, ::2].transpose(0, 2, 1), class_axis=3)


@pytest.mark.parametrize(
    "x", [X[:, ::2], np.zeros((2, 6, C)).transpose(1, 0, 2)], ids=["classes", "rows"]
)
def test_strides_that_no_kernel_can_follow_are_an_error(x):
    with pytest.raises(ShapeError, match=r"logits: strides of .*contiguous\(\)"):
        softmax(Tensor(x))


def test_the_result_is_written_where_the_caller_says():
    x = X.copy()
    logits = Tensor(x)
    expected = cross_entropy(X, Y)
    found = cross_entropy(logits, Tensor(Y), out=logits)
    assert found.grad is logits
    np.testing.assert_allclose(x, expected.grad, rtol=1e-12)
    assert found.loss == expected.loss


def test_a_device_that_numba_cannot_use(monkeypatch):
    def missing(name, entries):
        raise UnavailableError("backend", "not here")

    of_devices._require_numba.cache_clear()
    monkeypatch.setattr(of_devices.backends, "get", missing)
    with pytest.raises(UnavailableError, match="backend: not here"):
        softmax(Tensor(X))


def test_without_a_gradient():
    found = cross_entropy(Tensor(X), Tensor(Y), grad=False)
    assert (found.grad, found.loss) == (None, cross_entropy(X, Y).loss)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_probabilities(function):
    expected = function(X, temperature=2.0, softcap=3.0)
    found = function(Tensor(X), temperature=2.0, softcap=3.0)
    np.testing.assert_allclose(host(found), expected, rtol=1e-12)
    x = X.copy()
    logits = Tensor(x)
    assert function(logits, temperature=2.0, softcap=3.0, out=logits) is logits
    np.testing.assert_allclose(x, expected, rtol=1e-12)
    cubes = np.stack([X, X + 1])
    found = function(Tensor(cubes), class_axis=1)
    np.testing.assert_allclose(host(found), function(cubes, class_axis=1), rtol=1e-12)
    assert host(function(Tensor(X.astype("f2")))).dtype == np.float32
    assert host(function(Tensor(np.empty((0, 3))))).shape == (0, 3)


MEMORY = np.zeros(4 * N * C)


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (
            np.empty_like(X),
            DtypeError,
            "expected an array on the device of the logits, not a ndarray",
        ),
        (Tensor(np.empty((N, C + 1))), ShapeError, r"shape \(6, 6\) does not fit"),
        (Tensor(np.empty_like(X), read_only=True), DataError, "the array is read-only"),
        (Tensor(np.empty_like(X, int)), DtypeError, "dtype int64 is not supported on a device"),
        (Tensor(np.empty_like(X), device=1), DataError, "on device 1, but the logits .* device 0"),
        (Tensor(np.empty(C)[None].repeat(1, 0)), ShapeError, "does not fit"),
        (Tensor(MEMORY[1 : N * C + 1].reshape(N, C)), DataError, "overlaps the logits"),
        (Tensor(MEMORY[60 : N * C + 60].reshape(N, C)), DataError, "shares memory with targets"),
        (Tensor(np.broadcast_to(np.empty(C), X.shape)), DataError, "elements share memory"),
    ],
)
def test_an_out_that_cannot_be_used(out, error, match):
    x, q = MEMORY[: N * C].reshape(N, C), MEMORY[60 : N * C + 60].reshape(N, C)
    with pytest.raises(error, match=f"^out: .*{match}"):
        cross_entropy(Tensor(x), Tensor(q), out=out)


def test_two_halves_of_the_same_rows_share_nothing():
    rows = np.random.default_rng(4).normal(size=(N, 2 * C))
    x = rows[:, :C].copy()
    cross_entropy(Tensor(rows[:, :C]), Tensor(Y), out=Tensor(rows[:, C:]))
    np.testing.assert_allclose(rows[:, C:], cross_entropy(x, Y).grad, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_the_backends_of_the_host_say_how_to_bring_the_logits_there(backend):
    for call in (lambda **o: cross_entropy(Tensor(X), Y, **o), lambda **o: softmax(Tensor(X), **o)):
        with pytest.raises(OptionError, match=r"backend: .* on a device \(move them to the host"):
            call(backend=backend)
        with pytest.raises(OptionError, match="backend: 'gpu' is not allowed"):
            call(backend="gpu")
        call(backend="cuda")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"weight": np.ones(C - 1)}, ShapeError, r"weight: shape \(4,\) does not fit"),
        ({"weight": np.array([1, np.nan, 1, 1, 1])}, DataError, "weight: entry 1 is nan"),
        ({"sample_weight": np.ones(3)}, ShapeError, r"sample_weight: shape \(3,\) does not fit"),
        (
            {"sample_weight": np.array([1, 2, np.inf, 4, 5, 6])},
            DataError,
            "sample_weight: entry 2 is inf",
        ),
        ({"upstream": ROWS}, ShapeError, "the reduction mean gives one number"),
        ({"targets": np.zeros(4, int)}, ShapeError, r"targets: shape \(4,\) does not fit"),
        ({"targets": Y == 0}, DtypeError, "targets: dtype bool is not supported"),
        ({"targets": np.zeros((N, C), int)}, DtypeError, "targets: dtype int64 .* on a device"),
        ({"logits": np.zeros((N, C), int)}, DtypeError, "logits: dtype int64 .* on a device"),
    ],
)
def test_arrays_that_do_not_fit(arguments, error, match):
    given = {"logits": X, "targets": Y, **arguments}
    with pytest.raises(error, match=match):
        cross_entropy(**{name: Tensor(value) for name, value in given.items()})


@pytest.mark.filterwarnings("ignore:.*invalid value")  # of kernels that run as Python
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_noted(value):
    x = X.copy()
    x[4, 1] = value
    assert both(x, Y).notes


def test_the_scale_of_a_mean_is_not_rounded_before_the_row():
    """1/3987 is rounded by almost half a unit; arrays on the host have the error of that."""
    found = cross_entropy(Tensor(X), there(Y), normalizer=3987)
    expected = cross_entropy(X, Y, normalizer=3987, backend="cuda")
    assert host(found.grad).tobytes() == expected.grad.tobytes()


def test_the_mean_over_no_rows():
    for empty_mean in ("nan", "zero"):
        both(X, np.full(N, -100), empty_mean=empty_mean)
        both(X[:0], Y[:0], empty_mean=empty_mean)
        both(X[:0], Q[:0], empty_mean=empty_mean)
    both(X[:0], Y[:0], "none", sample_weight=ROWS[:0])
    out = Tensor(X[:0])
    assert cross_entropy(Tensor(X[:0]), Tensor(Y[:0]), out=out).grad is out
    with pytest.raises(DataError, match="no row is left"):
        cross_entropy(Tensor(X), Tensor(np.full(N, -100)), empty_mean="error")


def test_weights_that_sum_to_zero():
    assert both(X, Y, sample_weight=np.array([1.0, -1, 0, 7, 0, 0])).notes
    assert both(X, Q, sample_weight=np.array([1.0, -1, 0, 0, 0, 0])).notes
    assert both(X, Y, weight=np.zeros(C)).notes


def test_the_sums_are_exact_over_many_rows(rng):
    """2500 rows are three blocks, the last one not whole; a plain sum has other digits."""
    from numba import cuda

    from xentcli.backends.cuda.stream import Queue

    values = rng.normal(size=2500) * 10.0 ** rng.integers(-8, 8, 2500)
    total = RunningSum()
    total.add_sums(*Queue(0).sums(cuda.to_device(values)))
    exact = math.fsum(values.tolist())
    assert total.value() == exact
    assert values.sum() != exact


def test_more_rows_than_threads(monkeypatch):
    """50 rows are more than a block of threads, and more than all blocks, as they are here."""
    monkeypatch.setattr("xentcli.backends.cuda.per_row_kernels.THREADS", 16)
    monkeypatch.setattr("xentcli.backends.cuda.per_row_kernels.GRID", 2)
    x, targets = np.resize(X, (50, 2)), np.zeros(50, np.int32)
    targets[[17, 33]] = -100
    both(x, targets, sample_weight=np.resize(ROWS, 50))
    targets[49] = 2
    with pytest.raises(TargetError, match="1 of 50 targets is outside 0 to 1; first: row 49"):
        cross_entropy(Tensor(x), Tensor(targets))


def test_other_streams_are_waited_for_and_the_own_one_is_used():
    """The interface calls the default stream 1; its handle is 0."""
    logits = Tensor(X, stream=11)
    others = {"sample_weight": Tensor(ROWS, stream=13), "out": Tensor(np.empty_like(X), stream=1)}
    cross_entropy(logits, Tensor(Y, stream=11), **others)
    assert sorted(Stream.waited[:2]) == [0, 13]
    assert set(Stream.waited[2:]) == {11}
    softmax(Tensor(X))
    assert Stream.waited[-1] == 0


def test_pytorch_means_its_current_stream(monkeypatch):
    """Its interface names none."""
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=17))
    torch.Tensor = type("Tensor", (Tensor,), {})
    monkeypatch.setitem(sys.modules, "torch", torch)
    softmax(torch.Tensor(X))
    assert Stream.waited == [17]


def test_what_one_call_moves_between_host_and_device(monkeypatch):
    """A few numbers; the arrays stay where they are."""
    from numba import cuda

    moved = []
    fake = type(cuda.device_array(1))
    fetch, send = fake.copy_to_host, cuda.to_device
    cross_entropy(Tensor(X), Tensor(Y))  # the ones are kept from here on
    monkeypatch.setattr("xentcli.backends.cuda.launch.rows", lambda *_: None)
    monkeypatch.setattr(fake, "copy_to_host", lambda s, **o: moved.append(s.nbytes) or fetch(s))
    monkeypatch.setattr(cuda, "to_device", lambda a, **o: moved.append(a.nbytes) or send(a))
    cross_entropy(Tensor(X), Tensor(Y), out=Tensor(np.empty_like(X)))
    assert moved == [16, 16, 8, 16]  # counts there and back; the scale; the sum of each block


def test_ones_are_on_the_device_before_any_stream_reads_them(monkeypatch):
    """PyTorch's streams do not wait for the default one, on which they are copied."""
    from numba import cuda

    from xentcli.backends.cuda import stream

    done, send = [], cuda.to_device
    monkeypatch.setattr(cuda, "to_device", lambda a: done.append("sent") or send(a))
    monkeypatch.setattr(cuda, "synchronize", lambda: done.append("there"))
    assert stream.ones(77).copy_to_host().tolist() == [1.0] * 77
    assert stream.ones(77) is stream.ones(77)
    assert done == ["sent", "there"]


def test_the_number_of_threads_is_checked_as_everywhere():
    with pytest.raises(OptionError, match="threads: 0 is not allowed"):
        cross_entropy(Tensor(X), Tensor(Y), threads=0)


def test_bfloat16_as_probabilities():
    q = narrow(Q, BF16)
    found = cross_entropy(Tensor(X), Tensor(q, dtype="torch.bfloat16"))
    assert_close(found.loss, cross_entropy(X, widen(q, np.dtype("f8"))).loss)
