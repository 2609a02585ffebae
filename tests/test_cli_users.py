"""What people try first: help, the manual page, wrong values from the environment, options that
change nothing, a preview of the losses."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from cli import (
    LOSSES,
    assert_error,
    assert_silent,
    at_terminal,
    captured,
    environment,
    inside,
)

from xentcli.cli import COMMANDS, summary

LOSS = "loss", "l.npy", "t.npy"


# Help and the manual page.


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_what_its_option_prints(name, capfdbinary):
    asked, option = inside(capfdbinary, "help", name), inside(capfdbinary, name, "--help")
    assert asked.code == 0
    assert asked.text == option.text
    assert asked.text.startswith(f"Usage: xent {name} ")


def test_help_alone_is_that_of_xent(capfdbinary):
    assert inside(capfdbinary, "help").text == inside(capfdbinary, "--help").text


def test_help_of_a_misspelt_command_suggests_the_right_one(capfdbinary):
    assert_error(inside(capfdbinary, "help", "gard"), 2, "'gard'", "Did you mean 'grad'?")


def test_the_manual_page_has_every_command_and_option(capfdbinary):
    page = inside(capfdbinary, "man").text.replace("\\-", "-")
    for name in COMMANDS:
        assert f'.SS "xent {name}"' in page
        for flag in set(re.findall(r"--[a-z][a-z-]+", inside(capfdbinary, name, "--help").text)):
            assert flag in page, f"{name} {flag}"
    assert ".SH EXIT STATUS" in page
    assert not [line for line in page.splitlines() if line.startswith("'")]


@pytest.mark.skipif(not shutil.which("man"), reason="there is no man")
def test_man_reads_the_manual_page_without_a_warning(files):
    (files / "xent.1").write_bytes(captured("man").out)
    command = ["man", "--warnings", "-l", "xent.1"]
    done = subprocess.run(
        command, env=environment(MANWIDTH="80"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "xent grad [OPTIONS] LOGITS [TARGETS]" in done.stdout
    assert "\\-" not in done.stdout


# Errors that say where a value comes from, and what was probably meant.


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("XENT_REDUCTION", "avg", "'avg' is not one of"),
        ("XENT_TEMPERATURE", "hot", "'hot' is not a valid float"),
        ("XENT_LABEL_SMOOTHING", "3", "--label-smoothing (set by XENT_LABEL_SMOOTHING): 3.0"),
        ("XENT_WEIGHT", "none.npy", "none.npy: no such file"),
    ],
)
def test_an_error_names_the_environment_variable(name, value, words, files, monkeypatch):
    monkeypatch.setenv(name, value)
    result = captured(*LOSS)
    assert_error(result, 2, words)
    assert name in result.err or name == "XENT_WEIGHT"
    monkeypatch.delenv(name)
    monkeypatch.setenv("XENT_REDUCTION", "mean")
    given = captured(*LOSS, "--reduction", "avg")
    assert_error(given, 2, "'avg' is not one of")
    assert "XENT_REDUCTION" not in given.err


def test_a_choice_that_is_nearly_right_is_suggested(files):
    assert_error(captured(*LOSS, "--reduction", "meen"), 2, "Did you mean 'mean'?")


def test_swapped_logits_and_targets_are_recognised(files):
    assert_error(captured("loss", "t.npy", "l.npy"), 1, "swapped")


@pytest.mark.parametrize("axis", [1, 2])
def test_the_hint_for_targets_does_not_list_the_shape_that_was_refused(axis, files):
    np.save("x.npy", np.zeros((4, 5, 6)))
    shape = (4, 5) if axis == 1 else (4, 6)
    np.save("y.npy", np.zeros(shape, "i8"))
    result = captured("grad", "x.npy", "y.npy", "--class-axis", str(axis))
    assert_error(result, 1, f"shape {shape} does not fit")
    assert str(shape) not in result.err.splitlines()[1]


def test_the_loss_in_json_need_not_go_to_standard_output_twice(files):
    result = captured("grad", "l.npy", "t.npy", "--json", "-o", "g.npy", "--loss-out", "-")
    assert_error(result, 2, "--json and --loss-out cannot both")
    assert "-o FILE" not in result.err


# Options that change nothing.


def test_options_that_do_not_change_a_loss_get_a_note(files):
    result = captured(*LOSS, "--upstream", "3", "--dtype", "f32")
    assert result.code == 0
    assert "note: --upstream: it changes the gradient only" in result.err
    assert "note: --dtype: the loss is float64; the logits stay float64" in result.err
    assert "note" not in captured(*LOSS).err


@pytest.mark.parametrize("name", ["g.npy", "g.npz"])
def test_decimals_for_a_binary_file_get_a_note(name, files):
    result = captured("grad", "l.npy", "t.npy", "--decimals", "2", "-o", name)
    assert result.code == 0
    assert "note: --decimals: applies to text and JSON" in result.err
    for text in ("g.csv", "g.json"):
        assert "note" not in captured("grad", "l.npy", "t.npy", "--decimals", "2", "-o", text).err


# The losses of rows on a terminal.


def test_losses_of_rows_get_a_preview_on_a_terminal(files):
    np.save("x.npy", np.zeros((500, 4)))
    np.save("y.npy", np.zeros(500, "i8"))
    for backend in ("numpy", "cpu"):
        command = "loss", "x.npy", "y.npy", "--reduction", "none", "--backend", backend
        text = at_terminal(*command, "--color", "never").text
        assert "loss (500,) float64" in text
        assert text.count("1.38629") == 10
        assert "10 of 500 rows, 1 of 1 column. -o FILE saves all, -o - prints all." in text
    whole = at_terminal(*command, "-o", "-", "-q").text
    assert whole.split() == ["1.3862943611198906"] * 500
    assert captured(*command, "-q").text.split() == ["1.3862943611198906"] * 500
    assert captured(*LOSS, "-q").text.split() == [repr(float(LOSSES.mean()))]


def test_a_few_losses_on_a_terminal(files):
    text = at_terminal(*LOSS, "--reduction", "none", "--decimals", "2", "--color", "never").text
    assert f"{LOSSES[0]:.2f}" in text
    assert "2 of 2 rows" in text


# Numbers that say nothing are left out.


@pytest.mark.parametrize(
    ("nbytes", "seconds", "said"),
    [(10**8, 2.0, True), (10**8, 0.9, False), (10**6, 2.0, False)],
)
def test_a_rate_needs_many_bytes_and_some_time(nbytes, seconds, said, monkeypatch):
    lines = []
    monkeypatch.setattr(summary, "inform", lines.append)
    work = summary.Work()
    work.nbytes, work.seconds = nbytes, seconds
    summary.summary(["done"], "numpy", work)
    assert ("GB/s" in lines[0]) == said


# The table of xent bench.


def test_bench_writes_files_as_other_commands_do(files, capfdbinary):
    case = "bench", "--shape", "8,4", "--against", "none", "--backend", "numpy", "--runs", "1"
    result = inside(capfdbinary, *case, "-o", "t.json", "-o", "t.md", "-q")
    assert result.code == 0, result.err
    assert "| xent |" in (files / "t.md").read_text()
    assert (files / "t.json").read_text().startswith(("[", "{"))
    for options in (["--json"], ["-o", "-", "-f", "json"]):
        assert json.loads(inside(capfdbinary, *case, *options, "-q").out)["cases"]
    assert_error(inside(capfdbinary, *case, "-o", "t.txt"), 2, "--output: t.txt: unknown suffix")
    assert "--export" not in inside(capfdbinary, "bench", "--help").text
    old = inside(capfdbinary, *case, "--export-csv", "t.csv", "-q")
    assert old.code == 0
    assert_silent(old)
    assert (files / "t.csv").exists()
