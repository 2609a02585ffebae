"""`xent check` names the mistake, and accuses nobody wrongly.

The wrong gradients here are written the way people write them, in NumPy, and share nothing with
the mistakes that the package knows.
"""

import numpy as np
import pytest

from xentcli import cross_entropy
from xentcli.check import check, diagnosis
from xentcli.check.diagnosis import sample

N, C = 40, 12
IGNORED = -100
EPS, TEMPERATURE, CAP, Z_LOSS, UPSTREAM = 0.1, 2.5, 4.0, 0.01, 3.0


@pytest.fixture
def data():
    """Logits, targets, class weights, row weights and upstream gradients, float32."""
    rng = np.random.default_rng(6)
    x = (3 * rng.standard_normal((N, C))).astype("f4")
    t = rng.integers(0, C, N)
    w, v, u = rng.random(C) + 0.5, rng.random(N) + 0.5, rng.standard_normal(N) + 3
    return {"x": x, "t": t, "w": w.astype("f4"), "v": v.astype("f4"), "u": u.astype("f4")}


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def hot(t, classes=C):
    y = np.zeros((len(t), classes), "f4")
    y[np.arange(len(t)), t] = 1
    return y


def findings(x, t, grad, **options):
    """The names in the diagnosis."""
    report = check(x, t, grad, **options)
    assert not report.ok
    return [finding.name for finding in report.findings]


# Each wrong gradient: what it should be called, the options that are meant, and how it is made.


def summed(d):
    return softmax(d["x"]) - hot(d["t"])


def negated(d):
    return (hot(d["t"]) - softmax(d["x"])) / N


def negated_sum(d):
    return hot(d["t"]) - softmax(d["x"])


def softmax_only(d):
    return softmax(d["x"]) / N


def one_hot_only(d):
    return -hot(d["t"]) / N


def with_respect_to_p(d):
    return -hot(d["t"]) / softmax(d["x"]) / N


def twice(d):
    return (softmax(softmax(d["x"])) - hot(d["t"])) / N


def over_rows(d):
    return (softmax(d["x"].T).T - hot(d["t"])) / N


def one_based(d):
    return (softmax(d["x"]) - hot((d["t"] + 1) % C)) / N


def one_less(d):
    return (softmax(d["x"]) - hot((d["t"] - 1) % C)) / N


def next_targets(d):
    return (softmax(d["x"]) - hot(np.append(d["t"][1:], 0))) / N


def last_targets(d):
    return (softmax(d["x"]) - hot(np.append(0, d["t"][:-1]))) / N


def rows_up(d):
    g = summed(d) / N
    return np.vstack([g[1:], np.zeros((1, C), "f4")])


def rows_down(d):
    g = summed(d) / N
    return np.vstack([np.zeros((1, C), "f4"), g[:-1]])


def fortran(d):
    return (summed(d) / N).flatten(order="F").reshape(N, C)


def divided_by_classes(d):
    return summed(d) / N / C


def divided_twice(d):
    return summed(d) / N / N


def scaled(d):
    return summed(d) / N * 1024


def strange_constant(d):
    return summed(d) / N * 0.37


def mean_of_a_sum(d):
    return summed(d) / N


def keras_smoothing(d):
    y = hot(d["t"])
    q = np.where(y == 1, 1 - EPS, EPS / (C - 1))
    return ((softmax(d["x"]) - q) / N).astype("f4")


def smoothing_skips_the_target(d):
    y = hot(d["t"])
    q = np.where(y == 1, 1 - EPS, EPS / C)
    return ((softmax(d["x"]) * q.sum(axis=1, keepdims=True) - q) / N).astype("f4")


def smoothing_only_scales(d):
    return (np.float32(1 - EPS) * summed(d) / N).astype("f4")


def smoothing_without_share(d):
    return (softmax(d["x"]) - np.float32(1 - EPS) * hot(d["t"])) / N


def smoothing_of_four_shards(d):
    local = C // 4
    q = (1 - EPS) * hot(d["t"]) + EPS / local
    return ((softmax(d["x"]) - q) / N).astype("f4")


def weights_ignored(d):
    return summed(d) / N


def weights_ignored_in_rows(d):
    return summed(d)


def weighted_by_n(d):
    return d["w"][d["t"]][:, None] * summed(d) / N


def weighted_sum(d):
    return d["w"][d["t"]][:, None] * summed(d)


def weight_squared(d):
    w = d["w"][d["t"]]
    return (w**2)[:, None] * summed(d) / w.sum()


def weight_on_p(d):
    w = d["w"][d["t"]]
    return (w[:, None] * softmax(d["x"]) - hot(d["t"])) / w.sum()


def weight_on_y(d):
    w = d["w"][d["t"]]
    return (softmax(d["x"]) - w[:, None] * hot(d["t"])) / w.sum()


def weight_by_column(d):
    return d["w"] * summed(d) / d["w"][d["t"]].sum()


def smoothing_with_the_targets_weight(d):
    w = d["w"][d["t"]]
    q = (1 - EPS) * hot(d["t"]) + EPS / C
    return (w[:, None] * (softmax(d["x"]) - q) / w.sum()).astype("f4")


def smoothing_unweighted(d):
    w, p = d["w"][d["t"]][:, None], softmax(d["x"])
    return (((1 - EPS) * w * (p - hot(d["t"])) + EPS * (p - 1 / C)) / w.sum()).astype("f4")


def rows_unweighted(d):
    return summed(d)


def rows_weighted_twice(d):
    return (d["v"] ** 2)[:, None] * summed(d)


def upstream_twice(d):
    return (d["u"] ** 2)[:, None] * summed(d)


def constant_upstream_forgotten(d):
    return summed(d) / N


def temperature_forgotten_in_the_chain(d):
    return (softmax(d["x"] / np.float32(TEMPERATURE)) - hot(d["t"])) / N


def temperature_forgotten(d):
    return summed(d) / N


def cap_forgotten_in_the_chain(d):
    return (softmax(np.float32(CAP) * np.tanh(d["x"] / np.float32(CAP))) - hot(d["t"])) / N


def cap_forgotten(d):
    return summed(d) / N


def cap_before_temperature(d):
    z = CAP * np.tanh(d["x"] / CAP)
    slope = (1 - np.tanh(d["x"] / CAP) ** 2) / TEMPERATURE
    return ((softmax(z / TEMPERATURE) - hot(d["t"])) * slope / N).astype("f4")


def z_loss_forgotten(d):
    return summed(d) / N


def half_the_z_loss(d):
    lse = np.log(np.exp(d["x"]).sum(axis=1, keepdims=True))
    return summed(d) / N + (Z_LOSS * lse * softmax(d["x"]) / N).astype("f4")


def z_loss_over_weights(d):
    w = d["w"][d["t"]][:, None]
    lse = np.log(np.exp(d["x"]).sum(axis=1, keepdims=True))
    return ((w * summed(d) + 2 * Z_LOSS * lse * softmax(d["x"])) / w.sum()).astype("f4")


def logits_in_half(d):
    return (softmax(d["x"].astype("f2").astype("f4")) - hot(d["t"])) / N


def softmax_in_half(d):
    return (softmax(d["x"]).astype("f2").astype("f4") - hot(d["t"])) / N


def log_softmax_in_half(d):
    shifted = d["x"] - d["x"].max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (np.exp(logs.astype("f2").astype("f4")) - hot(d["t"])) / N


def everything_in_half(d):
    p = softmax(d["x"].astype("f2"))
    return ((p - hot(d["t"]).astype("f2")) / np.float16(N)).astype("f4")


def divided_after_half(d):
    p = softmax(d["x"].astype("f2"))
    return (p - hot(d["t"]).astype("f2")).astype("f4") / N


def bfloat16_result(d):
    g = np.ascontiguousarray(summed(d) / N)
    return ((g.view("u4") + 0x8000) & 0xFFFF0000).view("f4")


def no_numbers_written(d):
    return np.zeros((N, C), "f4")


def tail_not_written(d):
    g = summed(d) / N
    g[:, 8:] = 0
    return g


WEIGHT, SMOOTH = {"weight": "w"}, {"label_smoothing": EPS}
NONE = {"reduction": "none"}
CASES = [
    ("not-divided", {}, summed),
    ("sign", {}, negated),
    ("sign and not-divided", {}, negated_sum),
    ("no-one-hot", {}, softmax_only),
    ("no-softmax", {}, one_hot_only),
    ("of-probabilities", {}, with_respect_to_p),
    ("softmax-twice", {}, twice),
    ("softmax-over-rows", {}, over_rows),
    ("target-plus-one", {}, one_based),
    ("target-minus-one", {}, one_less),
    ("next-target", {}, next_targets),
    ("last-target", {}, last_targets),
    ("next-row", {}, rows_up),
    ("last-row", {}, rows_down),
    ("next-column", {}, lambda d: np.roll(summed(d) / N, -1, axis=1)),
    ("last-column", {}, lambda d: np.roll(summed(d) / N, 1, axis=1)),
    ("memory-order", {}, fortran),
    ("by-classes", {}, divided_by_classes),
    ("divided-twice", {}, divided_twice),
    ("loss-scale", {}, scaled),
    ("constant", {}, strange_constant),
    ("divided", {"reduction": "sum"}, mean_of_a_sum),
    ("divided", NONE, mean_of_a_sum),
    ("smoothing-among-others", SMOOTH, keras_smoothing),
    ("smoothing-not-on-target", SMOOTH, smoothing_skips_the_target),
    ("no-smoothing", SMOOTH, mean_of_a_sum),
    ("smoothing-scales-only", SMOOTH, smoothing_only_scales),
    ("smoothing-no-share", SMOOTH, smoothing_without_share),
    ("smoothing-of-a-shard", SMOOTH, smoothing_of_four_shards),
    ("no-weight and by-rows", WEIGHT, weights_ignored),
    ("no-weight", WEIGHT | NONE, weights_ignored_in_rows),
    ("by-rows", WEIGHT, weighted_by_n),
    ("not-divided", WEIGHT, weighted_sum),
    ("weight-twice", WEIGHT, weight_squared),
    ("weight-on-softmax", WEIGHT, weight_on_p),
    ("weight-on-one-hot", WEIGHT, weight_on_y),
    ("weight-by-column", WEIGHT, weight_by_column),
    ("weight-of-target", WEIGHT | SMOOTH, smoothing_with_the_targets_weight),
    ("no-weight-on-smoothing", WEIGHT | SMOOTH, smoothing_unweighted),
    ("no-sample-weight", {"sample_weight": "v"} | NONE, rows_unweighted),
    ("twice-sample-weight", {"sample_weight": "v"} | NONE, rows_weighted_twice),
    ("no-upstream", {"upstream": "u"} | NONE, rows_unweighted),
    ("twice-upstream", {"upstream": "u"} | NONE, upstream_twice),
    ("no-upstream", {"upstream": UPSTREAM}, constant_upstream_forgotten),
    ("no-temperature-factor", {"temperature": TEMPERATURE}, temperature_forgotten_in_the_chain),
    ("no-temperature", {"temperature": TEMPERATURE}, temperature_forgotten),
    ("no-softcap-slope", {"softcap": CAP}, cap_forgotten_in_the_chain),
    ("no-softcap", {"softcap": CAP}, cap_forgotten),
    ("softcap-first", {"softcap": CAP, "temperature": TEMPERATURE}, cap_before_temperature),
    ("no-z-loss", {"z_loss": Z_LOSS}, z_loss_forgotten),
    ("half-z-loss", {"z_loss": Z_LOSS}, half_the_z_loss),
    ("z-loss-by-weights", {"z_loss": Z_LOSS} | WEIGHT, z_loss_over_weights),
    ("float16-logits", {}, logits_in_half),
    ("float16-probabilities", {}, softmax_in_half),
    ("float16-log-probabilities", {}, log_softmax_in_half),
    ("float16", {}, everything_in_half),
    ("float16", {}, divided_after_half),
    ("bfloat16", {}, bfloat16_result),
    ("zeros", {}, no_numbers_written),
    ("unwritten", {}, tail_not_written),
]
IDS = [f"{name}-{make.__name__}" for name, _, make in CASES]


def meant(options, d):
    """The options with the arrays that their letters stand for."""
    return {
        name: d.get(value, value) if isinstance(value, str) else value
        for name, value in options.items()
    }


@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=IDS)
def test_the_mistake_is_named(name, options, make, data):
    found = findings(data["x"], data["t"], make(data), **meant(options, data))
    assert found == [name]


@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=IDS)
def test_the_right_gradient_gets_no_diagnosis(name, options, make, data):
    options = meant(options, data)
    right = cross_entropy(data["x"], data["t"], **options).grad
    report = check(data["x"], data["t"], right, **options)
    assert report.ok
    assert report.findings == ()
    strict = check(data["x"], data["t"], right, **options, ulp=1e-9)
    assert [finding.name for finding in strict.findings] == ["rounding"]


@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=IDS)
def test_a_random_gradient_gets_no_diagnosis(name, options, make, data, rng):
    grad = rng.standard_normal((N, C)).astype("f4") / N
    assert findings(data["x"], data["t"], grad, **meant(options, data)) == []


@pytest.mark.parametrize(("name", "options", "make"), CASES, ids=IDS)
def test_a_gradient_that_is_nearly_a_known_mistake_is_not_diagnosed_as_it(
    name, options, make, data, rng
):
    grad = make(data) * (1 + 0.01 * rng.standard_normal((N, C)).astype("f4"))
    found = findings(data["x"], data["t"], grad, **meant(options, data))
    assert name in ("zeros", "unwritten") or found == []


# Mistakes that need data of their own.


def textbook(x, t):
    """The gradient of the mean in the precision of the logits."""
    p = softmax(x)
    p[np.arange(len(t)), t] -= 1
    return p / x.dtype.type(len(t))


@pytest.mark.parametrize("entries", [sample.ENTRIES, 64])
def test_a_transposed_square_gradient_is_diagnosed(entries, rng, monkeypatch):
    monkeypatch.setattr(sample, "ENTRIES", entries)
    x, t = rng.standard_normal((33, 33)), rng.integers(0, 33, 33)
    assert findings(x, t, textbook(x, t).T) == ["transposed"]
    assert check(x, t, textbook(x, t)).ok


def leaking(content):
    """Targets of which some are ignored, and a gradient that holds something in those rows."""

    def make(d, ignore_index):
        t = d["t"].copy()
        t[::5] = ignore_index
        g = (softmax(d["x"]) - hot(d["t"])) / np.float32(np.sum(t != ignore_index))
        g[t == ignore_index] = content(d, t == ignore_index)
        return t, g

    return make


@pytest.mark.parametrize(
    ("words", "content", "ignore_index"),
    [
        ("and hold p without a one-hot", lambda d, rows: softmax(d["x"][rows]) / 32, -100),
        ("they hold NaN", lambda d, rows: np.nan, -100),
        (
            "and hold the gradient of target 3",
            lambda d, rows: (softmax(d["x"]) - hot(d["t"] * 0 + 3))[rows] / 32,
            3,
        ),
        (
            "and hold the gradient of target 0",
            lambda d, rows: (softmax(d["x"]) - hot(d["t"] * 0))[rows] / 32,
            -100,
        ),
        ("8 of 8 examined are not", lambda d, rows: 7.0, -100),
    ],
)
def test_ignored_rows_that_are_not_zero_are_named(words, content, ignore_index, data):
    data["t"][data["t"] == 3] = 4
    t, g = leaking(content)(data, ignore_index)
    report = check(data["x"], t, g, ignore_index=ignore_index)
    assert [finding.name for finding in report.findings] == ["ignored-rows"]
    assert words in str(report.findings[0])
    g[t == ignore_index] = 0
    assert check(data["x"], t, g, ignore_index=ignore_index).ok


def test_dividing_by_ignored_rows_too_is_named(data):
    data["t"][::5] = -100
    g = softmax(data["x"]) - hot(np.where(data["t"] < 0, 0, data["t"]))
    g[data["t"] < 0] = 0
    assert findings(data["x"], data["t"], g / N) == ["by-all-rows"]
    assert findings(data["x"], data["t"], g) == ["not-divided"]
    assert check(data["x"], data["t"], g / np.float32(32)).ok


def test_two_mistakes_at_once_are_both_named(data):
    data["t"][::5] = -100
    g = (softmax(data["x"]) - hot(np.where(data["t"] < 0, 0, data["t"]))) / N
    assert findings(data["x"], data["t"], g) == ["ignored-rows", "by-all-rows"]
    assert findings(data["x"], data["t"] * 0, -softmax(data["x"])) == [
        "no-one-hot and sign and not-divided"
    ]


@pytest.mark.parametrize(("dtype", "logit"), [("f4", 120.0), ("f4", -120.0), ("f8", 800.0)])
def test_a_softmax_of_unshifted_logits_is_named(dtype, logit, data):
    x = data["x"].astype(dtype)
    x[7], x[20:22] = x[7] + logit, x[20:22] + logit
    with np.errstate(all="ignore"):
        e = np.exp(x)
        g = (e / e.sum(axis=1, keepdims=True) - hot(data["t"])) / N
    assert np.isnan(g).any()
    assert findings(x, data["t"], g.astype(dtype)) == ["unshifted"]
    assert check(x, data["t"], textbook(x, data["t"]), ulp=1e4).ok


def test_nan_elsewhere_is_not_blamed_on_overflow(data):
    g = textbook(data["x"], data["t"])
    g[3] = np.nan
    (finding,) = check(data["x"], data["t"], g).findings
    assert finding.text() == (
        "12 entries are NaN or infinite: whole rows; all other rows examined are right"
    )
    g[3, 1:] = 0
    report = check(data["x"], data["t"], g * N)
    assert [finding.name for finding in report.findings] == ["not-finite", "not-divided"]
    assert report.lines()[0].startswith(
        "FAIL gradient: 1 unexpected NaN, first in row 3, class 0; 480 of 480 entries, in 40 of"
    )


def test_nan_where_a_logit_is_masked_is_explained(data):
    x, g = data["x"], textbook(data["x"], data["t"])
    x[:, 3], data["t"][data["t"] == 3] = -np.inf, 2
    with np.errstate(all="ignore"):
        g = textbook(x, data["t"])
    g[:, 3] = np.nan
    (finding,) = check(x, data["t"], g).findings
    assert "just those whose logit is −∞, where the gradient is 0" in finding.text()


def test_nan_that_is_missing_is_named():
    x = np.array([[np.nan, 0.0, 1.0], [0.0, 1.0, 2.0]])
    grad = np.nan_to_num(cross_entropy(x, [0, 1]).grad)
    assert findings(x, [0, 1], grad) == ["nan-missing"]


# Options that the caller of the check did not give: their values are found.


def undeclared(name, value):
    """A naive gradient in the dtype of the logits, with one more option than the check is given."""
    return lambda d: plain_gradient(d["x"], d["t"], {name: d.get(value, value)})


@pytest.mark.parametrize(
    ("name", "found", "option", "value"),
    [
        ("undeclared-temperature", "temperature", "temperature", 2.5),
        ("undeclared-temperature", "temperature", "temperature", 0.7),
        ("undeclared-label-smoothing", "label_smoothing", "label_smoothing", 0.1),
        ("undeclared-label-smoothing", "label_smoothing", "label_smoothing", 0.003),
        ("undeclared-z-loss", "z_loss", "z_loss", 1e-4),
        ("undeclared-softcap", "softcap", "softcap", 30.0),
        ("undeclared-weight", "weight", "weight", "w"),
        ("undeclared-row-factors", "sample_weight", "sample_weight", "v"),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("factor", [1, N], ids=["mean", "not divided"])
def test_an_option_that_was_not_given_is_found(name, found, option, value, dtype, factor, data):
    data["x"] = data["x"].astype(dtype)
    grad = undeclared(option, value)(data) * data["x"].dtype.type(factor)
    (finding,) = check(data["x"], data["t"], grad).findings
    by_itself = factor == 1 or name in ("undeclared-weight", "undeclared-row-factors")
    assert finding.name == (name if by_itself else f"{name} and not-divided")
    (setting,) = [part for part in finding.evidence if not isinstance(part, str)]
    assert setting.name == found
    assert setting.value == (None if isinstance(value, str) else value)
    given = {option: data.get(value, value)}
    assert not check(data["x"], data["t"], grad, **given).findings or factor == N


def test_another_temperature_than_the_one_given_is_found(data):
    grad = undeclared("temperature", 2.0)(data)
    (finding,) = check(data["x"], data["t"], grad, temperature=1.5).findings
    assert finding.text().startswith("it has a temperature of 2, not the 1.5 given: matches within")
    assert finding.text().endswith("; if it is meant: temperature=2.0")


def test_targets_that_are_ignored_without_being_asked_for_are_found(data):
    assert (data["t"] == 0).any()
    counted = np.where(data["t"] == 0, -100, data["t"])
    grad = plain_gradient(data["x"], counted, {})
    (finding,) = check(data["x"], data["t"], grad).findings
    assert finding.name == "undeclared-ignore-index"
    assert finding.text().endswith("; if it is meant: ignore_index=0")


# Two mistakes at once.

PAIRS = [
    ("no-temperature and target-plus-one", {"temperature": TEMPERATURE}, one_based),
    ("last-row and no-z-loss", {"z_loss": Z_LOSS}, rows_down),
    ("next-column and no-smoothing", SMOOTH, lambda d: np.roll(summed(d) / N, -1, axis=1)),
    ("no-smoothing and target-minus-one", SMOOTH, one_less),
    ("no-one-hot and undeclared-temperature", {}, lambda d: softmax(d["x"] / np.float32(2)) / N),
    (
        "target-plus-one and undeclared-label-smoothing",
        {},
        lambda d: plain_gradient(d["x"], (d["t"] + 1) % C, {"label_smoothing": EPS}),
    ),
    (
        "undeclared-label-smoothing and undeclared-temperature",
        {},
        lambda d: plain_gradient(d["x"], d["t"], {"label_smoothing": EPS, "temperature": 2.0}),
    ),
    ("no-temperature and no-weight", WEIGHT | {"temperature": 2.0} | NONE, summed),
]


@pytest.mark.parametrize(("name", "options", "make"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_two_mistakes_that_explain_all_rows_are_named_together(name, options, make, data):
    found = findings(data["x"], data["t"], make(data), **meant(options, data))
    assert name in [" and ".join(n for n in f.split(" and ") if n in name) for f in found]


def test_a_gradient_that_is_rounded_to_a_few_decimals_or_digits_is_named(data):
    g = textbook(data["x"].astype("f8"), data["t"])
    (finding,) = check(data["x"], data["t"], g.round(4)).findings
    assert finding.text() == (
        "it is the right gradient, rounded to 4 decimals: nothing else is lost; "
        "atol=0.0001 accepts it"
    )
    assert check(data["x"], data["t"], g.round(4), atol=1e-4).ok
    printed = np.array([[float(f"{value:.5e}") for value in row] for row in g])
    (finding,) = check(data["x"], data["t"], printed).findings
    assert "rounded to 6 digits" in finding.text()
    assert findings(data["x"], data["t"], (2 * g).round(4)) == []


def test_a_sample_is_called_one(data, monkeypatch):
    monkeypatch.setattr(sample, "ENTRIES", 12 * C)
    (finding,) = check(data["x"], data["t"], summed(data)).findings
    assert finding.text().endswith(" if divided by 40 in all 24 rows of a sample, of 40")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_cancellation_of_p_minus_1_is_named(dtype, rng):
    x, t = rng.standard_normal((20, 9)).astype(dtype), rng.integers(0, 9, 20)
    x[np.arange(20), t] += 12 if dtype == "f4" else 30
    g = textbook(x, t)
    assert findings(x, t, g, exact=True) == ["cancellation"]
    assert check(x, t, g).ok
    assert check(x, t, cross_entropy(x, t).grad).ok


def test_rows_that_are_right_do_not_hide_a_mistake_in_others(data):
    g = textbook(data["x"], data["t"])
    g[30:] *= -1
    (finding,) = check(data["x"], data["t"], g).findings
    assert finding.name == "sign"
    assert "10 rows" in finding.evidence


@pytest.mark.parametrize("make", [summed, negated, next_targets, last_targets, rows_up, rows_down])
def test_mistakes_are_named_from_a_sample_of_a_large_problem(make, data, rng, monkeypatch):
    monkeypatch.setattr(sample, "ENTRIES", 12 * C)
    (name,) = [name for name, _, function in CASES if function is make]
    assert findings(data["x"], data["t"], make(data)) == [name]


def test_one_wrong_row_among_many_is_in_the_sample(data, monkeypatch):
    monkeypatch.setattr(sample, "ENTRIES", 8 * C)
    for row in range(N):
        g = textbook(data["x"], data["t"])
        g[row] *= 2
        assert findings(data["x"], data["t"], g) == ["constant"]


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_mistakes_are_named_in_other_kinds(dtype, data):
    x = data["x"].astype(dtype)
    g = textbook(x.astype("f8"), data["t"])
    assert findings(x, data["t"], (-g).astype(dtype)) == ["sign"]
    assert findings(x, data["t"], (g * N).astype(dtype)) == ["not-divided"]
    assert check(x, data["t"], g.astype(dtype)).ok


def test_a_float64_gradient_from_float32_is_named(data):
    x = data["x"].astype("f8")
    g = textbook(data["x"], data["t"]).astype("f8")
    assert findings(x, data["t"], g) == ["float32"]
    assert check(x, data["t"], g, dtype="f32").ok


KNOWN = {mistake.name for mistake in diagnosis.KNOWN}

# What cannot be told apart is named together, and what changes nothing is not named.


def test_with_two_classes_a_wrong_sign_and_wrong_targets_are_one_thing():
    x, t = np.array([[1.0, 2.0], [3.0, 1.0], [0.5, 2.0], [1.0, 1.5]]), np.array([0, 1, 1, 0])
    flipped = textbook(x, 1 - t)
    assert findings(x, t, flipped) == ["target-plus-one", "target-minus-one"]


def test_a_single_row_is_divided_by_nothing():
    x, t = np.array([[1.0, 2.0, 0.5]]), np.array([0])
    assert check(x, t, textbook(x, t)).ok
    assert findings(x, t, 3 * textbook(x, t)) == ["constant"]
    assert findings(x, t, np.array([[0.1, 0.3, -0.2]])) == []


def test_two_numbers_are_too_few_for_a_constant():
    x, t = np.array([[1.0, 2.0]]), np.array([0])
    assert findings(x, t, 3.3 * textbook(x, t)) == []
    assert findings(x, t, -textbook(x, t)) == ["sign"]


def test_options_that_change_nothing_are_not_blamed(data):
    ones = np.ones(C)
    options = {"weight": ones, "label_smoothing": 0.0, "sample_weight": np.ones(N), "upstream": 1.0}
    g = textbook(data["x"], data["t"])
    assert check(data["x"], data["t"], g, **options).ok
    assert findings(data["x"], data["t"], g * N, **options) == ["not-divided"]
    noise = data["w"] * g
    assert findings(data["x"], data["t"], noise, **options) == []


def test_an_unknown_mistake_is_said_to_be_unknown(data, rng):
    report = check(data["x"], data["t"], rng.standard_normal((N, C)).astype("f4"))
    assert report.diagnosis() == ["no known mistake explains it"]
    assert report.facts()["diagnosis"] == []


def test_the_evidence_says_what_would_make_it_right(data):
    (finding,) = check(data["x"], data["t"], summed(data)).findings
    assert finding.text() == (
        f"it is not divided by the batch: matches within {finding.evidence.split()[2]} ULP "
        "if divided by 40 in 40 rows"
    )


def test_two_mistakes_that_cancel_give_no_diagnosis():
    x, t = np.linspace(9, 11, 14)[:, None], np.zeros(14, "i8")
    options = {"temperature": 2.0, "z_loss": 0.1}  # of the z-loss only half, and not halved by T
    right = cross_entropy(x, t, **options).grad
    assert findings(x, t, right * (1 + 60 * 2.0**-52), ulp=1, **options) == []


def test_a_saturated_softcap_leaves_nothing_to_recognise(rng):
    x, t = rng.standard_normal((10, 5)) - 1000, rng.integers(0, 5, 10)
    for dtype in ("f4", "f8"):
        assert findings(x, t, rng.standard_normal((10, 5)).astype(dtype), softcap=5.0) == []
    nearly = np.random.default_rng(49)  # a few entries are left, and fit any constant
    n, c = int(nearly.integers(1, 30)), int(nearly.choice([2, 3, 5]))
    y = nearly.standard_normal((n, c)) * nearly.choice([30, 100]) - nearly.choice([0, 50, 90])
    u = nearly.integers(0, c, n)
    assert findings(y, u, nearly.standard_normal((n, c)).astype("f4"), softcap=5.0) == []
    zeros = np.zeros((10, 5))
    assert findings(x, t, zeros, ulp=0, softcap=5.0) == ["rounding"]


# All of it at once.


def test_every_mistake_that_is_known_has_a_case():
    tested = {part for name, _, _ in CASES for part in name.split(" and ")}
    tested |= {"transposed", "by-all-rows", "right", "twice-temperature"}  # and those below
    halves = {name for name in KNOWN if name.startswith(("bfloat16-", "float32-"))}
    assert KNOWN - halves <= tested


@pytest.mark.parametrize("what", ["logits", "probabilities", "log-probabilities"])
@pytest.mark.parametrize(
    ("lesser", "kind"), [("bfloat16", "f4"), ("float32", "f8"), ("float16", "f8")]
)
def test_what_was_rounded_to_which_kind_is_named(what, lesser, kind, data):
    def rounded(values):
        if lesser != "bfloat16":
            return values.astype(lesser).astype(kind)
        bits = np.ascontiguousarray(values, "f4").view("u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view("f4")

    x = data["x"].astype(kind) * 1.1
    p = softmax(rounded(x) if what == "logits" else x)
    if what == "probabilities":
        p = rounded(p)
    if what == "log-probabilities":
        p = np.exp(rounded(np.log(p)))
    grad = (p - hot(data["t"])) / p.dtype.type(N)
    assert findings(x, data["t"], grad) == [f"{lesser}-{what}"]


def test_masked_logits_do_not_hide_the_mistake(data):
    data["x"][:, 3] = -np.inf
    data["t"][data["t"] == 3] = 2
    with np.errstate(all="ignore"):
        assert findings(data["x"], data["t"], summed(data)) == ["not-divided"]
    assert check(data["x"], data["t"], cross_entropy(data["x"], data["t"]).grad).ok


def random_problem(rng):
    """Logits, targets and options of any sort."""
    n, c = int(rng.integers(1, 30)), int(rng.choice([2, 3, 7, 40]))
    x = rng.standard_normal((n, c)) * rng.choice([0.01, 1, 5, 30]) + rng.choice([0, 0, 100])
    t = rng.integers(0, c, n)
    x[np.arange(n), t] += rng.choice([0, 0, 10, 60])
    t[1:][rng.random(n - 1) < 0.2] = -100
    choices = {
        "weight": rng.random(c) + 0.1,
        "sample_weight": rng.random(n) + 0.1,
        "label_smoothing": rng.choice([0.1, 1e-6]),
        "temperature": rng.choice([0.5, 2, 7]),
        "softcap": rng.choice([5.0, 30.0]),
        "z_loss": rng.choice([1e-4, 0.1]),
    }
    options = {name: value for name, value in choices.items() if rng.random() < 0.25}
    return x.astype(rng.choice(["f4", "f8"])), t, options


def plain_gradient(x, t, options):
    """As everybody writes it, in the precision of the logits, with every option."""
    o = {
        "weight": np.ones(x.shape[1]),
        "sample_weight": np.ones(len(x)),
        "label_smoothing": 0,
        "temperature": 1,
        "softcap": np.inf,
        "z_loss": 0,
    }
    o = {name: np.asarray(value, x.dtype) for name, value in (o | options).items()}
    z, slope = x / o["temperature"], 1 / o["temperature"]
    if o["softcap"] < np.inf:
        bent = np.tanh(z / o["softcap"])
        z, slope = o["softcap"] * bent, slope * (1 - bent * bent)
    p, here, v = softmax(z), t >= 0, o["sample_weight"][:, None]
    y = hot(np.where(here, t, 0), x.shape[1]).astype(x.dtype)
    q = (1 - o["label_smoothing"]) * y + o["label_smoothing"] / np.asarray(x.shape[1], x.dtype)
    a = o["weight"] * q
    top = z.max(axis=1, keepdims=True)
    lse = top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    batch = (v[:, 0] * (y @ o["weight"]))[here].sum()
    g = (p * a.sum(axis=1, keepdims=True) - a) / batch + 2 * o["z_loss"] * lse * p / v[here].sum()
    return np.where(here[:, None], g * slope * v, 0).astype(x.dtype)


@pytest.mark.parametrize("seed", range(60))
def test_plain_and_noisy_gradients_of_any_problem_get_no_diagnosis(seed):
    rng = np.random.default_rng(seed)
    x, t, options = random_problem(rng)
    grad = plain_gradient(x, t, options)
    allowed = {"rounding", "cancellation"}
    assert {f.name for f in check(x, t, grad, ulp=0.5, **options).findings} <= allowed
    assert check(x, t, grad, **options).ok
    noise = 10 ** rng.uniform(-3, 0) * rng.standard_normal(x.shape)
    noisy = (grad * (1 + noise)).astype(x.dtype)
    assert {f.name for f in check(x, t, noisy, **options).findings} <= allowed
    other = rng.standard_normal(x.shape).astype(x.dtype)
    assert {f.name for f in check(x, t, other, **options).findings} <= {"ignored-rows"}
