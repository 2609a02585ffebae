"""A derivation ends where the reference does, bit for bit, under every option."""

import numpy as np
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xentcli import cross_entropy
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.explain import derive
from xentcli.options import LossOptions

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)
ANY = st.floats() | st.floats(-50, 50) | st.sampled_from([0.0, -0.0, 1e3, -1e3])
SMALL = st.sampled_from([0.0, 0.25, 1.0, 3.0])


@st.composite
def problems(draw):
    n, c = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    x = draw(hnp.arrays(np.float64, (n, c), elements=ANY))
    if draw(st.booleans()):
        targets = draw(hnp.arrays(np.float64, (n, c), elements=st.floats(0, 1)))
        kind = "probs"
    else:
        targets = draw(hnp.arrays(np.int64, n, elements=st.sampled_from([-100, *range(c)])))
        kind = "index"
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    per_row = hnp.arrays(np.float64, n, elements=SMALL)
    arrays = {
        "weight": draw(st.none() | hnp.arrays(np.float64, c, elements=SMALL)),
        "sample_weight": draw(st.none() | per_row),
        "upstream": draw(st.none() | (per_row if reduction == "none" else st.just(-2.5))),
    }
    options = {
        "reduction": reduction,
        "target_kind": kind,
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "temperature": draw(st.sampled_from([1.0, 0.7, 4.0])),
        "softcap": draw(st.sampled_from([None, 20.0])),
        "z_loss": draw(st.sampled_from([0.0, 0.01])),
        "normalizer": draw(st.sampled_from([None, 7.0])) if reduction == "mean" else None,
    }
    return x, targets, arrays, options


def derived(x, targets, arrays, options):
    chosen = LossOptions(**options)
    problem = build(x.shape, Whole(targets), chosen, Extras(**arrays))
    return [
        derive(problem, chosen, row, x[row], targets[row] if problem.probs else None)
        for row in range(len(x))
    ]


@SETTINGS
@given(problems())
def test_gradient_and_loss_have_the_bits_of_the_reference(problem):
    x, targets, arrays, options = problem
    result = cross_entropy(x, targets, backend="numpy", **arrays, **options)
    rows = derived(*problem)
    assert_same_bits(np.array([d.gradient for d in rows]), result.grad)
    kept = [d.lse if not d.ignored else np.nan for d in rows]
    assert_same_bits(np.array(kept), result.lse)
    if options["reduction"] == "none":
        assert_same_bits(np.array([d.loss for d in rows]), result.loss)
    elif len(x) == 1 and not rows[0].ignored:
        assert_same_bits(np.float64(rows[0].share), np.float64(result.loss))


@SETTINGS
@given(problems())
def test_the_rows_add_up_to_the_loss(problem):
    x, targets, arrays, options = problem
    rows = derived(*problem)
    if options["reduction"] == "none" or all(d.ignored for d in rows):
        return
    loss = cross_entropy(x, targets, backend="numpy", **arrays, **options).loss
    with np.errstate(all="ignore"):
        total = sum(d.share for d in rows)
    np.testing.assert_allclose(total, loss, rtol=1e-13, equal_nan=True)


@SETTINGS
@given(problems())
def test_finite_rows_pass_their_checks(problem):
    for d in derived(*problem):
        if np.isfinite(d.maximum) and np.isfinite(d.difference).all() and not d.ignored:
            assert d.checks.holds, d.checks
        elif not d.ignored:
            assert not d.checks.holds
