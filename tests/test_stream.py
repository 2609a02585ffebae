"""What streams: the same bits however the rows are cut and wherever they come from, constant
memory, inputs that change while they are read, and threads that fail."""

import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from backends import SIMULATED
from cli import XENT, assert_error, bash, contents, environment, from_npy, inside, started, wait_for
from helpers import assert_same_bits

from xentcli import cross_entropy, softmax
from xentcli.arrays.layout import Layout
from xentcli.engine import rows, stream
from xentcli.engine.pipeline import ALIVE, Pipeline
from xentcli.errors import FileError
from xentcli.files import reader
from xentcli.files.npy import reader as npy_reader
from xentcli.files.npy.header import read_header
from xentcli.files.source import open_source
from xentcli.files.text import table as text_table

N, C = 37, 11
SLABS = [7 * C, 30 * C] if SIMULATED else [1, 7 * C, 30 * C]


@pytest.fixture
def job(files, rng):
    """Logits, indices with ignored rows, probabilities, and weights of every kind, as files."""
    x = (rng.standard_normal((N, C)) * 5).astype("f4")
    t = rng.integers(0, C, N)
    t[::5] = -100
    q = softmax(rng.standard_normal((N, C))).astype("f4")
    v = rng.random(N)
    for name, array in {"x": x, "t": t, "q": q, "w": rng.random(C), "v": v, "u": v + 1}.items():
        np.save(f"{name}.npy", array)
    return files


def arrays():
    return [np.load(f"{name}.npy") for name in "xtqwvu"]


OPTIONS = {
    "plain": ("t", [], {}),
    "weights": (
        "t",
        ["--weight", "w.npy", "--sample-weight", "v.npy"],
        {"weight", "sample_weight"},
    ),
    "none": ("t", ["--reduction", "none", "--upstream", "u.npy"], {"upstream"}),
    "probabilities": ("q", ["--label-smoothing", "0.1"], {"label_smoothing"}),
}


def expected(case, backend, **more):
    """What the library makes of the arrays in memory."""
    x, t, q, w, v, u = arrays()
    which, _, names = OPTIONS[case]
    given = {"weight": w, "sample_weight": v, "upstream": u, "label_smoothing": 0.1}
    options = {name: given[name] for name in names}
    if case == "none":
        options["reduction"] = "none"
    return cross_entropy(x, t if which == "t" else q, backend=backend, **options, **more)


def command(case, logits="x.npy"):
    which, options, _ = OPTIONS[case]
    return ["grad", logits, f"{which}.npy", *options, "-q"]


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("case", OPTIONS)
def test_the_bits_do_not_depend_on_the_slabs(case, slab, backend, job, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", slab)
    extra = ["--backend", backend, "-o", "g.npy", "--loss-out", "l.npy"]
    assert inside(capfdbinary, *command(case), *extra).code == 0
    wanted = expected(case, backend)
    assert_same_bits(np.load("g.npy"), wanted.grad)
    assert_same_bits(np.load("l.npy"), np.float64(wanted.loss))


@pytest.mark.parametrize("logits", ["-", "<(cat x.npy)", "f.npy", "b.npy", "z.npz", "x.csv"])
def test_the_bits_do_not_depend_on_the_source(logits, job, monkeypatch):
    x = np.load("x.npy")
    np.save("f.npy", np.asfortranarray(x))
    np.save("b.npy", x.astype(">f4"))
    np.savez_compressed("z.npz", x=x)
    np.savetxt("x.csv", x, delimiter=",", fmt="%.9g")
    dtype = "--dtype f32 " if logits == "x.csv" else ""
    result = bash(f"xent grad {logits} t.npy {dtype}-q -f npy", stdin=(job / "x.npy").read_bytes())
    assert (result.code, result.err) == (0, "")
    assert_same_bits(from_npy(result.out), expected("plain", "auto").grad)


@pytest.mark.parametrize("axes", [(N, C), (N, C, 2, 3), (2, 3, C)])
@pytest.mark.parametrize("slab", [1, 4 * C])
def test_a_large_file_in_fortran_order_is_gathered_row_by_row(
    axes, slab, files, rng, capfdbinary, monkeypatch
):
    monkeypatch.setattr(npy_reader, "SAFE", 0)
    monkeypatch.setattr(npy_reader.FortranReader, "best_count", 1)
    monkeypatch.setattr(rows, "SLAB", slab)
    x = rng.standard_normal(axes)
    axis = axes.index(C)
    t = rng.integers(0, C, axes[:axis] + axes[axis + 1 :])
    np.save("x.npy", np.asfortranarray(x))
    np.save("t.npy", np.asfortranarray(t))
    assert inside(capfdbinary, "grad", "x.npy", "t.npy", "-o", "g.npy", "-q").code == 0
    assert_same_bits(np.load("g.npy"), cross_entropy(x, t).grad)


@pytest.mark.parametrize("slab", [1, 40 * C])
def test_a_class_axis_in_the_middle_streams_by_its_outer_items(
    slab, files, rng, capfdbinary, monkeypatch
):
    monkeypatch.setattr(rows, "SLAB", slab)
    x, t = rng.standard_normal((5, C, 6)), rng.integers(0, C, (5, 6))
    np.save("x.npy", x)
    np.save("t.npy", t)
    assert inside(capfdbinary, "grad", "x.npy", "t.npy", "-o", "g.npy", "-q").code == 0
    assert_same_bits(np.load("g.npy"), cross_entropy(x, t).grad)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("log", [[], ["--log"]])
def test_softmax_streams(dtype, log, job, capfdbinary, monkeypatch):
    whole = inside(capfdbinary, "softmax", "x.npy", "--dtype", dtype, *log, "-q")
    monkeypatch.setattr(rows, "SLAB", 3 * C)
    pieces = inside(capfdbinary, "softmax", "x.npy", "--dtype", dtype, *log, "-q")
    assert whole.code == 0
    assert pieces == whole


@pytest.mark.parametrize("format", ["npz", "csv", "tsv", "json"])
def test_every_format_is_written_piece_by_piece(format, job, capfdbinary, monkeypatch):
    whole = inside(capfdbinary, *command("plain"), "-f", format)
    monkeypatch.setattr(rows, "SLAB", 1)
    pieces = inside(capfdbinary, *command("plain"), "-f", format)
    assert whole.code == 0
    assert pieces == whole


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (0, 3), (2, 0)])
def test_json_lists_are_those_of_the_array(shape, rng):
    import io
    import json

    from xentcli.files.json import JsonWriter

    array, text = rng.standard_normal(shape), io.BytesIO()
    writer = JsonWriter(text, shape, array.dtype, None)
    for line in array.reshape(-1, shape[-1] if shape else 1) if array.size else []:
        writer.write(line)
    writer.finish()
    assert json.loads(text.getvalue()) == {
        "shape": list(shape), "dtype": "float64", "data": array.tolist(), "nonfinite": 0,
    }  # fmt: skip


def test_a_short_job_that_fails_at_its_end_writes_nothing(job, capfdbinary):
    np.save("x.npy", np.full((2, 3), np.nan))
    np.save("t.npy", np.zeros(2, int))
    assert_error(inside(capfdbinary, "grad", "x.npy", "t.npy", "--strict"), 1, "not finite")


def test_under_strict_the_first_entry_of_all_pieces_is_named(files, capfdbinary, monkeypatch):
    monkeypatch.setattr(rows, "SLAB", 1)
    x = np.zeros((9, 2))
    x[6] = np.nan
    np.save("x.npy", x)
    np.save("t.npy", np.where(np.arange(9) == 6, -100, 0))
    q = np.zeros((9, 2))
    q[4, 1] = np.nan
    np.save("q.npy", q)
    assert inside(capfdbinary, "grad", "x.npy", "t.npy", "-o", "g.npy", "--strict").code == 0
    result = inside(capfdbinary, "softmax", "q.npy", "-o", "p.npy", "--strict")
    assert_error(result, 1, "1 of 9 rows", "row 4")
    assert not Path("p.npy").exists()


def test_targets_that_come_in_pieces_are_all_checked(files, capfdbinary, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 4)
    t = np.zeros(10, int)
    t[[5, 9]] = 7, -3
    np.save("x.npy", np.zeros((10, 3)))
    np.save("t.npy", t)
    before = contents(files)
    result = inside(capfdbinary, "grad", "x.npy", "t.npy", "-o", "g.npy")
    assert_error(result, 1, "2 of 10 targets are outside 0 to 2; first: row 5 is 7")
    np.save("t.npy", t + 0.5)
    result = inside(capfdbinary, "grad", "x.npy", "t.npy", "-o", "g.npy")
    assert_error(result, 1, "10 of 10 targets are not a whole number; first: row 0 is 0.5")
    assert contents(files).keys() == before.keys()


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f4"])
def test_targets_that_come_in_pieces_give_the_same_bits(dtype, job, capfdbinary, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 4)
    x, t = arrays()[:2]
    t = np.where(t < 0, 101, t)
    np.save("t.npy", t.astype(dtype))
    options = ["--ignore-index", "101", "--weight", "w.npy"]
    assert inside(capfdbinary, *command("plain"), *options, "-o", "g.npy").code == 0
    wanted = cross_entropy(x, t, ignore_index=101, weight=np.load("w.npy"))
    assert_same_bits(np.load("g.npy"), wanted.grad)


@pytest.mark.slow
def test_memory_is_bounded_by_the_slab_and_not_by_the_file(files):
    """The files have holes: a gigabyte of float16 that takes no room on the disk."""
    n, c = 4_000, 128_256
    np.save("t.npy", np.zeros(n, int))
    with Path("x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": (n, c)}
        )
        file.truncate(file.tell() + n * c * 2)
    script = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:]).returncode\n"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *XENT, "loss", "x.npy", "t.npy", "-q", "-o", "/dev/null"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    code, kilobytes = map(int, done.stdout.split())
    assert (code, done.stderr) == (0, "")
    assert kilobytes < 400_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0  # the unit is that of Linux


def shorten(path):
    os.truncate(path, 1000)


def lengthen(path):
    with Path(path).open("ab") as file:
        file.write(b"more")


def replace(path):
    np.save("other.npy", np.load(path))
    Path("other.npy").replace(path)


def rewrite(path):
    with Path(path).open("r+b") as file:
        file.seek(200)
        file.write(b"new bytes")


@pytest.mark.parametrize("change", [shorten, lengthen, replace, rewrite])
def test_an_input_that_changes_while_it_is_read_is_noticed(change, job):
    """Logits are opened first; then xent waits for the targets, which come through a FIFO."""
    targets = (job / "t.npy").read_bytes()
    os.mkfifo("fifo")
    with started("grad", "x.npy", "fifo", "-o", "g.npy", "--target-format", "npy") as process:
        with Path("fifo").open("wb") as fifo:
            wait_for(lambda: opened(process.pid, "x.npy"))
            time.sleep(0.01)  # a file's time has a resolution of some milliseconds
            change("x.npy")
            fifo.write(targets)
        out, err = process.communicate()
    assert (process.returncode, out) == (4, b"")
    assert err.startswith(b"xent: error: x.npy: ")
    assert b"while it was read" in err
    assert not Path("g.npy").exists()


def opened(pid, name):
    """Whether a process has a file open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if link.readlink().name == name:
                return True
    return False


def test_the_gathering_reader_notices_changes_too(job):
    np.save("x.npy", np.asfortranarray(np.load("x.npy")))
    with open_source("x.npy") as source:
        rows = npy_reader.FortranReader(source, read_header(source))
        rows.read(rows.unit)
        time.sleep(0.01)
        shorten("x.npy")
        with pytest.raises(FileError, match="changed while it was read"):
            rows.read((N - 1) * rows.unit)


def test_an_input_that_is_removed_while_it_is_read_was_read(job):
    os.mkfifo("fifo")
    targets = (job / "t.npy").read_bytes()
    with started("grad", "x.npy", "fifo", "-o", "g.npy", "--target-format", "npy") as process:
        with Path("fifo").open("wb") as fifo:
            wait_for(lambda: opened(process.pid, "x.npy"))
            Path("x.npy").unlink()
            fifo.write(targets)
        process.communicate()
    assert process.returncode == 0


def test_pieces_keep_their_order():
    written = []
    Pipeline().run(iter(range(100)), lambda piece: piece * 2, written.append)
    assert written == list(range(0, 200, 2))


def test_few_pieces_exist_at_the_same_time():
    """Buffers are used again: the piece that many further on must not come too early."""
    written, ahead = [], []

    def source():
        for number in range(200):
            ahead.append(number - len(written))
            yield number

    def write(piece):
        time.sleep(0.0005)
        written.append(piece)

    Pipeline().run(source(), lambda piece: piece, write)
    assert max(ahead) < ALIVE


def failing(at):
    numbers = count()

    def fail(piece):
        if next(numbers) == at:
            raise OSError("this one")
        return piece

    return fail


def test_a_failure_in_any_thread_is_raised_and_ends_the_others():
    before = threading.active_count()
    for at in (0, 3, 50):
        for which in range(3):
            parts = [lambda piece: piece] * 3
            parts[which] = failing(at)
            with pytest.raises(OSError, match="this one"):
                Pipeline().run(map(parts[0], range(100)), parts[1], parts[2])
    wait_for(lambda: threading.active_count() == before)


@pytest.fixture
def table(job, monkeypatch):
    """The job as text; only very few numbers are held."""
    monkeypatch.setattr(text_table, "AHEAD", C)
    for name in "xtqv":
        np.savetxt(f"{name}.csv", np.load(f"{name}.npy"), delimiter=",", fmt="%.9g")
    monkeypatch.setattr(rows, "SLAB", 3 * C)
    return job


def shown(result):
    return from_npy(result.out) if result.code == 0 else result


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ("x.csv", "t.npy"), ("x.csv", "t.csv"), ("x.npy", "t.csv"), ("x.csv", "q.npy"),
        ("x.csv", "q.csv"), ("x.npy", "q.csv"), ("-", "t.csv"), ("-", "t.npy"), ("-", "q.npy"),
        ("-", "q.csv"), ("x.npy", "-t"), ("x.npy", "-q"), ("x.csv", "-t"), ("x.csv", "-q"),
    ],
)  # fmt: skip
def test_tables_stream_on_either_side(logits, targets, table, capfdbinary):
    stdin = b""
    if logits == "-":
        stdin = (table / "x.csv").read_bytes()
    if targets[0] == "-":
        stdin = (table / f"{targets[1]}.csv").read_bytes()
    arguments = [logits, "-" if targets[0] == "-" else targets]
    dtype = ["--dtype", "f32"] if logits != "x.npy" else []
    given = ["grad", *arguments, *dtype, "-q", "-f", "npy"]
    result = inside(capfdbinary, *given, stdin=stdin)
    x, t, q = arrays()[:3]
    if targets != "q.npy":
        q = np.loadtxt("q.csv", delimiter=",")
    assert_same_bits(shown(result), cross_entropy(x, q if "q" in targets else t).grad)


@pytest.mark.slow
def test_two_tables_in_pipes_of_which_nobody_knows_the_length(job):
    """A process of its own holds a million numbers, so the tables are longer."""
    x = np.tile(np.load("x.npy").astype(float), (3000, 1))
    np.savetxt("x.csv", x, delimiter=",", fmt="%.17g")
    np.savetxt("q.csv", softmax(x), delimiter=",", fmt="%.17g")
    result = bash("xent grad <(cat x.csv) <(cat q.csv) --dtype f64 -q -f npy")
    assert (result.code, result.err) == (0, "")
    assert_same_bits(from_npy(result.out), cross_entropy(x, softmax(x)).grad)


@pytest.mark.parametrize("source", ["x.csv", "-"])
@pytest.mark.parametrize("format", ["csv", "npy", "json"])
def test_softmax_of_a_table(source, format, table, capfdbinary):
    stdin = (table / "x.csv").read_bytes() if source == "-" else b""
    result = inside(capfdbinary, "softmax", source, "-q", "-f", format, stdin=stdin)
    np.save("x8.npy", np.loadtxt("x.csv", delimiter=","))
    assert result == inside(capfdbinary, "softmax", "x8.npy", "-q", "-f", format)
    assert result.code == 0


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\r\n \n\n"])
def test_blank_lines_at_the_end_of_a_long_table_do_not_count(ending, table, capfdbinary):
    path = table / "x.csv"
    path.write_text("0,0\n" * 99 + "0,0" + ending)
    result = inside(capfdbinary, "softmax", "x.csv", "-q", "-f", "npy")
    assert shown(result).shape == (100, 2)
    result = inside(capfdbinary, "softmax", "-", "-q", "-f", "npy", stdin=path.read_bytes())
    assert shown(result).shape == (100, 2)


@pytest.mark.parametrize(("rows", "words"), [(N + 1, "has 37 rows, 38 "), (N - 1, "more than 36 ")])
def test_b94_a_table_with_more_or_fewer_rows_than_targets(rows, words, table, capfdbinary):
    np.save("t.npy", np.zeros(rows, int))
    stdin = (table / "x.csv").read_bytes()
    before = contents(table)
    assert_error(inside(capfdbinary, "grad", "-", "t.npy", "-o", "g", stdin=stdin), 1, words)
    assert contents(table) == before


def test_b62_a_bad_target_in_the_last_line_leaves_no_output(table, capfdbinary):
    lines = (table / "t.csv").read_text().splitlines()
    (table / "t.csv").write_text("\n".join([*lines[:-1], "11"]))
    before = contents(table)
    result = inside(capfdbinary, "grad", "x.csv", "t.csv", "-o", "g.csv")
    assert_error(result, 1, "t.csv", "1 of 37", "row 36 is 11")
    assert contents(table) == before


def test_a_mistake_in_a_long_table_is_at_its_line(table, capfdbinary):
    lines = (table / "x.csv").read_text().splitlines()
    lines[30] = lines[30].replace(",", ",x", 1)
    (table / "x.csv").write_text("\n".join(lines))
    result = inside(capfdbinary, "grad", "x.csv", "t.csv", "-o", "g.csv")
    assert_error(result, 1, "x.csv: line 31, column 2: 'x")
    assert not Path("g.csv").exists()


@pytest.mark.parametrize(
    ("shape", "itemsize", "entries"),
    [
        ((100, 1000), 4, 1 << 20),
        ((100, 1000), 8, 1 << 19),
        ((9, 1000), 2, 1 << 20),
        ((9, 2), 4, 1 << 19),
    ],
)
def test_a_piece_has_four_mebibytes_or_fewer_of_few_classes(shape, itemsize, entries):
    assert stream._entries(Layout(shape, 1), itemsize) == entries
