"""gzip, xz, bzip2 and zstd around files of any format: read, also from pipes, and written."""

import bz2
import gzip
import io
import lzma
import random
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    LOSSES,
    PROBABILITIES,
    TARGETS,
    assert_done,
    assert_error,
    assert_unchanged,
    contents,
    from_npy,
    inside,
    npy,
    run,
    strict_json,
)
from helpers import assert_same_bits

from xentcli.files import inflated, registry
from xentcli.files.compression import COMPRESSIONS, by_suffix
from xentcli.files.opening import load, save
from xentcli.files.options import ReadOptions, WriteOptions
from xentcli.files.source import Source

try:
    from compression import zstd
except ImportError:
    try:
        from backports import zstd
    except ImportError:
        zstd = None

LIBRARIES = {"gz": gzip, "xz": lzma, "bz2": bz2} | ({"zst": zstd} if zstd else {})
FILES = [format for format in registry.FORMATS if not format.is_folder]
WRITTEN = [format for format in FILES if format.can_write]
BOTH = [format for format in FILES if format.can_read and format.can_write]


@pytest.fixture(params=LIBRARIES)
def suffix(request):
    return request.param


def bytes_of(format, array):
    """An array in a format."""
    stream = io.BytesIO()
    save(stream, array, WriteOptions(format.name))
    return stream.getvalue()


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("format", BOTH, ids=lambda format: format.name)
def test_every_format_is_read(format, piped, suffix, files, capfdbinary):
    data = LIBRARIES[suffix].compress(bytes_of(format, LOGITS))
    path, given = "-", {"stdin": data}
    if not piped:
        path, given = f"l.{format.suffixes[0]}.{suffix}", {}
        Path(path).write_bytes(data)
    options = ["--input-format", format.name] if format.name == "tsv" and piped else []
    result = inside(capfdbinary, "grad", path, "t.npy", "-f", "npy", *options, **given)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


@pytest.mark.parametrize("format", WRITTEN, ids=lambda format: format.name)
def test_every_format_is_written(format, suffix, files, capfdbinary):
    for end in ("", f".{suffix}"):
        name = f"p.{format.suffixes[0]}{end}"
        assert_done(inside(capfdbinary, "softmax", "l.npy", "-o", name))
    plain = Path(f"p.{format.suffixes[0]}").read_bytes()
    packed = Path(f"p.{format.suffixes[0]}.{suffix}").read_bytes()
    assert len(plain) > 10
    if format.name != "npz":  # which has the time in it
        assert LIBRARIES[suffix].decompress(packed) == plain
    if format.can_read:
        assert_same_bits(load(f"p.{format.suffixes[0]}.{suffix}", ReadOptions()), PROBABILITIES)


def test_losses_and_json_are_compressed_too(suffix, files, capfdbinary):
    open_ = LIBRARIES[suffix].decompress
    command = "grad", "l.npy", "t.npy", "-o", "g.npy", "--loss-out", f"loss.csv.{suffix}"
    assert_done(inside(capfdbinary, *command))
    assert float(open_(Path(f"loss.csv.{suffix}").read_bytes())) == pytest.approx(LOSSES.mean())
    command = "loss", "l.npy", "t.npy", "--json", "-o", f"a.json.{suffix}"
    assert inside(capfdbinary, *command).code == 0
    assert strict_json(open_(Path(f"a.json.{suffix}").read_bytes()))["rows"] == 2


def test_a_compressed_file_without_a_suffix_is_recognised(suffix, files, capfdbinary):
    data = LIBRARIES[suffix].compress(npy(LOGITS))
    for name in ("a", f"a.{suffix}", "a.npy"):
        Path(name).write_bytes(data)
        assert_same_bits(load(name, ReadOptions()), LOGITS)


def test_a_suffix_of_a_file_that_is_not_compressed_does_no_harm(suffix, files):
    Path(f"a.npy.{suffix}").write_bytes(npy(LOGITS))
    assert_same_bits(load(f"a.npy.{suffix}", ReadOptions()), LOGITS)


def test_one_archive_with_both(suffix, files, capfdbinary):
    stream = io.BytesIO()
    np.savez(stream, logits=LOGITS, targets=TARGETS)
    data = LIBRARIES[suffix].compress(stream.getvalue())
    Path(f"e.npz.{suffix}").write_bytes(data)
    for path, given in ((f"e.npz.{suffix}", {}), ("-", {"stdin": data})):
        result = inside(capfdbinary, "loss", path, **given)
        assert result.code == 0, result.err
        assert float(result.text) == pytest.approx(LOSSES.mean(), rel=1e-15)


@pytest.mark.parametrize("padding", [b"", bytes(512)], ids=["", "padded"])
def test_streams_that_follow_each_other_are_one(padding, suffix, files):
    data = npy(LOGITS)
    compress = LIBRARIES[suffix].compress
    parts = [compress(data[:50]), compress(b""), compress(data[50:100]), compress(data[100:])]
    Path("a").write_bytes(b"".join(parts) + padding)
    assert_same_bits(load("a", ReadOptions()), LOGITS)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_stream_that_is_cut_anywhere_is_an_error(streams, suffix, files, capfdbinary):
    array = np.random.default_rng(1).normal(size=(20, 3))
    data, compress = npy(array), LIBRARIES[suffix].compress
    half = len(data) // streams
    parts = [compress(data[:half])] + ([compress(data[half:])] if streams == 2 else [])
    whole = b"".join(parts)
    Path("a.npy").write_bytes(whole)
    assert_same_bits(load("a.npy", ReadOptions()), array)
    ends = {*range(13, len(whole), 23), *range(len(whole) - 12, len(whole)), len(parts[0]) + 1}
    for end in sorted(end for end in ends if end < len(whole)):
        before = contents(files)
        result = inside(capfdbinary, "softmax", "-", "-o", "p.npy", stdin=whole[:end])
        assert_error(result, 1, "<stdin>")
        assert_unchanged(files, before)


@pytest.mark.parametrize("rest", [b"x", b"\0\0x", b"1,2,3\n" * 99], ids=["one", "zeros", "text"])
def test_other_bytes_after_the_stream_are_an_error(rest, suffix, files, capfdbinary):
    data = LIBRARIES[suffix].compress(b"1,2,3\n") + rest
    result = inside(capfdbinary, "softmax", "-", stdin=data)
    assert_error(result, 1, "<stdin>", by_suffix(f"a.{suffix}").name, "damaged")


def test_a_damaged_stream_is_an_error(suffix, files, capfdbinary):
    array = np.random.default_rng(1).normal(size=(50, 3))
    data = bytearray(LIBRARIES[suffix].compress(npy(array)))
    chance = random.Random(1)
    for _ in range(20):
        place = chance.randrange(40, len(data) - 30)
        data[place] ^= 0xFF
        result = inside(capfdbinary, "softmax", "-", stdin=bytes(data))
        if suffix != "zst" or result.code:  # zstd has no checksum unless it is asked for one
            assert_error(result, 1, "<stdin>")
        data[place] ^= 0xFF


@pytest.mark.slow
def test_a_bomb_behind_an_array_is_one_error_in_little_memory(suffix, files):
    pieces = LIBRARIES[suffix].compress(npy(LOGITS)), LIBRARIES[suffix].compress(bytes(10**7))
    Path("l.npy").write_bytes(pieces[0] + 50 * pieces[1])
    result = run("softmax", "l.npy", cwd=files, memory=2_000_000_000)
    assert_error(result, 1, "l.npy", "more bytes follow")


def test_a_bomb_around_an_archive_is_one_error(suffix, files, capfdbinary, monkeypatch):
    monkeypatch.setattr(inflated, "FREE", 10**6)
    data = LIBRARIES[suffix].compress(b"PK\x03\x04" + bytes(10**7))
    Path("l.npz").write_bytes(data)
    assert_error(inside(capfdbinary, "softmax", "l.npz"), 1, "l.npz", "20 times", "decompress it")


def test_an_input_that_changes_while_it_is_read_is_noticed(suffix, files):
    from xentcli.errors import FileError
    from xentcli.files.opening import open_reader

    Path("a").write_bytes(LIBRARIES[suffix].compress(npy(LOGITS)))
    with open_reader("a", ReadOptions()) as reader:
        Path("a").write_bytes(b"other")
        with pytest.raises(FileError, match="changed"):
            reader.whole()


def test_inspect_reads_them(suffix, files, capfdbinary):
    Path(f"a.npy.{suffix}").write_bytes(LIBRARIES[suffix].compress(npy(LOGITS)))
    result = inside(capfdbinary, "inspect", f"a.npy.{suffix}")
    name = by_suffix(f"a.{suffix}").name
    assert result.text.startswith(f"a.npy.{suffix}: (2, 3) float64, npy 1.0, {name}, C order")


def test_pieces_of_any_size_give_the_same(suffix, monkeypatch):
    array = np.random.default_rng(1).normal(size=(100, 3))
    data = LIBRARIES[suffix].compress(npy(array))
    for piece in (1, 2, 7, 100):
        monkeypatch.setattr(inflated, "PIECE", piece)
        source = Source(io.BytesIO(data), "a stream")
        read = inflated.InflatedSource(source, by_suffix(f"a.{suffix}"))
        assert read.read(40) + read.read(10**6) == npy(array)


def test_zstd_without_its_library_says_what_to_install(files, capfdbinary, monkeypatch):
    import importlib

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    data = b"\x28\xb5\x2f\xfd" + bytes(99)
    Path("l.npy.zst").write_bytes(data)
    before = contents(files)
    for arguments in (["softmax", "l.npy.zst"], ["softmax", "none.npy", "-o", "p.npy.zst"]):
        assert_error(inside(capfdbinary, *arguments), 3, "zstd", "xentcli[zstd]")
        assert_unchanged(files, before)


def test_every_compression_has_a_suffix_and_first_bytes_of_its_own():
    assert {kind.suffix for kind in COMPRESSIONS} == {"gz", "xz", "bz2", "zst"}
    for suffix, library in LIBRARIES.items():
        start = library.compress(b"1,2,3")[:12]
        assert [kind.suffix for kind in COMPRESSIONS if kind.matches(start)] == [suffix]
        assert not [kind for kind in COMPRESSIONS if kind.matches(b"BZh1,2,3\n4,5")]
