"""Errors: the exit code, one line that says where and what, and nothing left behind."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    TARGETS,
    Result,
    assert_clean,
    assert_done,
    assert_error,
    assert_silent,
    assert_unchanged,
    bash,
    contents,
    described,
    from_npy,
    inside,
    npy,
    run,
    temporaries,
)
from helpers import assert_same_bits

from xentcli import DataError, cross_entropy
from xentcli.errors import visible


@pytest.fixture
def files(files):
    """The current folder, with l.npy, t.npy and an older g.npy in it."""
    (files / "g.npy").write_bytes(b"old")
    return files


class Complex:
    """Stands for arrays that NumPy saves with a pickle; the bytes are made by hand."""

    data = described(descr="'|O'", shape="(2,)", data=b"\x80\x04]N.")


BAD_TARGETS = {
    "B51-minus-1": (np.array([0, -1]), ["row 1", "-1", "0 to 2", "--ignore-index -1"]),
    "B51-int8": (np.array([0, -1], "i1"), ["row 1", "-1", "0 to 2"]),
    "B53-C": (np.array([0, 3]), ["row 1", "is 3", "0 to 2", "start at 0"]),
    "B53-C+1": (np.array([4, 0]), ["row 0", "is 4", "0 to 2"]),
    "B53-2-to-31": (np.array([0, 2**31]), ["row 1", "2147483648"]),
    "B53-2-to-63-less-1": (np.array([0, 2**63 - 1]), ["row 1", "9223372036854775807"]),
    "B53-minus-2-to-63": (np.array([0, -(2**63)]), ["row 1", "-9223372036854775808"]),
    "B54-2-to-63-and-1": (np.array([0, 2**63 + 1], "u8"), ["row 1", "9223372036854775809"]),
    "B54-2-to-64-less-1": (np.array([0, 2**64 - 1], "u8"), ["row 1", "18446744073709551615"]),
    "B54-2-to-64-less-100": (np.array([0, 2**64 - 100], "u8"), ["row 1", str(2**64 - 100)]),
    "B57-1.5": (np.array([0.0, 1.5]), ["row 1", "1.5", "whole number"]),
    "B57-nan": (np.array([0.0, np.nan]), ["row 1", "nan", "whole number"]),
    "B57-inf": (np.array([0.0, -np.inf]), ["row 1", "-inf", "whole number"]),
    "B57-1e300": (np.array([0.0, 1e300]), ["row 1"]),
    "B57-2-to-63": (np.array([0.0, 2.0**63]), ["row 1"]),
    "B58-bool": (np.array([False, True]), ["bool", "integers"]),
    "B59-complex": (np.array([0j, 1j]), ["c16"]),
    "B59-datetime": (np.array([0, 1], "M8[s]"), ["M8"]),
    "B59-string": (np.array(["0", "1"]), ["U1"]),
    "B59-object": (Complex, ["O"]),
    "B59-structured": (np.zeros(2, [("a", "i4")]), ["a.npy"]),
    "B60-one-less": (np.array([0]), ["(1,)", "(2, 3)", "(2,)"]),
    "B60-one-more": (np.array([0, 1, 2, 0]), ["(4,)", "(2, 3)", "(2,)"]),
    "B60-none": (np.empty(0, int), ["(0,)", "(2, 3)", "(2,)"]),
    "B61-two-columns": (np.array([[0, 1], [1, 0]]), ["(2, 2)", "(2, 3)"]),
    "no-axes": (np.array(0), ["()", "(2, 3)"]),
    "too-many-axes": (np.zeros((2, 1, 1), int), ["(2, 1, 1)", "(2, 3)"]),
}


def target_bytes(targets):
    """The bytes of a targets file."""
    return targets.data if targets is Complex else npy(targets)


@pytest.mark.parametrize(("targets", "words"), BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
def test_targets_that_name_no_class_are_one_error(targets, words, files, capfdbinary):
    (files / "a.npy").write_bytes(target_bytes(targets))
    before = contents(files)
    result = inside(capfdbinary, "grad", "l.npy", "a.npy", "-o", "g.npy", "--loss-out", "loss.txt")
    assert_error(result, 1, "a.npy", *words)
    assert_unchanged(files, before)


@pytest.mark.parametrize("name", ["B51-minus-1", "B54-2-to-64-less-1", "B58-bool", "B60-none"])
def test_bad_targets_in_a_pipe_are_one_error(name, files, capfdbinary):
    targets, words = BAD_TARGETS[name]
    before = contents(files)
    result = inside(capfdbinary, "grad", "l.npy", "-", "-o", "g.npy", stdin=npy(targets))
    assert_error(result, 1, "<stdin>", *(w for w in words if w != "a.npy"))
    assert_unchanged(files, before)


def test_bad_targets_are_counted_and_the_first_is_named(files, capfdbinary):
    targets = np.arange(512) % 3
    targets[[17, 100, 511]] = 10, -7, 3
    np.save("l.npy", np.zeros((512, 3)))
    np.save("t.npy", targets)
    result = inside(capfdbinary, "loss", "l.npy", "t.npy")
    assert_error(result, 1, "t.npy", "3 of 512 targets are outside 0 to 2; first: row 17 is 10")


def test_b52_another_ignore_index_makes_minus_100_an_error_with_a_hint(files, capfdbinary):
    np.save("t.npy", [0, -100])
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--ignore-index", "-1")
    assert_error(result, 1, "t.npy", "row 1", "-100", "hint: --ignore-index -100")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_b52_an_ignored_row_is_zero_whatever_it_holds(bad, files, capfdbinary):
    np.save("l.npy", [LOGITS[0], [bad, bad, 0.0]])
    np.save("t.npy", [0, -100])
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--loss-out", "loss.npy")
    assert_done(result)
    assert_same_bits(from_npy(result.out)[1], np.zeros(3))
    np.testing.assert_allclose(np.load("loss.npy"), np.log(2), rtol=1e-15)


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "i4", "u4", "i8", "u8", ">i8", ">u2", "f4", "f8"]
)
def test_b55_b56_every_dtype_of_whole_numbers_is_right(dtype, files, capfdbinary):
    np.save("t.npy", TARGETS.astype(dtype))
    result = inside(capfdbinary, "grad", "l.npy", "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize(
    "targets",
    [
        TARGETS[:, None],
        np.eye(3, dtype=int)[TARGETS],
        np.eye(3)[TARGETS],
        np.eye(3, dtype="f2")[:2],
        TARGETS[None, :],
    ],
    ids=["B61-a-column", "B61-one-hot-integers", "one-hot-floats", "one-hot-float16", "B61-a-row"],
)
def test_targets_have_several_right_shapes(targets, files, capfdbinary):
    np.save("t.npy", targets)
    result = inside(capfdbinary, "grad", "l.npy", "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_b63_ignore_index_may_be_a_class(files, capfdbinary):
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--ignore-index", "1")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), [GRADIENT[0] * 2, [0, 0, 0]], rtol=1e-15)


@pytest.mark.parametrize(
    ("options", "name", "array", "words"),
    [
        (["--weight"], "w.npy", np.ones(4), ["4", "3"]),
        (["--weight"], "w.npy", np.ones((3, 3)), ["(3, 3)", "(3,)"]),
        (["--weight"], "w.npy", np.array([1, np.nan, 1]), ["entry 1", "nan"]),
        (["--weight"], "w.npy", np.ones(3, bool), ["bool"]),
        (["--sample-weight"], "v.npy", np.ones(3), ["3", "2"]),
        (["--reduction", "none", "--upstream"], "u.npy", np.ones(3), ["3", "2"]),
        (["--upstream"], "u.npy", np.ones(2), ["(2,)", "mean"]),
        (["--upstream"], "u.npy", np.array([np.inf]), ["inf"]),
    ],
)
def test_arrays_beside_the_logits_have_to_fit(options, name, array, words, files, capfdbinary):
    np.save(name, array)
    before = contents(files)
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", *options, name, "-o", "g.npy")
    assert_error(result, 1, name, *words)
    assert_unchanged(files, before)


@pytest.mark.parametrize(
    "arguments",
    [
        ["grad", "missing.npy", "t.npy"],
        ["grad", "l.npy", "missing.npy"],
        ["grad", "l.npy", "t.npy", "--weight", "missing.npy"],
        ["grad", "l.npy", "t.npy", "--sample-weight", "missing.npy"],
        ["grad", "l.npy", "t.npy", "--upstream", "missing.npy"],
        ["loss", "missing.npy", "t.npy"],
        ["softmax", "missing.npy"],
        ["inspect", "missing.npy"],
        ["softmax", "missing.npy/l.npy"],
    ],
)
def test_a_missing_file_is_wrong_usage(arguments, files, capfdbinary):
    before = contents(files)
    result = inside(capfdbinary, *arguments, *(["-o", "g.npy"] * (arguments[0] == "grad")))
    assert_error(result, 2, "missing.npy", "no such file")
    assert_unchanged(files, before)


@pytest.mark.parametrize(
    "arguments",
    [["grad", "d", "t.npy"], ["grad", "l.npy", "d"], ["softmax", "d"], ["inspect", "d"]],
)
def test_a_folder_as_input_cannot_be_read(arguments, files, capfdbinary):
    (files / "d").mkdir()
    assert_error(inside(capfdbinary, *arguments), 4, "d: ", "directory")


def test_a_file_in_place_of_a_folder_cannot_be_opened(files, capfdbinary):
    assert_error(inside(capfdbinary, "softmax", "l.npy/x.npy"), 4, "l.npy/x.npy")


def test_b50_a_loop_of_symlinks_and_a_socket_cannot_be_read(files, capfdbinary):
    (files / "loop.npy").symlink_to("loop.npy")
    assert_error(inside(capfdbinary, "softmax", "loop.npy"), 4, "loop.npy")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.npy")
        assert_error(inside(capfdbinary, "softmax", "socket.npy"), 4, "socket.npy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_b50_a_file_without_permission_cannot_be_read(files, capfdbinary):
    (files / "l.npy").chmod(0)
    assert_error(inside(capfdbinary, "softmax", "l.npy"), 4, "l.npy", "ermission")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["nonsense"]),
        (["--nonsense"], ["--nonsense"]),
        (["grad"], ["LOGITS"]),
        (["grad", "l.npy"], ["TARGETS"]),
        (["grad", "l.npy", "t.npy", "more"], ["more"]),
        (["grad", "l.npy", "t.npy", "--nonsense"], ["--nonsense"]),
        (["grad", "l.npy", "t.npy", "--reduction", "median"], ["--reduction", "median", "mean"]),
        (["grad", "l.npy", "t.npy", "--label-smoothing", "1.5"], ["--label-smoothing", "1.5", "1"]),
        (["grad", "l.npy", "t.npy", "--label-smoothing", "x"], ["--label-smoothing", "x"]),
        (["grad", "l.npy", "t.npy", "--temperature", "0"], ["--temperature", "0"]),
        (["grad", "l.npy", "t.npy", "--temperature", "nan"], ["--temperature", "nan"]),
        (["grad", "l.npy", "t.npy", "--temperature", "inf"], ["--temperature", "inf"]),
        (["grad", "l.npy", "t.npy", "--softcap", "-1"], ["--softcap", "-1"]),
        (["grad", "l.npy", "t.npy", "--z-loss", "-1"], ["--z-loss", "-1"]),
        (["grad", "l.npy", "t.npy", "--normalizer", "0"], ["--normalizer", "0"]),
        (
            ["grad", "l.npy", "t.npy", "--normalizer", "2", "--reduction", "sum"],
            ["--normalizer", "sum"],
        ),
        (["grad", "l.npy", "t.npy", "--ignore-index", "1.5"], ["--ignore-index", "1.5"]),
        (["grad", "l.npy", "t.npy", "--class-axis", "2"], ["--class-axis", "2", "(2, 3)"]),
        (["grad", "l.npy", "t.npy", "--class-axis", "-3"], ["--class-axis", "-3", "(2, 3)"]),
        (["grad", "l.npy", "t.npy", "--threads", "0"], ["--threads", "0"]),
        (["grad", "l.npy", "t.npy", "-f", "png"], ["png", "npy"]),
        (["grad", "l.npy", "t.npy", "--dtype", "f128"], ["--dtype", "f128", "bf16"]),
        (["grad", "l.npy", "t.npy", "--key"], ["--key"]),
        (["softmax", "l.npy", "--reduction", "sum"], ["--reduction"]),
        (["inspect"], ["FILE"]),
        (["completion"], ["bash", "zsh", "fish"]),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(arguments, words, files, capfdbinary):
    before = contents(files)
    output = ["-o", "g.npy"] if arguments[:1] == ["grad"] and arguments[-1] != "--key" else []
    assert_error(inside(capfdbinary, *arguments, *output), 2, *words)
    assert_unchanged(files, before)


def test_the_missing_name_of_a_shell_is_asked_for_in_plain_words(capfdbinary):
    assert "\\n" not in inside(capfdbinary, "completion").err


def test_targets_that_fit_two_axes_ask_for_the_class_axis(files, capfdbinary):
    np.save("l.npy", np.zeros((2, 3, 3)))
    np.save("t.npy", np.zeros((2, 3), int))
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy")
    assert_error(result, 2, "--class-axis 1", "(2, 3, 3)")
    assert (files / "g.npy").read_bytes() == b"old"
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "--class-axis", "1"))


def test_json_is_written_and_not_read(files, capfdbinary):
    (files / "l.json").write_text("[[1, 2]]")
    assert_error(inside(capfdbinary, "softmax", "l.json"), 2, "l.json", "json")


@pytest.mark.parametrize(
    "command",
    ["grad - - -o g.npy", "inspect - -", "loss l.npy - --weight -", "grad - t.npy --upstream -"],
)
def test_b99_two_inputs_cannot_both_be_standard_input(command, files, capfdbinary):
    before = contents(files)
    result = inside(capfdbinary, *command.split(), stdin=npy(LOGITS))
    assert_error(result, 2, "'-'", "once")
    assert_unchanged(files, before)


def test_a_row_of_bad_targets_in_a_real_process_is_one_error(files):
    np.save("t.npy", [0, 3])
    before = contents(files)
    assert_error(run("grad", "l.npy", "t.npy", "-o", "g.npy"), 1, "t.npy", "row 1 is 3", "0 to 2")
    assert_unchanged(files, before)


def test_b99_a_closed_standard_input_is_wrong_usage(files):
    assert_error(bash("xent grad - t.npy <&-"), 2, "<stdin>", "closed")
    assert_error(bash("xent inspect - <&-"), 2, "<stdin>", "closed")


def test_b99_a_closed_standard_input_does_not_matter_where_it_is_not_read(files):
    result = bash("xent grad l.npy t.npy -o new.npy <&-")
    assert_done(result)
    np.testing.assert_allclose(np.load("new.npy"), GRADIENT, rtol=1e-15)


NAMES = {
    "dash": "-",
    "an option": "--help",
    "markup": "[red]x.npy",
    "line feed": "a\nb.npy",
    "escape": "\x1b[31mx.npy",
    "C1": "a\x9b31m.npy",
    "direction": "a\u202eypn.npy",
    "not UTF-8": os.fsdecode(b"\xff\xfe.npy"),
    "blank": " .npy",
    "formula": "=cmd.npy",
    "percent": "%s%n.npy",
    "unicode": "Größe.npy",
    "255 bytes": "x" * 251 + ".npy",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_b98_any_file_name_can_be_read_and_written(name, files, capfdbinary):
    path, output = Path("in", name), Path("out", name)
    for one in (path, output):
        one.parent.mkdir()
    path.write_bytes(npy(LOGITS))
    result = inside(capfdbinary, "grad", "-o", output, "-f", "npy", "--", path, "t.npy")
    assert_done(result)
    assert list(Path("out").iterdir()) == [output]
    np.testing.assert_allclose(from_npy(output.read_bytes()), GRADIENT, rtol=1e-15)
    assert visible(name) in result.err


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_b98_any_file_name_is_printed_safely_where_its_bytes_are_wrong(name, files, capfdbinary):
    path = Path("in", name)
    path.parent.mkdir()
    path.write_bytes(described(descr="'|O'"))
    assert_error(inside(capfdbinary, "softmax", "--input-format", "npy", "--", path), 1, "in/")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_b98_any_file_name_is_printed_safely_where_it_is_missing(name, files, capfdbinary):
    path = Path("in", name)
    assert_error(inside(capfdbinary, "softmax", "--", path), 2, "in/", "no such file")
    path.mkdir(parents=True)
    assert_error(inside(capfdbinary, "softmax", "--", path), 4, "in/", "directory")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("options", [[], ["--stats"], ["--key", "x"]], ids=["", "stats", "npz"])
def test_b98_any_file_name_is_inspected_safely(name, options, files, capfdbinary):
    path = Path("in", name)
    path.parent.mkdir()
    if "--key" in options:
        np.savez(path.with_name("a.npz"), x=LOGITS)
        path.with_name("a.npz").rename(path)
        options = [*options, "--input-format", "npz"]
    else:
        path.write_bytes(npy(LOGITS))
    result = inside(capfdbinary, "inspect", *options, "--", path)
    assert (result.code, result.err) == (0, "")
    assert result.text.count("\n") == 1
    assert_clean(result.text)
    assert visible(name) in result.text


@pytest.mark.parametrize("name", ["-", "--help", "\x1b[31m", "[/x]", "a\nb"])
def test_a_wrong_word_on_the_command_line_is_printed_safely(name, files, capfdbinary):
    for arguments in (["grad", "l.npy", "t.npy", "--reduction", name], [f"x{name}"]):
        assert_error(inside(capfdbinary, *arguments), 2)


def test_a_name_that_the_encoding_lacks_is_escaped_and_not_changed(files):
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    assert_error(run("softmax", "Größe.npy", env=env), 2, r"Gr\xf6\xdfe.npy: no such file")
    (files / "Größe.npy").write_bytes((files / "l.npy").read_bytes())
    assert run("inspect", "Größe.npy", env=env).out.startswith(rb"Gr\xf6\xdfe.npy: ")


def test_a_missing_file_whose_name_is_not_utf_8_is_printed_safely(files):
    assert_error(run("softmax", b"\xff\x1b.npy"), 2, "no such file", r"\x1b")


@pytest.mark.parametrize(
    "env",
    [
        {"TZ": "nonsense", "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "error"},
        {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"},
        {"NUMBA_NUM_THREADS": "abc", "NUMBA_THREADING_LAYER": "foo"},
        {"PYTHONUTF8": "0", "LC_ALL": "C", "COLUMNS": "0", "TERM": ""},
        {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_b100_the_environment_does_not_change_a_bit(env, files, capfdbinary):
    plain = inside(capfdbinary, "grad", "l.npy", "t.npy")
    other = run("grad", "l.npy", "t.npy", env=env)
    assert_done(other)
    assert other.out == plain.out


def test_b100_a_deleted_current_folder_does_no_harm(files):
    (files / "gone").mkdir()
    result = bash(f"cd gone; rmdir ../gone; xent grad {files}/l.npy {files}/t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_debug_shows_where_an_error_came_from(files, capfdbinary):
    result = inside(capfdbinary, "softmax", "missing.npy", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert "xent: error: missing.npy: no such file\n" in result.err


def test_quiet_does_not_hide_errors(files, capfdbinary):
    assert_error(inside(capfdbinary, "softmax", "missing.npy", "-q"), 2, "missing.npy")


def test_a_bug_is_one_line_that_says_how_to_report_it(files, capfdbinary, monkeypatch):
    from xentcli.files.npy import reader

    def broken(*arguments):
        raise RuntimeError("what nobody\n\x1b[31mexpected")

    monkeypatch.setattr(reader, "read_header", broken)
    before = contents(files)
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy")
    assert_error(
        result, 70, "bug in xent", r"RuntimeError: what nobody\n\x1b[31mexpected", "--debug"
    )
    assert_unchanged(files, before)
    debug = inside(capfdbinary, "grad", "l.npy", "t.npy", "--debug")
    assert debug.code == 70
    assert "Traceback" in debug.err


def test_not_enough_memory_is_no_bug(files, capfdbinary, monkeypatch):
    from xentcli.files.npy import reader

    def broken(*arguments):
        raise MemoryError

    monkeypatch.setattr(reader, "read_header", broken)
    before = contents(files)
    assert_error(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy"), 4, "memory")
    assert_unchanged(files, before)


GOOD_ERROR = "xent: error: l.npy: wrong\nhint: right\n"


@pytest.mark.parametrize(
    "result",
    [
        Result(0, b"", GOOD_ERROR),
        Result(1, b"x", GOOD_ERROR),
        Result(1, b"", ""),
        Result(1, b"", GOOD_ERROR.rstrip("\n")),
        Result(1, b"", "wrong\n"),
        Result(1, b"", "\n" + GOOD_ERROR),
        Result(1, b"", GOOD_ERROR + "\n"),
        Result(1, b"", GOOD_ERROR + "hint: another\n"),
        Result(1, b"", GOOD_ERROR + "xent: error: l.npy: another\n"),
        Result(1, b"", "xent: error: l.npy: \x1b[31m\n"),
        Result(1, b"", "xent: error: l.npy: a\x9bb\n"),
        Result(1, b"", "xent: error: l.npy: Traceback (most recent call last)\n"),
        Result(1, b"", "xent: error: t.npy: wrong\n"),
    ],
    ids=str,
)
def test_assert_error_fails_on_anything_else(result):
    assert_error(Result(1, b"", GOOD_ERROR), 1, "l.npy")
    with pytest.raises(AssertionError):
        assert_error(result, 1, "l.npy")


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (1, "xent: loss 1\n"), (0, ""), (0, "xent: a\nxent: b\n"), (0, "xent: note: a\n"),
        (0, "xent: loss 1"), (0, "loss 1\n"), (0, "xent: error: a\n"),
    ],
)  # fmt: skip
def test_assert_done_fails_on_anything_but_success_with_one_line(code, err):
    assert_done(Result(0, b"", "xent: loss 1\n"))
    with pytest.raises(AssertionError):
        assert_done(Result(code, b"", err))


def test_assert_silent_fails_on_a_line():
    with pytest.raises(AssertionError):
        assert_silent(Result(0, b"", "\n"))


def test_assert_unchanged_fails_on_a_changed_a_new_and_a_missing_file(tmp_path):
    (tmp_path / "a").write_text("old")
    before = contents(tmp_path)
    assert_unchanged(tmp_path, before)
    (tmp_path / "a").write_text("new")
    with pytest.raises(AssertionError, match="changed"):
        assert_unchanged(tmp_path, before)
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("")
    with pytest.raises(AssertionError, match="before"):
        assert_unchanged(tmp_path, before)
    (tmp_path / "b").unlink()
    (tmp_path / "a").unlink()
    with pytest.raises(AssertionError, match="before"):
        assert_unchanged(tmp_path, before)


def test_temporaries_finds_what_an_unfinished_output_leaves(files):
    from xentcli.files.sink import Sink

    sink = Sink("new.npy")
    assert temporaries(files)
    sink.discard()
    assert not temporaries(files)


def test_from_npy_fails_on_bytes_after_the_array():
    with pytest.raises(AssertionError, match="follow"):
        from_npy(npy(LOGITS) + b"x")


def test_run_is_this_interpreter():
    result = run("info")
    assert sys.executable in result.text


def test_errors_name_options_as_the_caller_writes_them(files, capfdbinary):
    """Python callers read keywords, users of the command line flags."""
    np.save("u.npy", np.ones(2))
    with pytest.raises(DataError, match=r"use reduction='none' for one upstream") as error:
        cross_entropy(LOGITS, TARGETS, upstream=np.ones(2))
    assert "--" not in str(error.value)
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--upstream", "u.npy")
    assert "hint: use --reduction none for one upstream" in result.err


def test_notes_name_options_as_the_caller_writes_them(files, capfdbinary):
    (note,) = cross_entropy(LOGITS, [-100, -100]).notes
    assert note.text == "no row is left, so the mean is nan (empty_mean)"
    np.save("t.npy", [-100, -100])
    assert "the mean is nan (--empty-mean)" in inside(capfdbinary, "loss", "l.npy", "t.npy").err
