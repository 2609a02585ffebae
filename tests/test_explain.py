"""`xent explain`: its inputs, its outputs and its errors."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    TARGETS,
    assert_error,
    assert_silent,
    at_terminal,
    captured,
    described,
    inside,
    npy,
    process_at_terminal,
    run,
    strict_json,
)
from helpers import assert_same_bits

from xentcli import cross_entropy

ONE = ("explain", "--logits", "1,2,3", "--target", "0")


def numbers(result):
    """The parsed JSON output of a command."""
    assert result.code == 0, result.err
    assert_silent(result)
    return strict_json(result.out)


def explained(capfdbinary, *arguments, **more):
    return numbers(inside(capfdbinary, "explain", *arguments, "-f", "json", **more))


def test_numbers_of_the_command_line_need_no_files(capfdbinary):
    result = inside(capfdbinary, *ONE)
    assert result.code == 0
    assert_silent(result)
    for number in ("2.7183", "30.1929", "0.0900", "0.2447", "0.6652", "-0.9100", "2.4076"):
        assert number in result.text


@pytest.mark.parametrize("row", [0, 1])
def test_a_row_of_files_is_explained(row, files, capfdbinary):
    data = explained(capfdbinary, "l.npy", "t.npy", "--row", row)
    assert (data["row"], data["rows"], data["target"]) == (row, 2, TARGETS[row])
    np.testing.assert_allclose(data["logits"], LOGITS[row], rtol=0)
    np.testing.assert_allclose(data["p"], PROBABILITIES[row], rtol=1e-15)
    np.testing.assert_allclose(data["gradient"], GRADIENT[row], rtol=1e-15)
    assert data["share"] == pytest.approx(LOSSES[row] / 2)


def test_the_numbers_are_those_of_grad(files, capfdbinary, rng):
    x, y = rng.normal(size=(5, 7)), np.array([1, -100, 3, 3, 0])
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.save("w.npy", rng.random(7))
    np.save("v.npy", rng.random(5))
    options = "--weight w.npy --sample-weight v.npy --label-smoothing 0.1 --temperature 0.7"
    options += " --softcap 4 --z-loss 0.01 --upstream -2"
    grads = cross_entropy(
        x,
        y,
        weight=np.load("w.npy"),
        sample_weight=np.load("v.npy"),
        label_smoothing=0.1,
        temperature=0.7,
        softcap=4.0,
        z_loss=0.01,
        upstream=-2,
        backend="numpy",
    ).grad
    for row in range(5):
        data = explained(capfdbinary, "x.npy", "y.npy", "--row", row, *options.split())
        assert_same_bits(np.array(data["gradient"]), grads[row])


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--reduction", "sum"], {"share": LOSSES[1]}),
        (["--reduction", "none", "--upstream", "u.csv"], {"share": LOSSES[1]}),
        (["--normalizer", "8"], {"share": LOSSES[1] / 8}),
        (["--ignore-index", "1"], {"ignored": True, "loss": 0.0}),
        (["--weight", "w.csv"], {"share": 3 * LOSSES[1] / 5}),
        (["--sample-weight", "v.csv"], {"share": 3 * LOSSES[1] / 4}),
        (["--temperature", "1e300"], {"loss": np.log(3)}),
        (["--z-loss", "1"], {"z_term": np.log(4) ** 2}),
        (["--label-smoothing", "1"], {"masses": [1 / 3, 1 / 3, 1 / 3]}),
        (["--softcap", "1e-9"], {"loss": np.log(3)}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_every_option_of_the_loss_reaches_it(options, changed, files, capfdbinary):
    (files / "w.csv").write_text("2,3,1\n")
    (files / "v.csv").write_text("1\n3\n")
    (files / "u.csv").write_text("1\n-1\n")
    data = explained(capfdbinary, "l.npy", "t.npy", "--row", 1, *options)
    for name, expected in changed.items():
        np.testing.assert_allclose(data[name], expected, rtol=1e-8, err_msg=name)
    if "u.csv" in options:
        np.testing.assert_allclose(data["gradient"], -2 * GRADIENT[1], rtol=1e-15)


def test_targets_may_be_probabilities(files, capfdbinary):
    np.save("q.npy", PROBABILITIES)
    for data in (
        explained(capfdbinary, "l.npy", "q.npy", "--row", 1),
        explained(capfdbinary, "--logits", "0,0,0.6931471805599453", "--target", "0.25,0.25,0.5"),
    ):
        assert data["target"] is None
        np.testing.assert_allclose(data["gradient"], 0, atol=1e-15)


@pytest.mark.parametrize("kind", ["pipe", "npz", "csv", "fortran", "big-endian", "bf16"])
def test_rows_are_found_in_every_kind_of_file(kind, files, capfdbinary, rng):
    x = rng.integers(-8, 8, (40, 5)).astype(np.float32)
    y = rng.integers(0, 5, 40)
    np.save("y.npy", y)
    name, more, stdin = "x.npy", [], b""
    np.save("x.npy", np.asfortranarray(x) if kind == "fortran" else x)
    if kind == "pipe":
        name, stdin = "-", npy(x)
    elif kind == "npz":
        np.savez("x.npz", a=x, b=y)
        name, more = "x.npz", ["--key", "a"]
    elif kind == "csv":
        np.savetxt("x.csv", x, delimiter=",")
        name = "x.csv"
    elif kind == "big-endian":
        np.save("x.npy", x.astype(">f4"))
    elif kind == "bf16":
        bits = (x.view(np.uint32) >> 16).astype("<u2")
        np.save("x.npy", bits.view("V2"))
        more = ["--dtype", "bf16"]
    for row in (0, 17, 39):
        data = explained(capfdbinary, name, "y.npy", "--row", row, *more, stdin=stdin)
        assert data["logits"] == x[row].tolist()


@pytest.mark.parametrize("source", ["x.csv", "-"])
def test_rows_are_found_in_a_table_that_is_not_in_memory(source, files, capfdbinary, monkeypatch):
    from xentcli.files.text import table

    monkeypatch.setattr(table, "AHEAD", 8)
    x = np.arange(200.0).reshape(40, 5) / 2  # a first line of 0, 1, 2 … has a note
    np.savetxt("x.csv", x, delimiter=",")
    np.save("y.npy", np.zeros(40, int))
    stdin = (files / "x.csv").read_bytes() if source == "-" else b""
    for row in (0, 1, 2, 17, 39):
        data = explained(capfdbinary, source, "y.npy", "--row", row, stdin=stdin)
        assert data["logits"] == x[row].tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4, 5), 1), ((3, 4, 5), 2), ((4, 6), 0), ((2, 4, 3, 2), 1)]
)
def test_rows_are_found_on_every_class_axis(shape, axis, order, files, capfdbinary, monkeypatch):
    from xentcli.files.npy import reader

    monkeypatch.setattr(reader, "SAFE", 1)  # so that small arrays are read in pieces too
    x = np.arange(float(np.prod(shape))).reshape(shape)
    rows = np.moveaxis(x, axis, -1).reshape(-1, shape[axis])
    np.save("x.npy", np.asarray(x, order=order))
    np.save("y.npy", np.zeros(np.delete(shape, axis), int))
    for row in (0, 1, len(rows) - 1):
        data = explained(capfdbinary, "x.npy", "y.npy", "--row", row, "--class-axis", axis)
        assert data["logits"] == rows[row].tolist()


def test_only_the_row_of_a_huge_file_is_read(files):
    start = described(shape="(50000, 20000)")
    row = np.zeros(20_000)
    row[[3, 7]] = 5.0, 9.0
    with (files / "big.npy").open("wb") as stream:
        stream.write(start)
        stream.truncate(len(start) + 8_000_000_000)
        stream.seek(len(start) + 43_210 * row.nbytes)
        stream.write(row.tobytes())
    np.save("y.npy", np.full(50_000, 7))
    arguments = "explain", "big.npy", "y.npy", "--row", "43210", "--top", "2"
    result = run(*arguments, memory=1_500_000_000)
    assert result.code == 0, result.err
    assert re.search(r"^   7 \* +9\.0000 ", result.text, re.MULTILINE)
    assert re.search(r"^   3 +5\.0000 ", result.text, re.MULTILINE)
    assert "19998 others" in result.text
    assert "D = 50000" in result.text


def test_a_pipe_that_ends_early_is_an_error(files, capfdbinary):
    data = npy(np.zeros((10, 3)))[:-24]
    np.save("y.npy", np.zeros(10, int))
    result = inside(capfdbinary, "explain", "-", "y.npy", stdin=data)
    assert_error(result, 1, "<stdin>", "24 missing")


@pytest.mark.parametrize("row", [2, -1, 10**9])
def test_a_row_out_of_range_says_how_many_there_are(row, files, capfdbinary):
    result = inside(capfdbinary, "explain", "l.npy", "t.npy", "--row", row)
    assert_error(result, 2, f"--row: {row} is out of range for 2 rows", "numbered from 0 to 1")


def test_an_empty_file_has_no_row_to_explain(files, capfdbinary):
    np.save("l.npy", np.zeros((0, 3)))
    np.save("t.npy", np.zeros(0, int))
    assert_error(
        inside(capfdbinary, "explain", "l.npy", "t.npy"), 2, "0 is out of range for 0 rows"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--names", "a,b"], 2, ["--names: 2 names given, but there are 3 classes"]),
        (["--target", "3"], 1, ["--target: ", "outside 0 to 2"]),
        (["--target", "0.5"], 1, ["--target: ", "0.5", "not a whole number"]),
        (["--target", "0.5,0.5"], 1, ["--target: ", "does not fit"]),
        (["--logits", "1,x"], 2, ["'--logits': 'x' is not a number"]),
        (["--logits", ""], 2, ["'--logits': '' is not a number"]),
        (["--logits", "1,\x1b[31m"], 2, ["\\x1b"]),
        (["--top", "0"], 2, ["'--top'"]),
        (["--width", "39"], 2, ["'--width'", "40"]),
        (["--row", "1"], 2, ["--row: 1 is out of range for 1 row"]),
        (["--temperature", "0"], 2, ["--temperature: 0.0 is not allowed"]),
        (["--save", "x.pdf"], 2, ["--output: x.pdf: unknown suffix"]),
        (["--weight", "missing.csv"], 2, ["missing.csv"]),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else None,
)
def test_errors_are_one_line(arguments, code, words, files, capfdbinary):
    assert_error(inside(capfdbinary, *ONE, *arguments), code, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["LOGITS and TARGETS are required", "--logits"]),
        (["l.npy"], ["l.npy: TARGETS is missing", ".npz"]),
        (["--logits", "1,2"], ["--logits and --target are both required"]),
        (["--target", "1"], ["--logits and --target are both required"]),
        (["l.npy", "t.npy", "--target", "1"], ["cannot be combined"]),
        (["-", "-"], ["can be read only once"]),
    ],
    ids=lambda value: " ".join(value) if value and "-" in value[0] else None,
)
def test_files_or_numbers_are_needed(arguments, words, files, capfdbinary):
    assert_error(inside(capfdbinary, "explain", *arguments), 2, *words)


@pytest.mark.parametrize("suffix", ["svg", "html", "htm", "md", "tex", "txt", "json"])
def test_save_writes_the_format_of_the_suffix(suffix, files, capfdbinary):
    from xentcli.display import SUFFIXES

    name = f"out.{suffix}"
    result = inside(capfdbinary, *ONE, "--save", name)
    assert (result.code, result.out) == (0, b"")
    assert result.err == f"xent: The gradient of row 0 of 1 -> {name}\n"
    saved = (files / name).read_text(encoding="utf-8")
    start = {"svg": "<svg", "html": "<!doctype html>", "latex": r"\documentclass"}
    assert saved.startswith(start.get(SUFFIXES[suffix], ""))
    if SUFFIXES[suffix] in ("markdown", "latex", "plain", "json"):
        assert inside(capfdbinary, *ONE, "-f", SUFFIXES[suffix]).text == saved


def test_a_file_and_json_on_standard_output_can_both_be_had(files, capfdbinary):
    result = inside(capfdbinary, *ONE, "-o", "a.svg", "--json", "-q")
    assert strict_json(result.out)["target"] == 0
    assert (files / "a.svg").read_text().startswith("<svg")


def test_the_format_of_a_file_may_be_given(files, capfdbinary):
    assert inside(capfdbinary, *ONE, "-o", "notes", "-f", "markdown", "-q").out == b""
    assert (files / "notes").read_text().startswith("## The gradient of row 0")
    result = inside(capfdbinary, *ONE, "-o", "-", "-f", "markdown", "-q")
    assert result.text == (files / "notes").read_text()


def test_a_dash_is_standard_output_also_on_a_terminal(files):
    result = at_terminal(*ONE, "-o", "-", columns=60)
    assert "\x1b" not in result.text
    assert "1. Logits and their maximum" in result.text


@pytest.mark.parametrize("columns", [40, 100])
def test_plain_text_is_as_wide_as_the_terminal(columns, files):
    lines = at_terminal(*ONE, "-f", "plain", columns=columns).text.split("\n")
    widest = max(map(len, lines))
    assert widest <= columns
    assert (widest > 80) == (columns > 80)


# The result comes first.


def test_the_result_comes_first_and_alone_if_asked_for(files, capfdbinary):
    whole = inside(capfdbinary, *ONE).text
    brief = inside(capfdbinary, *ONE, "--brief").text
    assert whole.startswith(brief)
    assert "1. " in whole
    assert "1. " not in brief.replace("1.0000", "")
    assert "   loss = 2.4076  (of this row, in nats)\n" in brief
    said = " ".join(brief.split())
    assert said.endswith(
        "The target, class 0, has probability 0.09003. A gradient descent step raises the logit "
        "of class 0 and lowers that of class 1 and class 2."
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--logits", "nan,1", "--target", "0"], "is nan, so no step can help: a logit is nan"),
        (["--logits=-inf,-inf", "--target", "0"], "no step can help: all logits are -inf."),
        (["--logits", "5", "--target", "0"], "changes nothing: there is only one class."),
        (["--logits", "1,2", "--target", "0", "--upstream", "0"], "a factor or weight is 0."),
        (["--logits", "900,0", "--target", "0"], "the probabilities are those of the target."),
        (["--logits", "1e6,9e5", "--target", "1", "--softcap", "1"], "the softcap is saturated."),
        (["--logits", "1,2", "--target=-100"], "The row is ignored: its loss and gradient are 0."),
        (
            ["--logits", "1,2", "--target", "0", "--upstream", "-1"],
            "raises the logit of class 1 and lowers that of class 0.",
        ),
    ],
)
def test_a_step_that_cannot_help_says_so(arguments, sentence, capfdbinary):
    result = inside(capfdbinary, "explain", *arguments, "--brief")
    assert result.code == 0, result.err
    assert sentence in " ".join(result.text.split())


def test_no_step_claims_to_help_where_the_gradient_is_zero_or_nan(capfdbinary):
    for logits in ("900,0", "nan,0"):
        text = inside(capfdbinary, "explain", "--logits", logits, "--target", "0").text
        assert "A gradient descent step raises" not in text


@pytest.mark.parametrize("rows", [2, 2_000_000 // 3])
def test_class_names_come_from_the_header(rows, files, capfdbinary):
    lines = "1,2,3\n" * rows
    (files / "h.csv").write_text(f'cat,"dog, big", bird\n{lines}')
    np.save("many.npy", np.zeros(rows, "i8"))
    command = "explain", "h.csv", "many.npy", "--brief"
    result = inside(capfdbinary, *command)
    assert "0 cat *" in result.text
    assert "1 dog, big" in result.text
    assert "class 2 (bird)" in " ".join(result.text.split())
    assert "0 x *" in inside(capfdbinary, *command, "--names", "x,y,z").text


def test_the_name_of_a_saved_file_is_escaped(files, capfdbinary):
    result = inside(capfdbinary, *ONE, "--save", "a\x1b[31m.svg")
    assert result.err.endswith("-> a\\x1b[31m.svg\n")


def test_no_clobber_keeps_an_existing_file(files, capfdbinary):
    (files / "a.svg").write_text("mine")
    assert_error(inside(capfdbinary, *ONE, "--save", "a.svg", "-n"), 4, "a.svg", "exists")
    assert (files / "a.svg").read_text() == "mine"
    assert inside(capfdbinary, *ONE, "--save", "a.svg").code == 0
    assert (files / "a.svg").read_text() != "mine"


@pytest.mark.parametrize("form", ["rich", "plain", "markdown", "latex", "json"])
def test_output_that_is_not_a_terminal_gets_the_same_bytes_everywhere(form, files):
    plain = captured(*ONE, "-f", form)
    assert plain.code == 0
    change = {"COLUMNS": "200", "FORCE_COLOR": "1", "TERM": "dumb", "LC_ALL": "C"}
    other = run(*ONE, "-f", form, env={**change, "PYTHONIOENCODING": "latin-1"})
    assert other.out == plain.out
    assert b"\x1b" not in plain.out


def test_output_that_is_not_a_terminal_gets_plain_text_by_default(files):
    assert captured(*ONE).out == captured(*ONE, "-f", "plain").out


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_terminal_gets_panels_of_its_width(columns, files):
    result = at_terminal(*ONE, "--names", "cat,dog,bird", columns=columns)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.text)
    assert result.code == 0
    assert_silent(result)
    assert max(map(len, text.splitlines())) == columns
    assert text.startswith("┏")
    golden = Path(__file__).parent / "golden" / f"cat-{columns}.rich.txt"
    lines = golden.read_text(encoding="utf-8").splitlines()
    assert [line.rstrip() for line in text.splitlines()] == lines


@pytest.mark.parametrize("change", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_shows_the_same(change, files):
    coloured = at_terminal(*ONE).text
    plain = at_terminal(*ONE, env=change).text
    assert "\x1b[38;5;" in coloured
    assert "\x1b[3" not in plain
    strip = re.compile(r"\x1b\[[0-9;]*m")
    assert strip.sub("", plain) == strip.sub("", coloured)


def test_an_ascii_terminal_gets_plain_text(files):
    result = process_at_terminal(*ONE, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert result.code == 0, result.err
    assert "╭" not in result.text
    assert "0.2447" in result.text


def test_colour_can_be_forced_through_a_pipe(files):
    assert "\x1b[" in captured(*ONE, "-f", "rich", "--color", "always").text


def test_json_and_format_json_are_the_same(capfdbinary):
    assert inside(capfdbinary, *ONE, "--json").out == inside(capfdbinary, *ONE, "-f", "json").out


def test_width_is_kept(files, capfdbinary):
    for form in ("rich", "plain"):
        text = inside(capfdbinary, *ONE, "-f", form, "--width", "50").text
        assert 40 < max(map(len, text.splitlines())) <= 50


def test_decimals_are_kept(capfdbinary):
    assert "0.24472847" in inside(capfdbinary, *ONE, "--decimals", "8").text
    text = inside(capfdbinary, *ONE, "--decimals", "2", "-f", "json").text
    assert json.loads(text)["p"][1] == pytest.approx(0.24472847105479764, rel=1e-15)


def test_the_environment_sets_options(files, capfdbinary, monkeypatch):
    monkeypatch.setenv("XENT_DECIMALS", "7")
    monkeypatch.setenv("XENT_NAMES", "cat,dog,bird")
    text = inside(capfdbinary, *ONE).text
    assert "0.2447285" in text
    assert "2 bird" in text
