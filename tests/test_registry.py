"""Formats are a registry: one entry adds a format everywhere, and what has no entry is an error."""

import ast
import io
import os
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import kld
import numpy as np
import pytest
from added_format import ENTRY, from_bytes, to_bytes
from cli import (
    GRADIENT,
    LOGITS,
    PROBABILITIES,
    TARGETS,
    TIMEOUT,
    Result,
    assert_done,
    assert_error,
    assert_unchanged,
    bash,
    contents,
    environment,
    from_npy,
    inside,
    npy,
)
from helpers import assert_same_bits
from pytorch_files import pytorch, repacked

import xentcli
from xentcli.arrays.dtypes import BF16, NAMES, name_of, narrow
from xentcli.errors import OptionError
from xentcli.files import registry
from xentcli.files.inspection import inspect_path
from xentcli.files.opening import create_writer, is_table, load, open_input, open_reader, save
from xentcli.files.options import ReadOptions, WriteOptions
from xentcli.files.outputs import Outputs
from xentcli.files.source import Source
from xentcli.files.text import lines, table
from xentcli.files.zarr import writer as zarr_writer

PACKAGE = Path(xentcli.__file__).parent
KNOWN = [format for format in registry.FORMATS if format.can_read or format.can_write]
UNREADABLE = [format for format in registry.FORMATS if format not in KNOWN]
BOTH = [format for format in KNOWN if format.can_read and format.can_write]


def name(format):
    return format.name


# A format that one entry has added


@pytest.fixture
def folder(files):
    """The current folder, with l.npy, t.npy and the logits, targets in the added format."""
    (files / "l.xf8").write_bytes(to_bytes(LOGITS))
    (files / "t.xf8").write_bytes(to_bytes(TARGETS))
    return files


def extended(*arguments, stdin=b"", **env):
    """`xent ARGUMENTS` in a process of its own, in which one entry has added a format."""
    script = Path(__file__).parent / "added_format.py"
    done = subprocess.run(
        [sys.executable, script, *arguments],
        input=stdin,
        capture_output=True,
        env=environment(**env),
        timeout=TIMEOUT,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def test_an_added_format_is_read_and_written_as_a_file(folder):
    assert_done(extended("grad", "l.xf8", "t.xf8", "-o", "g.xf8"))
    np.testing.assert_allclose(from_bytes(Path("g.xf8").read_bytes()), GRADIENT, rtol=1e-15)


def test_an_added_format_is_recognised_in_a_pipe_and_written_into_one(folder):
    result = extended("grad", "-", "t.npy", stdin=to_bytes(LOGITS))
    assert_done(result)
    np.testing.assert_allclose(from_bytes(result.out), GRADIENT, rtol=1e-15)


def test_an_added_format_is_that_of_a_result_without_a_suffix(folder):
    assert_done(extended("softmax", "l.xf8", "-o", "p"))
    np.testing.assert_allclose(from_bytes(Path("p").read_bytes()), PROBABILITIES, rtol=1e-15)


def test_an_added_format_is_a_choice_of_every_option_for_formats(folder):
    for name in ("l", "t"):
        Path(f"{name}.xf8").rename(f"{name}.dat")
    result = extended(
        *("grad", "l.dat", "t.dat", "--input-format", "xf8", "--target-format", "xf8"),
        *("-f", "xf8", "-o", "g.dat", "--loss-out", "loss.xf8"),
    )
    assert_done(result)
    np.testing.assert_allclose(from_bytes(Path("g.dat").read_bytes()), GRADIENT, rtol=1e-15)
    assert from_bytes(Path("loss.xf8").read_bytes()) == pytest.approx(1.5 * np.log(2))
    judged = extended("check", "l.npy", "t.npy", "g.dat", "--grad-format", "xf8")
    assert judged.code == 0, judged.err


def test_an_added_format_is_inspected(folder):
    result = extended("inspect", "l.xf8", "--stats")
    assert (result.code, result.err) == (0, "")
    assert result.text.startswith("l.xf8: (2, 3) float64, xf8, min 0, max 0.693147181, ")
    piped = extended("inspect", "-", stdin=to_bytes(LOGITS))
    assert piped.text == "<stdin>: (2, 3) float64, xf8\n"


@pytest.mark.parametrize("command", ["grad", "loss", "softmax", "check", "explain", "inspect"])
def test_an_added_format_is_in_the_help(command):
    words = "".join(extended(command, "--help").text.split())
    assert "[npy|npz|safetensors|zarr|pt|kld|parquet|arrow|hdf5|csv|tsv|xf8]" in words
    if command in ("grad", "loss", "softmax"):
        assert "[npy|npz|safetensors|zarr|csv|tsv|json|xf8]" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "png"], ["'png'", "'xf8'"]),
        (["--input-format", "png"], ["'png'", "'xf8'"]),
        (["-o", "g.png"], ["g.png", "'.png'", ".xf8", "--format", "json, xf8"]),
    ],
)
def test_an_added_format_is_in_the_errors_that_list_formats(arguments, words, folder):
    assert_error(extended("grad", "l.xf8", "t.xf8", *arguments), 2, *words)


def test_an_added_format_is_completed_by_the_shell():
    def completed(*words):
        line = {"COMP_WORDS": " ".join(["xent", *words]), "COMP_CWORD": str(len(words))}
        return extended(_XENT_COMPLETE="bash_complete", **line).text.split()

    assert completed("grad", "--format", "x") == ["plain,xf8"]
    assert completed("grad", "--input-format", "x") == ["plain,xf8"]


# What has no entry


@pytest.fixture
def stream():
    return io.BytesIO()


@pytest.mark.parametrize("name", ["png", "CSV", "", "text"])
def test_a_name_without_an_entry_is_an_error_everywhere(name, files, stream):
    read, written = ReadOptions(name), WriteOptions(name)
    uses = (
        lambda: registry.get(name),
        lambda: create_writer(stream, (2, 3), np.dtype("f8"), written),
        lambda: save(stream, LOGITS, written),
        lambda: load("l.npy", read),
        lambda: list(inspect_path("l.npy", read, False)),
    )
    for use in uses:
        names = "npy, npz, safetensors, zarr, pt, kld, parquet, arrow, hdf5, csv, tsv, json"
        with pytest.raises(OptionError, match=names) as error:
            use()
        assert f"'{name}'" in str(error.value)
    assert stream.getvalue() == b""


def test_what_can_only_be_written_is_not_read(files):
    Path("l.json").write_text("[[1, 2]]")
    for path, options in (("l.json", ReadOptions()), ("l.npy", ReadOptions("json"))):
        for read in (load, lambda *given: list(inspect_path(*given, stats=False))):
            with pytest.raises(OptionError, match="cannot read json, only write it; allowed: npy"):
                read(path, options)


@pytest.mark.parametrize("format", UNREADABLE, ids=name)
def test_what_is_only_recognised_is_neither_read_nor_written(format, files, stream):
    with pytest.raises(OptionError, match=f"cannot read {format.name}; allowed: npy, ") as error:
        load("l.npy", ReadOptions(format.name))
    assert error.value.hint == format.convert
    with pytest.raises(OptionError, match=f"cannot write {format.name}; allowed: npy, "):
        save(stream, LOGITS, WriteOptions(format.name))
    assert stream.getvalue() == b""
    assert format.description
    assert format.convert


WRONG = ["g.dat", "g.npy.zip", "g.dat.gz", "g.ods", "g.xls", "g.npyx", "g.v2", "a.b/g.x y"]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("exists", [True, False], ids=["old", "new"])
@pytest.mark.parametrize(
    "command",
    ["grad missing.npy t.npy -o", "softmax missing.npy -o", "loss missing.npy t.npy -o",
     "grad missing.npy t.npy -o g.npy --loss-out"],
    ids=["grad", "softmax", "loss", "loss-out"],
)  # fmt: skip
def test_a_suffix_that_no_format_has_is_an_error_before_anything_is_read(
    command, exists, name, files, capfdbinary
):
    (files / "a.b").mkdir()
    if exists:
        (files / name).write_bytes(b"old")
    before = contents(files)
    result = inside(capfdbinary, *command.split(), name)
    suffix = Path(name.removesuffix(".gz")).suffix
    hint = [] if "loss-out" in command else ["hint: --format", "json"]
    suffixes = ".npy, .npz, .safetensors, .zarr, .csv, .txt, .tsv, .json"
    assert_error(result, 2, name, f"'{suffix}'", suffixes, *hint)
    assert_unchanged(files, before)


def test_a_suffix_that_no_format_has_needs_the_name_of_a_format(files, capfdbinary):
    assert_done(inside(capfdbinary, "softmax", "l.npy", "-o", "p.dat", "-f", "csv"))
    np.testing.assert_allclose(np.loadtxt("p.dat", delimiter=","), PROBABILITIES, rtol=1e-15)


@pytest.mark.parametrize("command", [["explain", "l.npy", "t.npy"], ["examples", "three-class"]])
def test_a_saved_document_needs_a_known_suffix_too(command, files, capfdbinary):
    before = contents(files)
    assert_error(inside(capfdbinary, *command, "--save", "d.dat"), 2, "--output", "svg", "suffix")
    assert_unchanged(files, before)


@pytest.mark.parametrize("name", ["p", ".dat", "p.", "a.b/p"])
def test_a_name_without_a_suffix_gets_the_format_of_the_logits(name, files, capfdbinary):
    (files / "a.b").mkdir()
    assert_done(inside(capfdbinary, "softmax", "l.npy", "-o", name))
    np.testing.assert_allclose(from_npy(Path(name).read_bytes()), PROBABILITIES, rtol=1e-15)


def through_fifo(name, capfdbinary, *arguments):
    """What a command writes into a FIFO of this name."""
    os.mkfifo(name)
    read = []
    reader = threading.Thread(target=lambda: read.append(Path(name).read_bytes()), daemon=True)
    reader.start()
    assert_done(inside(capfdbinary, *arguments, name))
    reader.join(TIMEOUT)
    return read[0]


def test_pipes_and_devices_of_any_name_get_the_format_of_the_logits(files, capfdbinary):
    data = through_fifo("fifo.dat", capfdbinary, "softmax", "l.npy", "-o")
    np.testing.assert_allclose(from_npy(data), PROBABILITIES, rtol=1e-15)
    Path("null.dat").symlink_to("/dev/null")
    for path in ("null.dat", "/dev/null"):
        assert_done(inside(capfdbinary, "softmax", "l.npy", "-o", path))
    for path in ("-", "/dev/stdout", "/dev/fd/3 3>&1 >/dev/null"):
        result = bash(f"xent softmax l.npy -q -o {path}")
        assert (result.code, result.err) == (0, "")
        np.testing.assert_allclose(from_npy(result.out), PROBABILITIES, rtol=1e-15)


def test_a_pipe_that_is_named_as_a_format_gets_that_format(files, capfdbinary):
    data = through_fifo("fifo.csv", capfdbinary, "softmax", "l.npy", "-o")
    assert data.startswith(b"0.5,0.25")


def test_a_folder_of_any_name_is_no_output(files, capfdbinary):
    (files / "d.dat").mkdir()
    for path in ("d.dat", "d.dat/", "new.dat/"):
        assert_error(inside(capfdbinary, "softmax", "l.npy", "-o", path), 4, path, "folder")


@pytest.mark.parametrize(
    ("logits", "separator"), [("l.npy", ","), ("l.csv", ","), ("l.tsv", "\t"), ("l.txt", ",")]
)
def test_a_suffix_of_several_formats_is_that_of_the_logits_else_the_first(
    logits, separator, files, capfdbinary
):
    for name, delimiter in (("l.csv", ","), ("l.tsv", "\t"), ("l.txt", ",")):
        np.savetxt(name, LOGITS, delimiter=delimiter)
    assert_done(inside(capfdbinary, "softmax", logits, "-o", "p.txt"))
    assert Path("p.txt").read_text().splitlines()[0].split(separator)[0].startswith("0.5")
    assert Path("p.txt").read_text().count(separator) == 4


def test_a_suffix_of_several_formats_says_nothing_about_an_input(files):
    Path("l.npy").rename("l.txt")
    assert_same_bits(load("l.txt", ReadOptions()), LOGITS)


def test_a_format_that_cannot_be_written_is_no_format_of_a_result(monkeypatch, files, stream):
    only_read = replace(ENTRY, create_writer=None)
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, only_read))
    with pytest.raises(OptionError, match="cannot write xf8"):
        registry.output_formats("g.xf8", None)
    with pytest.raises(OptionError, match="cannot write xf8, only read it; allowed: npy, "):
        registry.choose(registry.output_formats("g", None), "xf8")
    with pytest.raises(OptionError, match="cannot write xf8, only read it"):
        save(stream, LOGITS, WriteOptions("xf8"))


def compared(path):
    """The strings that a module compares something with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            for part in (node.left, *node.comparators):
                yield from (item.value for item in ast.walk(part) if isinstance(item, ast.Constant))


MODULES = [path for part in ("files", "cli") for path in sorted((PACKAGE / part).rglob("*.py"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_code_asks_for_a_format_by_its_name(path):
    assert not {format.name for format in registry.FORMATS} & set(compared(path))


def test_the_search_for_names_of_formats_can_fail(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("if format in ('csv', 'tsv') or 'npy' == format: pass")
    assert {"csv", "tsv", "npy"} <= set(compared(path))


# What an entry says is true


def as_kld(array, key):
    """Rows of logits as one chunk of a .kld file, with tokens that are all 0."""
    rows = len(array)
    return kld.kld(array[None], np.zeros((1, 2 * rows + 1)))


def as_pytorch(array, key):
    """A tensor as PyTorch writes it."""
    return repacked(pytorch(array))


def as_parquet(array, key):
    """A column of lists, in row groups of ten rows."""
    pq, stream = pytest.importorskip("pyarrow.parquet"), io.BytesIO()
    pq.write_table(of_lists(array), stream, row_group_size=10)
    return stream.getvalue()


def as_arrow(array, key):
    """A column of lists, in record batches of ten rows."""
    pa, stream = pytest.importorskip("pyarrow"), io.BytesIO()
    with pa.ipc.new_file(stream, of_lists(array).schema) as writer:
        writer.write_table(of_lists(array), max_chunksize=10)
    return stream.getvalue()


def of_lists(array):
    """An Arrow table with a column of lists of a fixed length."""
    pa = pytest.importorskip("pyarrow")
    column = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.table({"tensor": column})


def as_hdf5(array, key):
    """A dataset."""
    h5py, stream = pytest.importorskip("h5py"), io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["tensor"] = array
    return stream.getvalue()


ONLY_READ = {"kld": as_kld, "pt": as_pytorch}
ONLY_READ |= {"parquet": as_parquet, "arrow": as_arrow, "hdf5": as_hdf5}


def written(format, array, key="array"):
    """An array as the bytes of a format; what can only be read is written by the tests."""
    if not format.can_write:
        return ONLY_READ[format.name](array, key)
    stream = io.BytesIO()
    save(stream, array, WriteOptions(format.name, key=key))
    return stream.getvalue()


def save_at(path, format, array, key="array"):
    """Write an array to a path."""
    if not format.is_folder:
        path.write_bytes(written(format, array, key))
        return
    with Outputs() as outputs:
        save(outputs.open(str(path)), array, WriteOptions(format.name))


def read_back(format, array, folder):
    """An array that was written and is read from a file."""
    path = folder / f"a.{format.suffixes[0]}"
    save_at(path, format, array)
    with open_reader(str(path), ReadOptions()) as reader:
        assert reader.format == format.name
        assert is_table(reader) == format.is_table
        return reader.whole()


ARRAYS = {name: narrow(np.array([[0.5, -2.25], [1e-3, 7.0]]), NAMES[name]) for name in NAMES}


def assert_dtype_is_kept(format, folder):
    """The dtype that is read is the one that was written, and so are the bits."""
    for array in (*ARRAYS.values(), np.array([[1, -2], [3, 4]])):
        nameless = array.dtype == BF16 and format.name in ("npy", "npz")
        stored = array.view("V2") if nameless else array
        found = read_back(format, array, folder)
        assert (name_of(found.dtype), found.tobytes()) == (name_of(stored.dtype), stored.tobytes())


def assert_dtype_is_lost(format, folder):
    """All numbers are read as float64, and are those of the dtype that was written."""
    for array in ARRAYS.values():
        found = read_back(format, array, folder)
        assert found.dtype == np.float64
        assert narrow(found, array.dtype).tobytes() == array.tobytes()


def assert_axes_are_kept(format, folder):
    """Arrays of any number of axes come back in their shape."""
    for shape in ((3,), (2, 3), (2, 1, 3), (1, 2, 3, 1)):
        assert read_back(format, np.ones(shape), folder).shape == shape


def assert_two_axes(format, folder):
    """Two axes are kept, and an array of one axis is a column."""
    assert read_back(format, np.ones((2, 3)), folder).shape == (2, 3)
    assert read_back(format, np.ones(3), folder).shape == (3, 1)


@pytest.mark.parametrize("format", BOTH, ids=name)
def test_a_format_keeps_the_dtype_if_it_says_so(format, tmp_path):
    (assert_dtype_is_kept if format.keeps_dtype else assert_dtype_is_lost)(format, tmp_path)


@pytest.mark.parametrize("format", BOTH, ids=name)
def test_a_format_has_the_axes_that_it_says(format, tmp_path):
    (assert_two_axes if format.is_table else assert_axes_are_kept)(format, tmp_path)


@pytest.mark.parametrize("format", [f for f in registry.writable() if not f.is_folder], ids=name)
def test_more_axes_than_a_format_has_are_an_error(format, files, capfdbinary):
    np.save("l.npy", np.zeros((2, 3, 2)))
    result = inside(capfdbinary, "softmax", "l.npy", "-f", format.name)
    if format.max_axes is None:
        assert_done(result)
    else:
        assert_error(
            result, 2, f"{format.name} holds at most 2 axes, but the result has 3", "-f npy"
        )


@pytest.mark.parametrize("format", [f for f in registry.readable() if f.pipes], ids=name)
def test_a_format_can_be_read_from_a_pipe_if_it_says_so(format, tmp_path):
    path = tmp_path / f"fifo.{format.suffixes[0]}"
    os.mkfifo(path)
    data = written(format, LOGITS)
    threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    found = load(str(path), ReadOptions())
    if format.can_write:
        assert_same_bits(found, LOGITS)
    else:
        assert_same_bits(found, read_back(format, LOGITS, tmp_path))


def test_a_format_that_cannot_be_read_from_a_pipe_is_an_error_there(monkeypatch, files):
    seeking = replace(ENTRY, pipes=False)
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, seeking))
    source = Source(io.BytesIO(to_bytes(LOGITS)), "a pipe")
    with pytest.raises(OptionError, match="a pipe: cannot read xf8 from a pipe"):
        registry.input_format(source, "-", None)
    Path("l.xf8").write_bytes(to_bytes(LOGITS))
    assert_same_bits(load("l.xf8", ReadOptions()), LOGITS)


@pytest.mark.parametrize("format", registry.readable(), ids=name)
def test_a_format_with_keys_lists_them(format, tmp_path):
    path = tmp_path / f"a.{format.suffixes[0]}"
    save_at(path, format, LOGITS, key="logits")
    if format.has_keys:
        with open_input(str(path)) as (source, _):
            chosen = {"npz": "logits", "safetensors": "logits", "zarr": "array"}
            expected = chosen.get(format.name, "tensor")
            assert format.member_names(source) == [expected]
        return
    with pytest.raises(OptionError, match=r"and key is for \.npz or \.safetensors or"):
        load(str(path), ReadOptions(key="logits"))


@pytest.mark.parametrize("format", [f for f in registry.readable() if f.matches], ids=name)
def test_the_first_bytes_are_those_of_one_format_alone(format):
    start = written(format, LOGITS)[: registry.ZIP_BYTES]
    assert [f.name for f in registry.FORMATS if f.recognises(start)] == [format.name]


def test_names_are_unique_and_suffixes_are_lower_case_without_a_dot():
    names = registry.names(registry.FORMATS)
    assert len(names) == len(set(names))
    for format in registry.FORMATS:
        assert all(suffix == suffix.lower().strip(".") for suffix in format.suffixes)


PIECES, PIECE, COLUMNS = 128, 1 << 13, 1 << 12
TOTAL = PIECES * PIECE * 8  # bytes


class Discarding(io.RawIOBase):
    """A stream that keeps nothing."""

    def writable(self):
        return True

    def write(self, data):
        return memoryview(data).nbytes


def peak(work):
    """The most memory in bytes that some work has taken at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_pieces(stream, format):
    """Write more than may be in memory."""
    piece = np.full(PIECE, 0.5)
    shape = (PIECES * PIECE // COLUMNS, COLUMNS)
    writer = create_writer(stream, shape, piece.dtype, WriteOptions(format.name))
    for _ in range(PIECES):
        writer.write(piece)
    writer.finish()


def read_pieces(path):
    """Read a file piece by piece."""
    with open_reader(str(path), ReadOptions()) as reader:
        for _ in range(PIECES):
            assert len(reader.read(PIECE)) == PIECE
        reader.finish()


def assert_streams(format, folder, monkeypatch):
    """Writing and reading take a fraction of the memory of the whole array."""
    for module, limit in ((table, "AHEAD"), (lines, "CHUNK"), (zarr_writer, "CHUNK")):
        monkeypatch.setattr(module, limit, PIECE)
    if format.can_write and not format.is_folder:
        assert peak(lambda: write_pieces(Discarding(), format)) < TOTAL / 2
    if format.can_read:
        path = folder / f"a.{format.suffixes[0]}"
        if format.is_folder:
            with Outputs() as outputs:
                sink = outputs.open(str(path))
                assert peak(lambda: write_pieces(sink, format)) < TOTAL / 2
        elif format.can_write:
            with path.open("wb") as stream:
                write_pieces(stream, format)
        else:
            path.write_bytes(written(format, np.ones((PIECES * PIECE // COLUMNS, COLUMNS))))
        assert peak(lambda: read_pieces(path)) < TOTAL / 2


@pytest.mark.slow
@pytest.mark.parametrize("format", [f for f in KNOWN if f.streams], ids=name)
def test_a_format_streams_if_it_says_so(format, tmp_path, monkeypatch):
    assert_streams(format, tmp_path, monkeypatch)


def test_the_checks_of_abilities_can_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, ENTRY))
    csv, npy_format = registry.get("csv"), registry.get("npy")
    for check, format in (
        (assert_dtype_is_kept, csv),
        (assert_dtype_is_lost, npy_format),
        (assert_axes_are_kept, csv),
        (assert_two_axes, npy_format),
        (lambda *given: assert_streams(*given, monkeypatch), ENTRY),
    ):
        with pytest.raises(AssertionError):
            check(format, tmp_path)


def test_help_loads_no_numpy_with_an_added_format():
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import added_format\n"
        "from xentcli.files import registry\n"
        "registry.FORMATS += (added_format.ENTRY,)\n"
        "from xentcli.cli import cli\n"
        "cli.main(['grad', '--help'], standalone_mode=False)\n"
        "assert 'click' in sys.modules and 'numpy' not in sys.modules, 'numpy is loaded'\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "xf8" in done.stdout


def test_bytes_of_the_added_format_are_those_that_the_tests_expect():
    assert_same_bits(from_bytes(to_bytes(GRADIENT)), GRADIENT)
    with pytest.raises(AssertionError):
        from_bytes(npy(GRADIENT))
