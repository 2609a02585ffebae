"""xentcli.dask without a cluster: bits over chunks of rows, one result over parts of the classes,
errors, notes. `test_dask_cluster.py` has what needs worker processes."""

import itertools
import subprocess
import sys
from types import SimpleNamespace

import dask
import dask.array as da
import exact
import numpy as np
import pytest
from hardest import Case, fresh_options, fresh_rows, units
from helpers import assert_same_bits, ulps
from test_accuracy import CASES, WORST, strata

import xentcli
from xentcli.backends.accuracy import PROMISES
from xentcli.dask import cross_entropy, report, softmax
from xentcli.dask.api import graph_of_loss
from xentcli.dask.files import FileArray, from_file, store
from xentcli.dask.rows import How
from xentcli.dask.worker import share
from xentcli.engine.problem import Extras
from xentcli.errors import DataError, DtypeError, FileError, OptionError, ShapeError, TargetError
from xentcli.options import LossOptions
from xentcli.report.api import report as report_of_arrays

DTYPES = (np.float64, np.float32, np.float16)


@pytest.fixture(autouse=True)
def one_thread():
    """No pool of threads: chunks in order, in this thread, unless a test says otherwise."""
    with dask.config.set(scheduler="synchronous"):
        yield


def seeds(fast, every):
    """Numbers for random cases; the first are in the fast tier."""
    return [*range(fast), *(pytest.param(s, marks=pytest.mark.slow) for s in range(fast, every))]


def few(cases, step):
    """Every so-many-th case in the fast tier, the others in the slow one."""
    slow, pairs = pytest.mark.slow, [c if isinstance(c, tuple) else (c,) for c in cases]
    return [
        pytest.param(*pair, marks=() if i % step == step - 1 else slow)
        for i, pair in enumerate(pairs)
    ]


def cut(rng, size, most=3):
    """A length in random pieces, of which some may be empty."""
    ends = np.sort(rng.integers(0, size + 1, int(rng.integers(0, most + 1))))
    return tuple(int(n) for n in np.diff([0, *ends, size]))


def job(rng, classes=(1, 2, 5, 70), rows=9):
    """Logits of any layout with special values, targets, and options that fit them."""
    c, n = int(rng.choice(classes)), int(rng.integers(1, rows))
    axis, shape = [(1, (n, c)), (1, (n, c, 3)), (2, (2, n, c)), (0, (c,))][int(rng.integers(4))]
    x = (rng.normal(size=shape) * float(rng.choice([0.1, 5, 30, 300]))).astype(rng.choice(DTYPES))
    for value, share_of in ((-np.inf, 0.1), (np.nan, 0.02), (np.inf, 0.01)):
        if rng.random() < 0.2:
            x[rng.random(shape) < share_of] = value
    per_row = shape[:axis] + shape[axis + 1 :]
    y = np.asarray(rng.integers(0, c, per_row))
    y = np.where(rng.random(per_row) < 0.2, -100, y)
    chosen = {
        "weight": rng.random(c) * 10.0 ** rng.uniform(-8, 8, c),
        "sample_weight": rng.random(per_row),
        "label_smoothing": float(rng.choice([0.1, 1, 1e-12])),
        "z_loss": 0.01,
        "softcap": 10.0,
        "temperature": 2.3,
        "upstream": 3.7,
    }
    options = {name: value for name, value in chosen.items() if rng.random() < 0.35}
    options |= {"reduction": str(rng.choice(["mean", "sum", "none"])), "class_axis": axis}
    if options["reduction"] == "none" and rng.random() < 0.5:
        options["upstream"] = rng.normal(size=per_row)
    if rng.random() < 0.25:
        y = rng.random(shape)
        y /= y.sum(axis=axis, keepdims=True)
        options["target_kind"] = "probs"
    return x, y, options


def computed(x, y, chunks, **options):
    """Loss, losses and gradient of NumPy logits in these chunks."""
    return dask.compute(*cross_entropy(da.from_array(x, chunks=chunks), y, **options))


def chunks_of(rng, shape, axis, *, parts):
    """Random chunks of rows; the classes in at least two parts or whole."""
    classes = (0, *cut(rng, shape[axis], 5)) if parts else (shape[axis],)
    if len(classes) > 2:
        classes = classes[1:]
    return tuple(cut(rng, n) if i != axis else classes for i, n in enumerate(shape))


def require_same(found, expected):
    """Loss, losses and gradient are the same bits; a reduced loss is a number."""
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(np.asarray(a), np.asarray(b))


def on_one_machine(x, y, **options):
    r = xentcli.cross_entropy(x, y, **options)
    each = xentcli.cross_entropy(x, y, **{**options, "reduction": "none", "upstream": None})
    return r.loss, each.loss, r.grad


@pytest.mark.parametrize("seed", seeds(10, 40))
def test_rows_in_chunks_have_the_bits_of_one_machine(seed):
    rng = np.random.default_rng(seed)
    x, y, options = job(rng)
    options["backend"] = "numpy"
    chunks = chunks_of(rng, x.shape, options["class_axis"], parts=False)
    require_same(computed(x, y, chunks, **options), on_one_machine(x, y, **options))


@pytest.mark.slow  # many kernels are compiled
@pytest.mark.parametrize("seed", range(30))
def test_rows_in_chunks_have_the_bits_of_one_machine_on_the_kernels(seed):
    rng = np.random.default_rng(seed)
    x, y, options = job(rng)
    options["backend"] = "cpu"
    chunks = chunks_of(rng, x.shape, options["class_axis"], parts=False)
    require_same(computed(x, y, chunks, **options), on_one_machine(x, y, **options))


def test_auto_chooses_the_backend_by_the_size_of_the_whole(rng):
    """Chunks of 3,000 logits by themselves would be computed by NumPy, with other bits."""
    x = rng.normal(size=(60, 1000)).astype("f4")
    y = rng.integers(0, 1000, 60)
    require_same(computed(x, y, (3, -1)), on_one_machine(x, y))
    graph = graph_of_loss(da.from_array(x, chunks=(3, -1)), y, *ARGUMENTS)
    assert graph.result.compute().backend == "cpu"


ARGUMENTS = LossOptions(), Extras(), How("auto", None, True)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_the_order_of_chunks_changes_no_bit(scheduler, rng):
    x, y = rng.normal(size=(40, 30)), rng.integers(0, 30, 40)
    with dask.config.set(scheduler=scheduler):
        for chunks in ((9, -1), (17, 11)):
            found = [computed(x, y, chunks) for _ in range(3)]
            require_same(found[0], found[1])
            require_same(found[0], found[2])


@pytest.mark.parametrize("seed", seeds(6, 90))
def test_parts_of_the_classes_have_one_result_for_any_cut(seed):
    rng = np.random.default_rng(seed)
    x, y, options = job(rng, (1, 2, 5, 70, 300))
    axis = options["class_axis"]
    found = [computed(x, y, chunks_of(rng, x.shape, axis, parts=True), **options) for _ in range(4)]
    for other in found[1:]:
        require_same(other, found[0])


@pytest.mark.parametrize("seed", [1025, 1069, 1165])  # rows whose NaN had another sign
def test_a_nan_has_one_sign_however_its_row_is_cut(seed):
    rng = np.random.default_rng(seed)
    x, y, options = job(rng, (2, 5))
    assert np.isnan(x).any() or np.isposinf(x).any()
    found = [
        computed(x, y, chunks_of(rng, x.shape, options["class_axis"], parts=True), **options)
        for _ in range(4)
    ]
    assert len({tuple(np.asarray(a).tobytes() for a in each) for each in found}) == 1


def in_parts(case, dtype, seed=0):
    """The errors of a case whose classes are in random parts, in the promised units."""
    x, y, options = case.arrays({"f32": "f4", "f64": "f8"}[dtype])
    rng = np.random.default_rng(seed)
    _, losses, grad = computed(x, y, chunks_of(rng, x.shape, 1, parts=True), **options)
    expected = exact.cross_entropy(case.logits, case.targets, **dict(case.options))
    return units(SimpleNamespace(loss=losses, grad=grad), case, expected, dtype)


def require_promised(case, dtype, seed=0):
    bound = PROMISES[dtype, case.kind]
    for found, limit in zip(in_parts(case, dtype, seed), bound, strict=False):
        assert found <= limit, f"{found:.3f} units, {limit} promised for {case.kind}"


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("part", seeds(1, 16))
def test_parts_of_the_classes_keep_the_promised_bounds(dtype, part):
    for x, y in itertools.islice(strata(), part, None, 16):
        case = Case.of(x.astype({"f32": "f4", "f64": "f8"}[dtype]), y, reduction="none")
        require_promised(case, dtype, part)


@pytest.mark.parametrize("kind", ["factors", "softcap", "cancelling"])
@pytest.mark.parametrize("seed", seeds(1, 40))
def test_parts_of_the_classes_keep_the_promised_bounds_with_options(kind, seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 3, 9, 40]))
    x, y = fresh_rows(rng, 3, classes), rng.integers(0, classes, 3)
    options = fresh_options(rng, kind, 3, classes)
    if kind == "cancelling" and seed % 2:
        y = rng.dirichlet(np.ones(classes), size=3)
    require_promised(Case.of(x, y, reduction="none", **options), "f64", seed)


@pytest.mark.parametrize("case", few(WORST, 15), ids=str)
def test_the_worst_rows_keep_the_promised_bounds_in_parts(case):
    for seed in range(3):
        require_promised(case, case.dtype, seed)


@pytest.mark.parametrize(
    ("row", "target", "loss", "grad"), few(CASES, 4), ids=lambda v: str(v)[:24]
)
def test_hard_cases_in_parts(row, target, loss, grad):
    for first in {0, 1, len(row) // 2, len(row) - 1}:
        found = computed(np.array([row], float), [target], ((1,), (first, len(row) - first)))
        assert ulps(found[1][0], loss, "f8") <= 1
        assert ulps(found[2][0, target], grad, "f8") <= 3
        assert np.signbit(found[2][0, target]) == (grad < 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_borders_of_parts(smoothing):
    """A target at a border, a part without targets, rows that are ignored, unequal parts."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 10)) * 5, np.array([0, 3, 4, -100, 9, 4])
    options = {"label_smoothing": smoothing, "weight": rng.random(10), "backend": "numpy"}
    expected = on_one_machine(x, y, **options)
    for classes in ((4, 6), (3, 1, 6), (9, 1), (1, 9), (5, 5), (1,) * 10):
        found = computed(x, y, ((3, 1, 2), classes), **{**options, "backend": "auto"})
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_max_ulp(np.asarray(a), np.asarray(b), 1)
        assert np.array_equal(found[2][3], np.zeros(10))


def test_notes_are_those_of_one_machine(rng):
    x = rng.normal(size=(6, 4, 3))
    x[4, :, 1], x[2, 0, 2] = np.nan, np.inf
    q = rng.dirichlet(np.ones(4), size=(6, 3)).transpose(0, 2, 1)
    q[5, :, 0], q[1, 2, 1] = 0.5, -0.5
    for y in (rng.integers(0, 4, (6, 3)), q):
        expected = xentcli.cross_entropy(x, y, class_axis=1)
        for chunks in ((2, 4, 3), (4, 4, 2), (1, 4, 1), (4, 3, 2)):
            options = LossOptions(class_axis=1, target_kind="index" if y.ndim == 2 else "probs")
            graph = graph_of_loss(da.from_array(x, chunks=chunks), y, options, *ARGUMENTS[1:])
            found = graph.result.compute()
            assert [note.text for note in found.notes] == [note.text for note in expected.notes]
            assert (found.rows, found.ignored) == (18, 0)


def test_a_graph_is_built_without_reading_anything():
    class Unread:
        shape, dtype, ndim = (10, 4), np.dtype("f4"), 2

        def __getitem__(self, index):
            raise AssertionError("read")

    x = da.from_array(Unread(), chunks=(2, 2), asarray=False, meta=np.empty((0, 0), "f4"))
    loss, losses, grad = cross_entropy(x, da.zeros(10, int, chunks=2))
    assert (loss.shape, losses.shape, grad.shape) == ((), (10,), (10, 4))
    assert (grad.dtype, grad.chunks, losses.chunks) == (np.float32, x.chunks, x.chunks[:1])
    with pytest.raises(AssertionError, match="read"):
        loss.compute()


X = da.ones((4, 6), chunks=(2, 6))
UNKNOWN = X[X[:, 0] > 0]
ERRORS = [
    ((np.ones((4, 6)), [0] * 4), {}, DtypeError, "logits: expected a dask array, not ndarray"),
    ((X.astype("c8"), [0] * 4), {}, DtypeError, "logits: dtype complex64 is not supported"),
    ((UNKNOWN, [0] * 4), {}, ShapeError, "logits: the sizes of its chunks are unknown"),
    ((X, UNKNOWN[:, 0]), {}, ShapeError, "targets: the sizes of its chunks are unknown"),
    ((X, [0] * 5), {}, ShapeError, r"targets: shape \(5,\) does not fit logits"),
    ((X, X.rechunk((4, 6))), {}, ShapeError, r"use targets.rechunk\(logits.chunks\)"),
    ((X, [0] * 4), {"weight": [1.0]}, ShapeError, "weight: 1 number given, 6 needed"),
    ((X, [0] * 4), {"upstream": [1.0] * 4}, ShapeError, "use reduction='none'"),
    ((X.rechunk((2, 3)), [0] * 4), {"backend": "cpu"}, OptionError, "parts are computed by numpy"),
    ((X, [0] * 4), {"label_smoothing": 2}, OptionError, "label_smoothing: 2 is not allowed"),
]


@pytest.mark.parametrize(("arrays", "options", "error", "text"), ERRORS, ids=lambda v: str(v)[:40])
def test_errors_when_the_graph_is_built(arrays, options, error, text):
    with pytest.raises(error, match=text):
        cross_entropy(*arrays, **options)


def test_errors_of_the_data_name_the_row_of_the_whole():
    x = da.ones((9, 5), chunks=(2, 5))
    y = np.array([0, 1, 2, 3, 4, 7, 0, 5, 0])
    with pytest.raises(TargetError, match="2 of 9 targets are outside 0 to 4; first: row 5 is 7"):
        cross_entropy(x, y).grad.compute()
    with pytest.raises(TargetError, match="1 of 9 targets is not a whole number; first: row 8"):
        cross_entropy(x, np.array([0.0] * 8 + [0.5])).loss.compute()
    weights = np.array([1.0] * 6 + [np.inf, 1, 1])
    with pytest.raises(DataError, match="sample_weight: entry 6 is inf"):
        cross_entropy(x, y % 5, sample_weight=weights).loss.compute()
    with pytest.raises(DataError, match="targets: no row is left"):
        cross_entropy(x, y * 0 - 100, empty_mean="error").loss.compute()


def test_arrays_per_row_in_other_chunks_are_rechunked_and_that_is_said(rng):
    x, y, v = rng.normal(size=(9, 5)), rng.integers(0, 5, 9), rng.random(9)
    lazy = da.from_array(x, chunks=(4, 5))
    with pytest.warns(da.PerformanceWarning, match="targets: chunks .* differ") as seen:
        found = cross_entropy(lazy, da.from_array(y, chunks=2), sample_weight=v)
    assert seen[0].filename == __file__
    require_same(dask.compute(*found), on_one_machine(x, y, sample_weight=v))


@pytest.mark.parametrize("log", [False, True])
def test_softmax(log, rng):
    alone = xentcli.log_softmax if log else xentcli.softmax
    for x in (rng.normal(size=(9, 8)) * 20, rng.normal(size=(4, 8, 3)).astype("f4")):
        x[1, 3], x[2, 0] = np.nan, -np.inf
        options = {"temperature": 1.7, "softcap": 30.0, "class_axis": 1}
        expected = alone(x, **options)
        rows = da.from_array(x, chunks=(2, *x.shape[1:]))
        assert_same_bits(softmax(rows, log=log, **options).compute(), expected)
        found = [
            softmax(da.from_array(x, chunks=(3, classes, 2)[: x.ndim]), log=log, **options)
            for classes in ((1, 7), (4, 4), 3)
        ]
        assert found[0].chunks[1] == (1, 7)
        first, *others = dask.compute(*found)
        np.testing.assert_array_max_ulp(first, expected, 2)
        for other in others:
            assert_same_bits(other, first)


REPORTS = [
    {"worst": 4, "confusion": 3},
    {"binning": "mass", "sample_weight": np.linspace(0, 2, 50)},
    {"group": np.arange(50) // 7, "temperature": 2.0},
]


@pytest.mark.parametrize("options", REPORTS, ids=lambda v: "+".join(v))
@pytest.mark.parametrize("kind", ["indices", "probabilities", "base"])
def test_a_report_has_the_bits_of_one_machine(options, kind, rng):
    x, y = rng.normal(size=(50, 9)) * 3, rng.integers(0, 9, 50)
    y[::6] = -100
    chunks, base = ((20, 0, 1, 29), 9), {}
    if kind == "probabilities":
        y = rng.dirichlet(np.ones(9), size=50)
        options = {name: value for name, value in options.items() if name != "confusion"}
    if kind == "base":
        base = {"base": rng.normal(size=(50, 9))}
    expected = report_of_arrays(x, y, **options, **base)
    lazy = {name: da.from_array(value, chunks=chunks) for name, value in base.items()}
    found = report(da.from_array(x, chunks=chunks), y, **options, **lazy).compute()
    assert repr(found) == repr(expected)


def test_the_base_of_a_report_may_have_its_rows_in_one_axis(rng):
    x, y = rng.normal(size=(5, 10, 9)), rng.integers(0, 9, (5, 10))
    base = rng.normal(size=(50, 9))
    lazy = da.from_array(base, chunks=(7, 9))
    with pytest.warns(da.PerformanceWarning, match=r"base: shape \(50, 9\) differs"):
        found = report(da.from_array(x, chunks=(2, 10, 9)), y, base=lazy)
    assert repr(found.compute()) == repr(report_of_arrays(x, y, base=base))
    with pytest.raises(ShapeError, match="base: shape"):
        report(da.from_array(x, chunks=(2, 10, 9)), y, base=lazy[1:])


def test_a_report_of_parts_of_the_classes_rechunks_them_and_says_so(rng):
    x, y = rng.normal(size=(20, 9)), rng.integers(0, 9, 20)
    with pytest.warns(da.PerformanceWarning, match="a report needs chunks of consecutive"):
        found = report(da.from_array(x, chunks=(5, 4)), y)
    assert found.compute()["nll"] == report_of_arrays(x, y)["nll"]


@pytest.mark.parametrize("chunks", [(2, 3, 4), (5, 6, 7), (2, 6, 7), (5, 2, 7), (1, 1, 1)], ids=str)
def test_files_are_read_and_written_in_parts(chunks, tmp_path, rng):
    x = rng.normal(size=(5, 6, 7)).astype(">f4")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.zeros_like(x))
    source = FileArray.to_read(str(tmp_path / "x.npy"), x.shape, x.dtype, 128)
    lazy = from_file(source, chunks)
    assert_same_bits(lazy.compute(), x)
    target = FileArray(str(tmp_path / "y.npy"), x.shape, x.dtype, 128)
    assert store(lazy, target).compute() == x.size
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


def test_a_number_without_axes_is_read_and_written(tmp_path):
    for name, value in (("x", 7), ("y", 0)):
        np.save(tmp_path / f"{name}.npy", np.int64(value))
    lazy = from_file(FileArray.to_read(str(tmp_path / "x.npy"), (), np.dtype("i8"), 128), ())
    assert lazy.compute() == 7
    assert store(lazy, FileArray(str(tmp_path / "y.npy"), (), np.dtype("i8"), 128)).compute() == 1
    assert np.load(tmp_path / "y.npy") == 7


def test_a_file_that_changes_or_ends_early_is_an_error(tmp_path):
    path = tmp_path / "x.bin"
    np.ones(20).tofile(path)
    lazy = from_file(FileArray.to_read(str(path), (5, 4), np.dtype("f8"), 0), (2, 4))
    np.ones(21).tofile(path)
    with pytest.raises(FileError, match=r"x\.bin: was changed while it was read"):
        lazy.compute()
    path.write_bytes(b"123")
    with pytest.raises(FileError, match=r"x\.bin: ends before the array does"):
        FileArray(str(path), (5, 4), np.dtype("f8"))[0:1, 0:4]


def test_kernels_in_a_thread_of_daks_pool_use_one_thread():
    assert dask.delayed(share)().compute(scheduler="threads") == 1
    assert share() is None


def test_without_dask_there_is_a_hint():
    code = "import sys; sys.modules['dask'] = None; import xentcli.dask"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UnavailableError: dask: dask cannot be imported" in done.stderr
    assert "(pip install 'xentcli[dask]')" in done.stderr
