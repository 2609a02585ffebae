"""The oracles of `xent check` against mpmath: their own errors, for every option."""

import mpmath
import numpy as np
import pytest
from helpers import DIGITS, exactly

from xentcli.arrays.layout import Layout
from xentcli.check.oracles import dd_arithmetic, double_double
from xentcli.check.oracles.dd_arithmetic import Pair, pair
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.finite_differences import FiniteDifferenceOracle, rows_to_check
from xentcli.check.oracles.float64 import ReferenceOracle
from xentcli.check.oracles.rows import FloatRows, scale_of
from xentcli.check.oracles.ulp import FLOATS
from xentcli.engine.problem import Extras, build
from xentcli.engine.rows import RowPiece
from xentcli.engine.targets import Whole
from xentcli.errors import OptionError
from xentcli.options import LossOptions

N, C = 9, 7
HALF = 0.51  # ULP: what an oracle may be off by


@pytest.fixture
def data():
    """Rows of every sort: ordinary, nearly certain of their target, far from 0, far apart."""
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((N, C)) * 5, rng.integers(0, C, N)
    x[0, t[0]] += 40
    x[1, t[1]] += 700
    x[2, t[2]] += 743
    x[3] += 1e8
    x[4] *= 40
    x[5, (t[5] + 1) % C] = -np.inf
    return {
        "x": x.astype("f4").astype("f8"),
        "t": t,
        "ignored": np.where(np.arange(N) % 4 == 3, -100, t),
        "q": rng.dirichlet(np.ones(C), N),
        "w": rng.random(C) * 3,
        "v": rng.random(N),
        "u": rng.standard_normal(N),
    }


NONE = {"reduction": "none"}
ALL = {"weight": "w", "sample_weight": "v", "label_smoothing": 0.3, "z_loss": 0.01}
OPTIONS = {
    "plain": ("t", {}),
    "none": ("t", NONE),
    "sum": ("t", {"reduction": "sum"}),
    "ignored": ("ignored", {}),
    "weight": ("ignored", {"weight": "w"}),
    "sample weight": ("ignored", {"sample_weight": "v", "weight": "w"}),
    "smoothing": ("t", {"label_smoothing": 0.1}),
    "all smoothing": ("t", {"label_smoothing": 1.0}),
    "temperature": ("t", {"temperature": 0.3}),
    "softcap": ("t", {"softcap": 30.0}),
    "tight softcap": ("t", {"softcap": 2.0, "temperature": 3.7}),
    "z-loss": ("t", {"z_loss": 1e-3}),
    "upstream": ("t", NONE | {"upstream": "u"}),
    "large upstream": ("t", {"upstream": 1e300, "weight": "w"}),
    "normalizer": ("t", {"normalizer": 7.7}),
    "probabilities": ("q", {}),
    "probabilities and all": ("q", ALL | {"temperature": 2.5, "softcap": 20.0}),
    "all": ("ignored", ALL | {"temperature": 0.7, "softcap": 50.0}),
    "all, none": ("ignored", ALL | NONE | {"upstream": "u"}),
}


def problem(data, case):
    name, options = OPTIONS[case]
    given = {k: data.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    beside = {key: given.pop(key, None) for key in ("weight", "sample_weight", "upstream")}
    loss_options = LossOptions(**given)
    targets = data[name]
    built = build(data["x"].shape, Whole(targets), loss_options, Extras(**beside))
    rows = FloatRows.of(RowPiece.of_arrays(built, data["x"], targets if built.probs else None))
    listed = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in beside.items()}
    return rows, loss_options, scale_of(built, loss_options), (targets, {**given, **listed})


def error(exact, mine, kind):
    """The largest error in ULP of a kind, at the size of the terms."""
    worst = 0.0
    with mpmath.workdps(DIGITS):
        for i in range(N):
            for c in range(C):
                high, low = (mpmath.mpf(float(part[i, c])) for part in mine.grad)
                unit = float(kind.unit(mine.size[i, c]))
                worst = max(worst, float(abs(high + low - exact[i][c]) / unit))
    return worst


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize(("kind", "make"), [("f64", DoubleDoubleOracle), ("f32", ReferenceOracle)])
def test_the_oracles_own_error_is_below_half_a_unit(kind, make, case, data):
    rows, options, scale, (targets, given) = problem(data, case)
    losses, exact = exactly(data["x"], targets, **given)
    mine = make(options, scale)(rows)
    assert error(exact, mine, FLOATS[kind]) < HALF
    if options.reduction == "none":
        kept = rows.present
        own = [float(value) for value in np.array(losses)[kept]]
        np.testing.assert_allclose((mine.losses.high)[kept], own, rtol=3e-15, atol=5e-324)


@pytest.mark.parametrize("case", ["plain", "smoothing", "all", "tight softcap"])
def test_the_compensated_oracle_has_twice_the_digits(case, data):
    data["x"][1:3] /= 100  # what is subnormal has fewer
    rows, options, scale, (targets, given) = problem(data, case)
    _, exact = exactly(data["x"], targets, **given)
    mine = DoubleDoubleOracle(options, scale)(rows)
    assert error(exact, mine, FLOATS["f64"]) < 1e-13


def test_the_error_of_the_oracle_can_be_seen(data, monkeypatch):
    monkeypatch.setattr(double_double, "log1p", lambda t: pair(np.log1p(t.high)))
    monkeypatch.setattr(
        double_double, "exp", lambda d: (pair(np.exp(d.high)), np.zeros(d.high.shape, "i4"))
    )
    rows, options, scale, (targets, given) = problem(data, "plain")
    _, exact = exactly(data["x"], targets, **given)
    with np.errstate(all="ignore"):
        assert error(exact, DoubleDoubleOracle(options, scale)(rows), FLOATS["f64"]) > HALF


def test_terms_that_cancel_are_computed_again_in_double_double():
    x = np.log(np.array([[0.2, 0.3, 0.5]])).astype("f4").astype("f8")
    with mpmath.workdps(60):
        e = [mpmath.exp(v) for v in x[0].tolist()]
        q = np.array([[float(v / sum(e)) for v in e]])
    options = LossOptions(reduction="none")
    built = build(x.shape, Whole(q), options, Extras())
    rows = FloatRows.of(RowPiece.of_arrays(built, x, q))
    mine = ReferenceOracle(options, scale_of(built, options))(rows)
    _, exact = exactly(x, q, reduction="none")
    assert mine.grad.high.any()
    for c in range(3):
        assert mine.grad.high[0, c] == pytest.approx(float(exact[0][c]), rel=1e-12, abs=0)


@pytest.mark.parametrize("case", [case for case in OPTIONS if case != "large upstream"])
def test_finite_differences_know_how_far_off_they_are(case, data):
    data["x"][1:6] = np.random.default_rng(3).standard_normal((5, C)) * 3
    data["x"][6] += 3e4
    rows, options, scale, _ = problem(data, case)
    exact = DoubleDoubleOracle(options, scale)(rows)
    mine = FiniteDifferenceOracle(options, scale)(rows)
    missed = np.abs(mine.grad.high - exact.grad.high)
    assert (missed <= mine.error_bound).all()
    assert mine.error_bound[:6].max() < 1e-9 * np.abs(exact.grad.high).max() + 1e-10
    np.testing.assert_allclose(mine.losses.high, exact.losses.high, rtol=1e-12)


def test_finite_differences_see_a_wrong_formula(data):
    rows, options, scale, _ = problem(data, "smoothing")
    wrong = DoubleDoubleOracle(LossOptions(label_smoothing=0.2), scale)(rows)
    mine = FiniteDifferenceOracle(options, scale)(rows)
    assert (np.abs(mine.grad.high - wrong.grad.high) > mine.error_bound).any()


def test_finite_differences_that_would_take_too_long_are_refused():
    layout = Layout((1 << 20, 50257), 1)
    with pytest.raises(OptionError, match=r"1.6e\+16 exponentials are needed for 1048576 rows"):
        rows_to_check(layout, 1 << 20)
    with pytest.raises(OptionError, match="needed for 1 row of 1000000 classes"):
        rows_to_check(Layout((5, 1_000_000), 1), None)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 99, 100])
def test_finite_differences_take_groups_of_rows_from_everywhere(count):
    rows = rows_to_check(Layout((100, 5), 1), count)
    if count == 100:
        assert rows is None
        return
    assert len(np.unique(rows)) == count
    assert 0 <= rows.min() <= rows.max() <= 99
    assert count < 5 or rows.max() - rows.min() > 80


def test_finite_differences_take_all_rows_of_a_small_problem_and_some_of_a_large_one():
    assert rows_to_check(Layout((1000, 100), 1), None) is None
    rows = rows_to_check(Layout((10_000, 1000), 1), None)
    assert 20 < len(rows) < 200


@pytest.mark.parametrize("make", [DoubleDoubleOracle, ReferenceOracle])
def test_rows_without_an_answer_are_nan_and_ignored_rows_zero(make):
    x = np.array([[np.nan, 1, 2], [np.inf, 0, 1], [-np.inf] * 3, [0, 1, np.nan], [0, 1, 2]])
    built = build(x.shape, Whole(np.array([0, 1, 2, -100, 1])), LossOptions(), Extras())
    rows = FloatRows.of(RowPiece.of_arrays(built, x, None))
    mine = make(LossOptions(), scale_of(built, LossOptions()))(rows)
    assert np.isnan(mine.grad.high[:3]).all()
    assert (mine.grad.high[3] == 0).all()
    assert np.isfinite(mine.grad.high[4]).all()


# Double-double arithmetic by itself.


def exact_of(number, i):
    return mpmath.mpf(float(number.high[i])) + mpmath.mpf(float(number.low[i]))


@pytest.mark.parametrize(
    ("name", "scale"),
    [("expm1", -1e-20), ("expm1", -1e-3), ("expm1", -30.0), ("log1p", 1e-20), ("log1p", 1e5)],
)
def test_functions_have_100_bits(name, scale, rng):
    high = scale * rng.random(50)
    given = Pair(high, high * 2.0**-54 * rng.random(50))
    found = getattr(dd_arithmetic, name)(given)
    with mpmath.workdps(60):
        for i in range(50):
            exact = getattr(mpmath, name)(exact_of(given, i))
            assert abs(exact_of(found, i) / exact - 1) < mpmath.mpf(2) ** -100


def test_exp_has_100_bits_and_a_power_beyond_float64(rng):
    given = pair(-3900 * rng.random(50))
    found, power = dd_arithmetic.exp(given)
    with mpmath.workdps(60):
        for i in range(50):
            exact = mpmath.exp(exact_of(given, i)) / mpmath.mpf(2) ** int(power[i])
            assert abs(exact_of(found, i) / exact - 1) < mpmath.mpf(2) ** -100
    assert dd_arithmetic.exp(pair(np.array([-4001.0])))[0].high[0] == 0


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_operations_have_100_bits(name, rng):
    a, b = (Pair(h, h * 2.0**-54 * rng.random(50)) for h in rng.standard_normal((2, 50)))
    found = getattr(dd_arithmetic, name)(a, b)
    sign = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}[name]
    with mpmath.workdps(60):
        for i in range(50):
            x, y = exact_of(a, i), exact_of(b, i)
            exact = {"+": x + y, "-": x - y, "*": x * y, "/": x / y}[sign]
            assert (
                abs(exact_of(found, i) - exact)
                < (abs(x) + abs(y) + abs(exact)) * mpmath.mpf(2) ** -100
            )


def test_sums_of_any_length(rng):
    for length in (0, 1, 2, 3, 7, 64, 101):
        values = pair(rng.standard_normal((3, length)) * 10.0 ** rng.integers(-20, 20, (3, length)))
        found = dd_arithmetic.total(values)
        with mpmath.workdps(60):
            for row in range(3):
                exact = mpmath.fsum(map(float, values.high[row]))
                size = mpmath.fsum(map(abs, map(float, values.high[row])))
                assert abs(exact_of(found, row) - exact) <= size * mpmath.mpf(2) ** -100


def test_losses_near_the_end_of_the_range():
    x = np.array([[3e305, 0.0], [1e308, -1e307], [1e308, -1e308], [1.0, 2.0]])
    built = build(x.shape, Whole(np.ones(4, "i8")), LossOptions(), Extras())
    rows = FloatRows.of(RowPiece.of_arrays(built, x, None))
    with np.errstate(over="ignore"):
        mine = DoubleDoubleOracle(LossOptions(), scale_of(built, LossOptions()))(rows)
    np.testing.assert_allclose(mine.losses.high[:3], [3e305, 1.1e308, np.inf], rtol=1e-15)
    assert mine.losses.high[3] == pytest.approx(np.log1p(np.exp(-1)))


def test_finite_differences_do_not_guess_where_the_loss_is_infinite():
    x, t = np.array([[0.0, -np.inf, 1.0], [1.0, 2.0, 3.0]]), np.array([0, 1])
    options = LossOptions(label_smoothing=0.1)
    built = build(x.shape, Whole(t), options, Extras())
    mine = FiniteDifferenceOracle(options, scale_of(built, options))(
        FloatRows.of(RowPiece.of_arrays(built, x, None))
    )
    assert np.isinf(mine.error_bound[0]).all()
    assert (mine.error_bound[1] < 1e-9).all()
