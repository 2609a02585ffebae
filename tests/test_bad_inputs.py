"""The list of bad inputs, B1 to B107: where each is tested, and those that need a real process.

rows                          module
B1-B49, without B4            test_files_npy.py (B18, B19, B44 in little memory), this one (B48)
B4                            test_files_npy.py, test_files_npz_json.py (bombs), test_regressions.py
B50                           test_cli_errors.py, this one (devices)
B51-B63, without B62          test_cli_errors.py, test_files_text.py
B62                           test_stream.py, this one (thirty million rows)
B64                           this one, test_edges.py (the library)
B65                           this one, test_stream.py (logits)
B66-B97, without the next     test_files_text.py, test_files_text_reader.py (in pieces)
B91, B92                      test_files_text_reader.py, this one (pipes without an end)
B96                           test_files_text.py, test_cli_errors.py, this one (outputs)
B98-B100                      test_cli_errors.py, this one (the cpu backend), test_regressions.py,
                              test_escaping.py
B103                          test_files_npz_json.py
B104                          test_nonblocking.py
B106, B107                    test_interpretations.py
any bytes                     property/test_fuzz_*.py
"""

import fcntl
import os
import re
import sys
import termios
import threading
import time
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    assert_clean,
    assert_done,
    assert_error,
    assert_unchanged,
    bash,
    contents,
    from_npy,
    inside,
    npy,
    run,
    started,
    wait_for,
)
from helpers import assert_same_bits

from xentcli import cross_entropy

LITTLE = 2_000_000_000  # bytes of addresses


def named():
    """The numbers of all rows that the tests name, as B12 in an id or b12 in a function's name."""
    texts = [path.read_text() for path in Path(__file__).parent.rglob("test_*.py")]
    texts = [text.replace(__doc__, "") for text in texts]
    return {int(n) for text in texts for n in re.findall(r"(?<![A-Za-z0-9])[Bb](\d+)\b", text)} | {
        int(n) for text in texts for n in re.findall(r"_b(\d+)(?=_)", text)
    }


def test_every_bad_input_of_the_list_is_named_by_a_test():
    assert sorted(set(range(1, 101)) - named()) == []


def sparse_npy(path, dtype, shape):
    """An .npy file of zeros that takes no room on the disk; a file to write into."""
    with Path(path).open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + prod(shape) * np.dtype(dtype).itemsize)


def test_b62_one_bad_target_after_thirty_million_good_ones(files):
    rows = 30_000_000
    sparse_npy("l.npy", "<f2", (rows, 2))
    sparse_npy("t.npy", "|i1", (rows,))
    with Path("t.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\2")
    Path("g.npy").write_bytes(b"old")
    names = sorted(path.name for path in files.iterdir())
    given = ["grad", "l.npy", "t.npy", "-o", "g.npy", "--loss-out", "loss.txt"]
    result = run(*given, memory=LITTLE)
    assert_error(result, 1, "t.npy", f"1 of {rows} targets is outside 0 to 1", f"row {rows - 1}")
    assert sorted(path.name for path in files.iterdir()) == names
    assert Path("g.npy").read_bytes() == b"old"


def test_b48_more_logits_than_32_bits_count_are_announced_right(files, capfdbinary):
    sparse_npy("l.npy", "<f4", (2**31 + 1, 3))
    result = inside(capfdbinary, "inspect", "l.npy")
    assert (result.code, result.err) == (0, "")
    assert f"({2**31 + 1}, 3) float32" in result.text
    assert f"{(2**31 + 1) * 12} bytes" in result.text


def test_b48_more_rows_than_the_targets_are_one_error_before_anything_is_read(files):
    sparse_npy("l.npy", "<f4", (2**31 + 1, 3))
    result = run("grad", "l.npy", "t.npy", "-o", "g.npy", memory=LITTLE)
    assert_error(result, 1, "t.npy", "(2,)", str(2**31 + 1))


@pytest.mark.parametrize("order", ["C", "F"])
def test_b48_read_only_files_at_odd_offsets_are_read(order, files, capfdbinary):
    data = npy(np.asarray(np.load("l.npy"), order=order))
    start = len(data) - 48
    body = data[10:start].rstrip() + b"\n"
    length = len(body) | 1
    header = body[:-1].ljust(length - 1) + b"\n"
    Path("l.npy").write_bytes(data[:8] + length.to_bytes(2, "little") + header + data[start:])
    Path("l.npy").chmod(0o444)
    assert (Path("l.npy").stat().st_size - 48) % 2
    result = inside(capfdbinary, "grad", "l.npy", "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize("format", ["npy", "npz", "csv", None])
def test_b50_a_device_without_an_end_is_one_error_in_little_memory(device, format, files):
    said = ["--input-format", format] if format else []
    result = run("softmax", device, *said, memory=LITTLE)
    assert_error(result, 1, f"{device}: ")
    said = ["--target-format", format] if format else []
    Path("g.npy").write_bytes(b"old")
    before = contents(files)
    result = run("grad", "l.npy", device, *said, "-o", "g.npy", memory=LITTLE)
    assert_error(result, 1, f"{device}: ")
    assert_unchanged(files, before)


@pytest.mark.parametrize("command", ["inspect {0}", "grad l.npy t.npy --sample-weight {0}"])
def test_b50_a_device_is_refused_wherever_it_stands(command, files):
    for device in ("/dev/zero", "/dev/urandom"):
        assert_error(run(*command.format(device).split(), memory=LITTLE), 1, f"{device}: ")


def test_b50_what_cannot_be_read_is_said_where_it_is_read(files, capfdbinary):
    """The first page of a process has no memory, whoever asks."""
    assert_error(inside(capfdbinary, "softmax", "/proc/self/mem"), 4, "mem: reading failed")


def test_b64_all_rows_ignored(files, capfdbinary):
    np.save("t.npy", [-100, -100])
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--loss-out", "loss.npy")
    assert result.code == 0
    assert "note: t.npy: no row is left, so the mean is nan (--empty-mean)" in result.err
    assert np.isnan(np.load("loss.npy"))
    assert_same_bits(from_npy(result.out), np.zeros((2, 3)))
    zero = inside(capfdbinary, "loss", "l.npy", "t.npy", "--empty-mean", "zero")
    assert (zero.code, zero.out) == (0, b"0.0\n")
    total = inside(capfdbinary, "loss", "l.npy", "t.npy", "--reduction", "sum")
    assert (total.code, total.out) == (0, b"0.0\n")


def test_b64_the_mean_over_no_rows_may_be_an_error(files, capfdbinary):
    np.save("t.npy", [-100, -100])
    Path("g.npy").write_bytes(b"old")
    before = contents(files)
    given = ["l.npy", "t.npy", "--empty-mean", "error", "-o", "g.npy"]
    assert_error(inside(capfdbinary, "grad", *given), 1, "t.npy", "no row is left")
    assert_unchanged(files, before)


def places(pid, name):
    """Where a process stands in each of its open files of that name."""
    found = []
    with suppress(OSError):  # it has closed one meanwhile
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.readlink().name == name:
                info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
                found.append(int(re.search(r"pos:\s*(\d+)", info)[1]))
    return found


def unread(fifo):
    """How many bytes in a FIFO nobody has read yet."""
    count = fcntl.ioctl(fifo, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def changed_behind(change, targets, read):
    """A process that reads logits from a FIFO while its targets change; its code and stderr.

    They change as soon as so many of their bytes are read; where `read` is None, as soon as logits
    are read, which come after all targets.
    """
    x = np.random.default_rng(0).standard_normal((40_000, 8))
    np.save("x.npy", x)
    np.save("t.npy", targets(x))
    data = Path("x.npy").read_bytes()
    os.mkfifo("fifo")
    with started("grad", "fifo", "t.npy", "-o", "g.npy", "-q") as process:
        with Path("fifo").open("wb") as fifo:
            fifo.write(data[:1000])
            fifo.flush()
            size = Path("t.npy").stat().st_size
            wait_for(lambda: max(places(process.pid, "t.npy"), default=0) >= (read or size))
            if read is None:
                fifo.write(data[1000:2000])
                fifo.flush()
                wait_for(lambda: not unread(fifo))
            change("t.npy")
            fifo.write(data[1000 if read else 2000 :])
        _, err = process.communicate()
    return process.returncode, err.decode(), x


def overwrite(path):
    """Every number becomes one that names no class."""
    with Path(path).open("r+b") as file:
        file.seek(128)
        file.write(b"\xff" * (Path(path).stat().st_size - 128))


def cut_off(path):
    os.truncate(path, 300)


@pytest.mark.parametrize("change", [overwrite, cut_off])
def test_b65_probabilities_that_change_meanwhile_are_noticed(change, files):
    code, err, _ = changed_behind(change, lambda x: np.full(x.shape, 1 / 8), read=1)
    assert (code, err) == (4, "xent: error: t.npy: changed while it was read\n")
    assert not Path("g.npy").exists()


@pytest.mark.parametrize("change", [overwrite, cut_off])
def test_b65_indices_are_those_that_were_checked_whatever_happens_to_their_file(change, files):
    """They were read to their end before any logit."""
    code, err, x = changed_behind(change, lambda x: np.arange(len(x)) % 8, read=None)
    assert (code, err) == (0, "")
    assert_same_bits(np.load("g.npy"), cross_entropy(x, np.arange(len(x)) % 8).grad)


def test_b91_a_line_without_an_end_in_a_pipe_is_one_error_in_little_memory(files):
    script = "ulimit -v 2000000; yes 1,2,3 | tr '\\n' ',' | xent softmax -"
    result = bash(script)
    assert_error(result, 1, "<stdin>: line 1 is longer than 134217728 bytes")


@pytest.mark.parametrize("which", ["- t.npy", "l.npy -"])
def test_b92_zeros_without_an_end_on_standard_input_are_one_error(which, files):
    Path("g.npy").write_bytes(b"old")
    before = contents(files)
    start = time.monotonic()
    result = bash(f"xent grad {which} -o g.npy < /dev/zero")
    assert_error(result, 1, "<stdin>", "NUL")
    assert time.monotonic() - start < 10
    assert_unchanged(files, before)


def wait_until_read(pipe):
    """Until nothing is in a pipe, or a second has passed."""
    for _ in range(10_000):
        if not int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder):
            return
        time.sleep(0.0001)


@pytest.mark.parametrize("size", [*range(1, 12), 63, 64, 65, 127, 128, 129])
def test_b93_an_npy_stream_may_arrive_in_any_pieces(size, files, capfdbinary):
    data = Path("l.npy").read_bytes()
    os.mkfifo("fifo")

    def trickle():
        with suppress(BrokenPipeError), Path("fifo").open("wb", buffering=0) as fifo:
            for start in range(0, len(data), size):
                fifo.write(data[start : start + size])
                wait_until_read(fifo)

    writer = threading.Thread(target=trickle)
    writer.start()
    result = inside(capfdbinary, "grad", "fifo", "t.npy")
    writer.join()
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


FORMULA = "=cmd|'/c calc'!A1"


def test_b96_names_of_columns_are_never_copied_into_an_output(files, capfdbinary):
    name = f"{FORMULA}.csv".replace("/", ":")
    Path(name).write_text(f"{FORMULA},\x1b[31m,[red]\n0,1,2\n3,4,5\n")
    for format in ("csv", "tsv", "json"):
        given = [name, "t.npy", "--header", "yes", "-f", format, "-o", f"g.{format}"]
        result = inside(capfdbinary, "grad", *given, "--loss-out", "loss.json")
        assert_done(result)
        assert_clean(result.err)
        for path in (f"g.{format}", "loss.json"):
            assert not set("=|\x1b") & set(Path(path).read_text())


def test_b97_it_is_documented_that_text_is_parsed_as_float64(capfdbinary):
    words = " ".join(inside(capfdbinary, "grad", "--help").text.split())
    assert "text, which is parsed as f64 first" in words


@pytest.mark.parametrize("name", ["-", "--help", "x" * 251 + ".npy"])
def test_b98_hard_names_in_the_current_folder_are_read_and_written(name, files):
    Path("l.npy").rename(files / name)
    given = "./-" if name == "-" else name
    result = run("grad", "--in-place", "-f", "npy", "-o", f"./{name}", "--", given, "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy((files / name).read_bytes()), GRADIENT, rtol=1e-15)
    assert sorted(path.name for path in files.iterdir()) == sorted([name, "t.npy"])


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(
            {"LC_ALL": "de_DE.UTF-8", "TZ": "junk", "PYTHONWARNINGS": "error"},
            marks=pytest.mark.slow,  # Numba starts in each
        ),
        pytest.param({"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}, marks=pytest.mark.slow),
        pytest.param({"NUMBA_NUM_THREADS": "1"}, marks=pytest.mark.slow),
        {"NUMBA_NUM_THREADS": "999"},
        pytest.param(
            {"NUMBA_OPT": "rubbish", "NUMBA_CACHE_DIR": "/nonexistent", "TMPDIR": "/nonexistent"},
            marks=pytest.mark.slow,
        ),
        {"NUMBA_BOUNDSCHECK": "1"},
    ],
    ids=str,
)
def test_b100_the_environment_does_not_change_a_bit_of_the_compiled_kernels(
    env, files, capfdbinary
):
    given = ["grad", "l.npy", "t.npy", "--backend", "cpu", "-q"]
    plain = inside(capfdbinary, *given)
    other = run(*given, env=env)
    assert (other.code, other.err) == (0, "")
    assert other.out == plain.out


def test_b100_a_deleted_current_folder_is_named_where_an_output_goes_there(files):
    result = bash(f"mkdir gone; cd gone; rmdir ../gone; xent softmax {files}/l.npy -o g.npy")
    assert_error(result, 4, "g.npy")
