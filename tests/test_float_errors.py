"""NaN, infinity and underflow are results: no warning of NumPy's leaves the package for them.

Every test here runs with NumPy set to raise errors, and with warnings as errors.
"""

import itertools

import numpy as np
import pytest
from backends import SIMULATED
from cli import inside, run

from xentcli import XentError, cross_entropy, log_softmax, softmax
from xentcli.check import check
from xentcli.engine import rows
from xentcli.engine.pipeline import Pipeline

HUGE, TINY = 1e300, 1e-300
X = np.array([[1.0, HUGE, -TINY, 5e-324], [-np.inf, 0.5, -HUGE, 700.0], [np.nan, 1.0, 2.0, 3.0]])
X = np.concatenate([X, np.eye(4)])
Y = np.array([0, 1, 2, 0, 1, -100, 3])
Q = np.array([[0.25, 0.25, 0.5, 0.0]] * 7)
PER_ROW, PER_CLASS = np.full(7, HUGE), np.array([HUGE, -HUGE, TINY, 0.0])
OPTIONS = [
    {},
    {"weight": np.full(4, HUGE)},
    {"weight": PER_CLASS},
    {"sample_weight": PER_ROW},
    {"weight": np.full(4, HUGE), "sample_weight": PER_ROW},
    {"weight": np.full(4, TINY), "sample_weight": np.full(7, TINY)},
    {"weight": np.zeros(4), "sample_weight": PER_ROW},
    {"upstream": PER_ROW, "sample_weight": PER_ROW, "reduction": "none"},
    {"upstream": HUGE, "normalizer": TINY},
    {"z_loss": HUGE},
    {"z_loss": HUGE, "weight": np.full(4, HUGE), "sample_weight": np.full(7, TINY)},
    {"temperature": TINY},
    {"temperature": HUGE},
    {"softcap": TINY},
    {"softcap": HUGE},
    {"label_smoothing": 5e-324},
    {"label_smoothing": 1.0, "weight": PER_CLASS},
]
IDS = ["+".join(options) or "plain" for options in OPTIONS]
SOME = slice(None, None, 4 if SIMULATED else 1)


@pytest.fixture(autouse=True)
def _numpy_raises():
    with np.errstate(all="raise"):
        before = np.geterr()
        yield
        assert np.geterr() == before


@pytest.mark.parametrize("targets", [Y, Q], ids=["index", "probs"])
@pytest.mark.parametrize("options", OPTIONS[SOME], ids=IDS[SOME])
def test_the_loss(options, targets, backend):
    cross_entropy(X, targets, **options, backend=backend)
    if targets is Y:
        cross_entropy(X, targets, **options, out=np.empty(X.shape, ">f4"), backend=backend)


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
@pytest.mark.parametrize("method", ["exact", "finite-diff"])
def test_the_check(options, method):
    loss = None if "reduction" in options else HUGE
    for grad in (np.full(X.shape, HUGE), np.full(X.shape, np.nan), X):
        report = check(X, Y, grad, loss=loss, **options, method=method)
        assert report.lines()
        assert report.facts()
        check(X, Y, grad, **options, like_peers=True, method=method)


@pytest.mark.parametrize("targets", [Y, Q], ids=["index", "probs"])
@pytest.mark.parametrize("weight", [HUGE, 1e200, 1.0, 1e-200, TINY])
@pytest.mark.parametrize("sample_weight", [1.7e308, 1e200, 1.0, 1e-200, 5e-324])
def test_the_check_takes_our_result_under_weights_of_any_size(weight, sample_weight, targets):
    """Their sum and their products may be beyond float64, and the mean is not."""
    given = {"weight": [weight, -weight, weight / 3, weight], "sample_weight": [sample_weight] * 7}
    if targets is Q:  # where weights are no part of the denominator
        given["weight"] = [1.0, 2.0, 3.0, 4.0]
    logits = np.linspace(-1, 1, X.size).reshape(X.shape)
    r = cross_entropy(logits, targets, **given)
    report = check(logits, targets, r.grad, loss=r.loss, **given)
    assert report.ok, report.lines()


def test_the_check_of_a_gradient_times_the_largest_numbers():
    """Whose powers of two and percentiles are beyond float64."""
    for scale in (1.7e308, 5e-324):
        for options in ({"weight": [scale, -scale, 1e16, scale]}, {"normalizer": scale}):
            options |= {"sample_weight": np.full(7, scale)} if "weight" in options else {}
            for grad in (np.eye(7, 4) * scale, np.full(X.shape, -1 / (4 * scale))):
                assert check(np.zeros(X.shape), Y, grad, **options).lines()


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize("options", [{}, {"temperature": TINY}, {"softcap": TINY}], ids=str)
def test_softmax(function, options, backend):
    function(X, **options, backend=backend)
    function(X, **options, out=np.empty(X.shape, "f2"), backend="numpy")


ARRAYS = {"weight", "sample_weight", "upstream"}
COMMANDS = [
    ["loss"],
    ["grad", "-o", "o.npy"],
    ["grad", "--dtype", "f16", "-o", "o.csv"],
    ["explain"],
]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The current folder, with the arrays as files."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", Y)
    return tmp_path


def as_arguments(options):
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, np.ndarray):
            np.save(f"{name}.npy", value)
            value = f"{name}.npy"
        yield from (flag, str(value))


@pytest.mark.parametrize("slab", [1, 1 << 20])
@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_commands(options, slab, job, monkeypatch, capfdbinary):
    """In one piece, and in many, which threads read, compute and write."""
    monkeypatch.setattr(rows, "SLAB", slab)
    for command, *more in COMMANDS:
        arguments = [command, "x.npy", "y.npy", *more, *as_arguments(options)]
        done = inside(capfdbinary, *arguments)
        assert done.code == 0, done.err
        assert "Warning" not in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["softmax", "x.npy", "--temperature", "1e-300", "--log", "-o", "p.csv"],
        ["check", "x.npy", "y.npy", "x.npy", "--like-peers"],
        ["check", "x.npy", "y.npy", "x.npy", "--json"],
        ["inspect", "x.npy", "--stats"],
        ["examples", "--check"],
    ],
    ids=lambda command: command[0],
)
def test_other_commands(command, job, capfdbinary):
    done = inside(capfdbinary, *command)
    assert done.code in (0, 1), done.err
    assert "Warning" not in done.err
    assert "bug" not in done.err


@pytest.mark.parametrize("kernels", ["numpy", "cpu"])
def test_a_process_with_warnings_as_errors(kernels, job):
    np.save("w.npy", np.full(4, HUGE))
    np.save("v.npy", PER_ROW)
    weights = ["--weight", "w.npy", "--sample-weight", "v.npy"]
    command = ["loss", "x.npy", "y.npy", *weights, "--backend", kernels]
    done = run(*command, env={"PYTHONWARNINGS": "error"})
    assert (done.code, done.text) == (0, "nan\n")
    assert "Warning" not in done.err


class Reports:
    """Computes when it is asked for its numbers, and knows NumPy's settings then."""

    def __init__(self, values):
        self.values, self.settings = values, None

    def __array__(self, dtype=None, copy=None):
        self.settings = np.geterr()
        return self.values


@pytest.mark.parametrize("name", ["logits", "targets", "weight", "sample_weight", "upstream"])
def test_what_the_caller_s_objects_compute_is_under_the_caller_s_settings(name):
    given = {"logits": np.eye(7), "targets": Y % 7, "sample_weight": PER_ROW}
    given |= {"upstream": np.array(HUGE)}
    values = Reports(given.get(name, np.ones(7)))
    cross_entropy(**{**given, name: values})
    assert values.settings == np.geterr()


def test_settings_are_as_before_after_an_error():
    before = np.geterr()
    with pytest.raises(XentError):
        cross_entropy(X, Y, reduction="sum", weight=[1, 2])
    assert np.geterr() == before


def test_threads_of_a_pipeline_compute_under_the_settings_of_the_one_that_runs_it():
    found = []

    def source():
        yield from itertools.repeat(np.geterr(), 3)

    with np.errstate(over="print", under="ignore"):
        Pipeline().run(source(), lambda item: item, lambda item: found.extend([item, np.geterr()]))
        assert found == [np.geterr()] * 6
