"""Which numbers a derivation has, what it says of extreme ones, and how many classes it shows."""

import math

import numpy as np
import pytest

from xentcli import OptionError
from xentcli.engine.problem import Extras, build
from xentcli.engine.targets import Whole
from xentcli.explain import derive
from xentcli.explain.class_selection import View
from xentcli.explain.document import tell
from xentcli.explain.remarks import Remark
from xentcli.options import LossOptions

NONE = Extras()


def derived(x, targets, row=0, extras=NONE, **options):
    x, targets, chosen = np.asarray(x, float), np.asarray(targets), LossOptions(**options)
    problem = build(x.shape, Whole(targets), chosen, extras)
    return derive(problem, chosen, row, x[row], targets[row] if problem.probs else None)


def step(document, title):
    """The step that has these words in its title."""
    return next(step for step in document.steps if title in step.title.lower())


def said(d):
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
        ([1000.0, 0.0], 1, {}, ["exp(1000) is beyond float64", "inf/inf"]),
        ([-1000.0, -1001.0], 1, {}, ["Every exp(x) is 0", "0/0"]),
        ([0.0, -800.0], 1, {}, ["1 exponential is too small", "its probability is 0"]),
        ([0.0, -800.0, -900.0], 1, {}, ["2 exponentials are too small"]),
        ([0.0, -math.inf], 0, {}, ["1 logit of -inf"]),
        ([0.0, -math.inf], 1, {}, ["has 0: the loss is inf"]),
        ([0.0, math.inf], 1, {}, ["Class 1 is inf", "all is nan"]),
        ([math.nan, 0.0], 1, {}, ["Class 0 is nan", "all is nan"]),
        ([-math.inf, -math.inf], 1, {}, ["All logits are -inf"]),
        ([30.0, 0.0], 0, {}, ["log1p(others/own)", "keeps all its digits"]),
        ([1.0, 0.0], -100, {}, ["left out", "exactly 0", "No row is left", "is nan"]),
        ([1.0, 0.0], -100, {"empty_mean": "zero"}, ["No row is left", "is 0"]),
        ([1.0, 0.0], [0.5, 0.75], {}, ["sums to 1.25"]),
        ([1.0, 0.0], 0, {"extras": Extras(upstream=-1.0)}, ["negative", "reversed"]),
        ([1.0, 0.0], 0, {"extras": Extras(upstream=0.0)}, ["A factor is 0"]),
        ([1.0, 0.0], 0, {"extras": Extras(weight=[0.0, 1.0])}, ["sum to 0", "not defined"]),
        (
            [1.0, 0.0],
            0,
            {"z_loss": 0.1, "extras": Extras(weight=[2.0, 1.0])},
            ["0.2 instead of 0.1"],
        ),
    ],
)
def test_extreme_numbers_say_what_happened(x, target, options, words):
    text = said(derived([x], [target], **options))
    for word in words:
        assert word in text, text


def test_a_row_that_is_left_out_is_zero_whatever_it_holds():
    d = derived([[math.nan, math.inf]], [-100], label_smoothing=0.1, z_loss=1.0)
    for name in ("gradient", "row_gradient", "difference", "z_gradient", "masses", "terms"):
        assert getattr(d, name).tolist() == [0.0, 0.0], name
    assert (d.loss, d.row_loss, d.share, d.z_term) == (0.0, 0.0, 0.0, 0.0)
    document = tell(d, View())
    assert [step.title for step in document.steps] == ["Logits", "Target", "Gradient"]
    assert step(document, "gradient").columns[1].values == ("stays", "stays")


def test_ordinary_numbers_say_nothing():
    assert derived([[1.0, 2.0, 3.0]], [0]).remarks == ()
    assert derived([[1.0, 2.0, 3.0]], [[0.5, 0.25, 0.25]]).remarks == ()


def test_the_words_about_log1p_are_true():
    d = derived([[30.0, 0.0]], [0])
    assert d.loss == pytest.approx(math.log1p(math.exp(-30)), rel=1e-15)
    assert d.difference[0] == -d.difference[1] != 0
    assert abs(-math.log(d.p[0]) / d.loss - 1) > 1e-4  # what would have been lost


def test_checks_can_fail():
    d = derived([[math.nan, 0.0]], [0])
    assert not d.checks.holds
    facts = step(tell(d, View()), "checks").facts
    assert [fact.words for fact in facts] == ["and not 1", "and not 0"]


def test_masses_beyond_float64_are_no_excuse():
    d = derived([[1.0, 2.0]], [[1e308, 1e308]])
    assert not d.checks.holds
    assert "sums to inf" in said(d)
    assert step(tell(d, View()), "checks").facts[1].words == "and not 0"


def test_checks_hold_and_say_how_far():
    d = derived([[1.0, 2.0, 3.0]], [0])
    assert d.checks.holds
    facts = step(tell(d, View()), "checks").facts
    assert [fact.value for fact in facts] == [1, 0]
    assert all("8.9e-16" in fact.words for fact in facts)


def test_the_largest_classes_are_shown_and_the_others_summed():
    x = np.arange(50.0)[::-1]
    document = tell(derived([x], [7]), View(top=3))
    p = step(document, "probabilities")
    assert p.labels == ("7", "0", "1", "47 others")
    assert sum(p.columns[0].values) == pytest.approx(1, abs=1e-15)
    gradient = step(document, "gradient")
    assert sum(gradient.columns[0].values) == pytest.approx(0, abs=1e-15)
    assert gradient.columns[-1].values == ("rises", "falls", "falls", None)
    logits = step(document, "logits")
    assert logits.columns[0].values == (42.0, 49.0, 48.0, None)  # a sum would mean nothing
    assert document.data["largest"].tolist() == [7, 0, 1]
    assert len(document.data["p"]) == 50


@pytest.mark.parametrize(("classes", "lines"), [(20, 20), (21, 11)])
def test_without_top_many_classes_become_ten(classes, lines):
    document = tell(derived([np.arange(float(classes))], [0]), View())
    assert len(step(document, "probabilities").labels) == lines


def test_top_of_all_classes_keeps_their_order():
    document = tell(derived([[1.0, 3.0, 2.0]], [2]), View(top=3))
    assert step(document, "probabilities").labels == ("0", "1", "2")
    assert step(document, "probabilities").marked == {2}


def test_one_target_is_always_among_the_shown():
    document = tell(derived([[100.0, 1.0, 0.0, 0.0]], [0]), View(top=1))
    assert step(document, "target").labels[0] == "0"


def test_names_stand_beside_the_numbers_and_are_made_safe():
    document = tell(derived([[1.0, 2.0]], [1]), View(("cat", "\x1b[31mdog")))
    assert step(document, "probabilities").labels == ("0 cat", "1 \\x1b[31mdog")
    assert "(\\x1b[31mdog)" in document.lead[0]


@pytest.mark.parametrize(
    ("names", "what"), [(("a",), "1 name given"), (("a", "b", "c"), "3 names given")]
)
def test_names_of_the_wrong_count_are_counted(names, what):
    with pytest.raises(OptionError, match=f"{what}, the row has 2 classes"):
        tell(derived([[1.0, 2.0]], [1]), View(names))


def test_the_order_is_that_of_the_argument():
    document = tell(derived([[1.0, 2.0]], [1]), View())
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
    document = tell(derived(x, [0]), View())
    shown = [text for step in document.steps for text in step.remarks]
    for remark in derived(x, [0]).remarks:
        assert isinstance(remark, Remark)
        assert remark.text in shown
