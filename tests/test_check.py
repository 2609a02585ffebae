"""`xent check`: verdict, figures, what cannot be compared, and where the numbers come from."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    TARGETS,
    assert_error,
    assert_silent,
    at_terminal,
    bash,
    captured,
    inside,
    run,
    strict_json,
)

from xentcli import cross_entropy
from xentcli.check import Tolerance, assert_grad_close, check, statistics
from xentcli.check.statistics import ErrorHistogram
from xentcli.engine import rows
from xentcli.errors import DataError, DtypeError, OptionError, ShapeError

CHECK = "check", "l.npy", "t.npy", "g.npy"


@pytest.fixture
def gradient(files):
    """The folder with the right gradient of l.npy and t.npy in g.npy."""
    np.save("g.npy", GRADIENT)
    return files


def wrong_by(ulp, dtype="f8"):
    """The right gradient with one entry off by so many ULP."""
    grad = GRADIENT.astype(dtype)
    grad[1, 2] += ulp * np.spacing(grad[1, 2])
    return grad


# The verdict.


def test_a_right_gradient_ends_with_0(gradient):
    result = run(*CHECK)
    assert result.code == 0, result.err
    assert result.text.startswith("PASS gradient, exact: all 6 entries within 2 ULP of float64\n")
    assert re.fullmatch(
        r"xent: checked \(2, 3\) float64 against double-double, tolerance twice the error "
        r"of a naive float64 implementation; \d+\.\d+ s\n",
        result.err,
    )


def test_a_wrong_gradient_ends_with_1(gradient):
    np.save("g.npy", GRADIENT * 2)
    result = run(*CHECK, "-q")
    assert result.code == 1
    assert_silent(result)
    lines = result.text.splitlines()
    assert lines[0] == (
        "FAIL gradient: 6 of 6 entries, in 2 of 2 rows, off by more than twice the error of a "
        "naive float64 implementation"
    )
    assert lines[1].startswith("diagnosis: it is not divided by the batch: matches within 1")
    assert lines[1].endswith(" ULP if divided by 2 in 2 rows")


@pytest.mark.parametrize(
    ("options", "ulp", "code"),
    [
        ([], 5, 0),
        ([], 7, 1),
        (["--exact"], 1, 0),
        (["--exact"], 3, 1),
        (["--ulp", "1", "--like-peers"], 5, 0),
        (["--ulp", "1"], 5, 1),
        (["--ulp", "2"], 1, 0),
        (["--ulp", "2"], 4, 1),
        (["--rtol", "1e-13"], 400, 0),
        (["--rtol", "1e-15"], 40, 1),
        (["--atol", "1e-10"], 1e5, 0),
        (["--atol", "1e-13"], 1e5, 1),
        (["--ulp", "1", "--rtol", "1e-13"], 400, 0),
    ],
)
def test_the_tolerance_is_what_is_asked_for(options, ulp, code, gradient, capfdbinary):
    np.save("g.npy", wrong_by(ulp))
    assert inside(capfdbinary, *CHECK, *options, "-q").code == code


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("f2", "0.51 ULP of float16"), ("f4", "2 ULP of float32"), ("f8", "2 ULP of float64")],
)
def test_an_exact_gradient_is_within_the_ulp_that_its_dtype_is_promised(
    dtype, words, gradient, capfdbinary
):
    np.save("g.npy", GRADIENT.astype(dtype))
    result = inside(capfdbinary, *CHECK)
    assert result.code == 0
    assert f"PASS gradient, exact: all 6 entries within {words}\n" in result.text
    assert f"tolerance {words};" in inside(capfdbinary, *CHECK, "--exact").err


def naive(x, t):
    """The gradient of the mean as everybody writes it, in the dtype of the logits."""
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(t)), t] -= 1
    return p / x.dtype.type(len(t))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_naive_gradient_passes_at_plain_precision_and_says_what_it_lost(dtype, rng, files):
    x, t = rng.standard_normal((30, 20)).astype(dtype), rng.integers(0, 20, 30)
    x[np.arange(30), t] += np.linspace(0, 20, 30, dtype=dtype)
    for name, array in {"x": x, "y": t, "p": naive(x, t)}.items():
        np.save(f"{name}.npy", array)
    result = captured("check", "x.npy", "y.npy", "p.npy", "-q")
    assert result.code == 0
    name = x.dtype.name
    assert re.match(
        rf"PASS gradient, at plain {name} precision: \d+ of 600 entries off by more than 2 ULP, "
        rf"none by more than twice the error of a naive {name} implementation\n"
        rf"digits kept, of {7.2 if dtype == 'f4' else 16.0} at least: target entries [\d.]+, other "
        r"entries [\d.]+, confident rows [\d.]+, less certain rows [\d.]+\n",
        result.text,
    )
    assert re.search(r"^target entries: 30, \d+ not exact, max ", result.text, re.MULTILINE)
    assert re.search(r"^worst: row \d+, class \d+: ", result.text, re.MULTILINE)
    assert captured("check", "x.npy", "y.npy", "p.npy", "-q", "--exact").code == 1
    report = check(x, t, naive(x, t))
    assert (report.ok, report.precision) == (True, "plain")
    assert check(x, t, cross_entropy(x, t).grad).precision == "exact" or dtype == "f8"
    with pytest.raises(AssertionError, match="off by more than 2 ULP"):
        assert_grad_close(x, t, naive(x, t), exact=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_naive_loss_passes_at_plain_precision(dtype, reduction, rng):
    x, t = rng.standard_normal((30, 20)).astype(dtype), rng.integers(0, 20, 30)
    x[np.arange(30), t] += np.linspace(0, 25, 30, dtype=dtype)
    right = cross_entropy(x, t, reduction=reduction)
    top = x.max(axis=1, keepdims=True)
    each = (top + np.log(np.exp(x - top).sum(axis=1, keepdims=True)))[:, 0] - x[np.arange(30), t]
    assert each.dtype == dtype
    loss = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    judged = check(x, t, right.grad, loss=loss, reduction=reduction).loss
    assert judged.precision == "plain" or reduction != "none"
    assert not judged.off
    if reduction == "none":
        assert f"PASS loss, at plain {x.dtype.name} precision: " in judged.words()
        assert check(x, t, right.grad, loss=loss, reduction=reduction, exact=True).loss.off
    wrong = loss + loss.dtype.type(1e-3)
    assert check(x, t, right.grad, loss=wrong, reduction=reduction).loss.off


@pytest.mark.parametrize(
    "text", ["%.9g", "%.18e", "shortest"], ids=["9 digits", "all digits", "shortest"]
)
def test_a_float32_gradient_printed_as_text_is_judged_in_float32(text, rng, files):
    x, t = (5 * rng.standard_normal((30, 20))).astype("f4"), rng.integers(0, 20, 30)
    np.save("x.npy", x)
    np.savetxt("y.csv", t, fmt="%d")
    if text == "shortest":
        assert captured("grad", "x.npy", "y.csv", "-o", "g.csv", "-q").code == 0
    else:
        np.savetxt("g.csv", cross_entropy(x, t).grad, delimiter=",", fmt=text)
    result = captured("check", "x.npy", "y.csv", "g.csv")
    assert result.code == 0, result.text
    assert "PASS gradient, exact: all 600 entries within 2 ULP of float32\n" in result.text
    assert (
        "dtype: float32, because the text has no more digits; --dtype f64 judges in float64\n"
        in result.text
    )
    result = captured("check", "x.npy", "y.csv", "g.csv", "--dtype", "f64")
    assert result.code == 1
    assert "diagnosis: computed in float32: every number fits into float32" in result.text


def test_a_float64_gradient_as_text_is_judged_in_float64(rng, files):
    x, t = rng.standard_normal((30, 20)), rng.integers(0, 20, 30)
    np.save("x.npy", x)
    np.savetxt("y.csv", t, fmt="%d")
    assert captured("grad", "x.npy", "y.csv", "-o", "g.csv", "-q").code == 0
    result = captured("check", "x.npy", "y.csv", "g.csv")
    assert result.text.startswith("PASS gradient")
    assert " float64" in result.text.splitlines()[0]
    assert "dtype:" not in result.text


def test_logits_as_text_of_a_float32_gradient_pass(rng, files):
    x, t = (5 * rng.standard_normal((30, 20))).astype("f4"), rng.integers(0, 20, 30)
    np.savetxt("x.csv", x, delimiter=",", fmt="%.9g")
    np.savetxt("y.csv", t, fmt="%d")
    command = "grad", "x.csv", "y.csv", "--dtype", "f32", "-o", "g.csv", "-q"
    assert captured(*command).code == 0
    result = captured("check", "x.csv", "y.csv", "g.csv")
    assert result.code == 0, result.text
    assert "of float32" in result.text


def test_dtype_says_in_which_kind_to_judge(gradient, capfdbinary):
    np.save("g.npy", GRADIENT * (1 + 1e-7))
    assert inside(capfdbinary, *CHECK, "-q").code == 1
    assert inside(capfdbinary, *CHECK, "-q", "--dtype", "f32").code == 0


@pytest.mark.slow
def test_plain_arithmetic_passes_and_nothing_else(rng):
    x, t = rng.standard_normal((30, 20)).astype("f4"), rng.integers(0, 20, 30)
    x[np.arange(30), t] += np.linspace(0, 20, 30)
    grad = naive(x, t)
    assert not check(x, t, grad, ulp=2).ok
    assert check(x, t, grad, ulp=2, like_peers=True).ok
    right = cross_entropy(x, t).grad
    assert check(x, t, right).ok
    for row in range(30):
        for column in (t[row], (t[row] + 1) % 20):
            broken = right.copy()
            broken[row, column] += np.float32(1e-5 * np.abs(right[row, column]) + 1e-7)
            assert not check(x, t, broken).ok


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32", "f64"])
def test_our_own_gradient_is_right_in_every_kind(kind, rng, files):
    x, t = rng.standard_normal((50, 30)) * 5, rng.integers(0, 30, 50)
    np.save("x.npy", x.astype("f4"))
    np.save("y.npy", t)
    own = ["grad", "x.npy", "y.npy", "--dtype", kind, "--backend", "numpy", "-q"]
    grad = captured(*own).out
    given = ["x.npy", "y.npy", "-", "--ulp", "4", "--dtype", kind]
    done = captured("check", *given, stdin=grad)
    assert done.code == 0, done.text
    largest = float(re.search(r"ulp: max ([\d.]+)", done.text)[1])
    assert largest <= {"f64": 4}.get(kind, 0.51)


# The loss.


@pytest.mark.parametrize("factor", [1, 1 + 1e-9])
@pytest.mark.parametrize("name", ["loss.npy", "loss.txt"])
def test_the_loss_is_judged_too(name, factor, gradient, capfdbinary):
    loss = float(LOSSES.mean() * factor)
    np.save(name, loss) if name.endswith("npy") else (gradient / name).write_text(f"{loss!r}\n")
    result = inside(capfdbinary, *CHECK, "--loss", name, "-q")
    assert result.code == (factor != 1)
    first = result.text.splitlines()[factor == 1]
    assert first.startswith(f"{'PASS' if factor == 1 else 'FAIL'} loss: 1.0397207")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("x", "t"), [([[0.0, 1.0], [0.0, -np.inf]], [0, 1]), ([[0.0, 1e308], [1.0, -1e308]], [0, 0])]
)
def test_an_infinite_or_a_very_large_loss_is_judged(reduction, x, t):
    x = np.array(x)
    right = cross_entropy(x, t, reduction=reduction)
    assert check(x, t, right.grad, loss=right.loss, reduction=reduction).ok
    wrong = np.full_like(np.asarray(right.loss), np.nan)
    assert not check(x, t, right.grad, loss=wrong, reduction=reduction).ok


def test_losses_of_rows_are_judged_with_reduction_none(gradient, capfdbinary):
    np.save("g.npy", GRADIENT * 2)
    np.save("loss.npy", LOSSES)
    options = "--loss", "loss.npy", "--reduction", "none", "-q"
    assert inside(capfdbinary, *CHECK, *options).code == 0
    np.save("loss.npy", np.add(LOSSES, [0, 1e-8]))
    result = inside(capfdbinary, *CHECK, *options)
    assert result.code == 1
    assert "FAIL loss: 1 of 2 losses off; the worst, row 1: " in result.text


def test_check_and_assertion_have_the_options_of_the_loss_and_of_strictness():
    judged, asserted = (inspect.signature(f).parameters for f in (check, assert_grad_close))
    assert judged == asserted
    ours = inspect.signature(cross_entropy).parameters
    own = {"grad", "loss", "ulp", "rtol", "atol", "like_peers", "exact", "method", "rows", "dtype"}
    assert judged.keys() - own == ours.keys() - {"grad", "out", "backend", "threads"}
    for name in judged.keys() - own - {"targets"}:  # which a teacher may replace
        assert judged[name].default == ours[name].default
        assert judged[name].annotation == ours[name].annotation
    strict = Tolerance()
    assert {name: judged[name].default for name in vars(strict)} == vars(strict)


@pytest.mark.parametrize("function", [check, assert_grad_close])
def test_a_method_that_is_not_known_is_an_error(function):
    with pytest.raises(OptionError, match="'newton' is not allowed"):
        function(LOGITS, TARGETS, GRADIENT, method="newton")


def test_losses_that_do_not_fit_the_reduction(gradient):
    np.save("loss.npy", LOSSES)
    result = captured(*CHECK, "--loss", "loss.npy")
    assert_error(result, 1, "loss.npy: 2 numbers, but the reduction mean gives one")
    assert "hint: --reduction none judges one loss per row" in result.err
    np.save("loss.npy", LOSSES[:1])
    result = captured(*CHECK, "--loss", "loss.npy", "--reduction", "none")
    assert_error(result, 1, "shape (1,), but reduction none gives one loss per row: (2,)")


@pytest.mark.parametrize(
    ("targets", "options", "loss"),
    [
        ([-100, -100], {}, np.nan),
        ([-100, -100], {"empty_mean": "zero"}, 0.0),
        ([0, 1], {"reduction": "sum"}, LOSSES.sum()),
        ([0, 1], {"weight": [1.0, 3.0, 1.0]}, (LOSSES[0] + 3 * LOSSES[1]) / 4),
        ([0, 1], {"sample_weight": [1.0, 3.0]}, (LOSSES[0] + 3 * LOSSES[1]) / 4),
        ([0, 1], {"normalizer": 4.0}, LOSSES.sum() / 4),
        ([0, -100], {}, LOSSES[0]),
        ([0, 1], {"z_loss": 0.5}, LOSSES.mean() + 0.5 * np.log(4) ** 2),
    ],
)
def test_the_exact_loss_follows_the_reduction(targets, options, loss):
    grad = cross_entropy(LOGITS, targets, **options).grad
    assert check(LOGITS, targets, grad, loss=loss, **options).ok
    assert not check(LOGITS, targets, grad, loss=loss + 1e-9, **options).ok or np.isnan(loss)
    assert not check(LOGITS, targets, grad, loss=0.123, **options).ok


# The report.


def test_the_figures_of_the_report(rng):
    x, t = rng.standard_normal((40, 24)), rng.integers(0, 24, 40)
    t[::8] = -100
    grad = cross_entropy(x, t).grad
    grad[0, 3] = 1.0
    grad[7, t[7]] *= 1 + 1e-6
    grad[9, (t[9] + 1) % 24] *= 1 + 1e-3
    grad[33, 23] = np.nan
    grad[34, 22] = np.inf
    facts = check(x, t, grad).facts()
    assert (facts["entries"], facts["off"], facts["rows_off"]) == (960, 5, 5)
    assert facts["ignored"] == 5
    off = {name: place["off"] for name, place in facts["places"].items()}
    assert off["ignored rows"] == 1
    assert off["target entries"] >= 1
    assert off["target entries"] + off["other entries"] == 4
    assert off["last 3 columns"] >= 2
    assert facts["places"]["target entries"]["entries"] == 35
    assert facts["off_rows"] == [0, 34]
    assert facts["off_columns"][1] == 23
    assert [facts["not_finite"][name] for name in ("nan_extra", "nan_missing")] == [1, 0]
    assert [facts["not_finite"][name] for name in ("inf_extra", "inf_missing")] == [1, 0]
    places = [(bad["row"], bad["column"]) for bad in facts["worst"]]
    assert places[:3] == [(0, 3), (33, 23), (34, 22)]
    assert (facts["worst"][0]["theirs"], facts["worst"][0]["exact"]) == (1, 0)
    assert facts["worst"][1]["theirs"] is None
    assert facts["errors"]["ulp"]["50%"] <= 4
    assert facts["errors"]["absolute"]["max"] is None


def test_relative_and_absolute_errors_are_those_of_the_worst_entry():
    facts = check(LOGITS, TARGETS, wrong_by(1 << 30)).facts()
    missed = (1 << 30) * np.spacing(0.25)
    assert facts["errors"]["ulp"]["max"] == pytest.approx(1 << 30)
    assert facts["errors"]["absolute"]["max"] == pytest.approx(missed)
    assert facts["errors"]["relative"]["max"] == pytest.approx(missed / 0.25)
    assert facts["worst"][0]["ulp"] == pytest.approx(1 << 30)


def test_confident_rows_are_counted_apart():
    x = np.array([[20.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    grad = cross_entropy(x, [0, 0]).grad
    grad[0] *= 1.001
    places = check(x, [0, 0], grad).facts()["places"]
    assert (places["confident rows"]["off"], places["less certain rows"]["off"]) == (3, 0)


def test_nan_that_is_missing_is_counted():
    x = np.array([[np.nan, 0.0], [0.0, 1.0]])
    right = cross_entropy(x, [0, 1]).grad
    assert check(x, [0, 1], right).ok
    report = check(x, [0, 1], np.nan_to_num(right))
    assert report.nonfinite() == "2 NaN missing"
    assert not report.ok


def test_an_infinity_where_the_exact_number_is_out_of_range_is_right():
    with np.errstate(over="ignore"):
        grad = (GRADIENT * 1e6).astype("f2")
    assert np.isinf(grad).any()
    assert check(LOGITS, TARGETS, grad, upstream=1e6).ok


def test_minus_zero_is_zero():
    assert check([[1000.0, 0.0]], [0], np.array([[-0.0, -0.0]])).ok


def test_a_gradient_of_no_rows_is_right():
    assert check(np.empty((0, 3)), np.empty(0, "i8"), np.empty((0, 3))).ok


def test_the_places_of_rows_with_several_axes(rng):
    x, t = rng.standard_normal((2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    grad = cross_entropy(x, t, class_axis=1).grad
    grad[1, 3, 2, 0] += 1
    report = check(x, t, grad, class_axis=1)
    assert "worst: row 1,2,0, class 3: " in "\n".join(report.lines())
    assert report.facts()["worst"][0]["index"] == "1,2,0"


def test_json_is_strict_and_one_line(gradient):
    grad = GRADIENT.copy()
    grad[0, 0] = np.nan
    np.save("g.npy", grad)
    result = captured(*CHECK, "--json", "-q")
    assert result.code == 1
    facts = strict_json(result.out)
    assert facts["ok"] is False
    assert [finding["name"] for finding in facts["diagnosis"]] == ["not-finite"]
    assert facts["errors"]["ulp"]["max"] is None


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_no_number_is_cut_on_a_terminal(columns, dtype, gradient):
    grad = (GRADIENT * 1.2345678901234567).astype(dtype)
    np.save("g.npy", grad)
    result = at_terminal(*CHECK, "--color", "never", columns=columns)
    lines = result.text.split("\n")
    assert result.code == 1
    assert max(map(len, lines)) <= columns
    assert "…" not in result.text
    facts = json.loads(captured(*CHECK, "--json", "-q").text)
    digits = 9 if dtype == "f4" else 17
    for bad in facts["worst"]:
        assert f"{bad['theirs']:.{digits}g}" in result.text
    for name, errors in facts["errors"].items():
        assert f"{errors['max']:.3g}" in result.text, name


def test_the_terminal_is_coloured_and_a_pipe_is_not(gradient):
    assert "\x1b[1;32mPASS gradient" in at_terminal(*CHECK).text
    assert "\x1b" not in captured(*CHECK).text


def test_percentiles_are_upper_edges():
    histogram = ErrorHistogram()
    values = np.random.default_rng(0).lognormal(0, 5, 10000)
    for part in np.split(values, 10):
        histogram.add(part)
    for name, share in statistics.SHARES.items():
        exact = np.quantile(values, share, method="inverted_cdf")
        assert exact <= histogram.facts()[name] <= exact * 1.1
    assert histogram.largest == values.max()
    histogram.add(np.array([np.inf]))
    assert histogram.facts()["max"] == np.inf


# What cannot be compared.


@pytest.mark.parametrize(
    ("grad", "words"),
    [
        (GRADIENT.T, ["shape (3, 2), but the logits have (2, 3): it is transposed", "grad.T)"]),
        (GRADIENT.ravel(), ["shape (6,)", "it is flattened", "grad.reshape(2, 3)"]),
        (GRADIENT[None], ["it has other axes", "grad.reshape(2, 3)"]),
        (GRADIENT[:1], ["shape (1, 3), but the logits have (2, 3)\n"]),
        (GRADIENT[:, 0], ["that is one number per row"]),
        (GRADIENT.astype(int), ["dtype int64 cannot be compared: a gradient holds floats"]),
        (GRADIENT.astype(complex), ["'<c16'"]),
        (GRADIENT.astype("f2").view("V2"), ["dtype V2", "--dtype bf16"]),
    ],
)
def test_what_cannot_be_compared_says_why(grad, words, files):
    np.save("g.npy", grad)
    assert_error(captured(*CHECK), 1, "g.npy: ", *words)


def test_axes_in_another_order_are_named():
    x, t = np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), "i8")
    with pytest.raises(ShapeError, match="axes are in another order") as error:
        check(x, t, np.zeros((2, 4, 5, 3)))
    assert "grad.transpose(0, 3, 1, 2)" in error.value.hint
    assert np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2).shape == x.shape


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ulp": -1.0}, OptionError),
        ({"exact": True, "ulp": 1.0}, OptionError),
        ({"exact": True, "like_peers": True}, OptionError),
        ({"rtol": np.nan}, OptionError),
        ({"method": "guess"}, OptionError),
        ({"dtype": "f128"}, OptionError),
        ({"label_smoothing": 2}, OptionError),
        ({"weight": [1.0]}, DataError),
        ({"weights": 1}, TypeError),
    ],
)
def test_options_that_are_not_allowed(options, error):
    with pytest.raises(error):
        check(LOGITS, TARGETS, GRADIENT, **options)


def test_a_gradient_of_integers_in_python():
    with pytest.raises(DtypeError, match="a gradient holds floats"):
        check(LOGITS, TARGETS, GRADIENT.astype(int))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "l.npy", "t.npy", "none.npy"], 2, "none.npy: no such file"),
        (["check", "l.npy", "t.npy"], 2, "Missing argument 'GRAD'"),
        (["check", "-", "t.npy", "-"], 2, "can be read only once"),
        ([*CHECK, "--ulp", "-1"], 2, "--ulp"),
        ([*CHECK, "--method", "guess"], 2, "--method"),
        (["check", "l.npy", "t.npy", "two.npz"], 2, "choose one with --grad-key NAME"),
        ([*CHECK, "--grad-key", "g"], 2, "--grad-key is for .npz"),
    ],
)
def test_wrong_use(arguments, code, words, gradient):
    np.savez("two.npz", g=GRADIENT, h=GRADIENT)
    assert_error(captured(*arguments), code, words)


# Where the numbers come from.


@pytest.mark.parametrize("grad", ["-", "<(cat g.npy)", "f.npy", "b.npy", "z.npz", "g.csv"])
def test_the_verdict_does_not_depend_on_the_source(grad, rng, files):
    x, t = rng.standard_normal((57, 13)).astype("f4"), rng.integers(0, 13, 57)
    right = cross_entropy(x, t).grad
    right[20, 5] *= 2
    np.save("x.npy", x)
    np.save("y.npy", t)
    np.save("g.npy", right)
    np.save("f.npy", np.asfortranarray(right))
    np.save("b.npy", right.astype(">f4"))
    np.savez_compressed("z.npz", g=right)
    np.savetxt("g.csv", right, delimiter=",", fmt="%.9g")
    data = (files / "g.npy").read_bytes()
    command = f"check x.npy y.npy {grad} --json -q"
    result = bash(f"xent {command}") if "<" in grad else captured(*command.split(), stdin=data)
    assert result.code == 1, result.err
    assert strict_json(result.out) == check(x, t, right).facts()


@pytest.mark.parametrize("slab", [1, 60, 1 << 20])
@pytest.mark.parametrize("axis", [1, 2])
def test_the_report_does_not_depend_on_the_slabs(slab, axis, rng, monkeypatch):
    shape = (7, 6, 11)
    x = rng.standard_normal(shape)
    t = rng.integers(0, shape[axis], np.delete(shape, axis))
    grad = cross_entropy(x, t, class_axis=axis).grad
    grad[3, 2, 5] += 1e-9
    whole = check(x, t, grad, class_axis=axis, loss=1.5)
    monkeypatch.setattr(rows, "SLAB", slab)
    monkeypatch.setattr("xentcli.check.judging.ENTRIES", 20)
    assert check(x, t, grad, class_axis=axis, loss=1.5).facts() == whole.facts()


def test_probabilities_come_along_with_logits_and_gradient(rng, files):
    x, q = rng.standard_normal((40, 6)), rng.dirichlet(np.ones(6), 40)
    options = {"label_smoothing": 0.2, "weight": rng.random(6)}
    grad = cross_entropy(x, q, **options).grad
    for name, array in {"x": x, "q": q, "w": options["weight"], "p": grad}.items():
        np.save(f"{name}.npy", array)
    command = ["check", "x.npy", "q.npy", "p.npy", "--label-smoothing", "0.2", "--weight", "w.npy"]
    assert captured(*command).code == 0
    np.save("p.npy", np.roll(grad, 1, axis=0))
    result = captured(*command)
    assert result.code == 1
    assert "diagnosis: the rows are shifted: each row holds the previous row's" in result.text


def test_tables_in_pipes_may_be_as_long_as_the_targets_say(files):
    (files / "x.csv").write_text("1,2,3\n" * 1000)
    (files / "y.csv").write_text("0\n" * 1000)
    result = bash("xent grad x.csv y.csv -q | xent check <(cat x.csv) y.csv <(cat)")
    assert result.code == 0, result.err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(files):
    x, t = np.zeros((60_000, 500), "f2"), np.zeros(60_000, "i4")
    np.save("x.npy", x)
    np.save("y.npy", t)
    np.save("p.npy", x)
    result = run("check", "x.npy", "y.npy", "p.npy", "-q", memory=900 << 20)
    assert result.code == 1
    assert "nothing was written" in result.text


def test_a_gradient_that_is_too_short_is_an_error(gradient):
    data = (gradient / "g.npy").read_bytes()
    (gradient / "g.npy").write_bytes(data[:-8])
    assert_error(captured(*CHECK), 1, "g.npy: ", "8 missing")


# The second opinion.


def test_finite_differences_agree(gradient, capfdbinary):
    result = inside(capfdbinary, *CHECK, "--method", "finite-diff")
    assert result.code == 0
    assert "against finite differences" in result.err
    assert re.search(
        r"method: finite differences may be off by \S+ ULP, and miss errors up to that", result.text
    )
    assert re.match(
        r"PASS gradient, as far as finite differences resolve it: none of 6 entries off by more "
        r"than twice the error of a naive float64 implementation, but 6 of them are known to no "
        r"better than \S+ ULP of float64\n",
        result.text,
    )
    np.save("g.npy", GRADIENT * (1 + 1e-8))
    assert inside(capfdbinary, *CHECK, "--method", "finite-diff").code == 1
    np.save("g.npy", GRADIENT.astype("f4"))
    result = inside(capfdbinary, *CHECK, "--method", "finite-diff")
    assert result.text.startswith("PASS gradient, exact: all 6 entries within 2 ULP of float32\n")


def test_finite_differences_of_some_rows_say_how_many(rng, files):
    x, t = rng.standard_normal((200, 30)).astype("f4"), rng.integers(0, 30, 200)
    grad = cross_entropy(x, t)
    for name, array in {"x": x, "y": t, "p": grad.grad, "q": -grad.grad, "l": grad.loss}.items():
        np.save(f"{name}.npy", array)
    command = "check", "x.npy", "y.npy", "p.npy", "--method", "finite-diff", "--rows", "12"
    result = captured(*command, "--loss", "l.npy")
    assert result.code == 0, result.text
    assert " 360 entries of 12 sampled rows (of 200)" in result.text.splitlines()[0]
    assert "PASS loss: " in result.text
    facts = json.loads(captured(*command, "--json").text)
    assert facts["rows_checked"] == 12
    assert facts["precision"] in (None, "exact")
    result = captured("check", "x.npy", "y.npy", "q.npy", *command[4:])
    assert result.code == 1
    assert "360 of 360 entries of 12 sampled rows (of 200), in 12 of 12 rows" in result.text
    assert "diagnosis: the sign is wrong" in result.text
    assert "in all 12 rows of a sample, of 200" in result.text
    result = captured("check", "x.npy", "y.npy", "p.npy", "--rows", "12")
    assert_error(result, 2, "--rows: applies to the method finite-diff only")


def test_the_targets_may_be_a_column_of_the_logits(files, capfdbinary):
    logits, targets = np.load("l.npy"), np.load("t.npy")
    rows = [[*row, target] for row, target in zip(logits, targets, strict=True)]
    Path("all.csv").write_text(
        "a,b,c,label\n" + "".join(",".join(map(repr, map(float, row))) + "\n" for row in rows)
    )
    grad = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy")
    assert grad.code == 0, grad.err
    result = inside(capfdbinary, "check", "all.csv", "g.npy", "--target-column", "label")
    assert (result.code, result.text[:4]) == (0, "PASS"), result.err
    result = inside(capfdbinary, "check", "all.csv", "g.npy")
    assert result.code == 2
    assert "Missing argument 'GRAD'" in result.err
