"""The numbers of a derivation, its remarks on extreme ones, and which classes are shown."""

import math

import numpy as np
import pytest

from xentcli import OptionError
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.explain import derive
from xentcli.explain.class_selection import DisplayOptions
from xentcli.explain.derivation import Remark
from xentcli.explain.document import to_document
from xentcli.options import LossOptions

NONE = Extras()


def derived(x, targets, row=0, extras=NONE, **options):
    x, targets, chosen = np.asarray(x, float), np.asarray(targets), LossOptions(**options)
    problem = build(x.shape, Whole(targets), chosen, extras)
    return derive(problem, chosen, row, x[row], targets[row] if problem.probs else None)


def step(document, title):
    """The step with these words in its title."""
    return next(step for step in document.steps if title in step.title.lower())


def remarks(d):
    """All remarks as one text."""
    return " ".join(remark.text for remark in d.remarks)


def test_every_step_of_the_smallest_example_is_known():
    d = derived([[math.log(2), 0.0, 0.0]], [0])
    for name, expected in {
        "z": [math.log(2), 0, 0],
        "shifted": [0, -math.log(2), -math.log(2)],
        "exponentials": [1, 0.5, 0.5],
        "unshifted": [2, 1, 1],
        "p": [0.5, 0.25, 0.25],
        "log_p": [-math.log(2), -math.log(4), -math.log(4)],
        "q": [1, 0, 0],
        "masses": [1, 0, 0],
        "terms": [math.log(2), 0, 0],
        "difference": [-0.5, 0.25, 0.25],
        "gradient": [-0.5, 0.25, 0.25],
    }.items():
        np.testing.assert_allclose(getattr(d, name), expected, rtol=1e-15, err_msg=name)
    assert (d.maximum, d.total, d.unshifted_total) == (math.log(2), 2.0, 4.0)
    assert d.loss == pytest.approx(math.log(2), rel=1e-15)
    assert d.lse == pytest.approx(math.log(4), rel=1e-15)


def test_options_enter_where_they_belong():
    extras = Extras(weight=[2.0, 4.0], sample_weight=[3.0, 1.0], upstream=-5.0)
    d = derived(
        [[3.0, 1.0], [0.0, 0.0]],
        [0, 1],
        extras=extras,
        temperature=2.0,
        label_smoothing=0.5,
        z_loss=0.1,
    )
    p = np.exp([1.5, 0.5]) / np.exp([1.5, 0.5]).sum()
    a = np.array([2 * 0.75, 4 * 0.25])
    lam = 0.1 * (3 * 2 + 1 * 4) / (3 + 1)
    np.testing.assert_allclose(d.z, [1.5, 0.5])
    np.testing.assert_allclose(d.masses, a)
    np.testing.assert_allclose(d.difference, a.sum() * p - a, rtol=1e-14)
    np.testing.assert_allclose(d.z_pull, 2 * lam * d.lse * p, rtol=1e-14)
    assert d.z_loss == pytest.approx(lam)
    assert d.factors == (-5.0, 3.0, 10.0, -1.5, 2)
    np.testing.assert_allclose(d.slope, [0.5, 0.5])
    np.testing.assert_allclose(d.gradient, -1.5 * 0.5 * (d.difference + d.z_pull), rtol=1e-14)
    assert d.share == pytest.approx(3 * d.row_loss / 10)


@pytest.mark.parametrize(
    ("x", "target", "options", "words"),
    [
        ([1000.0, 0.0], 1, {}, ["exp(1000) overflows float64", "inf/inf"]),
        ([-1000.0, -1001.0], 1, {}, ["Every exp(x) underflows to 0", "0/0"]),
        ([0.0, -800.0], 1, {}, ["1 exponential underflows to 0", "its probability is 0"]),
        ([0.0, -800.0, -900.0], 1, {}, ["2 exponentials underflow to 0", "their probability is 0"]),
        ([0.0, -math.inf], 0, {}, ["1 logit is -inf", "its probability is exactly 0"]),
        ([0.0, -math.inf], 1, {}, ["has probability 0, so the loss is inf"]),
        ([0.0, math.inf], 1, {}, ["The logit of class 1 is inf", "every result is nan"]),
        ([math.nan, 0.0], 1, {}, ["The logit of class 0 is nan", "every result is nan"]),
        ([-math.inf, -math.inf], 1, {}, ["All logits are -inf", "every result is nan"]),
        ([30.0, 0.0], 0, {}, ["log1p(r)", "avoids cancellation"]),
        ([1.0, 0.0], -100, {}, ["is ignored", "exactly 0", "All rows are ignored", "is nan"]),
        ([1.0, 0.0], -100, {"empty_mean": "zero"}, ["All rows are ignored", "is 0"]),
        (
            [1.0, 0.0],
            [0.5, 0.75],
            {},
            ["not a probability distribution", "sum to 1.25", "the smallest is 0.5"],
        ),
        ([1.0, 0.0], 0, {"extras": Extras(upstream=-1.0)}, ["negative", "reversed"]),
        ([1.0, 0.0], 0, {"extras": Extras(upstream=0.0)}, ["A factor is 0"]),
        ([1.0, 0.0], 0, {"extras": Extras(weight=[0.0, 1.0])}, ["sum to 0", "undefined"]),
        (
            [1.0, 0.0],
            0,
            {"z_loss": 0.1, "extras": Extras(weight=[2.0, 1.0])},
            ["0.2 instead of 0.1"],
        ),
    ],
)
def test_extreme_numbers_are_remarked_on(x, target, options, words):
    text = remarks(derived([x], [target], **options))
    for word in words:
        assert word in text, text


def test_an_ignored_row_is_zero_whatever_its_logits_are():
    d = derived([[math.nan, math.inf]], [-100], label_smoothing=0.1, z_loss=1.0)
    for name in ("gradient", "row_gradient", "difference", "z_gradient", "masses", "terms"):
        assert getattr(d, name).tolist() == [0.0, 0.0], name
    assert (d.loss, d.row_loss, d.share, d.z_term) == (0.0, 0.0, 0.0, 0.0)
    document = to_document(d, DisplayOptions())
    assert [step.title for step in document.steps] == ["Logits", "Target", "Gradient"]
    assert step(document, "gradient").columns[1].values == ("stays", "stays")


def test_ordinary_numbers_have_no_remarks():
    assert derived([[1.0, 2.0, 3.0]], [0]).remarks == ()
    assert derived([[1.0, 2.0, 3.0]], [[0.5, 0.25, 0.25]]).remarks == ()


def test_the_remark_about_log1p_is_true():
    d = derived([[30.0, 0.0]], [0])
    assert d.loss == pytest.approx(math.log1p(math.exp(-30)), rel=1e-15)
    assert d.difference[0] == -d.difference[1] != 0
    assert abs(-math.log(d.p[0]) / d.loss - 1) > 1e-4  # the digits that -log p loses


def test_checks_can_fail():
    d = derived([[math.nan, 0.0]], [0])
    assert not d.checks.holds
    facts = step(to_document(d, DisplayOptions()), "checks").facts
    assert [fact.note for fact in facts] == ["expected 1", "expected 0"]


def test_checks_fail_if_the_target_sum_overflows():
    d = derived([[1.0, 2.0]], [[1e308, 1e308]])
    assert not d.checks.holds
    assert "sum to inf" in remarks(d)
    assert step(to_document(d, DisplayOptions()), "checks").facts[1].note == "expected 0"


def test_checks_hold_and_show_their_tolerance():
    d = derived([[1.0, 2.0, 3.0]], [0])
    assert d.checks.holds
    facts = step(to_document(d, DisplayOptions()), "checks").facts
    assert [fact.value for fact in facts] == [1, 0]
    assert all("8.9e-16" in fact.note for fact in facts)


def test_the_largest_classes_are_shown_and_the_others_summed():
    x = np.arange(50.0)[::-1]
    document = to_document(derived([x], [7]), DisplayOptions(top=3))
    p = step(document, "probabilities")
    assert p.labels == ("7", "0", "1", "47 others")
    assert sum(p.columns[0].values) == pytest.approx(1, abs=1e-15)
    gradient = step(document, "gradient")
    assert sum(gradient.columns[0].values) == pytest.approx(0, abs=1e-15)
    assert gradient.columns[-1].values == ("rises", "falls", "falls", None)
    logits = step(document, "logits")
    assert logits.columns[0].values == (42.0, 49.0, 48.0, None)  # a sum of logits has no meaning
    assert document.data["largest"].tolist() == [7, 0, 1]
    assert len(document.data["p"]) == 50


@pytest.mark.parametrize(("classes", "lines"), [(20, 20), (21, 11)])
def test_more_than_20_classes_become_10_by_default(classes, lines):
    document = to_document(derived([np.arange(float(classes))], [0]), DisplayOptions())
    assert len(step(document, "probabilities").labels) == lines


def test_top_of_all_classes_keeps_their_order():
    document = to_document(derived([[1.0, 3.0, 2.0]], [2]), DisplayOptions(top=3))
    assert step(document, "probabilities").labels == ("0", "1", "2")
    assert step(document, "probabilities").marked == {2}


def test_the_target_is_always_shown():
    document = to_document(derived([[100.0, 1.0, 0.0, 0.0]], [0]), DisplayOptions(top=1))
    assert step(document, "target").labels[0] == "0"


def test_names_are_shown_and_escaped():
    document = to_document(derived([[1.0, 2.0]], [1]), DisplayOptions(("cat", "\x1b[31mdog")))
    assert step(document, "probabilities").labels == ("0 cat", "1 \\x1b[31mdog")
    assert "(\\x1b[31mdog)" in document.intro[0]


@pytest.mark.parametrize(
    ("names", "what"), [(("a",), "1 name given"), (("a", "b", "c"), "3 names given")]
)
def test_a_wrong_number_of_names_is_an_error(names, what):
    with pytest.raises(OptionError, match=f"{what}, but the row has 2 classes"):
        to_document(derived([[1.0, 2.0]], [1]), DisplayOptions(names))


def test_the_steps_are_in_order():
    document = to_document(derived([[1.0, 2.0]], [1]), DisplayOptions())
    titles = " ".join(step.title.lower() for step in document.steps)
    words = "logits maximum exponentials sum probabilities target loss gradient factors checks"
    places = [titles.index(word) for word in words.split()]
    assert places == sorted(places)


def test_remarks_belong_to_steps_that_exist():
    steps = {"logits", "exponentials", "target", "loss", "gradient", "factors"}
    x = [[1000.0, 0.0, -math.inf]]
    remarks = derived(x, [0], extras=Extras(weight=[2.0, 1.0, 1.0]), z_loss=1.0).remarks
    assert len(remarks) >= 5
    assert {remark.step for remark in remarks} <= steps
    document = to_document(derived(x, [0]), DisplayOptions())
    shown = [text for step in document.steps for text in step.remarks]
    for remark in derived(x, [0]).remarks:
        assert isinstance(remark, Remark)
        assert remark.text in shown
