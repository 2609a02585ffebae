"""What each command computes and prints, against numbers that are known without it."""

import os
import re
import subprocess

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    XENT,
    assert_done,
    assert_error,
    assert_silent,
    bash,
    described,
    from_npy,
    header,
    inside,
    npy,
    run,
    strict_json,
)
from helpers import assert_same_bits

from xentcli.cli import COMMANDS


def test_grad_writes_the_gradient(files):
    result = run("grad", "l.npy", "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_grad_says_loss_rows_shape_dtype_backend_seconds_and_destination(files, capfdbinary):
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy")
    assert_done(result)
    assert result.out == b""
    assert re.fullmatch(
        r"xent: loss 1\.03972077 \(mean over 2 rows\); gradient \(2, 3\) float64 -> g\.npy; "
        r"numpy, \d+\.\d+ s\n",
        result.err,
    ), result.err


@pytest.mark.parametrize("command", ["grad", "loss"])
def test_ignored_rows_are_counted_in_the_summary(command, files, capfdbinary):
    np.save("t.npy", [0, -100])
    result = inside(capfdbinary, command, "l.npy", "t.npy")
    assert_done(result)
    assert "0.693147181 (mean over 1 row, 1 ignored)" in result.err


def test_the_loss_out_is_the_loss(files, capfdbinary):
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npy", "--loss-out", "l.txt"))
    assert float((files / "l.txt").read_text()) == pytest.approx(LOSSES.mean(), rel=1e-15)
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT, rtol=1e-15)


def test_the_loss_out_has_one_loss_per_row(files, capfdbinary):
    options = "--reduction", "none", "--loss-out", "losses.npy", "-o", "g.npy"
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", *options))
    np.testing.assert_allclose(np.load("losses.npy"), LOSSES, rtol=1e-15)
    np.testing.assert_allclose(np.load("g.npy"), GRADIENT * 2, rtol=1e-15)


def test_the_loss_can_go_to_standard_output_and_the_gradient_to_a_file(files, capfdbinary):
    options = "-o", "g.npy", "--loss-out", "-"
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", *options)
    assert_done(result)
    assert float(result.text) == pytest.approx(LOSSES.mean(), rel=1e-15)


def test_loss_prints_one_number(files):
    result = run("loss", "l.npy", "t.npy")
    assert_done(result)
    assert result.text.count("\n") == 1
    assert float(result.text) == pytest.approx(LOSSES.mean(), rel=1e-15)


def test_loss_prints_one_number_per_row(files, capfdbinary):
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--reduction", "none")
    assert_done(result)
    np.testing.assert_allclose([float(x) for x in result.text.split("\n")[:-1]], LOSSES, rtol=1e-15)


def test_loss_follows_format_suffix_and_decimals(files, capfdbinary):
    loss = "loss", "l.npy", "t.npy", "--reduction", "none"
    np.testing.assert_allclose(from_npy(inside(capfdbinary, *loss, "-f", "npy").out), LOSSES)
    assert_done(inside(capfdbinary, *loss, "-o", "losses.npy"))
    np.testing.assert_allclose(np.load("losses.npy"), LOSSES)
    assert inside(capfdbinary, *loss, "--decimals", 3).text == "0.693\n1.386\n"


def test_softmax_writes_probabilities_and_their_logarithms(files, capfdbinary):
    plain = inside(capfdbinary, "softmax", "l.npy")
    logs = inside(capfdbinary, "softmax", "l.npy", "--log")
    assert_done(plain)
    assert_done(logs)
    np.testing.assert_allclose(from_npy(plain.out), PROBABILITIES, rtol=1e-15)
    np.testing.assert_allclose(from_npy(logs.out), np.log(PROBABILITIES), rtol=1e-15)


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        (["--reduction", "sum"], LOSSES.sum()),
        (["--reduction", "mean"], LOSSES.mean()),
        (["--ignore-index", "1"], LOSSES[0]),
        (["--normalizer", "8"], LOSSES.sum() / 8),
        (["--weight", "w.csv"], (2 * LOSSES[0] + LOSSES[1]) / 3),
        (["--sample-weight", "v.csv"], (3 * LOSSES[0] + LOSSES[1]) / 4),
        (["--temperature", "1e300"], np.log(3)),
        (["--targets", "index"], LOSSES.mean()),
        (["--z-loss", "1"], LOSSES.mean() + np.log(4) ** 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_the_options_reach_the_loss(options, loss, files, capfdbinary):
    (files / "w.csv").write_text("2,1,1\n")
    (files / "v.csv").write_text("3\n1\n")
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", *options)
    assert_done(result)
    assert float(result.text) == pytest.approx(loss, rel=1e-14)


@pytest.mark.parametrize("upstream", ["2", "u.npy"])
def test_upstream_is_a_number_or_a_file(upstream, files, capfdbinary):
    np.save("u.npy", [2.0, 2.0])
    reduction = "mean" if upstream == "2" else "none"
    options = "--upstream", upstream, "--reduction", reduction
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", *options)
    scale = 2 if reduction == "mean" else 4
    np.testing.assert_allclose(from_npy(result.out), GRADIENT * scale, rtol=1e-15)


@pytest.mark.parametrize("empty", ["nan", "zero", "error"])
def test_b64_the_mean_over_no_rows_is_as_asked(empty, files, capfdbinary):
    np.save("t.npy", [-100, -100])
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--empty-mean", empty, "-o", "g.npy")
    if empty == "error":
        assert_error(result, 1)
        assert not (files / "g.npy").exists()
    else:
        assert result.code == 0
        assert {"nan": "loss nan", "zero": "loss 0 "}[empty] in result.err
        assert_same_bits(np.load("g.npy"), np.zeros((2, 3)))


def test_strict_makes_results_that_are_not_finite_an_error(files, capfdbinary):
    np.save("l.npy", [[0.0, np.nan, 0.0], [0.0, 0.0, 0.0]])
    options = "-o", "g.npy"
    assert inside(capfdbinary, "grad", "l.npy", "t.npy", *options).code == 0
    old = (files / "g.npy").read_bytes()
    assert_error(inside(capfdbinary, "grad", "l.npy", "t.npy", *options, "--strict"), 1, "l.npy")
    assert_error(inside(capfdbinary, "softmax", "l.npy", *options, "--strict"), 1, "l.npy")
    assert_error(inside(capfdbinary, "loss", "l.npy", "t.npy", "--strict"), 1, "l.npy")
    assert (files / "g.npy").read_bytes() == old


def test_what_is_not_finite_gets_a_note(files, capfdbinary):
    np.save("l.npy", [[0.0, np.nan, 0.0], [0.0, 0.0, 0.0]])
    result = inside(capfdbinary, "grad", "l.npy", "t.npy")
    note, summary = result.err.splitlines()
    assert note.startswith("xent: note: l.npy: ")
    assert "row 0" in note
    assert summary.startswith("xent: loss nan")


def test_the_compiled_backend_gives_the_gradient(files, capfdbinary):
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--backend", "cpu", "-t", "2")
    assert result.code == 0
    assert "; cpu, " in result.err
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_there_is_no_cuda_device_here_or_it_works(files, capfdbinary):
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--backend", "cuda")
    if result.code:
        assert_error(result, 3, "--backend")
    else:
        np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-14)


def test_inspect_says_what_is_in_each_file(files, capfdbinary):
    np.save("f.npy", np.asfortranarray(LOGITS.astype(">f4")))
    (files / "c.csv").write_text("1,2\n3,4\n")
    result = inside(capfdbinary, "inspect", "l.npy", "t.npy", "f.npy", "c.csv")
    assert result.code == 0
    assert_silent(result)
    assert result.text.splitlines() == [
        "l.npy: (2, 3) float64, npy 1.0, C order, little endian, 48 bytes",
        "t.npy: (2,) int64, npy 1.0, C order, little endian, 16 bytes",
        "f.npy: (2, 3) float32, npy 1.0, Fortran order, big endian, 24 bytes",
        "c.csv: (2, 2) float64, csv",
    ]


def test_inspect_stats_reads_the_numbers(files, capfdbinary):
    np.save("a.npy", [[1.0, -2.0, 4.0], [np.nan, np.inf, -np.inf]])
    text = inside(capfdbinary, "inspect", "a.npy", "--stats").text
    assert text.endswith("min -2, max 4, mean 1, nan 1, inf 2\n")


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.full(2, np.nan), np.zeros((2, 2), "V2"), np.zeros(2, bool)],
    ids=["empty", "nan", "V2", "bool"],
)
def test_inspect_stats_of_arrays_without_numbers(array, files, capfdbinary):
    np.save("a.npy", array)
    result = inside(capfdbinary, "inspect", "a.npy", "--stats", "--json")
    assert result.code == 0
    assert_silent(result)
    assert strict_json(result.out)["arrays"][0]["shape"] == list(array.shape)


def test_inspect_json_is_one_object(files, capfdbinary):
    result = inside(capfdbinary, "inspect", "l.npy", "t.npy", "--json", "--stats")
    assert_silent(result)
    logits, targets = strict_json(result.out)["arrays"]
    assert logits == {
        "name": "l.npy", "format": "npy", "version": "1.0", "shape": [2, 3], "dtype": "float64",
        "order": "C", "byte_order": "little", "nbytes": 48, "min": 0.0, "max": np.log(2.0),
        "mean": pytest.approx(np.log(2.0) / 3), "nan": 0, "inf": 0,
    }  # fmt: skip
    assert (targets["dtype"], targets["min"], targets["max"]) == ("int64", 0, 1)


def test_inspect_json_of_infinite_numbers_is_strict(files, capfdbinary):
    np.save("a.npy", np.array([1e308, 1e308, 1e308, np.inf]))
    result = inside(capfdbinary, "inspect", "a.npy", "--json", "--stats")
    assert result.code == 0, result.err
    assert strict_json(result.out)["arrays"][0]["max"] == 1e308


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_inspect_shows_the_version(version, files, capfdbinary):
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }"
    (files / "a.npy").write_bytes(header(text, LOGITS.tobytes(), version=version))
    assert f"npy {version[0]}.0," in inside(capfdbinary, "inspect", "a.npy").text


def test_inspect_reads_standard_input(files):
    result = run("inspect", "-", stdin=npy(LOGITS))
    assert result.text == ("<stdin>: (2, 3) float64, npy 1.0, C order, little endian, 48 bytes\n")
    assert_silent(result)


def test_inspect_of_a_huge_file_reads_only_its_header(files):
    start = described(shape="(1000000, 1000)")
    with (files / "big.npy").open("wb") as stream:
        stream.write(start)
        stream.truncate(len(start) + 8_000_000_000)
    result = run("inspect", "big.npy", memory=1_500_000_000)
    assert result.text.startswith("big.npy: (1000000, 1000) float64"), result.err
    assert result.text.endswith("8000000000 bytes\n")


def test_info_names_versions_machine_and_cache(capfdbinary):
    from xentcli import __version__

    result = inside(capfdbinary, "info")
    facts = dict(line.split("\t") for line in result.text.splitlines())
    assert result.code == 0
    assert_silent(result)
    assert facts["xent"] == __version__
    assert facts["numpy"] == np.__version__
    assert int(facts["threads"]) >= 1
    assert facts["cache"] == os.environ["XENT_CACHE_DIR"] or facts["cache"]


def test_info_json_has_the_same_facts(capfdbinary):
    lines = inside(capfdbinary, "info").text.splitlines()
    value = strict_json(inside(capfdbinary, "info", "--json").out)
    assert value == dict(line.split("\t") for line in lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_for_xent(shell):
    result = run("completion", shell)
    assert result.code == 0
    assert_silent(result)
    assert "_XENT_COMPLETE" in result.text
    assert "xent" in result.text


def test_bash_completes_with_the_script(tmp_path):
    command = tmp_path / "xent"
    command.write_text(f'#!/bin/sh\nexec "{XENT[0]}" -m xentcli "$@"\n')
    command.chmod(0o755)
    script = f"""
    PATH={tmp_path}:$PATH; unset -f xent
    eval "$(xent completion bash)"
    COMP_WORDS=(xent so) COMP_CWORD=1
    _xent_completion xent so xent
    echo "${{COMPREPLY[@]}}"
    """
    result = bash(script)
    assert (result.out, result.err) == (b"softmax\n", "")


def test_completion_of_an_unknown_shell_is_a_usage_error(capfdbinary):
    assert_error(inside(capfdbinary, "completion", "tcsh"), 2, "'tcsh'", "bash")


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_every_command_has_help_with_examples(command, flag, capfdbinary):
    result = inside(capfdbinary, *command, flag)
    assert result.code == 0
    assert_silent(result)
    name = "xent " + command[0] if command else "xent "
    lines = [line.strip() for line in result.text.split("Options:")[0].splitlines()]
    assert sum(line.startswith(name) or f"| {name}" in line for line in lines) >= 2
    assert all(len(line) <= 100 for line in result.text.splitlines())


def test_help_names_every_command(capfdbinary):
    text = inside(capfdbinary, "--help").text
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s", text, re.MULTILINE)


def test_no_arguments_give_the_help_and_exit_code_2(capfdbinary):
    result = inside(capfdbinary)
    assert result.code == 2
    assert "Usage: xent" in (result.text + result.err)


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(flag):
    from xentcli import __version__

    result = run(flag)
    assert (result.code, result.text, result.err) == (0, f"xent {__version__}\n", "")


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "expected"),
    [
        ("XENT_REDUCTION", "sum", ["loss", "l.npy", "t.npy"], "(sum over 2 rows)"),
        ("XENT_IGNORE_INDEX", "1", ["loss", "l.npy", "t.npy"], "1 ignored"),
        ("XENT_DTYPE", "f32", ["grad", "l.npy", "t.npy"], "(2, 3) float32"),
        ("XENT_OUTPUT", "out.npy", ["grad", "l.npy", "t.npy"], "-> out.npy"),
        ("XENT_LOSS_OUT", "loss.txt", ["grad", "l.npy", "t.npy"], ""),
        ("XENT_BACKEND", "numpy", ["softmax", "l.npy"], "; numpy, "),
        ("XENT_TARGETS", "index", ["grad", "l.npy", "t.npy"], "2 rows"),
    ],
)
def test_an_option_can_be_an_environment_variable(
    variable, value, arguments, expected, files, capfdbinary, monkeypatch
):
    monkeypatch.setenv(variable, value)
    result = inside(capfdbinary, *arguments)
    assert_done(result)
    assert expected in result.err


def test_quiet_can_be_an_environment_variable(files, capfdbinary, monkeypatch):
    monkeypatch.setenv("XENT_QUIET", "1")
    assert_silent(inside(capfdbinary, "loss", "l.npy", "t.npy"))


def test_the_command_line_goes_before_the_environment(files, capfdbinary, monkeypatch):
    monkeypatch.setenv("XENT_REDUCTION", "sum")
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--reduction", "mean")
    assert "(mean over" in result.err


def test_a_wrong_environment_variable_is_a_usage_error(files, capfdbinary, monkeypatch):
    monkeypatch.setenv("XENT_REDUCTION", "median")
    assert_error(inside(capfdbinary, "loss", "l.npy", "t.npy"), 2, "median", "--reduction")


def options_of(command):
    """Every option of a command but help."""
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help"]


def test_every_option_has_the_environment_variable_of_its_name():
    from xentcli.cli import cli

    for name in COMMANDS:
        for option in options_of(cli.commands[name]):
            longest = max(option.opts, key=len).removeprefix("--")
            variable = "XENT_" + longest.replace("-", "_").upper()
            variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar
            assert variables[0] == variable, f"{name} {longest}"


def test_every_option_has_a_help_text():
    from xentcli.cli import cli

    for name in COMMANDS:
        for option in options_of(cli.commands[name]):
            assert option.help, f"{name} {option.opts}"


def test_the_help_does_not_start_numba_or_numpy():
    code = (
        "import sys\nfrom xentcli.cli import main\n"
        "try:\n    main(['grad', '--help'])\n"
        "finally:\n    assert not {'numba', 'numpy', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([XENT[0], "-c", code], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_small_job_on_npy_files_loads_neither_numba_nor_the_reader_of_text(files):
    code = (
        "import sys\nfrom xentcli.cli import main\n"
        "try:\n    main(['grad', 'l.npy', 't.npy', '-o', 'g.npy'])\n"
        "finally:\n    assert not {'numba', 'xentcli.files.text.reader'} & set(sys.modules)"
    )
    done = subprocess.run([XENT[0], "-c", code], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_installed_command_is_the_same_program(files):
    from pathlib import Path

    script = Path(XENT[0]).parent / "xent"
    if not script.exists():
        pytest.skip("not installed")
    done = subprocess.run(
        [script, "grad", "l.npy", "t.npy", "-q"], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    np.testing.assert_allclose(from_npy(done.stdout), GRADIENT, rtol=1e-15)
