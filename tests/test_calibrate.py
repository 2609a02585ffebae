"""The temperature: against mpmath's root finder, where there is none, passes, folds, errors."""

import json
import math
from pathlib import Path

import kld
import mpmath
import naive_report as naive
import numpy as np
import pytest
from cli import assert_error, bash, inside, strict_json

from xentcli.errors import DataError, OptionError
from xentcli.report import calibrate, report
from xentcli.report import temperature as search

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits"
X = np.load(DIGITS / "logits.npy")
Y = np.load(DIGITS / "targets.npy").astype(int)

# By `naive.temperature` in 40 digits. scikit-learn 1.9.1, CalibratedClassifierCV with
# method="temperature" in float64, gives 0.50456205768: it minimises by values of the loss, which
# are flat at the minimum.
EXACT = 0.504562052966476288


def small(rows=150, seed=3):
    """Rows that are right more often than by chance, and too sure of themselves."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 5)) * 3
    p = np.exp(z / 2.2)
    y = np.array([rng.choice(5, p=row / row.sum()) for row in p])
    return z, y


def test_the_temperature_of_the_digits_is_exact():
    found = calibrate(X, Y)
    assert found.temperature == pytest.approx(EXACT, rel=1e-14)
    assert found.passes <= 8


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_temperature_is_mpmaths(seed):
    z, y = small(seed=seed)
    exact = naive.temperature(z.tolist(), y.tolist(), start=0.5)
    assert abs(calibrate(z, y).temperature - exact) < 1e-13 * exact


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.03, 30.0, 1e3, 1e6])
def test_logits_of_any_scale_need_few_passes_and_give_the_same(scale):
    found = calibrate(X * np.float64(scale), Y)
    assert found.temperature == pytest.approx(EXACT * scale, rel=1e-14)
    assert found.passes <= 12
    interval = np.array(calibrate(X, Y)["temperature"].interval)
    np.testing.assert_allclose(found["temperature"].interval, interval * scale, rtol=1e-12)


def test_where_every_row_is_right_there_is_no_temperature():
    with pytest.raises(DataError, match="every row is right"):
        calibrate(np.eye(4) * 3, np.arange(4))


def test_where_rows_are_no_better_than_chance_there_is_no_temperature():
    with pytest.raises(DataError, match="no larger than those of other classes"):
        calibrate(np.eye(4) * 3, (np.arange(4) + 1) % 4)


def test_where_all_logits_are_equal_every_temperature_is_the_same():
    with pytest.raises(DataError, match="every temperature gives the same"):
        calibrate(np.full((4, 3), 2.0), [0, 1, 2, 0])


def test_just_better_than_chance_is_enough():
    # One row in three is right: mean(mean_c z − z_y) = 0 for two classes in equal numbers.
    z = np.array([[1.0, 0.0]] * 1001)
    y = np.array([0] * 501 + [1] * 500)
    exact = 1 / math.log(501 / 500)
    assert calibrate(z, y).temperature == pytest.approx(exact, rel=1e-9)
    with pytest.raises(DataError):
        calibrate(z[1:], y[1:])


def test_just_one_wrong_row_is_enough():
    z = np.array([[1.0, 0.0]] * 100_001)
    y = np.array([0] * 100_000 + [1])
    assert calibrate(z, y).temperature == pytest.approx(1 / math.log(100_000), rel=1e-12)


def test_masked_classes_have_no_part_in_it():
    z, y = small()
    masked = np.hstack([z, np.full((len(z), 3), -np.inf)])
    assert calibrate(masked, y).temperature == pytest.approx(calibrate(z, y).temperature, rel=1e-14)


def test_the_interval_is_the_sandwich_of_the_definition():
    z, y = small()
    found = calibrate(z, y)
    beta = mpmath.mpf(1) / found.temperature
    slopes, curvatures = [], []
    for row, target in zip(z.tolist(), y.tolist(), strict=True):
        p, _ = naive.probabilities([float(beta) * v for v in row])
        middle = mpmath.fdot(p, row)
        slopes.append(float(middle - row[target]))
        curvatures.append(float(mpmath.fdot(p, [(v - middle) ** 2 for v in row])))
    error = math.sqrt(math.fsum(g * g for g in slopes)) / math.fsum(curvatures)
    item = found["temperature"]
    assert item.se == pytest.approx(error / float(beta) ** 2, rel=1e-10)
    ends = 1 / (float(beta) + 1.96 * error), 1 / (float(beta) - 1.96 * error)
    assert item.interval == pytest.approx(ends, rel=1e-10)
    groups = np.arange(len(z)) // 3
    sums = [math.fsum(np.array(slopes)[groups == g]) for g in range(groups.max() + 1)]
    count = len(sums)
    clustered = math.sqrt(count / (count - 1) * math.fsum(s * s for s in sums))
    clustered /= math.fsum(curvatures) * float(beta) ** 2
    assert calibrate(z, y, group=groups)["temperature"].se == pytest.approx(clustered, rel=1e-10)


def test_before_and_after_are_what_report_says():
    found = calibrate(X, Y)
    for when, temperature in (("before", 1.0), ("after", found.temperature)):
        r = report(X, Y, temperature=temperature)
        for name in ("nll", "accuracy", "ece"):
            item = found[f"{name}_{when}"]
            assert item.value == pytest.approx(r[name].value, rel=1e-12)
            assert (item.se is None) == (r[name].se is None)
            if item.se:
                assert item.se == pytest.approx(r[name].se, rel=1e-10)


def test_folds_evaluate_on_rows_that_the_fit_has_not_seen():
    z, y = small(300)
    found = calibrate(z, y, folds=3)
    assert found.temperature == calibrate(z, y).temperature
    losses = []
    for fold, temperature in enumerate(found.fold_temperatures):
        mine = np.arange(len(z)) % 3 == fold
        alone = calibrate(z[~mine], y[~mine])
        assert temperature == pytest.approx(alone.temperature, rel=1e-13)
        losses.append(report(z[mine], y[mine], temperature=temperature)["nll"].value * mine.sum())
    assert found["nll_after"].value == pytest.approx(math.fsum(losses) / len(z), rel=1e-12)


def test_folds_keep_groups_together():
    z, y = small(300)
    groups = np.arange(300) // 20
    found = calibrate(z, y, folds=3, group=groups)
    mine = groups % 3 == 0
    alone = calibrate(z[~mine], y[~mine])
    assert found.fold_temperatures[0] == pytest.approx(alone.temperature, rel=1e-13)


def test_weights_count_as_repeated_rows():
    z, y = small()
    v = np.arange(len(z)) % 3 + 1
    repeated = calibrate(np.repeat(z, v, axis=0), np.repeat(y, v))
    assert calibrate(z, y, sample_weight=v).temperature == pytest.approx(
        repeated.temperature, rel=1e-13
    )


def test_ignored_rows_have_no_part_in_it():
    z, y = small()
    y[::4] = -100
    z[0] = np.nan
    keep = y >= 0
    assert calibrate(z, y).temperature == calibrate(z[keep], y[keep]).temperature


def test_rows_that_are_not_finite_are_errors_unless_left_out():
    z, y = small()
    z[7, 2] = np.nan
    z[9, y[9]] = -np.inf
    with pytest.raises(DataError, match="2 rows are not finite; first: row 7"):
        calibrate(z, y)
    keep = np.ones(len(z), bool)
    keep[[7, 9]] = False
    found = calibrate(z, y, skip_nonfinite=True)
    assert found.temperature == calibrate(z[keep], y[keep]).temperature
    assert found.nonfinite == 2
    assert "2 rows are not finite; left out" in found.notes[0].text


def test_what_cannot_be_fitted_is_an_error():
    with pytest.raises(DataError, match="no row is left"):
        calibrate(np.ones((2, 3)), [-100, -100])
    with pytest.raises(DataError, match="class indices only"):
        calibrate(np.ones((2, 3)), np.full((2, 3), 1 / 3))
    for folds in (1, 0, 151, True, 2.5):
        with pytest.raises(OptionError, match="folds"):
            calibrate(*small(), folds=folds)


def test_the_search_keeps_between_its_ends(monkeypatch):
    # Without the cubic and Newton's step it still arrives, by the brackets alone.
    monkeypatch.setattr(search.Search, "_hermite", lambda self, at: math.nan)
    monkeypatch.setattr(search.Search, "_newton", lambda self, at: math.nan)
    monkeypatch.setattr("xentcli.report.fitting.PASSES", 200)
    z, y = small()
    exact = naive.temperature(z.tolist(), y.tolist(), start=0.5)
    assert abs(calibrate(z, y).temperature - exact) < 1e-13 * exact


# Biases


def biased(rows=400):
    """Rows of which some classes are too likely; class 4 never is a target."""
    rng = np.random.default_rng(8)
    z = rng.normal(size=(rows, 5)) * 2
    p = np.exp(z / 1.7 + np.array([0.8, -0.5, 0.0, 0.3, -30.0]))
    y = np.array([rng.choice(5, p=row / row.sum()) for row in p])
    return z, y


def test_biases_are_where_the_gradient_is_0():
    z, y = biased()
    found = calibrate(z, y, method="bias")
    beta, b = 1 / found.temperature, np.array(found.biases)
    assert abs(b.sum()) < 1e-14
    slopes, sums = [], np.zeros(5)
    for row, target in zip(z.tolist(), y.tolist(), strict=True):
        p = np.array(
            [float(v) for v in naive.probabilities((beta * np.array(row) + b).tolist())[0]]
        )
        slopes.append(float(p @ row) - row[target])
        sums += p - (np.arange(5) == target)
    assert abs(math.fsum(slopes) / len(z)) < 1e-12
    assert np.abs(sums / len(z) + 1e-6 * b).max() < 1e-12
    assert found["nll_after"].value < calibrate(z, y)["nll_after"].value


def test_the_interval_with_biases_is_that_of_the_whole_sandwich():
    z, y = biased()
    found = calibrate(z, y, method="bias")
    w = z / found.temperature + np.array(found.biases)
    p = np.exp(w) / np.exp(w).sum(axis=1, keepdims=True)
    hot = np.eye(5)[y]
    design = np.concatenate([z[:, None, :], np.broadcast_to(np.eye(5), (len(z), 5, 5))], axis=1)
    gradients = np.einsum("nkc,nc->nk", design, p - hot)
    spread = np.einsum("nkc,nc,nlc->kl", design, p, design)
    middle = np.einsum("nkc,nc->nk", design, p)
    hessian = (spread - middle.T @ middle) / len(z) + np.diag([0.0, *[1e-6] * 5])
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ (gradients.T @ gradients) @ inverse / len(z) ** 2
    expected = math.sqrt(covariance[0, 0]) * found.temperature**2
    assert found["temperature"].se == pytest.approx(expected, rel=1e-7)
    alone = calibrate(z, y, method="bias", group=np.arange(len(z)))["temperature"].se
    n = len(z)
    assert alone == pytest.approx(expected * math.sqrt(n / (n - 1)), rel=1e-7)


def test_biases_of_any_scale_weights_and_folds():
    z, y = biased()
    found = calibrate(z, y, method="bias")
    for scale in (1e-3, 1e3):
        other = calibrate(z * scale, y, method="bias")
        assert other.temperature == pytest.approx(found.temperature * scale, rel=1e-9)
    v = np.arange(len(z)) % 3 + 1
    weighted = calibrate(z, y, method="bias", sample_weight=v)
    repeated = calibrate(np.repeat(z, v, axis=0), np.repeat(y, v), method="bias")
    assert weighted.temperature == pytest.approx(repeated.temperature, rel=1e-9)
    np.testing.assert_allclose(weighted.biases, repeated.biases, atol=1e-8)
    folded = calibrate(z, y, method="bias", folds=2)
    mine = np.arange(len(z)) % 2 == 0
    alone = calibrate(z[~mine], y[~mine], method="bias")
    assert folded.fold_temperatures[0] == pytest.approx(alone.temperature, rel=1e-9)


def test_biases_need_few_classes_and_a_known_method():
    with pytest.raises(DataError, match="2048 at most"):
        calibrate(np.zeros((2, 3000)), [0, 1], method="bias")
    with pytest.raises(OptionError, match="temperature or bias"):
        calibrate(*small(), method="vector")


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.save(tmp_path / "logits.npy", X)
    np.save(tmp_path / "targets.npy", Y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_prints_the_temperature_and_both_sides(folder, capfdbinary):
    facts = strict_json(inside(capfdbinary, "calibrate", "logits.npy", "targets.npy", "--json").out)
    found = facts["statistics"]
    for name in ("temperature", "nll_before", "nll_after", "ece_before", "ece_after"):
        assert found[name]["n"] == 1797
        assert found[name]["definition"]
    assert found["temperature"]["value"] == pytest.approx(EXACT, rel=1e-14)
    assert len(found["temperature"]["interval"]) == 2
    text = inside(capfdbinary, "calibrate", "logits.npy", "targets.npy").text
    assert "temperature 0.504562053, 95 % interval 0.4388 to 0.5934" in text


def test_a_saved_temperature_is_taken_by_every_command_that_has_one(folder, capfdbinary):
    result = inside(capfdbinary, "calibrate", "logits.npy", "targets.npy", "--save", "t.json")
    assert (result.code, result.out) == (0, b"")
    saved = json.loads(Path("t.json").read_text())
    assert saved["n"] == 1797
    assert saved["interval"][0] < saved["temperature"] < saved["interval"][1]
    assert "minimises" in saved["definition"]
    for command in (
        ["loss", "logits.npy", "targets.npy"],
        ["grad", "logits.npy", "targets.npy", "-o", "-"],
        ["softmax", "logits.npy", "-o", "-"],
        ["report", "logits.npy", "targets.npy"],
        ["explain", "logits.npy", "targets.npy", "--row", "3"],
    ):
        number = inside(capfdbinary, *command, "-q", "--temperature", repr(saved["temperature"]))
        file = inside(capfdbinary, *command, "-q", "--temperature", "@t.json")
        assert file.code == 0
        assert file.out == number.out


@pytest.mark.parametrize(
    "content", ["{}", "[]", "x", '{"temperature": "1"}', '{"temperature": true}']
)
def test_a_file_without_a_temperature_is_wrong_usage(folder, capfdbinary, content):
    Path("t.json").write_text(content)
    arguments = ("loss", "logits.npy", "targets.npy", "--temperature", "@t.json")
    assert_error(inside(capfdbinary, *arguments), 2, "t.json is not JSON with a number")
    arguments = ("loss", "logits.npy", "targets.npy", "--temperature", "@none.json")
    assert_error(inside(capfdbinary, *arguments), 2, "cannot read none.json")


def test_a_saved_temperature_that_is_not_allowed_is_an_error(folder, capfdbinary):
    Path("t.json").write_text('{"temperature": -1}')
    arguments = ("loss", "logits.npy", "targets.npy", "--temperature", "@t.json")
    assert_error(inside(capfdbinary, *arguments), 2, "-1.0 is not allowed")


def test_scaled_logits_are_written(folder, capfdbinary):
    result = inside(capfdbinary, "calibrate", "logits.npy", "targets.npy", "-q", "-o", "s.npy")
    assert result.code == 0
    scaled = np.load("s.npy")
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(
        scaled, (X.astype(float) / calibrate(X, Y).temperature).astype(np.float32)
    )


def test_biases_are_saved_and_added(folder, capfdbinary):
    arguments = ("calibrate", "logits.npy", "targets.npy", "--method", "bias", "-q")
    assert inside(capfdbinary, *arguments, "--save", "b.json", "-o", "s.npy").code == 0
    saved = json.loads(Path("b.json").read_text())
    expected = X.astype(float) / saved["temperature"] + np.array(saved["biases"])
    np.testing.assert_array_equal(np.load("s.npy"), expected.astype(np.float32))
    loss = ("loss", "logits.npy", "targets.npy", "--temperature", "@b.json")
    assert_error(inside(capfdbinary, *loss), 2, "b.json holds biases too")
    after = report(np.load("s.npy"), Y)["nll"].value
    assert saved["statistics"]["nll_after"]["value"] == pytest.approx(after, rel=1e-6)


def test_a_pipe_is_read_as_often_as_it_takes(folder):
    plain = bash("xent calibrate logits.npy targets.npy --json")
    piped = bash("cat logits.npy | xent calibrate - targets.npy --json")
    assert piped.code == 0, piped.err
    assert piped.out == plain.out
    both = bash("xent calibrate logits.npy - --json < targets.npy")
    assert both.out == plain.out


def test_one_file_may_hold_logits_and_targets(folder, capfdbinary):
    np.savez("both.npz", labels=Y, logits=X)
    plain = inside(capfdbinary, "calibrate", "logits.npy", "targets.npy", "--json")
    assert inside(capfdbinary, "calibrate", "both.npz", "--json").out == plain.out
    rng = np.random.default_rng(1)
    model = (rng.normal(size=(4, 7, 11)) * 2).astype(np.float32)
    tokens = np.zeros((4, 16), int)
    right = np.where(rng.random((4, 7)) < 0.6, model.argmax(axis=2), rng.integers(0, 11, (4, 7)))
    tokens[:, 9:] = right
    Path("a.kld").write_bytes(kld.kld(model, tokens))
    found = strict_json(inside(capfdbinary, "calibrate", "a.kld", "--json").out)
    exact = calibrate(model.reshape(-1, 11), right.reshape(-1)).temperature
    assert found["temperature"] == pytest.approx(exact, rel=1e-3)


def test_no_temperature_ends_with_exit_code_1_and_writes_nothing(folder, capfdbinary):
    np.save("right.npy", np.eye(4))
    np.save("all.npy", np.arange(4))
    arguments = ("calibrate", "right.npy", "all.npy", "-o", "s.npy", "--save", "t.json")
    assert_error(inside(capfdbinary, *arguments), 1, "right.npy: every row is right")
    assert not Path("s.npy").exists()
    assert not Path("t.json").exists()
