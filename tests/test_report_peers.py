"""`report` and `calibrate` beside other libraries, where they are installed and their definition is
ours. Where it is not, the test says how they differ."""

import math
from pathlib import Path

import numpy as np
import pytest

from xentcli.report import calibrate, report

DIGITS = Path(__file__).parent.parent / "sample_data" / "digits"
X = np.load(DIGITS / "logits.npy").astype(float)
Y = np.load(DIGITS / "targets.npy").astype(int)
GROUPS = np.arange(len(Y)) // 10
WEIGHTS = np.random.default_rng(1).exponential(size=len(Y))
P = np.exp(X - X.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)
REPORT = report(X, Y, group=None, top=(1, 2))
NLL = -np.log(P[np.arange(len(Y)), Y])


def test_losses_and_accuracies_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    assert REPORT["nll"].value == pytest.approx(metrics.log_loss(Y, P), rel=1e-13)
    assert REPORT["accuracy"].value == metrics.accuracy_score(Y, P.argmax(axis=1))
    top = metrics.top_k_accuracy_score(Y, P, k=2)
    assert REPORT["top_2"].value == pytest.approx(top, rel=1e-15)
    weighted = report(X, Y, sample_weight=WEIGHTS)
    expected = metrics.log_loss(Y, P, sample_weight=WEIGHTS)
    assert weighted["nll"].value == pytest.approx(expected, rel=1e-13)


def test_the_brier_score_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", minversion=None)
    try:
        found = metrics.brier_score_loss(Y, P, scale_by_half=False)
    except TypeError:
        pytest.skip("this scikit-learn has no Brier score of several classes")
    assert REPORT["brier"].value == pytest.approx(found, rel=1e-13)


def test_the_reliability_curve_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    right, sure = P.argmax(axis=1) == Y, P.max(axis=1)
    for bins, strategy in ((15, "uniform"), (8, "uniform")):
        accuracy, confidence = calibration.calibration_curve(right, sure, n_bins=bins)
        found = report(X, Y, bins=bins).bins
        assert [item.accuracy for item in found] == pytest.approx(accuracy, rel=1e-13), strategy
        assert [item.confidence for item in found] == pytest.approx(confidence, rel=1e-13)


def test_the_temperature_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    base = pytest.importorskip("sklearn.base")
    frozen = pytest.importorskip("sklearn.frozen")

    class Logits(base.ClassifierMixin, base.BaseEstimator):
        """A classifier whose decision function is its input."""

        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

        def __sklearn_is_fitted__(self):
            return True

    for scale in (1.0, 1e-3, 1e3):
        model = frozen.FrozenEstimator(Logits().fit(X, Y))
        try:
            fitted = calibration.CalibratedClassifierCV(model, method="temperature")
            fitted.fit(X * scale, Y)
        except ValueError:
            pytest.skip("this scikit-learn has no temperature scaling")
        beta = fitted.calibrated_classifiers_[0].calibrators[0].beta_
        # It minimises by values of the loss, which are flat at the minimum: right to 1e-8.
        assert calibrate(X * scale, Y).temperature == pytest.approx(1 / beta, rel=2e-8)


def test_the_temperature_at_which_scipy_finds_the_slope_0():
    optimize = pytest.importorskip("scipy.optimize")
    special = pytest.importorskip("scipy.special")

    def slope(beta):
        p = special.softmax(beta * X, axis=1)
        return ((p * X).sum(axis=1) - X[np.arange(len(Y)), Y]).mean()

    beta = optimize.brentq(slope, 0.5, 5.0, xtol=1e-15, rtol=1e-15)
    assert abs(calibrate(X, Y).temperature - 1 / beta) < 1e-9 * 1e-3


def test_standard_errors_and_entropies_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    assert REPORT["nll"].se == pytest.approx(stats.sem(NLL), rel=1e-12)
    entropy = stats.entropy(P, axis=1)
    assert REPORT["entropy"].value == pytest.approx(entropy.mean(), rel=1e-12)
    assert REPORT["entropy"].se == pytest.approx(stats.sem(entropy), rel=1e-11)
    base = np.roll(P, 1, axis=0)
    divergence = stats.entropy(base, P, axis=1)
    found = report(X, Y, base=np.roll(X, 1, axis=0))
    assert found["kl"].value == pytest.approx(divergence.mean(), rel=1e-11)
    assert found["kl"].se == pytest.approx(stats.sem(divergence), rel=1e-10)


def test_quantiles_of_numpy():
    found = REPORT["nll"].quantiles
    for name, share in (("1%", 0.01), ("25%", 0.25), ("median", 0.5), ("99.9%", 0.999)):
        assert found[name] == pytest.approx(np.quantile(NLL, share), rel=1e-12)


def test_intervals_and_clustered_errors_of_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    linear = pytest.importorskip("statsmodels.api")
    right = round(REPORT["accuracy"].value * len(Y))
    for z in (1.96, 1.959963984540054):  # ours is 1.96
        alpha = math.erfc(z / math.sqrt(2))
        expected = proportion.proportion_confint(right, len(Y), alpha=alpha, method="wilson")
        rel = 1e-13 if z == 1.96 else 1e-5
        assert REPORT["accuracy"].interval == pytest.approx(expected, rel=rel)
    model = linear.OLS(NLL, np.ones(len(Y)))
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": GROUPS, "use_correction": True})
    clusters, n = GROUPS.max() + 1, len(Y)
    # statsmodels multiplies by G/(G−1)·(n−1)/(n−1): the same for a mean
    assert report(X, Y, group=GROUPS)["nll"].se == pytest.approx(fit.bse[0], rel=1e-11)
    assert clusters < n


def test_the_calibration_errors_of_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    p, y = torch.tensor(P), torch.tensor(Y)
    for norm, name in (("l1", "ece"), ("max", "mce")):
        found = metrics.multiclass_calibration_error(p, y, num_classes=10, n_bins=15, norm=norm)
        # It has a bin of its own for a confidence of exactly 1, which no row of these has; and it
        # computes in float32.
        assert REPORT[name].value == pytest.approx(found.item(), rel=1e-5)


def test_the_debiased_error_of_its_authors():
    calibration = pytest.importorskip("calibration")  # the package uncertainty-calibration
    right, sure = (P.argmax(axis=1) == Y).astype(float), P.max(axis=1)
    pairs = list(zip(sure, right, strict=True))
    edges = [k / 15 for k in range(1, 16)]
    binned = [
        [pair for pair in pairs if low < pair[0] <= high]
        for low, high in zip([-1.0, *edges], edges, strict=False)
    ]
    found = calibration.utils.unbiased_l2_ce([part for part in binned if part])
    assert REPORT["ece_l2_debiased"].value == pytest.approx(found, rel=1e-12)
