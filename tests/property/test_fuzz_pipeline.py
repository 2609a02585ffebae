"""Files through the whole command: a right result in any pieces, or one clean line and no file.

`python tests/fuzz.py` runs the same for minutes.
"""

import io
import json
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cli import Result, assert_clean, captured, contents, from_npy, npy, strict_json
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz_npy import by_numpy

from xentcli import DataError, OptionError, cross_entropy
from xentcli.engine import rows
from xentcli.files import reader, source
from xentcli.files.npy import reader as npy_reader
from xentcli.files.text import lines, table

PIECES = {
    (rows, "SLAB"): (1, 40),
    (reader, "CHUNK"): (1, 20),
    (npy_reader, "SAFE"): (0, 200),
    (npy_reader.FortranReader, "best_count"): (1, 20),
    (source, "CHUNK"): (1, 64),
    (table, "AHEAD"): (1, 20),
    (lines, "CHUNK"): (1, 64),
}
FLOATS = ["<f4", "<f8", "<f2", ">f4", ">f8", ">f2"]
INTEGERS = ["<i8", "i1", "u1", "<i4", ">i8", ">u2", "<u8", "<f4", ">f8"]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 6e4]
CODES = (0, 1, 2)  # nothing is wrong with the disk
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where fsync costs nothing


@dataclass
class Job:
    """A command with its files, and the arrays that they were made from."""

    files: dict
    arguments: list
    stdin: bytes
    arrays: tuple  # logits, targets, as the library takes them
    options: dict  # of the library
    output: str | None  # a file's name, or None for standard output
    format: str
    whole: bool  # no file was damaged
    pieces: dict = field(default_factory=dict)


def packed(draw, array, name, as_text):
    """An array as the bytes of some format: the suffix, the bytes, options of the command."""
    option = "--key" if name == "x" else "--target-key"
    kinds = ["npy", "npy", "F", "npz", "keyed", *(["csv", "csv", "tsv"] if as_text else [])]
    kind = draw(st.sampled_from(kinds))
    if kind in ("csv", "tsv"):
        rows = array.reshape(-1, 1) if array.ndim < 2 else array
        if array.ndim == 1 and draw(st.booleans()):
            rows = array.reshape(1, -1)  # targets as one line
        ends = draw(st.sampled_from(["\n", "\r\n"]))
        cells = [[repr(x) for x in row] for row in rows.tolist()]
        words = ("," if kind == "csv" else "\t").join
        return kind, "".join(words(row) + ends for row in cells).encode(), []
    if kind in ("npz", "keyed"):
        file = io.BytesIO()
        save = draw(st.sampled_from([np.savez, np.savez_compressed]))
        arrays = {name: array} | ({"other": np.zeros(3)} if kind == "keyed" else {})
        save(file, **arrays)
        return "npz", file.getvalue(), [option, name] if kind == "keyed" else []
    return "npy", npy(np.asarray(array, order="F" if kind == "F" else "C")), []


def logits_of(draw):
    """Logits and the axis of their classes."""
    c = draw(st.integers(1, 5))
    before = draw(st.lists(st.integers(0, 5), max_size=2))
    after = draw(st.lists(st.integers(0, 3), max_size=2))
    axis = len(before)
    shape = (*before, c, *after)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal(shape) * draw(st.sampled_from([1, 10, 1e-3]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 3])) if x.size else 0):
        x.flat[draw(st.integers(0, x.size - 1))] = draw(st.sampled_from(SPECIAL))
    with np.errstate(all="ignore"):
        return x.astype(draw(st.sampled_from(FLOATS))), axis, rng


def targets_of(draw, x, axis, rng):
    """Class indices, some of them ignored or wrong, or probabilities."""
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    kind = draw(st.sampled_from(["index", "index", "index", "probs", "wrong"]))
    if kind == "probs":
        return rng.random(x.shape).astype(draw(st.sampled_from(FLOATS))), {}
    c = x.shape[axis]
    t = rng.integers(0, c, rows)
    options = {}
    if draw(st.booleans()):
        options["ignore_index"] = 100
        t = np.where(rng.random(rows) < 0.3, 100, t)
    if kind == "wrong" and t.size:
        t = np.array(t)
        t.flat[draw(st.integers(0, t.size - 1))] = draw(st.sampled_from([c, 101, 127]))
    return t.astype(draw(st.sampled_from(INTEGERS))), options


def options_of(draw, x, axis, rng, options):
    """Options of the library, and what stands for them on the command line; files, too."""
    options["class_axis"] = axis
    options["reduction"] = draw(st.sampled_from(["mean", "sum", "none"]))
    chosen = {"label_smoothing": 0.25, "temperature": 2.0, "softcap": 30.0, "z_loss": 0.5}
    for name in draw(st.lists(st.sampled_from(sorted(chosen)), max_size=2, unique=True)):
        options[name] = chosen[name]
    files = {}
    if draw(st.integers(0, 3)) == 0:
        options["weight"] = files["w.npy"] = rng.random(x.shape[axis])
    if draw(st.integers(0, 3)) == 0:
        rows = x.shape[:axis] + x.shape[axis + 1 :]
        options["sample_weight"] = files["v.npy"] = rng.random(rows)
    arguments = []
    for name, value in options.items():
        path = {"weight": "w.npy", "sample_weight": "v.npy"}.get(name, str(value))
        arguments += ["--" + name.replace("_", "-"), path]
    return files, arguments


def damaged(draw, data):
    """Some bytes changed, put in or taken away."""
    place = draw(st.integers(0, len(data)))
    new = draw(st.binary(max_size=3))
    return data[:place] + new + data[place + draw(st.integers(0, 3)) :][: draw(SOME)]


WHERE = r"xent: error: ([xtwv]\.\w{3}(\[[xt]\])?|<stdin>(\[[xt]\])?|--[a-z-]+): "
SOME = st.sampled_from([None, None, None, 0, 1, 7])


@st.composite
def jobs(draw):
    """Everything of a command, random."""
    x, axis, rng = logits_of(draw)
    t, options = targets_of(draw, x, axis, rng)
    files, arguments = options_of(draw, x, axis, rng, options)
    files = {name: npy(array) for name, array in files.items()}
    as_text = x.ndim == 2 and x.size > 0
    kind, data, more = packed(draw, x, "x", as_text)
    t_text = as_text and x.shape[axis] > 1 and t.ndim > 0
    t_kind, t_data, t_more = packed(draw, t, "t", t_text)
    if kind in ("csv", "tsv"):  # text is read as float64
        with np.errstate(all="ignore"):
            x = x.astype("f8")
    files |= {f"x.{kind}": data, f"t.{t_kind}": t_data}
    paths, stdin = [f"x.{kind}", f"t.{t_kind}"], b""
    side = draw(st.sampled_from([None, None, 0, 1]))
    if side is not None:
        stdin = files.pop(paths[side])
        arguments += [("--input-format", "--target-format")[side], (kind, t_kind)[side]]
        paths[side] = "-"
    whole = draw(st.integers(0, 3)) > 0
    if not whole:
        name = draw(st.sampled_from(sorted(files))) if files else None
        if name:
            files[name] = damaged(draw, files[name])
        else:
            stdin = damaged(draw, stdin)
    output = draw(st.sampled_from([None, "g.out"]))
    format = draw(st.sampled_from(["npy", "npz", "json", *(["csv"] if x.ndim <= 2 else [])]))
    backend = draw(st.sampled_from(["numpy", "numpy", "cpu"]))
    options["backend"] = backend
    arguments += [*more, *t_more, "-f", format, "--backend", backend]
    arguments += ["-o", output] if output else []
    pieces = {key: draw(st.integers(*span)) for key, span in PIECES.items()}
    job = ["grad", *paths, *arguments]
    return Job(files, job, stdin, (x, t), options, output, format, whole, pieces)


EXAMPLES = jobs()


@contextmanager
def cut(pieces):
    """The pieces that data come in have these sizes."""
    before = {(owner, name): getattr(owner, name) for owner, name in pieces}
    try:
        for (owner, name), size in pieces.items():
            setattr(owner, name, size)
        yield
    finally:
        for (owner, name), size in before.items():
            setattr(owner, name, size)


def wanted(job):
    """The exit code and the gradient by the library; of damaged arrays what NumPy reads."""
    x, t = job.arrays if job.whole else map(read_by_numpy, job.arguments[1:3], [job] * 2)
    try:
        return 0, cross_entropy(x, t, **job.options).grad
    except DataError:
        return 1, None
    except OptionError:
        return 2, None


def read_by_numpy(path, job):
    """The array in an input that may be damaged."""
    return by_numpy(job.stdin if path == "-" else job.files[path])


def can_be_compared(job):
    """Whether the arrays are known: nothing is damaged, or only .npy files of the two arrays."""
    if job.whole:
        return True
    words = zip(job.arguments, job.arguments[1:], strict=False)
    said = [word for option, word in words if option in ("--input-format", "--target-format")]
    kinds = {*said, *(path[-3:] for path in job.arguments[1:3] if path != "-")}
    return kinds == {"npy"} and not {"w.npy", "v.npy"} & job.files.keys()


def gradient(data, format, like):
    """What the command wrote, as an array."""
    if format == "npy":
        return from_npy(data)
    if format == "npz":
        with np.load(io.BytesIO(data)) as archive:
            assert archive.files == ["grad"]
            return archive["grad"]
    if format == "json":
        value = strict_json(data)
        assert value["shape"] == list(like.shape)
        numbers = np.array(_known(value["data"]), dtype=float).reshape(value["shape"])
        assert value["nonfinite"] == np.count_nonzero(~np.isfinite(like))
        return numbers.astype(like.dtype)
    rows = [line.split(",") for line in data.decode().splitlines()]
    return np.array(rows, dtype=float).reshape(like.shape).astype(like.dtype)


def _known(value):
    """JSON's null as NaN."""
    if isinstance(value, list):
        return [_known(item) for item in value]
    return np.nan if value is None else value


def assert_result(job, data):
    """The bytes are the library's gradient."""
    code, grad = wanted(job)
    assert code == 0, f"the library ends with {code}"
    found = gradient(data, job.format, grad)
    if job.format == "json":
        grad = np.where(np.isfinite(grad), grad, np.nan)
    native = grad.astype(grad.dtype.newbyteorder("="))
    assert_same_bits(found.astype(found.dtype.newbyteorder("=")), native)


def assert_lines(result):
    """Clean lines; of errors one, which names an input or an option."""
    assert_clean(result.err)
    errors = [line for line in result.err.splitlines() if line.startswith("xent: error: ")]
    assert len(errors) == (result.code != 0), result.err
    assert all(re.match(WHERE, error) for error in errors), result.err


def outcome(job):
    """How the command ended, and the files before and after."""
    back = Path.cwd()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name, data in {**job.files, "g.out": b"old"}.items():
            Path(folder, name).write_bytes(data)
        before = contents(Path(folder))
        os.chdir(folder)
        try:
            with cut(job.pieces):
                result = captured(*job.arguments, stdin=job.stdin)
        finally:
            os.chdir(back)
        return result, before, contents(Path(folder))


def check(job):
    """A right result, or one error and nothing changed."""
    result, before, after = outcome(job)
    assert result.code in CODES, f"{result.code}: {result.err}"
    assert_lines(result)
    if job.whole:
        assert result.code == wanted(job)[0], f"{result.code}, not {wanted(job)[0]}: {result.err}"
    if result.code or not job.output:
        assert after == before, "files have changed"
    if result.code and job.pieces[rows, "SLAB"] > job.arrays[0].size:
        assert result.out == b"", f"{result.out[:100]}"
    if result.code == 0 and job.output:
        assert result.out == b""
        assert after.keys() == before.keys(), sorted(after)
        assert {**after, job.output: b"old"} == before, "an input has changed"
    if result.code == 0 and can_be_compared(job):
        assert_result(job, after[job.output] if job.output else result.out)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(EXAMPLES)
def test_a_command_is_the_library_in_any_pieces_or_one_error(job):
    check(job)


GOOD = Job(
    {"x.npy": npy(np.eye(3)), "t.npy": npy(np.arange(3))},
    ["grad", "x.npy", "t.npy", "-o", "g.out", "-f", "npy"],
    b"",
    (np.eye(3), np.arange(3)),
    {},
    "g.out",
    "npy",
    True,
    {(rows, "SLAB"): 40},
)
RIGHT = npy(cross_entropy(np.eye(3), np.arange(3)).grad)
FILES = {**GOOD.files, "g.out": b"old"}
DONE = {**FILES, "g.out": RIGHT}


@pytest.mark.parametrize(
    ("result", "after"),
    [
        (Result(70, b"", "xent: error: x.npy: a\n"), FILES),
        (Result(1, b"", "xent: error: x.npy: a\n"), FILES),
        (Result(1, b"", "xent: error: <stdout>: a\n"), FILES),
        (Result(0, b"", "xent: a\x1b\n"), DONE),
        (Result(0, b"", "xent: error: x.npy: a\n"), DONE),
        (Result(0, b"x", "xent: a\n"), DONE),
        (Result(0, b"", "xent: a\n"), {**DONE, ".xent-1.tmp": b""}),
        (Result(0, b"", "xent: a\n"), {**DONE, "t.npy": b""}),
        (Result(0, b"", "xent: a\n"), {**DONE, "g.out": npy(np.eye(3))}),
    ],
    ids=["bug", "refused", "named", "escape", "errors", "out", "left over", "input", "wrong"],
)
def test_the_check_finds_what_is_wrong(result, after, monkeypatch):
    check(GOOD)
    monkeypatch.setattr("test_fuzz_pipeline.outcome", lambda job: (result, FILES, after))
    with pytest.raises(AssertionError):
        check(GOOD)


def test_the_check_finds_a_half_result(monkeypatch):
    failed = Result(1, b"", "xent: error: x.npy: a\n")
    monkeypatch.setattr("test_fuzz_pipeline.wanted", lambda job: (1, None))
    monkeypatch.setattr("test_fuzz_pipeline.outcome", lambda job: (failed, FILES, DONE))
    with pytest.raises(AssertionError, match="changed"):
        check(GOOD)


def test_json_has_null_for_nan():
    assert np.isnan(_known(json.loads("[[null]]"))).all()
