"""The published examples: every figure, the files, the commands, and that the check can fail."""

import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli import assert_error, assert_silent, bash, contents, from_npy, inside, strict_json
from helpers import assert_same_bits

from xentcli import OptionError, examples
from xentcli.display import as_text
from xentcli.examples import MODULES, all_examples, basic, calculus, find, information, training
from xentcli.examples.documents import (
    check_document,
    command,
    command_anywhere,
    example_document,
    list_document,
)
from xentcli.examples.example import ComputedExample, Published, TrainingSettings, compare

ROOT = Path(__file__).parent.parent

# Typed a second time from the articles, so that a change to the examples is noticed.
PUBLISHED = {
    "three-class": "2.718 7.389 20.086 30.193 0.09 0.2447 0.6652 -0.91 0.2447 0.6652",
    "tie": "1 1 2 0.5 0.5 0.5 -0.5",
    "four-class": "2.718 7.389 20.086 54.598 84.791 0.0321 0.0871 0.2369 0.6439 "
    "0.0321 0.0871 -0.7631 0.6439",
    "cat-dog-bird": "0.23 0.63 0.14 0.462",
    "perfect": "0 0 0",
    "batch-mean": "0.2159 -0.17049944 0.12121648 0.04928295 0.00331929 -0.00737348 0.00405419",
    "class-weights": "1.3133 0.3655293 -0.3655293 0.3655293 -0.3655293",
    "overflow": "overflow finite",
    "training": "2.0499 0.221 -1.419 -1.514 0.5548 -0.82 -1.713 -0.178 0.2448 -1.25 -1.91 0.449 "
    "0.1491 -1.479 -2.034 0.802 0.1057 -1.629 -2.123 1.041 0.0814 -1.74 -2.191 1.22",
    "upstream": "equal",
    "jacobian": "equal",
    "information": "equal different",
}


@pytest.mark.parametrize("name", MODULES)
def test_every_published_figure_is_reproduced(name):
    figures = ComputedExample(find(name)).comparisons
    assert [f.published for f in figures] == PUBLISHED[name].split()
    for f in figures:
        assert f.computed == f.published, f
        assert f.same


def test_all_published_examples_are_there():
    assert set(PUBLISHED) == set(MODULES)


@pytest.mark.parametrize(
    ("published", "value", "decimals", "same"),
    [
        ("0.09", 0.0900306, 4, True),
        ("0.09", 0.0900506, 4, False),
        ("0.09", 0.0949, 4, False),
        ("0.5", 0.5, 4, True),
        ("0.5", 0.50006, 4, False),
        ("2", 2.0, 4, True),
        ("-0.5", 0.5, 4, False),
        ("20", 20.0, 0, True),
        ("equal", "equal", 4, True),
        ("equal", "different", 4, False),
        ("0.5", math.nan, 4, False),
    ],
)
def test_figures_are_compared_by_the_published_digits(published, value, decimals, same):
    assert compare("x", published, value, value, decimals).same is same


def test_rounded_intermediates_are_distinguished_from_exact_numbers():
    loss = ComputedExample(find("cat-dog-bird")).comparisons[-1]
    assert (loss.published, loss.computed) == ("0.462", "0.462")
    assert loss.exact == pytest.approx(0.46436878, abs=1e-8)
    text = " ".join(
        r
        for step in example_document(ComputedExample(find("cat-dog-bird")), 4).steps
        for r in step.remarks
    )
    assert "-log(0.63)" in text
    assert "0.4644" in text
    first = ComputedExample(find("batch-mean")).comparisons[1]
    assert f"{first.exact:.8f}" == "-0.17049943"  # the article's digit comes from float32


def wrong(example):
    """The same example with a made-up figure."""
    published = Published("p", ("0.1234",), lambda c: [c.derivation().p[0]])
    return replace(example, published=(*example.published, published))


def test_check_prints_all_figures_and_succeeds(capfdbinary):
    result = inside(capfdbinary, "examples", "--check")
    assert result.code == 0
    assert_silent(result)
    lines = result.text.splitlines()
    assert lines[1] == "67 of 73 published numbers reproduced by exact arithmetic"
    assert " ".join(lines[2:4]) == (
        "6 more only as the article computed: with its own rounding, or a start fitted to its "
        "figures"
    )
    assert lines[4] == "6 of 6 statements without a number hold"
    for name in MODULES:
        assert f". {name}\n" in result.text
    for text in ("30.193", "0.462", "0.4643687841", "-0.17049944", "1.22"):
        assert text in result.text


def test_check_names_what_differs_and_exits_1(capfdbinary, monkeypatch):
    monkeypatch.setitem(basic.EXAMPLES, "tie", wrong(basic.EXAMPLES["tie"]))
    result = inside(capfdbinary, "examples", "--check")
    assert result.code == 1
    assert result.err == "xent: error: examples: 1 figure not reproduced: tie p\n"
    assert "67 of 74 published numbers reproduced by exact arithmetic" in result.text
    assert "NOT all figures are reproduced." in result.text
    assert inside(capfdbinary, "examples", "tie", "--check").code == 1
    assert inside(capfdbinary, "examples", "three-class", "--check").code == 0
    assert " NO " in inside(capfdbinary, "examples").text


def test_check_as_json_names_what_differs(capfdbinary, monkeypatch):
    monkeypatch.setitem(basic.EXAMPLES, "tie", wrong(basic.EXAMPLES["tie"]))
    result = inside(capfdbinary, "examples", "--check", "-f", "json")
    assert strict_json(result.out)["different"] == ["tie p"]


def test_the_list_has_name_source_what_it_shows_and_the_verdict(capfdbinary):
    result = inside(capfdbinary, "examples", "-f", "json")
    assert_silent(result)
    listed = strict_json(result.out)["examples"]
    assert [item["name"] for item in listed] == list(MODULES)
    for item, example in zip(listed, all_examples(), strict=True):
        assert item["source"] == example.source
        assert item["shows"] == example.description
        assert item["reproduced"] is True
    text = inside(capfdbinary, "examples").text
    for name in MODULES:
        assert f"\n   {name} " in text


@pytest.mark.parametrize("name", MODULES)
def test_an_example_shows_inputs_derivation_figures_and_command(name, capfdbinary):
    result = inside(capfdbinary, "examples", name)
    assert result.code == 0
    assert_silent(result)
    words = ("1. Inputs", "ogits and their maximum", "xponentials", "robabilities", "arget")
    words += ("oss", "radient", "actors", "hecks", "Published and computed figures", "  xent ")
    steps = result.text[result.text.index("1. Inputs") :]
    places = [steps.index(word) for word in words]
    assert places[0] < places[1] < places[2] < places[3] < places[-2] < places[-1]
    line = result.text.splitlines()[-1].strip()
    assert line.startswith(f"xent examples {name} --write xent-examples && xent ")


def test_the_gradient_of_each_row_is_derived_in_json(capfdbinary):
    data = strict_json(inside(capfdbinary, "examples", "batch-mean", "-f", "json").out)
    gradients = [derivation["gradient"] for derivation in data["derivations"]]
    assert_same_bits(np.array(gradients), ComputedExample(find("batch-mean")).gradient)
    assert data["figures"][0]["published"] == "0.2159"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("three-clas", "hint: did you mean three-class?"),
        ("TRAINING", "hint: did you mean training?"),
        ("catdogbird", "hint: did you mean cat-dog-bird?"),
        ("zzz", "hint: available: three-class, tie"),
        ("\x1b[31m", "\\x1b"),
    ],
)
def test_an_unknown_example_suggests_the_nearest(name, hint, capfdbinary):
    assert_error(inside(capfdbinary, "examples", name), 2, "no example named", hint)
    with pytest.raises(OptionError):
        find(name)


def test_the_sample_data_are_what_write_writes(tmp_path, capfdbinary):
    result = inside(capfdbinary, "examples", "--write", tmp_path / "data")
    assert (result.code, result.out) == (0, b"")
    assert result.err.startswith("xent: wrote 52 files for 12 examples to ")
    written = contents(tmp_path / "data")
    assert len(written) == 52
    here = contents(ROOT / "sample_data")
    for name, data in written.items():
        assert here.pop(name) == data, name
    others = {"README.md", "three-class.svg"}
    assert {name for name in here if not name.startswith("digits/")} == others


def test_write_of_one_example_keeps_others_and_what_is_there(tmp_path, capfdbinary):
    assert inside(capfdbinary, "examples", "tie", "--write", tmp_path).code == 0
    assert set(contents(tmp_path)) == {
        f"tie/{name}.{kind}" for name in ("logits", "targets") for kind in ("npy", "csv")
    }
    (tmp_path / "tie/logits.csv").write_text("mine\n")
    result = inside(capfdbinary, "examples", "tie", "--write", tmp_path, "-n")
    assert_error(result, 4, "exists")
    assert (tmp_path / "tie/logits.csv").read_text() == "mine\n"


def test_write_below_a_file_is_an_error(tmp_path, capfdbinary):
    (tmp_path / "file").write_text("")
    result = inside(capfdbinary, "examples", "tie", "--write", tmp_path / "file")
    assert_error(result, 4, "cannot create the directory")


@pytest.mark.parametrize("kind", ["csv", "npy"])
@pytest.mark.parametrize("name", MODULES)
def test_the_command_line_gives_the_same_result(name, kind, capfdbinary, monkeypatch):
    monkeypatch.chdir(ROOT)
    worked = ComputedExample(find(name))
    line = command(worked.example, "sample_data").replace(".csv", f".{kind}")
    assert line.startswith("xent ")
    how = ["-f", "npy", "--dtype", "f64", "--backend", "numpy"]  # as the examples are computed
    result = inside(capfdbinary, *shlex.split(line)[1:], *how)
    assert result.code == 0, result.err
    wanted = worked.gradient if " grad " in line else worked.result.loss
    found = from_npy(result.out)
    assert_same_bits(found.reshape(np.shape(wanted)), np.asarray(wanted))


def test_the_command_shown_works_in_an_empty_folder(tmp_path):
    line = command_anywhere(find("class-weights"))
    result = bash(line, cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.text.startswith("0.365529")


def test_numbers_that_exact_arithmetic_gives_are_counted_apart():
    by = {name: [f.by for f in ComputedExample(find(name)).comparisons] for name in MODULES}
    assert by["cat-dog-bird"] == ["exact"] * 3 + ["article"]
    assert set(by["three-class"]) == {"exact"}
    assert by["overflow"] == ["statement"] * 2
    assert by["perfect"] == ["exact"] * 3
    assert "article" in by["training"]
    for name in MODULES:
        for figure in ComputedExample(find(name)).comparisons:
            if figure.by == "exact" and figure.decimals is not None:
                assert round(figure.exact, figure.decimals) == float(figure.published)


def test_the_list_as_html_is_one_table(capfdbinary):
    text = inside(capfdbinary, "examples", "-o", "-", "--width", "80").text
    assert text.startswith("Examples")
    page = as_text(list_document(all_examples()), "html")
    assert page.count("<table>") == 1


def test_training_can_be_longer_and_faster(capfdbinary):
    arguments = "examples", "training", "--steps", "3", "--lr", "0.5", "-f"
    text = inside(capfdbinary, *arguments, "csv").text
    lines = text.splitlines()
    assert lines[0] == "step,loss,x0,x1,x2"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    history = strict_json(inside(capfdbinary, *arguments, "json").out)["history"]
    for line, one in zip(lines[1:], history, strict=True):
        numbers = [float(cell) for cell in line.split(",")[1:]]
        assert numbers == [one["loss"], *one["logits"]]
    # One step by hand: both W and b move by lr·(p - y), so the logits by twice that.
    x = np.array(training.START)
    p = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(history[1]["logits"], x - 2 * 0.5 * (p - [0, 0, 1]), rtol=1e-13)


def test_training_shows_step_loss_logits_and_a_curve(capfdbinary):
    text = inside(capfdbinary, "examples", "training").text
    part = text.split("Training:")[1].split("Published")[0]
    lines = [line.split() for line in part.splitlines() if line.strip()[:1].isdigit()][:11]
    assert [line[0] for line in lines] == [str(step) for step in range(0, 51, 5)]
    assert lines[-1][1:5] == ["-1.7398", "-2.1918", "1.2196", "0.0814"]
    curve = [len(line[5]) for line in lines]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] == 30
    assert curve[-1] == round(30 * 0.0814 / 2.0501)


def test_training_from_the_published_start_stays_within_the_stated_limits():
    losses, logits = 0.0, 0.0
    for step, (loss, *row) in training.PUBLISHED.items():
        one = training.train(training.START, TrainingSettings())[step]
        losses = max(losses, abs(one.loss - float(loss)))
        logits = max(logits, np.abs(one.logits - np.array(row, float)).max())
    assert 1e-4 < losses <= training.LOSS_LIMIT  # the limits are tight
    assert 5e-4 < logits <= training.LOGIT_LIMIT


def test_the_finer_start_rounds_to_the_published_one():
    assert tuple(round(x, 3) for x in training.FINER_START) == training.START


def test_training_beyond_its_limits_is_detected(monkeypatch):
    published = tuple(one._replace(tolerance=1e-6) for one in training.TRAINING.published)
    worked = ComputedExample(replace(training.TRAINING, published=published))
    assert not worked.reproduced
    assert check_document([worked.example])[1]


def test_a_training_that_diverges_is_shown_without_an_error(capfdbinary):
    arguments = "examples", "training", "--lr", "1e308", "--steps", "4"
    for form in ("plain", "json", "csv", "rich", "latex", "markdown"):
        result = inside(capfdbinary, *arguments, "-f", form)
        assert result.code == 0, result.err
        assert_silent(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tie", "--steps", "3"], ["--steps", "applies to the training example only"]),
        (["--lr", "1"], ["--lr", "applies to the training example only"]),
        (["tie", "-f", "csv"], ["--format", "no table", "xent examples training"]),
        (["training", "--lr", "nan"], ["--lr", "finite"]),
        (["training", "--steps", "0"], ["--steps"]),
    ],
)
def test_options_of_the_training_are_check_document(arguments, words, capfdbinary):
    assert_error(inside(capfdbinary, "examples", *arguments), 2, *words)


def test_the_jacobian_is_the_derivative_of_the_softmax():
    worked = ComputedExample(find("jacobian"))
    x = worked.example.logits[0]
    h = 1e-6

    def softmax(z):
        return np.exp(z) / np.exp(z).sum()

    columns = [(softmax(x + h * e) - softmax(x - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(calculus._jacobian(worked), np.array(columns).T, atol=1e-9)
    np.testing.assert_allclose(calculus._chained(worked), worked.gradient[0], rtol=1e-14)
    steps = {step.title: step for step in example_document(worked, 4).steps}
    matrix = steps["The Jacobian of the softmax"]
    assert len(matrix.columns) == 3
    assert matrix.columns[1].values[1] == pytest.approx(0.2447 * (1 - 0.2447), abs=1e-4)


def test_the_check_of_the_jacobian_can_fail(monkeypatch):
    monkeypatch.setattr(calculus, "_jacobian", lambda w: np.eye(3))
    assert not ComputedExample(find("jacobian")).reproduced


def test_information_in_nats_and_bits_is_right():
    worked = ComputedExample(find("information"))
    p, q = np.array([0.5, 0.25, 0.25]), np.exp([1, 2, 0.5]) / np.exp([1, 2, 0.5]).sum()
    expected = {
        "H(p)": 1.5 * math.log(2),
        "H(q)": -(q * np.log(q)).sum(),
        "H(p,q)": -(p * np.log(q)).sum(),
        "H(q,p)": -(q * np.log(p)).sum(),
        "KL(p|q)": (p * np.log(p / q)).sum(),
        "KL(q|p)": (q * np.log(q / p)).sum(),
    }
    found = information.quantities(worked)
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-14)
    step = next(step for step in example_document(worked, 4).steps if step.title == "Information")
    nats, bits, _ = step.columns
    assert bits.values[0] == pytest.approx(1.5)
    np.testing.assert_allclose(np.array(bits.values) * math.log(2), nats.values)


def test_the_check_of_information_can_fail(monkeypatch):
    monkeypatch.setattr(information, "_cross", lambda p, log_q: 1.0)
    assert not ComputedExample(find("information")).reproduced


def test_upstream_equals_differentiation_by_pytorch():
    torch = pytest.importorskip("torch")
    worked = ComputedExample(find("upstream"))
    e = worked.example
    x = torch.tensor(e.logits, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(reduction="none")(x, torch.tensor(e.targets))
    loss.backward(torch.tensor(e.upstream))
    np.testing.assert_allclose(worked.gradient, x.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_upstream_equals_finite_differences():
    worked = ComputedExample(find("upstream"))
    e, h = worked.example, 1e-5
    x = e.logits[3].astype(float)

    def loss(z):
        return np.log(np.exp(z).sum()) - z[e.targets[3]]

    for c in (0, int(e.targets[3]), 255):
        step = h * np.eye(256)[c]
        slope = (loss(x + step) - loss(x - step)) / (2 * h)
        assert worked.gradient[3, c] == pytest.approx(e.upstream[3] * slope, abs=1e-9)


def test_the_check_of_upstream_can_fail(monkeypatch):
    right = calculus._differentiated(ComputedExample(find("upstream")))
    monkeypatch.setattr(calculus, "_differentiated", lambda w: right * 1.0001)
    assert not ComputedExample(find("upstream")).reproduced


def test_the_random_numbers_of_upstream_are_fixed_and_uniform():
    e = find("upstream")
    assert e.logits.shape == (128, 256)
    assert e.logits.dtype == np.float32
    assert e.logits[0, :4].tolist() == calculus._uniform(4, 0).tolist()
    assert abs(e.logits.mean() - 63 / 128) < 0.005
    assert len(np.unique(e.targets)) > 80
    assert (e.upstream >= 0).all()


def test_the_loss_of_perfect_is_0_only_at_a_gap_of_746():
    worked = ComputedExample(find("perfect"))
    losses = worked.result.loss
    assert losses[-1] == 0
    assert (losses[:-1] > 0).all()
    assert (np.diff(losses) < 0).all()
    step = next(step for step in example_document(worked, 4).steps if "gap" in step.title)
    assert step.columns[0].values == tuple(losses)


def test_every_example_is_found_by_its_name():
    for name in MODULES:
        assert find(name).name == name
    assert examples.all_examples()[0].name == "three-class"
