"""Zarr arrays: read however zarr writes them, written as zarr reads them, old or new and never
half."""

import io
import json
import os
import shutil
import signal
import stat
import sys
import warnings
from math import prod
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    TARGETS,
    assert_done,
    assert_error,
    assert_silent,
    assert_unchanged,
    contents,
    from_npy,
    inside,
    run,
    started,
    temporaries,
    wait_for,
)
from helpers import assert_same_bits

from xentcli.arrays.dtypes import BF16, NAMES, narrow
from xentcli.errors import DtypeError, FileError, FormatError, OptionError
from xentcli.files import exchange, store
from xentcli.files.inspection import inspect_path
from xentcli.files.opening import load, open_reader, save
from xentcli.files.options import ReadOptions, WriteOptions
from xentcli.files.outputs import Outputs
from xentcli.files.sink import Sink
from xentcli.files.zarr import layout, writer

zarr = pytest.importorskip("zarr", reason="zarr 3 needs Python 3.11")


def make(path, array, chunks=None, **how):
    """An array as zarr writes it; uncompressed unless `how` says otherwise."""
    array = np.asarray(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about consolidated metadata and dtypes of version 3
        made = zarr.create_array(
            str(path),
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunks or array.shape or "auto",
            **{"compressors": None, "overwrite": True, **how},
        )
        made[...] = array
    return str(path)


def opened(path):
    """The numbers of an array, by zarr."""
    return zarr.open_array(str(path), mode="r")[...]


def in_pieces(path, *counts, options=None):
    """The numbers of an array, read some rows at a time."""
    with open_reader(str(path), options or ReadOptions()) as reader:
        parts, left = [], prod(reader.shape)
        for number in range(left):
            if not left:
                break
            count = min(left, reader.unit * counts[number % len(counts)])
            part = reader.read(count, reader.make_buffer(count))
            assert part.size == count
            parts.append(part.copy())
            left -= count
        reader.finish()
        return np.concatenate(parts).reshape(reader.shape)


WIDE = np.random.default_rng(3).normal(size=(23, 31)).astype(np.float32)
CHUNKS = {"rows": (5, 31), "classes": (23, 8), "both": (4, 7), "one": (23, 31), "large": (50, 40)}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compressors", [None, "auto"], ids=["plain", "compressed"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_any_chunks_are_read(chunks, compressors, version, tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, chunks, compressors=compressors, zarr_format=version)
    assert_same_bits(load(path), WIDE)
    for counts in ((1,), (3, 1, 7), (100,)):
        assert_same_bits(in_pieces(path, *counts), WIDE)


@pytest.mark.parametrize("compressors", [None, "auto"], ids=["plain", "compressed"])
def test_shards_are_read(compressors, tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, (4, 8), shards=(8, 16), compressors=compressors)
    assert_same_bits(in_pieces(path, 3), WIDE)
    assert_same_bits(load(path), WIDE)


def test_every_kind_of_array_is_read(tmp_path, rng):
    """Random shapes of up to four axes, dtypes, byte orders, memory orders, fill values."""
    for _ in range(60):
        shape = tuple(rng.integers(1, 7, rng.integers(0, 5)).tolist())
        dtype = rng.choice(["f2", "f4", "f8", "i8", "u1", ">f4", ">i2"])
        array = np.asarray(rng.normal(size=shape) * 50).astype(dtype)
        how = {
            "compressors": rng.choice([None, "auto"]),
            "fill_value": int(rng.integers(0, 2)),
            "zarr_format": (version := int(rng.integers(2, 4))),
        }
        if version == 2:
            how["order"] = str(rng.choice(["C", "F"]))
        chunks = tuple(rng.integers(1, 8, len(shape)).tolist())
        path = make(tmp_path / "a.zarr", array, chunks, **how)
        found = load(path)
        assert found.shape == shape, how
        assert (found == array).all(), how


@pytest.mark.parametrize("limits", [(1 << 26, 1 << 28), (400, 800), (4, 4)], ids=str)
@pytest.mark.parametrize("chunks", [(2, 3, 10), (1, 6, 5), (4, 6, 10), (1, 1, 10)], ids=str)
def test_bands_of_any_size_give_the_same_numbers(chunks, limits, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "WANTED", limits[0])
    monkeypatch.setattr(layout, "LARGEST", limits[1])
    array = np.arange(240.0).reshape(4, 6, 10)
    path = make(tmp_path / "a.zarr", array, chunks, compressors="auto")
    for counts in ((1,), (5, 2)):
        assert_same_bits(in_pieces(path, *counts), array)


def test_chunks_of_too_many_rows_are_decoded_again_with_a_note(files, monkeypatch, capfdbinary):
    monkeypatch.setattr(layout, "WANTED", 80)
    monkeypatch.setattr(layout, "LARGEST", 100)
    make("a.zarr", np.zeros((20, 4)), (20, 2), compressors="auto")
    np.save("y.npy", np.zeros(20, np.int64))
    result = inside(capfdbinary, "loss", "a.zarr", "y.npy")
    assert "xent: note: a.zarr: chunks (20, 2) hold too many rows: each is decoded" in result.err
    make("a.zarr", np.ones((20, 4)), (20, 2))
    assert_done(inside(capfdbinary, "loss", "a.zarr", "y.npy"))


def test_skipped_rows_are_not_decoded(tmp_path, monkeypatch):
    path = make(tmp_path / "a.zarr", WIDE, (1, 31), compressors="auto")
    monkeypatch.setattr(layout, "WANTED", 31 * 4)
    with open_reader(path) as reader:
        reader.skip(20 * 31)
        for chunk in range(19):  # a chunk that were decoded would be an error
            Path(path, "c", str(chunk), "0").write_bytes(b"damaged")
        assert_same_bits(reader.read(31), WIDE[20])


# Dtypes


@pytest.mark.parametrize("name", ["bf16", "f16"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_halves_are_read(name, compressed, tmp_path):
    array = narrow(WIDE, NAMES[name])
    stored = array.view(np.uint16) if name == "bf16" else array
    path = make(tmp_path / "a.zarr", stored, (5, 8), compressors="auto" if compressed else None)
    if name == "bf16":
        change(path, data_type="bfloat16", fill_value=0.0)
    assert load(path).dtype == NAMES[name]
    assert load(path).tobytes() == array.tobytes()


def change(path, **fields):
    """Change fields of the metadata, of version 3 or 2."""
    file = next(f for name in ("zarr.json", ".zarray") if (f := Path(path, name)).exists())
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_the_bfloat16_of_tensorstore_in_version_2_is_read(tmp_path):
    array = narrow(WIDE, BF16)
    path = make(tmp_path / "a.zarr", array.view("<u2"), (5, 8), zarr_format=2)
    change(path, dtype="bfloat16")
    assert load(path).tobytes() == array.tobytes()
    assert load(path).dtype == BF16


def test_two_bytes_without_a_meaning_are_bfloat16_where_the_options_say_so(tmp_path):
    array = narrow(WIDE, BF16)
    for compressors in (None, "auto"):
        how = {"zarr_format": 2, "compressors": compressors}
        path = make(tmp_path / "a.zarr", array.view("V2"), (5, 8), **how)
        assert load(path).dtype == "V2"
        found = load(path, ReadOptions(dtype="bf16"))
        assert (found.dtype, found.tobytes()) == (BF16, array.tobytes())


@pytest.mark.parametrize("dtype", ["c8", "U3", "M8[s]", "S2"])
def test_other_dtypes_are_an_error_that_names_them(dtype, tmp_path):
    path = make(tmp_path / "a.zarr", np.zeros((2, 2), dtype), zarr_format=2)
    with pytest.raises(DtypeError, match=r"a\.zarr: dtype .* is not supported"):
        load(path)
    (facts,) = inspect_path(path, ReadOptions(), True)
    assert facts["shape"] == (2, 2)


@pytest.mark.parametrize("fill", [0, 7, -1.5, "NaN", "Infinity", "-Infinity", "0x3f800000"])
def test_chunks_that_are_not_stored_have_the_fill_value(fill, tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, (5, 8))
    change(path, fill_value=fill)
    shutil.rmtree(Path(path, "c", "1"))
    assert_same_bits(load(path), opened(path))
    with open_reader(path) as reader:
        assert reader.remarks[0].startswith("4 of 20 chunks are not stored, and are read as the")


# Groups


@pytest.fixture
def group(files):
    """A group with logits, targets and a group inside."""
    made = zarr.open_group("g.zarr", mode="w")
    for name, values in (("logits", LOGITS), ("targets", TARGETS), ("more/grad", GRADIENT)):
        made.create_array(name, data=values)
    return files


@pytest.mark.parametrize("consolidated", [True, False])
def test_arrays_of_a_group_are_found_by_their_names(consolidated, group, capfdbinary):
    if consolidated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata("g.zarr")
    result = inside(capfdbinary, "loss", "g.zarr")
    assert_done(result)
    assert float(result.text) == pytest.approx(LOSSES.mean())
    assert_same_bits(load("g.zarr", ReadOptions(key="more/grad")), GRADIENT)
    assert_same_bits(load("g.zarr/logits"), LOGITS)
    lines = inside(capfdbinary, "inspect", "g.zarr").text.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "g.zarr[logits]",
        "g.zarr[more/grad]",
        "g.zarr[targets]",
    ]
    assert_error(
        inside(capfdbinary, "softmax", "g.zarr"), 2, "g.zarr: holds 3 arrays", "logits", "--key"
    )


def test_groups_of_version_2_are_read(files, capfdbinary):
    made = zarr.open_group("g.zarr", mode="w", zarr_format=2)
    made.create_array("logits", data=LOGITS)
    made.create_array("labels", data=TARGETS)
    for consolidated in (False, True):
        if consolidated:
            zarr.consolidate_metadata("g.zarr", zarr_format=2)
        assert_done(inside(capfdbinary, "grad", "g.zarr", "-o", "grad.npy"))
        np.testing.assert_allclose(np.load("grad.npy"), GRADIENT, rtol=1e-14)


def test_consolidated_metadata_lead_nowhere_else(group):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata("g.zarr")
    file = Path("g.zarr", "zarr.json")
    file.write_text(file.read_text().replace('"logits"', '"../other"'))
    with pytest.raises(FormatError, match=r"no array at '\.\./other'"):
        load("g.zarr", ReadOptions(key="../other"))


def test_chunks_may_be_links_to_other_places(tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, (5, 31))
    chunk = Path(path, "c", "1", "0")
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    assert_same_bits(load(path), WIDE)
    Path(path).rename(tmp_path / "b.zarr")
    Path(path).symlink_to(tmp_path / "b.zarr")
    assert_same_bits(load(path), WIDE)


# Damage


def damaged(chunk, change):
    """A function that changes the bytes of a chunk."""

    def damage(path):
        file = Path(path, "c", *chunk.split("/"))
        file.write_bytes(change(file.read_bytes()))

    return damage


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def field(name, value):
    """A function that changes one field of the metadata."""
    return lambda path: change(path, **{name: value})


def grid(*sizes):
    """A function that changes the size of the chunks."""
    return field("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": list(sizes)}})


DAMAGE = [
    (damaged("1/0", lambda data: data[:-3]), ["chunk c/1/0", "637 bytes", "640"]),
    (damaged("1/0", lambda data: data + b"more"), ["chunk c/1/0", "644 bytes", "640"]),
    (grid(5, 2**60), ["larger than the address space"]),
    (grid(2**40, 2), ["chunk c/0/0", "need"]),
    (grid(0, 8), ["chunk_shape [0, 8]"]),
    (grid(5), ["differ in axes"]),
    (field("shape", [2**62, 2**62]), ["larger than the address space"]),
    (field("shape", [-1, 31]), ["shape [-1, 31]"]),
    (field("shape", [True, 31]), ["shape [True, 31]"]),
    (field("shape", None), ["shape None"]),
    (field("shape", [1] * 65), ["at most 64 sizes"]),
    (field("shape", [2**40, 31]), ["only 8 of", "less than 1 in 1000"]),
    (field("shape", [23, 2**40]), ["not stored", "rows of 1099511627776 numbers"]),
    (field("data_type", "float33"), ["dtype float33 is not supported"]),
    (field("data_type", 3), ["data_type 3 is not one of zarr"]),
    (field("fill_value", "x"), ["fill_value 'x' is no float32"]),
    (field("codecs", []), ["name no codecs"]),
    (field("codecs", [{"name": "unheard-of"}]), ["no codec", "unheard-of"]),
    (field("codecs", [{"name": "bytes"}, {"name": "numcodecs.pickle"}]), ["pickles", "any code"]),
    (field("codecs", [{"name": "bytes"}, {"name": "zstd"}]), ["cannot open this array: Named"]),
    (
        field("codecs", [LITTLE, {"name": "crc32c"}]),
        ["chunk c/0/0: cannot be decoded", "checksum"],
    ),
    (field("chunk_key_encoding", {"name": "x"}), ["separator ''"]),
    (field("zarr_format", 4), ["zarr_format is 4"]),
    (field("storage_transformers", [{"name": "x"}]), ["storage transformers"]),
    (lambda path: Path(path, "zarr.json").write_bytes(b"\xff{"), ["zarr.json", "JSON"]),
    (lambda path: Path(path, "zarr.json").write_text("[" * 100_000), ["zarr.json", "JSON"]),
    (lambda path: Path(path, "zarr.json").write_text("[]"), ["zarr.json", "JSON object"]),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=range(len(DAMAGE)))
def test_what_is_damaged_or_lies_is_an_error_that_names_the_place(
    damage, words, files, capfdbinary
):
    make("a.zarr", WIDE, (20, 8))
    damage("a.zarr")
    before = contents(files)
    result = inside(capfdbinary, "softmax", "a.zarr", "-q", "-o", "p.zarr")
    assert_error(result, 1, "a.zarr", *words)
    assert_unchanged(files, before)


def test_a_damaged_compressed_chunk_is_named(files, capfdbinary):
    make("a.zarr", WIDE, (5, 8), compressors="auto")
    Path("a.zarr", "c", "2", "1").write_bytes(b"not zstd")
    result = inside(capfdbinary, "softmax", "a.zarr", "-o", "p.npy")
    assert_error(result, 1, "a.zarr: chunk c/2/1: cannot be decoded")


def test_chunks_that_are_pickles_are_never_opened(tmp_path):
    """The codec of version 2 for objects runs whatever the chunk says."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = make(tmp_path / "a.zarr", np.zeros(1), zarr_format=2)
    for dtype in ("|O", "<f8"):
        change(path, dtype=dtype, filters=[{"id": "pickle", "protocol": 5}])
        Path(path, "0").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(FormatError, match="can run any code"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_folders_and_files_that_are_no_arrays_are_errors(files, capfdbinary):
    Path("empty.zarr").mkdir()
    Path("file.zarr").write_text("1,2\n")
    for path, code, words in (
        ("empty.zarr", 4, "no zarr.json"),
        ("missing.zarr", 2, "no such file"),
        ("file.zarr", 1, "is a file"),
    ):
        assert_error(inside(capfdbinary, "softmax", path), code, path, words)
    assert_error(
        inside(capfdbinary, "softmax", "empty.zarr", "--input-format", "npy"), 4, "only as zarr"
    )


@pytest.mark.parametrize("compressors", [None, "auto"], ids=["plain", "compressed"])
@pytest.mark.parametrize("harm", ["replaced", "shortened", "a chunk less", "touched"])
def test_an_array_that_changes_while_it_is_read_is_an_error(harm, compressors, tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, (5, 31), compressors=compressors)
    chunk = Path(path, "c", "0", "0")
    with open_reader(path) as reader:
        reader.read(5 * 31)
        if harm == "replaced":
            make(path, WIDE + 1, (5, 31), compressors=compressors)
        elif harm == "shortened":
            change(path, shape=[20, 31])
        elif harm == "touched":
            os.utime(chunk, ns=(1, 1))
        else:
            chunk.unlink()
        with pytest.raises(FileError, match="changed while it was read"):
            reader.finish()


def test_links_that_lead_in_circles_are_left_alone(tmp_path):
    path = make(tmp_path / "a.zarr", WIDE, (5, 31))
    Path(path, "circle").symlink_to(".")
    Path(path, "c", "99").symlink_to("..")
    assert_same_bits(load(path), WIDE)


# Writing


@pytest.fixture(params=[1 << 24, 40], ids=["one-chunk", "small-chunks"])
def chunked(request, monkeypatch):
    """How large the chunks are that are written."""
    monkeypatch.setattr(writer, "CHUNK", request.param)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "?"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (7, 1), (2, 3, 4), (0, 3), (5, 30)], ids=str)
def test_zarr_reads_what_is_written(shape, dtype, chunked, tmp_path, rng):
    array = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    path = tmp_path / "a.zarr"
    with Outputs() as outputs:
        save(outputs.open(str(path)), array, WriteOptions("zarr"))
    assert_same_bits(opened(path), array)
    assert_same_bits(load(str(path)), array)
    assert temporaries(tmp_path) == []


def test_bfloat16_is_written_and_read_again(chunked, tmp_path):
    array = narrow(WIDE, BF16)
    path = tmp_path / "a.zarr"
    with Outputs() as outputs:
        save(outputs.open(str(path)), array, WriteOptions("zarr"))
    assert json.loads((path / "zarr.json").read_text())["data_type"] == "bfloat16"
    found = load(str(path))
    assert (found.dtype, found.tobytes()) == (BF16, array.tobytes())


@pytest.mark.parametrize("command", ["grad", "softmax", "loss"])
def test_the_bits_are_those_of_npy(command, files, chunked, capfdbinary):
    make("l.zarr", WIDE, (4, 8), compressors="auto")
    make("t.zarr", np.arange(23) % 31)
    np.save("l.npy", WIDE)
    np.save("t.npy", np.arange(23) % 31)
    more = ["--reduction", "none", "-f", "npy"] if command == "loss" else []
    more += ["--backend", "numpy"]  # no kernel is compiled
    for kind in ("npy", "zarr"):
        targets = [] if command == "softmax" else [f"t.{kind}"]
        asked = [kind if word == "npy" else word for word in more]
        assert_done(inside(capfdbinary, command, f"l.{kind}", *targets, *asked, "-o", f"o.{kind}"))
    assert_same_bits(opened("o.zarr"), np.load("o.npy"))


def test_standard_output_gets_npy(files, capfdbinary):
    make("l.zarr", LOGITS)
    result = inside(capfdbinary, "grad", "l.zarr", "t.npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-14)
    for arguments in (("-f", "zarr"), ("-f", "zarr", "-o", "-")):
        result = inside(capfdbinary, "grad", "l.npy", "t.npy", *arguments)
        assert_error(result, 2, "standard output")


def test_the_format_may_be_named_instead_of_the_suffix(files, capfdbinary):
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-f", "zarr", "-o", "plain-name"))
    np.testing.assert_allclose(opened("plain-name"), GRADIENT, rtol=1e-14)


def test_report_and_calibrate_read_zarr(files, rng, capfdbinary):
    logits = rng.normal(size=(200, 5))
    targets = (logits + rng.normal(size=(200, 5))).argmax(axis=1)
    np.save("l.npy", logits)
    np.save("t.npy", targets)
    make("l.zarr", logits, (30, 2), compressors="auto")
    for command in (["report"], ["calibrate"]):
        texts = [
            inside(capfdbinary, *command, logits, "t.npy", "--json").text
            for logits in ("l.npy", "l.zarr")
        ]
        first, second = (json.loads(text) for text in texts)
        drop = ("seconds", "logits", "settings", "name")
        assert {k: v for k, v in first.items() if k not in drop} == {
            k: v for k, v in second.items() if k not in drop
        }


# Old or new, and never half


@pytest.fixture(params=["exchange", "two-renames"])
def renaming(request, monkeypatch):
    """Whether the system can exchange two folders at once."""
    if request.param == "two-renames":
        monkeypatch.setattr(exchange, "_special_rename", lambda *given: None)


def test_an_old_array_is_replaced(renaming, files, capfdbinary):
    make("g.zarr", np.zeros((50, 50)), (5, 5))
    Path("g.zarr").chmod(0o750)
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.zarr"))
    np.testing.assert_allclose(opened("g.zarr"), GRADIENT, rtol=1e-14)
    assert sorted(p.name for p in Path("g.zarr").rglob("*")) == ["0", "0", "c", "zarr.json"]
    assert stat.S_IMODE(Path("g.zarr").stat().st_mode) == 0o750
    assert temporaries(files) == []


def test_an_array_that_is_read_can_be_replaced(renaming, files, capfdbinary):
    make("l.zarr", LOGITS, (1, 3))
    words = ["grad", "l.zarr", "t.npy", "-o", "l.zarr"]
    assert_error(inside(capfdbinary, *words), 2, "l.zarr: is an input too", "--in-place")
    assert_done(inside(capfdbinary, *words, "--in-place"))
    np.testing.assert_allclose(opened("l.zarr"), GRADIENT, rtol=1e-14)


def test_a_link_to_an_array_stays(renaming, files, capfdbinary):
    make("there.zarr", LOGITS)
    Path("g.zarr").symlink_to("there.zarr")
    assert_done(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.zarr"))
    assert Path("g.zarr").is_symlink()
    np.testing.assert_allclose(opened("there.zarr"), GRADIENT, rtol=1e-14)


def test_a_command_that_fails_leaves_everything_as_it_was(renaming, files, capfdbinary):
    make("g.zarr", np.ones((2, 3)))
    np.save("bad.npy", np.array([0, 9]))
    before = contents(files)
    assert_error(inside(capfdbinary, "grad", "l.npy", "bad.npy", "-o", "g.zarr"), 1, "bad.npy")
    assert_error(inside(capfdbinary, "grad", "l.npy", "bad.npy", "-o", "n.zarr"), 1, "bad.npy")
    assert_unchanged(files, before)
    assert temporaries(files) == []


def test_the_gradient_and_the_loss_are_both_new_or_both_old(renaming, files, monkeypatch):
    make("g.zarr", np.ones((2, 3)))
    before = contents(files)

    def fail(sink):
        raise FileError("loss.npy", "so")

    with pytest.raises(FileError, match="so"), Outputs() as outputs:  # noqa: PT012 (its end raises)
        for path, values in (("g.zarr", GRADIENT), ("n.zarr", GRADIENT), ("loss.npy", LOSSES)):
            save(outputs.open(path), values, WriteOptions(Path(path).suffix[1:]))
        monkeypatch.setattr(Sink, "replace_target", fail)
    assert_unchanged(files, before)
    assert temporaries(files) == []


@pytest.mark.parametrize("held", ["a group", "other files", "a file"])
def test_what_is_no_array_is_never_replaced(held, group, capfdbinary):
    if held == "other files":
        Path("o.zarr").mkdir()
        Path("o.zarr", "thesis.tex").write_text("years of work")
    elif held == "a file":
        Path("o.zarr").write_text("text")
    else:
        Path("g.zarr").rename("o.zarr")
    before = contents(group)
    assert_error(inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "o.zarr"), 4, "o.zarr: is a")
    assert_unchanged(group, before)


def test_no_clobber_keeps_an_array(renaming, files, capfdbinary):
    make("g.zarr", LOGITS)
    before = contents(files)
    assert_error(
        inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.zarr", "-n"), 4, "exists (--no-cl"
    )
    assert_unchanged(files, before)
    with pytest.raises(FileError, match="already exists"), Outputs(no_clobber=True) as outputs:  # noqa: PT012 (its end raises)
        save(outputs.open("late.zarr"), GRADIENT, WriteOptions("zarr"))
        make("late.zarr", LOGITS)
    assert_same_bits(opened("late.zarr"), LOGITS)
    assert temporaries(files) == []


def test_an_array_that_appears_meanwhile_is_an_error(renaming, files):
    with pytest.raises(FileError, match="File exists"), Outputs() as outputs:  # noqa: PT012 (its end raises)
        save(outputs.open("late.zarr"), GRADIENT, WriteOptions("zarr"))
        make("late.zarr", LOGITS)
    assert_same_bits(opened("late.zarr"), LOGITS)


def test_a_full_disk_is_told(files, monkeypatch, capfdbinary):
    class Full(store.Descriptor):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "Descriptor", Full)
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", "g.zarr")
    assert_error(result, 4, "g.zarr", "No space left on device")
    assert not Path("g.zarr").exists()
    assert temporaries(files) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_the_old_array(number, files):
    make("g.zarr", np.ones((2, 3)))
    np.save("big.npy", np.zeros((3000, 20_000), np.float32))
    np.save("y.npy", np.zeros(3000, np.int64))
    before = contents(Path("g.zarr"))
    with started("grad", "big.npy", "y.npy", "-o", "g.zarr") as process:
        wait_for(lambda: any(path.name.isdecimal() for path in files.glob(".xent-*/c/*")))
        process.send_signal(number)
        assert process.wait(60) == -number
    assert_unchanged(Path("g.zarr"), before)
    left = [path for path in files.iterdir() if path.name.startswith(".xent-")]
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    assert_done(run("grad", "l.npy", "t.npy", "-o", "g.zarr"))
    np.testing.assert_allclose(opened("g.zarr"), GRADIENT, rtol=1e-14)


# Without zarr, and without loading it


HIDDEN = "import sys; sys.modules['zarr'] = None; from xentcli.__main__ import main; main()"


def without_zarr(*arguments):
    """`xent ARGUMENTS` where zarr is not installed."""
    from cli import XENT

    before = list(XENT)
    XENT[:] = [sys.executable, "-c", HIDDEN]
    try:
        return run(*arguments)
    finally:
        XENT[:] = before


def test_without_zarr_plain_chunks_are_read_and_others_are_not(files):
    make("plain.zarr", LOGITS + 1, (1, 2))
    make("packed.zarr", LOGITS, compressors="auto")
    assert_done(without_zarr("grad", "plain.zarr", "t.npy", "-o", "g.zarr"))
    np.testing.assert_allclose(opened("g.zarr"), GRADIENT, rtol=1e-14)
    result = without_zarr("grad", "packed.zarr", "t.npy", "-o", "g2.zarr")
    assert_error(result, 3, "packed.zarr", "zarr 3", "pip install 'xentcli[zarr]'")


def test_other_jobs_load_neither_zarr_nor_fsspec_nor_dask(files):
    import subprocess

    code = (
        "import sys; from xentcli.cli import main\n"
        "try:\n    main(['grad', 'l.npy', 't.npy', '-q', '-o', 'g.npy'])\nexcept SystemExit: pass\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules} & {'zarr', 'fsspec', 'dask'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert_silent(inside_quiet := run("inspect", "g.npy"))
    assert inside_quiet.code == 0


def test_outputs_that_are_no_arrays_cannot_be_folders(files, capfdbinary):
    before = contents(files)
    result = inside(capfdbinary, "loss", "l.npy", "t.npy", "--json", "-o", "loss.zarr")
    assert_error(result, 2, "loss.zarr", "only an array")
    assert_unchanged(files, before)
    with pytest.raises(OptionError, match="no stream of bytes"):
        save(io.BytesIO(), LOGITS, WriteOptions("zarr"))


def test_an_output_that_cannot_be_a_folder_is_named(files, capfdbinary):
    before = contents(files)
    for suffix in ("gz", "xz", "bz2"):
        result = inside(capfdbinary, "grad", "l.npy", "t.npy", "-o", f"p.zarr.{suffix}")
        assert_error(result, 2, f"p.zarr.{suffix}: a zarr array is a folder of chunks")
        assert "--format" not in result.err
    result = inside(capfdbinary, "grad", "l.npy", "t.npy", "--format", "zarr")
    assert_error(result, 2)
    assert_unchanged(files, before)
