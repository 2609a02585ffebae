"""95 % intervals hold the truth in 93 to 97 % of 2,000 simulated data sets."""

import math

import numpy as np
import pytest

from xentcli.report import calibrate, report

RUNS, CLASSES, TEMPERATURE = 2000, 5, 1.3
MANY = 1 << 21  # rows that the truth is computed from: its error is 1 % of that of a run


def log_softmax(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def drawn(z, rng):
    """Targets with the probabilities softmax(z / TEMPERATURE)."""
    p = np.exp(log_softmax(z / TEMPERATURE)).cumsum(axis=1)
    return (rng.random((len(z), 1)) > p[:, :-1]).sum(axis=1)


def independent(rows, rng):
    """Logits, targets and the logits of a base."""
    z = rng.normal(size=(rows, CLASSES)) * 1.5
    return z, drawn(z, rng), z + rng.normal(size=z.shape) * 0.3


def documents(count, rng, length=20):
    """Rows of documents: the logits of one are all more or all less certain, so losses correlate.

    Also the number of each row's document.
    """
    certainty = np.exp(rng.normal(size=(count, 1, 1)) * 0.7)
    z = (rng.normal(size=(count, length, CLASSES)) * certainty).reshape(-1, CLASSES)
    return z, drawn(z, rng), z + rng.normal(size=z.shape) * 0.3, np.repeat(np.arange(count), length)


def truth(make, size):
    """The means over so many rows that they are the truth."""
    rng = np.random.default_rng(1)
    z, _, base = make(size, rng)[:3]
    likely = np.exp(log_softmax(z / TEMPERATURE))
    ours, theirs = log_softmax(z), log_softmax(base)
    p = np.exp(theirs)
    best = ours.argmax(axis=1)
    nll = -(likely * ours).sum(axis=1)
    return {
        "nll": nll.mean(),
        "perplexity": math.exp(nll.mean()),
        "accuracy": np.take_along_axis(likely, best[:, None], axis=1).mean(),
        "entropy": -(np.exp(ours) * ours).sum(axis=1).mean(),
        "nll_difference": (likely * (theirs - ours)).sum(axis=1).mean(),
        "kl": (p * (theirs - ours)).sum(axis=1).mean(),
        "same_prediction": (best == theirs.argmax(axis=1)).mean(),
    }


def coverage(make, size, expected, grouped):
    """The share of runs whose interval holds the truth, by statistic."""
    held = dict.fromkeys(expected, 0)
    for run in range(RUNS):
        z, y, base, *group = make(size, np.random.default_rng([2, run]))
        found = report(z, y, base=base, group=group[0] if grouped else None)
        for name, value in expected.items():
            low, high = found[name].interval
            held[name] += low <= value <= high
    return {name: count / RUNS for name, count in held.items()}


@pytest.mark.slow
def test_intervals_of_independent_rows_hold_the_truth():
    found = coverage(independent, 400, truth(independent, MANY), grouped=False)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


@pytest.mark.slow
def test_clustered_intervals_hold_the_truth_and_plain_ones_do_not():
    expected = truth(documents, MANY // 20)
    found = coverage(documents, 100, expected, grouped=True)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found
    plain = coverage(documents, 100, {"nll": expected["nll"]}, grouped=False)
    assert plain["nll"] < 0.9, plain


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_the_temperature_holds_the_truth(grouped):
    held = 0
    for run in range(RUNS):
        rng = np.random.default_rng([3, run])
        z, y, _, group = documents(40, rng)
        low, high = calibrate(z, y, group=group if grouped else None)["temperature"].interval
        held += low <= TEMPERATURE <= high
    assert 0.93 <= held / RUNS <= 0.97, held / RUNS
