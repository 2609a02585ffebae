"""Bugs that were found, so that they stay gone: each test is one of them."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import mpmath
import numpy as np
import pytest
from backends import up_to
from cli import (
    assert_done,
    assert_error,
    assert_unchanged,
    at_terminal,
    bash,
    contents,
    from_npy,
    heed_signals,
    inside,
    run,
)
from helpers import assert_same_bits, assert_ulps, exactly

from xentcli import DataError, OptionError, cross_entropy
from xentcli.arrays.sums import RunningSum
from xentcli.backends.cache import folder
from xentcli.backends.machine import describe
from xentcli.files.text import table as text_table

UNSIGNED = ["u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("kind", UNSIGNED)
@pytest.mark.parametrize("classes", [4, up_to(300, 40)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_rows_of_unsigned_targets(backend, kind, classes, reduction, rng):
    x = rng.normal(size=(3, classes))
    options = {"ignore_index": 255, "reduction": reduction, "backend": backend}
    r = cross_entropy(x, np.array([1, 255, 3], dtype=kind), **options)
    expected = cross_entropy(x, np.array([1, 255, 3]), **options)
    assert r.ignored == 1
    assert_same_bits(r.grad, expected.grad)
    assert_same_bits(r.loss, expected.loss)


@pytest.mark.parametrize("heavy", [1e3, 1e16, 1e30])
def test_one_weight_that_dwarfs_the_others_under_smoothing(backend, heavy):
    options = {"weight": [heavy, 1.0, 1.0], "label_smoothing": 0.1, "reduction": "sum"}
    r = cross_entropy([[50.0, 0.0, 1.0]], [0], backend=backend, **options)
    _, grad = exactly([[50.0, 0.0, 1.0]], [0], **options)
    assert_ulps(r.grad, grad, 8, "f8")


def test_a_gap_far_beyond_the_exponential_is_zero(backend):
    r = cross_entropy([[3.0, 3.602880130000001e16]], [1], backend=backend)
    assert_same_bits(r.grad, np.zeros((1, 2)))


def test_a_temperature_that_makes_logits_infinite_gives_nan(backend):
    r = cross_entropy([[3.0, 2.9]], [0], temperature=1e-310, backend=backend)
    assert np.isnan(r.loss)
    assert np.isnan(r.grad).all()


def test_weights_of_both_signs_that_cancel_leave_no_zeros_behind(backend):
    r = cross_entropy(np.eye(2), [0, 1], weight=[1.0, -1.0], backend=backend)
    assert np.isnan(r.loss)
    assert np.isnan(r.grad).all()


def test_arrays_beside_the_logits_may_share_memory_with_out(backend, rng):
    x = rng.random((3, 3))
    expected = cross_entropy(x, [0, 1, 2], weight=x[0].copy(), backend=backend).grad
    assert_same_bits(
        cross_entropy(x, [0, 1, 2], weight=x[0], out=x, backend=backend).grad, expected
    )


def test_whole_numbers_in_half_precision_are_class_indices():
    r = cross_entropy(np.eye(3), np.array([0, 1, 2], dtype="f2"))
    assert r.loss == cross_entropy(np.eye(3), [0, 1, 2]).loss


def test_a_sum_that_overflows_is_not_finite_under_strict(files, capfdbinary):
    np.save("b.npy", np.array([[1e308, 0.0]] * 2))
    command = ["loss", "b.npy", "t1.npy", "--reduction", "sum"]
    np.save("t1.npy", [1, 1])
    assert_error(inside(capfdbinary, *command, "--strict"), 1, "b.npy", "overflows")


@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": [1.0, 0.0]},
        {"upstream": 1e308, "normalizer": 1e-10},
        {"upstream": 1e300, "out": np.empty((2, 2), ">f4")},
    ],
    ids=["weight", "upstream", "out"],
)
def test_no_warning_of_numpy_comes_through(backend, options):
    cross_entropy([[1.0, 0.0], [0.0, -np.inf]], [1, 1], backend=backend, **options)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([[1, 2], [3]], [0, 0]), DataError),
        (([["a", "b"]], [0]), DataError),
        (([[1, 2]], [[0], [0, 1]]), DataError),
    ],
)
def test_lists_that_are_no_arrays_are_our_errors(arguments, error):
    with pytest.raises(error):
        cross_entropy(*arguments)


@pytest.mark.parametrize(
    "options", [{"z_loss": "0.1"}, {"temperature": "2"}, {"threads": 1.5}, {"threads": "2"}]
)
def test_options_of_another_type_are_our_errors(options):
    with pytest.raises(OptionError):
        cross_entropy([[1.0, 2.0]], [0], backend="cpu", **options)


def damaged(path, rng):
    np.savez_compressed(path, a=np.arange(4000.0).reshape(1000, 4))
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), rng.integers(1, 6)):
        data[place] = rng.integers(256)
    path.write_bytes(data)


def test_a_damaged_archive_is_one_error(files, rng, capfdbinary):
    np.save("t.npy", np.zeros(1000, int))
    for _ in range(150):
        damaged(files / "a.npz", rng)
        result = inside(capfdbinary, "loss", "a.npz", "t.npy", "-q")
        assert result.code in (0, 1, 2), result.err
        if result.code:
            assert_error(result, result.code, "a.npz")


def test_a_big_archive_can_be_written(monkeypatch, files, capfdbinary):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.npz"))


@pytest.mark.parametrize(
    "variable",
    [
        "NUMBA_NUM_THREADS=0",
        "NUMBA_NUM_THREADS=-1",
    ],
)
def test_impossible_settings_of_numba_are_one_line(files, variable):
    assert_error(bash(f"{variable} xent loss l.npy t.npy --backend cpu"), 2, "--backend", "numba")


def test_numbas_reason_of_several_lines_becomes_one(monkeypatch):
    def refuse():
        raise ValueError("No threading layer.\nHINT:\n  install one")

    monkeypatch.setattr("numba.get_num_threads", refuse)
    monkeypatch.setattr("xentcli.backends.cpu.kept.find", lambda kernel, notify: None)
    with pytest.raises(OptionError, match=r"start: No threading layer\. HINT: install one"):
        cross_entropy([[1.0, 2.0]], [0], backend="cpu")


def test_settings_of_numba_that_are_no_number_change_nothing(files):
    result = bash("NUMBA_NUM_THREADS=abc xent loss l.npy t.npy --backend cpu -q")
    assert (result.code, result.err) == (0, "")


def test_a_stderr_that_is_full_changes_no_result(files):
    result = bash("xent loss l.npy t.npy 2>/dev/full")
    assert result.code == 0
    assert float(result.out) == pytest.approx(LOSS)


LOSS = float(mpmath.log(8) / 2)


def test_no_home_folder_is_no_error(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    monkeypatch.delenv("XENT_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert describe()["cache"].startswith("none")
    with pytest.raises(RuntimeError):
        folder()


def test_a_file_may_be_called_like_an_argument(files, capfdbinary):
    assert_error(inside(capfdbinary, "loss", "l.npy", "logits"), 2, "xent: error: logits: no such")
    (files / "temperature").write_text("x\n")
    assert_error(inside(capfdbinary, "loss", "temperature", "t.npy"), 1, "error: temperature: line")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--upstream", "nan"], ["--upstream", "finite"]),
        (["--upstream", "1_0"], ["1_0", "no such file"]),
        (["--key", "a"], ["l.npy", "--key"]),
        (["--json", "-o", "g.npy", "--loss-out", "-"], ["--json", "--loss-out"]),
        (["-o", "new/"], ["new/", "folder"]),
    ],
    ids=str,
)
def test_wrong_usage_says_what(files, arguments, words, capfdbinary):
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", *arguments)
    assert_error(result, 4 if "new/" in words else 2, *words)


def test_a_full_output_is_named_and_no_other(files):
    np.save("l.npy", np.zeros((300_000, 2)))
    np.save("t.npy", np.zeros(300_000, int))
    result = run(
        "grad", "l.npy", "t.npy", "--reduction", "none", "-o", "g.npy", "--loss-out", "/dev/full"
    )
    assert_error(result, 4, "/dev/full", "No space left")


def test_a_column_of_text_for_logits_with_a_last_axis_of_one(files, capfdbinary):
    np.save("x.npy", np.zeros((2, 4, 1)))
    (files / "t.csv").write_text("1\n2\n")
    assert_done(inside(capfdbinary, "loss", "x.npy", "t.csv"))


def test_softmax_notes_and_counts_what_is_not_finite(files, capfdbinary):
    np.save("n.npy", [[np.nan, 1.0], [1.0, 2.0]])
    result = inside(capfdbinary, "softmax", "n.npy", "-o", "p.npy", "--json")
    assert '"nonfinite": 2' in result.text
    assert "note: n.npy: the result of 1 of 2 rows is not finite" in result.err


def test_one_infinity_in_text_is_no_reason_to_read_it_slowly(files, capfdbinary):
    (files / "l.csv").write_text("1,-inf\n2,nan\n")
    assert inside(capfdbinary, "softmax", "l.csv").code == 0
    (files / "l.csv").write_text("1,-inf\n2,1e999\n")
    assert_error(inside(capfdbinary, "softmax", "l.csv"), 1, "line 2, column 2", "out of the range")


def test_words_are_no_numbers_with_another_delimiter(files, capfdbinary):
    (files / "l.csv").write_text("# a title\n1,2\n")
    assert "-d" not in inside(capfdbinary, "softmax", "l.csv").err
    (files / "l.csv").write_text("1;2\n3;4\n")
    assert "--delimiter ';'" in inside(capfdbinary, "softmax", "l.csv").err


def test_a_target_of_many_digits_is_printed_short(files, capfdbinary):
    np.save("t.npy", [0.0, 1e300])
    assert_error(inside(capfdbinary, "loss", "l.npy", "t.npy"), 1, "row 1 is 1e+300")


def test_files_are_completed_in_the_shell(files):
    line = 'COMP_WORDS="xent grad l" COMP_CWORD=2 _XENT_COMPLETE=bash_complete xent'
    assert b"file" in bash(line).out


def test_an_ignored_hangup_stays_ignored(files):
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from xentcli.signals import watch_signals; watch_signals(); "
        "os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert done.stdout == b"alive\n"


def test_a_signal_during_compilation_is_obeyed_at_once(files, tmp_path):
    command = [sys.executable, "-m", "xentcli", "grad", "l.npy", "t.npy", "-o", "g.npy"]
    environment = {**os.environ, "XENT_CACHE_DIR": str(tmp_path / "empty")}
    process = subprocess.Popen(
        [*command, "--backend", "cpu"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    assert "compiling" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT
    assert rest == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["l.npy", "t.npy"]


def test_signals_wait_while_files_are_put_in_place(files):
    code = """
import os, signal
from xentcli import signals
signals.watch_signals()
open("left.tmp", "w").close()
signals.temporary_files.add(("left.tmp", None))
with signals.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    print("held", flush=True)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert done.stdout == b"held\n"
    assert done.returncode == -signal.SIGTERM
    assert not (files / "left.tmp").exists()


FORK = """
import os, sys, threading
import numpy as np
from xentcli import OptionError, cross_entropy
from xentcli.backends.cpu import kept
if os.environ["NUMBA_THREADING_LAYER"]:
    kept.find = lambda kernel, notify: None  # take Numba's threads
x, y = np.random.default_rng(0).normal(size=(50, 9)), np.arange(50) % 9
try:
    first = cross_entropy(x, y, backend="cpu").grad
except OptionError:
    sys.exit(77)
pid = os.fork()
if pid == 0:
    same = cross_entropy(x, y, backend="cpu").grad.tobytes() == first.tobytes()
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(
    "layer", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("omp", "workqueue"))]
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_computes_too(layer):
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, timeout=120)
    if done.returncode == 77:
        pytest.skip(f"the library of the threading layer {layer} is not here")
    assert done.returncode == 0


def test_several_threads_may_compute_at_once(rng):
    x, y = rng.normal(size=(200, 30)), rng.integers(0, 30, 200)
    expected = cross_entropy(x, y, backend="cpu").grad
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(cross_entropy(x, y, backend="cpu").grad))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for grad in found:
        assert_same_bits(grad, expected)


def test_a_sum_near_the_end_of_the_range_does_not_depend_on_its_blocks():
    """One block of rows beyond 2¹⁰¹² had its neighbours summed in another way."""
    rng = np.random.default_rng(2)
    values = rng.random(5 * 1024) * 1e3
    values[1024] = -1e307
    values[1025] = 1e307
    whole, parts = RunningSum(), RunningSum()
    whole.add(values)
    for start in range(0, len(values), 700):
        parts.add(values[start : start + 700])
    assert whole.value() == parts.value() == math.fsum(values)


SIGNALLING = np.array([0x7F800001, 0], "u4").view("f4")  # the first is a NaN that NumPy warns of


def test_a_signalling_nan_in_the_targets_is_one_error_and_no_warning(files, capfdbinary):
    np.save("t.npy", SIGNALLING)
    assert_error(inside(capfdbinary, "loss", "l.npy", "t.npy"), 1, "t.npy", "row 0 is nan")


def test_a_signalling_nan_in_a_weight_is_one_error_and_no_warning(files, capfdbinary):
    np.save("v.npy", SIGNALLING)
    given = ["l.npy", "t.npy", "--sample-weight", "v.npy"]
    assert_error(inside(capfdbinary, "loss", *given), 1, "v.npy", "entry 0 is nan")


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_a_signalling_nan_in_the_logits_is_no_warning(dtype, backend, files, capfdbinary):
    np.save("l.npy", SIGNALLING[None, ::-1].repeat(2, 0))
    given = ["--dtype", dtype, "--backend", backend, "-q", "-f", "csv"]
    result = inside(capfdbinary, "softmax", "l.npy", *given)
    assert (result.code, result.out, result.err) == (0, b"nan,nan\nnan,nan\n", "")


def test_an_archive_whose_directory_points_before_its_beginning_is_one_error(files, capfdbinary):
    np.savez("l.npz", x=np.eye(3))
    data = Path("l.npz").read_bytes()
    Path("l.npz").write_bytes(data[:4] + data[8:])
    words = ["l.npz: member 'x' cannot be read", "outside of itself"]
    assert_error(inside(capfdbinary, "softmax", "l.npz"), 1, *words)
    assert_error(inside(capfdbinary, "inspect", "l.npz"), 1, *words)
    stdin = Path("l.npz").read_bytes()
    assert_error(inside(capfdbinary, "softmax", "-", stdin=stdin), 1, "<stdin>: member 'x'")


def test_a_stream_without_an_end_is_no_archive(files):
    result = run("softmax", "/dev/zero", "--input-format", "npz", memory=2_000_000_000)
    assert_error(result, 1, "/dev/zero: not an .npz file: it starts with")


@pytest.mark.parametrize(
    "command",
    [
        "mkfifo f; exec 9<>f; xent grad f f",
        "mkfifo f; exec 9<>f; xent loss l.npy t.npy --weight f --sample-weight ./f",
        "cat l.npy | xent grad - /dev/stdin",
        "cat l.npy | xent inspect /dev/stdin -",
    ],
)
def test_a_pipe_named_twice_is_an_error_and_not_waited_for(command, files):
    assert_error(bash(command), 2, "is a pipe, which can be read only once")


def test_two_pipes_may_be_named(files):
    result = bash("xent grad <(cat l.npy) <(cat t.npy) -q -f npy")
    assert (result.code, result.err) == (0, "")
    assert_same_bits(from_npy(result.out), cross_entropy(np.load("l.npy"), [0, 1]).grad)


@pytest.mark.parametrize(("shape", "words"), [((2, 3, 0), "6 of 6 rows"), ((3, 0), "3 of 3 rows")])
def test_a_preview_of_rows_without_an_inner_axis(shape, words, files):
    np.save("l.npy", np.zeros(shape))
    result = at_terminal("softmax", "l.npy", "--class-axis", str(len(shape) - 2))
    assert result.code == 0, result.err
    assert f"{words}, 0 of 0 columns." in result.text


@pytest.mark.parametrize(
    "arguments",
    [
        ["grad", "l.npy", "t.npy", "-o", ""],
        ["softmax", "l.npy", "-o", ""],
        ["loss", "l.npy", "t.npy", "-o", ""],
        ["grad", "l.npy", "t.npy", "-o", "g.npy", "--loss-out", ""],
    ],
    ids=" ".join,
)
def test_the_empty_name_of_an_output_is_no_name_for_standard_output(arguments, files, capfdbinary):
    before = contents(files)
    assert_error(inside(capfdbinary, *arguments), 2, "an output's name is empty")
    assert_unchanged(files, before)


@pytest.mark.parametrize("format", ["npz", "npy"])
def test_an_output_that_was_begun_prints_nothing_when_its_input_ends_early(format, files):
    """An archive that nobody has closed tells so at the end of the process."""
    array = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (4000, 1000)}
    with Path("h").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, array)
        file.truncate(file.tell() + 3_500_000 * 8)
    begun = "until find . -name '.xent-*' -size +0 | grep -q .; do sleep 0.02; done"
    result = bash(f"{{ cat h; {begun}; }} | xent softmax - -f {format} -o g")
    assert_error(result, 1, "<stdin>", "4000000 missing")
    assert sorted(path.name for path in files.iterdir()) == ["h", "l.npy", "t.npy"]


@pytest.fixture
def short(monkeypatch):
    """Only very few numbers of a table are held."""
    monkeypatch.setattr(text_table, "AHEAD", 2)


@pytest.mark.parametrize("classes", [4, 5])
def test_a_line_of_many_targets_in_a_pipe(classes, short, files, rng, capfdbinary):
    x = rng.normal(size=(5, classes))
    np.save("l.npy", x)
    result = inside(capfdbinary, "grad", "l.npy", "-", "-q", stdin=b"0,3,1,2,0\n")
    assert (result.code, result.err) == (0, "")
    assert_same_bits(from_npy(result.out), cross_entropy(x, [0, 3, 1, 2, 0]).grad)


def test_a_column_of_many_targets_in_a_pipe_for_classes_on_the_first_axis(
    short, files, rng, capfdbinary
):
    x = rng.normal(size=(4, 5))
    np.save("l.npy", x)
    given = ["grad", "l.npy", "-", "--class-axis", "0", "-q"]
    result = inside(capfdbinary, *given, stdin=b"0\n3\n1\n2\n0\n")
    assert (result.code, result.err) == (0, "")
    wanted = cross_entropy(x, [0, 3, 1, 2, 0], class_axis=0).grad
    assert_same_bits(from_npy(result.out), wanted)


def test_a_long_table_in_a_pipe_with_its_classes_on_the_first_axis(short, files, rng, capfdbinary):
    x = np.round(rng.normal(size=(4, 3)), 3)
    np.save("t.npy", [0, 3, 1])
    stdin = "\n".join(",".join(map(repr, row)) for row in x.tolist()).encode()
    given = ["grad", "-", "t.npy", "--class-axis", "-2", "-q", "-f", "npy"]
    result = inside(capfdbinary, *given, stdin=stdin)
    assert (result.code, result.err) == (0, "")
    assert_same_bits(from_npy(result.out), cross_entropy(x, [0, 3, 1], class_axis=0).grad)


def test_kernels_that_may_not_be_compiled_say_so(files):
    result = bash("NUMBA_DISABLE_JIT=1 xent loss l.npy t.npy --backend cpu")
    assert_error(result, 2, "--backend", "NUMBA_DISABLE_JIT", "--backend numpy")


def test_more_classes_than_float32_can_count_take_the_kernel_in_float64(rng, monkeypatch):
    """3·10⁸ equal logits had a loss of 19.408: a sum of ones in float32 ends at 2²⁴."""
    from xentcli.backends.cpu import backend

    x = rng.standard_normal((3, 200)).astype("f4")
    kernels = []
    run = backend.CpuBackend.run
    monkeypatch.setattr(
        backend.CpuBackend,
        "run",
        lambda self, kernel, *rest: kernels.append(kernel.function) or run(self, kernel, *rest),
    )
    few = cross_entropy(x, [1, 2, 3], backend="cpu", grad=False)
    monkeypatch.setattr(backend, "FAST_MAX_CLASSES", 199)
    many = cross_entropy(x, [1, 2, 3], backend="cpu", grad=False)
    assert kernels == ["fast", "general"]
    np.testing.assert_allclose(few.loss, many.loss, rtol=1e-9)
