"""The edges of the semantics: rows that are ignored, masked, not finite, or not there."""

import math

import numpy as np
import pytest
from helpers import assert_same_bits

from xentcli import DataError, OptionError, cross_entropy, log_softmax, softmax

INF, NAN = math.inf, math.nan


def one(backend, row, target, **options):
    """Loss and gradient of a single row."""
    r = cross_entropy([row], [target], reduction="none", backend=backend, **options)
    return float(r.loss[0]), r.grad[0].tolist()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("junk", [NAN, INF, -INF, 1.0])
def test_an_ignored_row_has_loss_zero_and_gradient_plus_zero(backend, junk, dtype):
    x = np.array([[1, 2, 3], [junk, 0, junk]], dtype=dtype)
    r = cross_entropy(x, [0, -100], reduction="none", backend=backend, upstream=[1.0, -1.0])
    assert r.loss[1] == 0
    assert_same_bits(r.grad[1], np.zeros(3, r.grad.dtype))
    assert r.ignored == 1
    alone = cross_entropy(x[:1], [0], backend=backend)
    assert cross_entropy(x, [0, -100], backend=backend).loss == alone.loss


@pytest.mark.parametrize("targets", [[-100, -100], []])
@pytest.mark.parametrize(("empty_mean", "expected"), [("nan", NAN), ("zero", 0.0)])
def test_the_mean_over_no_rows(backend, targets, empty_mean, expected):
    x = np.ones((len(targets), 3))
    r = cross_entropy(x, np.array(targets, dtype=int), backend=backend, empty_mean=empty_mean)
    assert r.loss == pytest.approx(expected, nan_ok=True)
    assert_same_bits(r.grad, np.zeros_like(x))
    assert "no row is left" in r.notes[0].text


def test_the_mean_over_no_rows_can_be_an_error(backend):
    with pytest.raises(DataError, match="no row is left"):
        cross_entropy(np.ones((1, 3)), [-100], backend=backend, empty_mean="error")


@pytest.mark.parametrize("n", [0, 2])
def test_sum_and_none_over_no_rows(backend, n):
    x, y = np.ones((n, 3)), np.full(n, -100)
    assert cross_entropy(x, y, reduction="sum", backend=backend).loss == 0
    assert_same_bits(cross_entropy(x, y, reduction="none", backend=backend).loss, np.zeros(n))


def test_no_rows_of_probabilities(backend):
    r = cross_entropy(np.ones((0, 3)), np.ones((0, 3)), backend=backend)
    assert math.isnan(r.loss)
    assert r.grad.shape == (0, 3)


def test_no_rows_with_a_normalizer_is_zero(backend):
    assert cross_entropy(np.ones((1, 3)), [-100], normalizer=4, backend=backend).loss == 0


def test_present_weights_of_zero(backend):
    r = cross_entropy([[1.0, 2.0]], [0], weight=[0.0, 1.0], backend=backend)
    assert math.isnan(r.loss)
    assert_same_bits(r.grad, np.zeros((1, 2)))
    assert any("weight" in note.text for note in r.notes)


def test_a_masked_class_has_probability_zero(backend):
    loss, grad = one(backend, [0, -INF, 1], 0)
    assert loss == pytest.approx(1.3132616875182228, rel=1e-15)
    assert grad == pytest.approx([-0.7310585786300049, 0.0, 0.7310585786300049], rel=1e-15)
    assert math.copysign(1, grad[1]) == 1


def test_a_masked_target(backend):
    loss, grad = one(backend, [0, -INF, 1], 1)
    assert loss == INF
    assert grad == pytest.approx([0.2689414213699951, -1.0, 0.7310585786300049], rel=1e-15)
    assert grad[1] == -1


def test_a_masked_class_under_smoothing(backend):
    loss, grad = one(backend, [0, -INF, 1], 0, label_smoothing=0.3)
    assert loss == INF
    assert np.isfinite(grad).all()
    assert grad[1] == pytest.approx(-0.1, rel=1e-14)


def test_a_masked_class_without_mass_costs_nothing(backend):
    options = {"reduction": "none", "backend": backend}
    r = cross_entropy([[0, -INF, 1]], [[0.5, 0.0, 0.5]], **options)
    assert np.isfinite(r.loss).all()
    r = cross_entropy([[0, -INF, 1]], [0], weight=[1, 0, 1], label_smoothing=0.5, **options)
    assert np.isfinite(r.loss).all()


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize(
    "row",
    [
        [INF, 0, 1],
        [0, 1, INF],
        [INF, INF, 0],
        [INF, -INF, 0],
        [-INF] * 3,
        [NAN, 0, 1],
        [0, 1, -NAN],
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}, {"temperature": 2}]
)
def test_a_row_without_an_answer_is_nan_throughout(backend, row, target, options):
    loss, grad = one(backend, row, target, **options)
    assert math.isnan(loss)
    assert np.isnan(grad).all()
    probabilities = np.zeros(3)
    probabilities[target] = 1
    r = cross_entropy([row], [probabilities], reduction="none", backend=backend, **options)
    assert np.isnan(r.loss).all()
    assert np.isnan(r.grad).all()


@pytest.mark.parametrize("junk", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [0, 7, 15, 16, 32])
def test_other_rows_keep_their_bits_beside_a_broken_one(backend, junk, place, rng):
    x = rng.normal(size=(3, 33)).astype("f4")
    y = [1, 2, 3]
    clean = cross_entropy(x, y, reduction="none", backend=backend)
    x[1, place] = junk
    broken = cross_entropy(x, y, reduction="none", backend=backend)
    for i in (0, 2):
        assert_same_bits(clean.grad[i], broken.grad[i])
        assert clean.loss[i] == broken.loss[i]


@pytest.mark.parametrize("junk", [NAN, INF])
def test_mean_and_sum_over_a_broken_row_are_not_finite(backend, junk):
    x = np.ones((2, 3))
    x[0, 0] = junk
    for reduction in ("mean", "sum"):
        r = cross_entropy(x, [0, 1], reduction=reduction, backend=backend)
        assert math.isnan(r.loss)
        assert "row 0 is nan" in r.notes[0].text


@pytest.mark.parametrize("place", [0, 1, 20, 39])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_nan_is_not_capped(backend, place, dtype):
    x = np.zeros((2, 40), dtype=dtype)
    x[0, place] = NAN
    r = cross_entropy(x, [1, 1], softcap=2.0, reduction="none", backend=backend)
    assert np.isnan(r.grad[0]).all()
    assert np.isnan(r.loss[0])
    assert np.isfinite(r.grad[1]).all()
    assert np.isnan(softmax(x, softcap=2.0, backend=backend)[0]).all()


def test_a_softcap_makes_infinite_logits_finite(backend):
    loss, grad = one(backend, [INF, -INF, 0.0], 0, softcap=2.0)
    s = math.exp(-2) + math.exp(-4)
    assert loss == pytest.approx(math.log1p(s), rel=1e-14)
    assert grad[0] == 0
    assert grad[1] == 0


@pytest.mark.parametrize("x", [5.0, -3.0, 0.0, 1e300])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.3}, {"temperature": 3.0}])
def test_one_class_costs_plus_zero(backend, x, options):
    loss, grad = one(backend, [x], 0, **options)
    assert_same_bits([loss, *grad], [0.0, 0.0])
    assert_same_bits(log_softmax([x], backend=backend), np.zeros(1))


def test_no_classes_is_an_error(backend):
    with pytest.raises(DataError, match="no classes"):
        cross_entropy(np.ones((3, 0)), [0, 0, 0], backend=backend)


def test_ignore_index_inside_the_classes_leaves_the_class_in_the_denominator(backend):
    x = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]
    r = cross_entropy(x, [1, 0], ignore_index=1, reduction="none", backend=backend)
    assert r.loss[0] == 0
    assert r.loss[1] == cross_entropy(x, [2, 0], reduction="none", backend=backend).loss[1]


@pytest.mark.parametrize("value", [-1, -100, 3, 2**31, 2**63 - 1, -(2**63)])
def test_any_value_can_be_the_ignore_index(backend, value):
    r = cross_entropy(np.eye(3), [0, value, 1], ignore_index=value, backend=backend)
    assert r.ignored == 1


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": -0.1},
        {"label_smoothing": 1.1},
        {"label_smoothing": NAN},
        {"temperature": 0},
        {"temperature": -1},
        {"temperature": INF},
        {"softcap": 0},
        {"softcap": INF},
        {"z_loss": -1},
        {"z_loss": NAN},
        {"normalizer": 0},
        {"normalizer": 2, "reduction": "sum"},
        {"reduction": "average"},
        {"ignore_index": 1.5},
        {"class_axis": 5},
        {"target_kind": "onehot"},
        {"backend": "tpu"},
        {"threads": 0},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_an_error_that_names_it(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        cross_entropy(np.eye(3), [0, 1, 2], **options)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"weight": [1, 2]}, "weight: 2 numbers do not fit|weight: shape"),
        ({"weight": [1, NAN, 2]}, "weight: entry 1 is nan"),
        ({"sample_weight": [1, 2]}, "sample_weight"),
        ({"upstream": [1, 2, 3]}, "upstream"),
        ({"upstream": [1, 2], "reduction": "none"}, "upstream"),
        ({"out": np.empty((3, 2))}, "out: shape"),
        ({"out": np.empty((3, 3), dtype=int)}, "out: dtype"),
        ({"out": np.eye(3).tolist()}, "out: expected .*not list"),
    ],
)
def test_arrays_that_do_not_fit_are_named(extras, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(np.eye(3), [0, 1, 2], **extras)


def test_a_read_only_out_is_an_error():
    out = np.empty((3, 3))
    out.flags.writeable = False
    with pytest.raises(DataError, match="read-only"):
        cross_entropy(np.eye(3), [0, 1, 2], out=out)


def test_both_axes_fit_asks_for_the_axis(backend):
    x = np.arange(18.0).reshape(2, 3, 3)
    with pytest.raises(OptionError, match="class_axis=1 or class_axis=2"):
        cross_entropy(x, np.zeros((2, 3), int), backend=backend)
    first = cross_entropy(x, np.zeros((2, 3), int), class_axis=1, backend=backend).loss
    last = cross_entropy(x, np.zeros((2, 3), int), class_axis=-1, backend=backend).loss
    assert first != last


def test_targets_may_be_one_line():
    x = np.arange(9.0).reshape(3, 3)
    lines = cross_entropy(x, [0, 2, 1]), cross_entropy(x, [[0, 2, 1]])
    assert lines[0].loss == lines[1].loss
    assert_same_bits(lines[0].grad, lines[1].grad)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1, 3], r"1 of 3 targets is outside 0 to 2; first: row 2 is 3"),
        ([0, -1, 5], r"2 of 3 targets are outside 0 to 2; first: row 1 is -1"),
        ([0.0, 1.5, 2.0], "first: row 1 is 1.5"),
        ([0.0, NAN, 2.0], "first: row 1 is nan"),
        (np.array([2**64 - 1, 0, 0], dtype="u8"), "row 0 is 18446744073709551615"),
        (np.array([2**64 - 100, 0, 0], dtype="u8"), "row 0 is 18446744073709551516"),  # not −100
        (np.array([True, False, True]), "dtype bool"),
        (np.array(["a", "b", "c"]), "dtype str"),
        (np.array([0, 1j, 0]), "dtype complex128"),
        ([0, 1], r"shape \(2,\) does not fit logits of shape \(3, 3\)"),
        (np.zeros((1, 4), int), r"shape \(1, 4\)"),
        (np.zeros((3, 2), int), r"shape \(3, 2\)"),
    ],
)
def test_targets_that_cannot_be_used(targets, message):
    with pytest.raises(DataError, match=message):
        cross_entropy(np.eye(3), targets)


def test_probabilities_that_are_no_distribution_get_a_note(backend):
    q = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [1.5, -0.5, 0.0]])
    r = cross_entropy(np.eye(3), q, backend=backend)
    assert r.notes[0].strict
    assert r.notes[0].text.startswith(
        "2 of 3 rows are not a probability distribution; the worst: row 2 has"
    )


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ([1.5, -0.5], "has the entry -0.5"),
        ([0.5, 0.75], "sums to 1.25"),
        ([NAN, 1.0], "sums to nan"),
    ],
)
@pytest.mark.parametrize("classes", [2, 5000])
def test_one_row_of_many_that_is_no_distribution_is_found(wrong, what, classes):
    """Blocks without any are passed over by their extremes alone."""
    q = np.zeros((100, classes), dtype="f4")
    q[:, 0] = 1.0
    assert cross_entropy(np.zeros(q.shape), q).notes == ()
    q[70, :2] = wrong
    note = cross_entropy(np.zeros(q.shape), q).notes[0].text
    assert note == f"1 of 100 rows is not a probability distribution; the worst: row 70 {what}"


def test_probabilities_with_an_ignore_index_are_an_error():
    with pytest.raises(OptionError, match="ignore_index"):
        cross_entropy(np.eye(3), np.eye(3), ignore_index=1)


def test_bfloat16_without_a_name_is_not_guessed():
    x = np.zeros((2, 3), dtype="V2")
    with pytest.raises(DataError, match="bfloat16"):
        cross_entropy(x, [0, 1])


def test_softmax_of_rows_without_an_answer(backend):
    assert np.isnan(softmax([[INF, 0.0], [-INF, -INF], [NAN, 0.0]], backend=backend)).all()
    assert log_softmax([0.0, -INF], backend=backend).tolist() == [0.0, -INF]
