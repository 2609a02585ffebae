"""Standard input, output and error: pipes, terminals, and how a command dies."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from cli import (
    ESCAPE,
    GRADIENT,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    Result,
    assert_clean,
    assert_done,
    assert_error,
    assert_silent,
    assert_unchanged,
    at_terminal,
    bash,
    contents,
    from_npy,
    inside,
    npy,
    process_at_terminal,
    run,
    started,
    temporaries,
    wait_for,
)
from helpers import assert_same_bits

from xentcli.errors import visible


@pytest.fixture
def files(files):
    """The current folder, with l.npy, t.npy and the same in text."""
    (files / "l.csv").write_text(
        "".join(",".join(map(repr, row)) + "\n" for row in LOGITS.tolist())
    )
    (files / "t.csv").write_text("0\n1\n")
    return files


@pytest.fixture
def big(files):
    """Files whose results do not fit into a pipe's buffer: big.npy, targets big-t.npy."""
    np.save("big.npy", np.zeros((20_000, 10)))
    np.save("big-t.npy", np.zeros(20_000, int))
    return files


def test_a_chain_of_pipes(files):
    result = bash("cat l.npy | xent grad - t.npy -f npy | xent inspect -")
    assert result.text == "<stdin>: (2, 3) float64, npy 1.0, C order, little endian, 48 bytes\n"
    assert result.code == 0
    assert result.err.startswith("xent: loss ")
    assert result.err.count("\n") == 1


def test_a_long_chain_of_pipes(files):
    result = bash(
        "set -o pipefail; cat l.csv | xent softmax - --log -q | xent softmax - -q"
        " | xent grad - t.npy -q -f npy --reduction none | xent softmax - -q -f csv | wc -l"
    )
    assert (result.code, result.out.strip(), result.err) == (0, b"2", "")


@pytest.mark.parametrize("which", ["logits", "targets"])
@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_either_input_can_be_standard_input(which, kind, files, capfdbinary):
    data = (files / f"{which[0]}.{kind}").read_bytes()
    paths = ["-", "t.npy"] if which == "logits" else ["l.npy", "-"]
    result = inside(capfdbinary, "grad", *paths, "-f", "npy", stdin=data)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("option", ["--weight", "--sample-weight", "--upstream"])
def test_an_array_beside_the_logits_can_be_standard_input(option, files, capfdbinary):
    ones = b"1\n1\n1\n" if option == "--weight" else b"1\n1\n"
    loss = "loss", "l.npy", "t.npy", "--reduction", "none"
    result = inside(capfdbinary, *loss, option, "-", stdin=ones)
    assert result.code == 0, result.err
    assert ("note: --upstream: it changes the gradient only" in result.err) == (
        option == "--upstream"
    )
    np.testing.assert_allclose(list(map(float, result.text.split())), LOSSES, rtol=1e-15)


def test_a_stream_is_text_unless_its_first_bytes_say_otherwise(capfdbinary):
    text = inside(capfdbinary, "softmax", "-", stdin=b"0,0\n")
    assert (text.out, text.code) == (b"0.5,0.5\n", 0)
    binary = inside(capfdbinary, "softmax", "-", stdin=npy(np.zeros((1, 2))))
    assert_same_bits(from_npy(binary.out), np.array([[0.5, 0.5]]))


def test_the_format_of_a_stream_can_be_said(capfdbinary):
    softmax = "softmax", "-", "--input-format"
    assert inside(capfdbinary, *softmax, "tsv", stdin=b"0\t0\n").out == b"0.5\t0.5\n"
    assert_error(inside(capfdbinary, *softmax, "npy", stdin=b"0,0\n"), 1, "<stdin>")


def test_standard_input_is_not_touched_where_it_is_not_asked_for(files):
    result = bash("{ xent grad l.npy t.npy -o g.npy; cat; } < l.csv")
    assert result.out == (files / "l.csv").read_bytes()


def test_an_empty_stream_is_an_error(files, capfdbinary):
    assert_error(inside(capfdbinary, "grad", "-", "t.npy"), 1, "<stdin>", "empty")


@pytest.mark.parametrize(
    ("logits", "options", "start"),
    [
        ("l.npy", [], b"\x93NUMPY"),
        ("l.csv", [], b"-0.25,0.125,"),
        ("l.csv", ["-f", "npy"], b"\x93NUMPY"),
        ("l.npy", ["-f", "csv"], b"-0.25,0.125,"),
        ("l.npy", ["-f", "tsv"], b"-0.25\t0.125\t"),
        ("l.npy", ["-f", "npz"], b"PK\x03\x04"),
        ("l.npy", ["-f", "json"], b'{"shape": [2, 3], '),
        ("l.npy", ["-f", "csv", "--decimals", "1"], b"-0."),
    ],
)
def test_the_format_is_that_of_the_logits_unless_said_otherwise(
    logits, options, start, files, capfdbinary
):
    result = inside(capfdbinary, "grad", logits, "t.npy", *options)
    assert_done(result)
    assert result.out.startswith(start)


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [
        ("g.npy", [], b"\x93NUMPY"), ("g.npz", [], b"PK"), ("g.csv", [], b"-0.25,"),
        ("g.tsv", [], b"-0.25\t"), ("g.json", [], b"{"), ("g.NPY", [], b"\x93NUMPY"),
        ("g.csv", ["-f", "npy"], b"\x93NUMPY"), ("g", [], b"-0.25,"),
        ("g.dat", ["-f", "csv"], b"-0.25,"), ("g.txt", [], b"-0.25,"),
    ],
)  # fmt: skip
def test_the_suffix_of_the_output_says_its_format(name, options, start, files, capfdbinary):
    result = inside(capfdbinary, "grad", "l.csv", "t.npy", "-o", name, *options)
    assert_done(result)
    assert result.out == b""
    assert (files / name).read_bytes().startswith(start)


@pytest.mark.parametrize("format", ["npy", "npz", "csv", "tsv", "json"])
def test_standard_output_holds_the_same_bytes_as_a_file(format, files, capfdbinary):
    result = inside(capfdbinary, "softmax", "l.npy", "-f", format)
    assert_done(inside(capfdbinary, "softmax", "l.npy", "-f", format, "-o", "p"))
    written = (files / "p").read_bytes()
    assert result.out == written
    assert result.out == inside(capfdbinary, "softmax", "l.npy", "-f", format, "-o", "-").out


@pytest.mark.parametrize(
    "arguments",
    [["grad", "l.npy", "t.npy"], ["loss", "l.npy", "t.npy"], ["softmax", "l.npy"]],
    ids=lambda value: value[0],
)
def test_quiet_is_silent_and_changes_no_byte(arguments, files, capfdbinary):
    loud, quiet = run(*arguments), inside(capfdbinary, *arguments, "-q")
    assert_done(loud)
    assert_silent(quiet)
    assert quiet.out == loud.out


def test_quiet_hides_notes(files, capfdbinary):
    np.save("t.npy", np.array([[0.5, 0.1, 0.1], [1.0, 0.0, 0.0]]))
    assert inside(capfdbinary, "grad", "l.npy", "t.npy").err.count("\n") == 2
    assert_silent(inside(capfdbinary, "grad", "l.npy", "t.npy", "--quiet"))


def test_file_pipe_and_fifo_give_the_same_bytes(files):
    expected = run("grad", "l.npy", "t.npy").out
    assert bash("cat l.npy | xent grad - t.npy -q").out == expected
    assert bash("xent grad - t.npy -q < l.npy").out == expected
    assert bash("xent grad <(cat l.npy) <(cat t.npy) -q").out == expected
    assert bash("xent grad /dev/stdin t.npy -q < l.npy").out == expected


def test_a_slow_writer_is_waited_for(files):
    expected = run("grad", "l.npy", "t.npy").out
    slow = "for i in 0 1 2 3 4 5 6 7; do dd bs=22 count=1 skip=$i if=l.npy status=none; done"
    assert bash(f"({slow}) | xent grad - t.npy -q").out == expected


# Terminals


def test_a_terminal_gets_a_preview_and_no_bytes(files):
    result = at_terminal("grad", "l.npy", "t.npy")
    assert_done(result)
    assert b"NUMPY" not in result.out
    text = plain(result)
    for number in ("-0.25", "0.125", "-0.375", "0.25"):
        assert number in text
    assert "-o FILE" in text
    assert "-o -" in text
    assert "(2, 3)" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["grad", "l.npy", "t.npy"],
        ["softmax", "l.npy", "-o", "-"],
        ["softmax", "-"],
        ["inspect", "l.npy"],
    ],
    ids=" ".join,
)
def test_a_new_process_at_a_terminal_prints_the_same(arguments, files):
    result, process = at_terminal(*arguments), process_at_terminal(*arguments)
    assert (result.code, masked(result.out)) == (process.code, masked(process.out))
    assert masked(result.err.encode()) == masked(process.err.encode())


def masked(text):
    """Without figures that differ from run to run."""
    return re.sub(rb"\d+\.\d+ s\b", b"", text)


@pytest.mark.parametrize("options", [[], ["-f", "csv"]])
def test_dash_forces_the_bytes_on_a_terminal(options, files, capfdbinary):
    result = at_terminal("softmax", "l.npy", "-o", "-", *options)
    assert_done(result)
    assert result.out == inside(capfdbinary, "softmax", "l.npy", *options).out


def plain(result):
    """What a terminal shows, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", result.text)


WIDE = np.array([[1e-300, -1.23456789e-8, 123456.0, -0.0, 7.0], [1.0, 2.0, 3.0, 4.0, 5.0]])


PREVIEWS = {
    "small": LOGITS,
    "many classes": np.zeros((3, 1000)),
    "long numbers": WIDE,
    "many rows": np.full((200, 30), -1e-5),
    "three axes": np.zeros((2, 3, 4)),
    "one row": np.zeros(3),
}


@pytest.mark.parametrize(
    ("array", "columns"),
    [
        pytest.param(array, columns, id=f"{name}-{columns}")
        for name, array in PREVIEWS.items()
        for columns in ([80, 40] if name.startswith("many") else [40])
    ],
)
def test_no_number_of_a_preview_is_cut(array, columns, files, capfdbinary):
    np.save("a.npy", array)
    numbers = from_npy(inside(capfdbinary, "softmax", "a.npy", "--log").out)
    result = at_terminal("softmax", "a.npy", "--log", columns=columns)  # the kernel is kept by now
    assert_done(result)
    text = plain(result)
    assert "…" not in text
    assert_numbers_are_whole(text, numbers)
    assert max(map(len, text.splitlines())) <= columns


def test_a_terminal_of_twenty_columns_still_shows_a_number(files):
    np.save("l.npy", WIDE)
    text = plain(at_terminal("softmax", "l.npy", "--log", columns=20))
    assert "…" not in text
    assert re.search(r"^\s*1\s+-4\.45191$", text.replace(" \n", "\n"), re.MULTILINE), text


def assert_numbers_are_whole(text, array):
    """Every line of a preview's table holds the first numbers of its row."""
    lines = [line.split() for line in text.splitlines()]
    width = None
    for index in list(np.ndindex(array.shape[:-1]))[:10]:
        label = ",".join(map(str, index))
        numbers = [f"{value:.6g}" for value in array[index]]
        found = [
            words[1:] if label else words for words in lines if words[:1] == [label] or not label
        ]
        wanted = [words for words in found if words and words == numbers[: len(words)]]
        assert wanted, f"row {label} of {text!r}"
        width = width or len(wanted[0])
        assert any(len(words) == width for words in wanted), f"row {label} of {text!r}"


def test_assert_numbers_are_whole_fails_on_a_cut_a_wrong_and_a_missing_row():
    array = np.array([[0.5, 0.25], [1.0, 2.0]])
    assert_numbers_are_whole("0 0.5 0.25\n1 1 2\n", array)
    assert_numbers_are_whole("0 0.5\n1 1\n", array)
    for wrong in (
        "0 0.5 0.2…\n1 1 2\n",
        "0 0.5 0.25\n1 1 3\n",
        "0 0.5 0.25\n",
        "0 0.5 0.25\n1 1\n",
    ):
        with pytest.raises(AssertionError):
            assert_numbers_are_whole(wrong, array)


def test_a_preview_rounds_as_asked(files):
    text = plain(at_terminal("grad", "l.npy", "t.npy", "--decimals", "1"))
    assert re.search(r"^\s*1\s+0\.1\s+-0\.4\s+0\.2", text, re.MULTILINE), text


def test_a_preview_of_no_rows(files):
    np.save("l.npy", np.empty((0, 3)))
    result = at_terminal("softmax", "l.npy")
    assert_done(result)
    assert "0 of 0 rows" in plain(result)


def test_the_summary_of_a_preview_names_no_file(files):
    assert " -> " not in at_terminal("grad", "l.npy", "t.npy").err


def test_the_loss_is_the_same_on_a_terminal(files):
    result = at_terminal("loss", "l.npy", "t.npy")
    assert_done(result)
    assert result.out == run("loss", "l.npy", "t.npy").out


@pytest.mark.parametrize("columns", [40])
@pytest.mark.parametrize("command", [["inspect", "l.npy", "--stats"], ["info"]], ids=lambda c: c[0])
def test_facts_on_a_terminal_are_not_cut(command, columns, files):
    result = at_terminal(*command, columns=columns)
    assert result.code == 0
    assert_silent(result)
    text = plain(result)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns
    squeezed = "".join(text.split())
    facts = ["float64", "(2,3)", "0.693147181"] if command[0] == "inspect" else [np.__version__]
    for fact in facts:
        assert fact in squeezed


@pytest.mark.parametrize("name", ["\x1b[31mx.npy", "a\nb.npy", "[red]x.npy", "a\x9bb.npy"])
def test_names_are_safe_on_a_terminal(name, files):
    np.save(name, LOGITS)
    shown = at_terminal("inspect", name, "--color", "always")
    assert visible(name) in plain(shown)
    assert_clean(plain(shown))


def test_json_is_the_same_on_a_terminal(files):
    result = at_terminal("inspect", "l.npy", "--json")
    assert result.out == run("inspect", "l.npy", "--json").out


GRAD = ["grad", "l.npy", "t.npy"]


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ([*GRAD, "--color", "never"], {}),
        (["inspect", "l.npy", "--color", "never"], {}),
        (["info", "--color", "never"], {}),
        (GRAD, {"TERM": "dumb"}),
        (GRAD, {"XENT_COLOR": "never"}),
        (["softmax", "missing.npy"], {"XENT_COLOR": "never"}),
    ],
)
def test_where_colour_is_not_wanted_there_are_no_escape_codes(command, env, files):
    result = at_terminal(*command, env=env)
    assert ESCAPE not in result.text
    assert ESCAPE not in result.err


COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m")


@pytest.mark.parametrize("command", [GRAD, ["info"]], ids=lambda command: command[0])
def test_no_color_is_honoured(command, files):
    result = at_terminal(*command, env={"NO_COLOR": "1"})
    assert result.code == 0
    assert not COLOUR.search(result.text + result.err)


def test_colour_can_be_forced_into_a_pipe_and_is_never_there_by_itself(files):
    forced = run("softmax", "missing.npy", "--color", "always")
    assert COLOUR.search(forced.err)
    assert re.sub(r"\x1b\[[0-9;]*m", "", forced.err) == run("softmax", "missing.npy").err


def test_colour_never_gets_into_the_bytes(files):
    result = run("grad", "l.npy", "t.npy", "-f", "csv", "--color", "always")
    assert ESCAPE.encode() not in result.out


@pytest.mark.parametrize(
    "arguments",
    [["grad", "-", "t.npy"], ["loss", "l.npy", "-"], ["inspect", "-"]],
    ids=lambda value: value[0],
)
def test_b99_dash_at_a_terminal_is_wrong_usage_at_once(arguments, files):
    assert_error(at_terminal(*arguments), 2, "<stdin>", "terminal")


def test_piped_input_and_a_terminal_for_output(files):
    result = at_terminal("grad", "-", "t.npy", piped_stdin=npy(LOGITS))
    assert_done(result)
    assert "-0.375" in plain(result)


def test_an_error_at_a_terminal_leaves_no_preview(files):
    np.save("t.npy", [0, 3])
    result = at_terminal("grad", "l.npy", "t.npy")
    assert_error(result, 1, "t.npy", "row 1 is 3")


# What a command does when its output goes nowhere, or when it is told to die


@pytest.mark.parametrize(
    "command",
    [
        "grad big.npy big-t.npy", "softmax big.npy -f csv",
        "loss big.npy big-t.npy --reduction none",
    ],
)  # fmt: skip
def test_a_closed_pipe_is_silent(command, big):
    result = bash(f'xent {command} | head -c 10 | wc -c; echo "${{PIPESTATUS[0]}}"')
    assert (result.out.split(), result.err) == ([b"10", b"141"], "")


@pytest.mark.parametrize(
    "command",
    [
        "grad l.npy t.npy", "loss l.npy t.npy", "inspect l.npy", "info --json", "--help",
        "grad l.npy t.npy -o g.npy --json",
    ],
)  # fmt: skip
def test_a_pipe_that_nobody_reads_ends_every_command_by_sigpipe(command, files):
    reader, writer = os.pipe()
    os.close(reader)
    with started(*command.split(), stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGPIPE
    assert err == b""


def test_a_closed_standard_output_is_an_error_where_there_is_output(files):
    for command in ("grad l.npy t.npy", "loss l.npy t.npy", "softmax l.npy"):
        assert_error(bash(f"xent {command} >&-"), 4, "<stdout>", "closed")


@pytest.mark.parametrize(
    "command",
    [
        "inspect l.npy", "info", "completion bash", "--help", "--version", "grad --help",
        "explain l.npy t.npy", "examples",
    ],
)  # fmt: skip
def test_a_closed_standard_output_is_an_error_for_small_outputs_too(command, files):
    assert_error(bash(f"xent {command} >&-"), 4, "<stdout>: standard output is closed")


def test_a_closed_standard_output_does_not_matter_where_nothing_goes_there(files):
    result = bash("xent grad l.npy t.npy -o g.npy >&-")
    assert_done(result)
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT, rtol=1e-15)


def test_a_closed_standard_error_does_no_harm(files):
    result = bash("xent grad l.npy t.npy 2>&-")
    assert result.code == 0
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)
    assert bash("xent softmax missing.npy 2>&-") == Result(2, b"", "")


def test_everything_closed_still_writes_the_file(files):
    result = bash("xent grad l.npy t.npy -o g.npy <&- >&- 2>&-")
    assert (result.code, result.err) == (0, "")
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    "command",
    [
        "grad l.npy t.npy", "loss l.npy t.npy", "softmax big.npy -f csv", "inspect l.npy",
        "info --json", "--help", "grad l.npy t.npy -o g.npy --json -q",
    ],
)  # fmt: skip
def test_a_full_disk_under_standard_output_is_an_error(command, big):
    assert_error(bash(f"xent {command} > /dev/full"), 4, "No space left on device")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_kills_and_leaves_nothing(number, files):
    (files / "g.npy").write_bytes(b"old")
    before = contents(files)
    with started("grad", "-", "t.npy", "-o", "g.npy", "--loss-out", "new.txt") as process:
        wait_for(lambda: len(temporaries(files)) == 2)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == -number
    assert out == b""
    assert err.strip() == b""
    assert_unchanged(files, before)


def test_a_signal_kills_in_the_middle_of_a_write(big):
    before = contents(big)
    with started("grad", "big.npy", "big-t.npy", "--loss-out", "new.txt") as process:
        wait_for(lambda: process.stdout.read(1))
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGTERM
    assert_unchanged(big, before)


def test_a_shell_sees_which_signal_it_was(files):
    script = """
    mkfifo fifo
    "$PYTHON" -m xentcli grad - t.npy -o g.npy < fifo &
    exec 3> fifo
    until ls -a | grep -q '^[.]xent-'; do sleep 0.02; done
    kill -TERM $!; wait $!; echo $?
    """
    assert bash(script).out == b"143\n"


def test_probabilities_in_a_pipe_are_probabilities(files):
    out = bash("xent softmax l.npy -q | xent inspect - --stats").text
    assert f"min {PROBABILITIES.min():.9g}, max {PROBABILITIES.max():.9g}" in out


END = """
import atexit, sys, threading
def late():
    ended.wait(30)
    print("thread", file=sys.stderr)
ended = threading.Event()
atexit.register(print, "atexit", file=sys.stderr)
if {with_thread}:
    threading.Thread(target=late).start()
    threading.Timer(0.1, ended.set).start()
sys.argv = ["xent", "loss", {path!r}, "t.npy", "-q"]
from xentcli.__main__ import main
main()
"""


@pytest.mark.parametrize("with_thread", [False, True])
@pytest.mark.parametrize(("path", "code"), [("l.npy", 0), ("nowhere.npy", 2)])
def test_the_end_is_quick_but_leaves_nothing_out(files, path, code, with_thread):
    """What is registered for the end runs, threads are waited for, and all output is there."""
    done = subprocess.run(
        [sys.executable, "-c", END.format(path=path, with_thread=with_thread)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stderr.splitlines()
    assert done.returncode == code
    assert done.stdout == "" if code else float(done.stdout) == pytest.approx(np.log(8) / 2)
    assert said[-1] == "atexit"
    assert ("thread" in said) is with_thread


BLAS = """
import os
from xentcli.cli.command import _one_blas_thread
with _one_blas_thread():
    inside = os.environ.get("OPENBLAS_NUM_THREADS")
print(inside, os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "1 None"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 2")]
)
def test_numpy_starts_no_threads_and_other_processes_do_not_inherit_that(given, expected):
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= given
    done = subprocess.run(
        [sys.executable, "-c", BLAS], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected
