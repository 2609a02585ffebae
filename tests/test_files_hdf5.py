"""HDF5 files, written by h5py: every layout of a dataset; links out of the file are refused."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest
from cli import (
    GRADIENT,
    LOGITS,
    TARGETS,
    assert_done,
    assert_error,
    from_npy,
    inside,
    run,
    strict_json,
)
from helpers import assert_same_bits

from xentcli.arrays.dtypes import BF16, NAMES, narrow, widen
from xentcli.errors import DtypeError, FileError, FormatError, OptionError, UnavailableError
from xentcli.files import random_access
from xentcli.files.opening import load, open_reader
from xentcli.files.options import ReadOptions

h5py = pytest.importorskip("h5py")

NUMBERS = np.random.default_rng(1).normal(size=(57, 5))
PATH = "a.h5"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(**datasets):
    """A file of datasets, each an array, or its settings for h5py."""
    with h5py.File(PATH, "w") as file:
        for name, value in datasets.items():
            if isinstance(value, dict):
                file.create_dataset(name, **value)
            else:
                file[name] = value
    return PATH


def read(path=PATH, **how):
    return load(path, ReadOptions(**how))


# Every layout


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3), (3, 0)])
def test_a_dataset_of_any_shape_is_an_array(shape):
    array = np.arange(np.prod(shape, dtype=int), dtype="f4").reshape(shape)
    write(x=array)
    assert_same_bits(read(), array)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", ">i8", "i1", "u2", "u8"])
def test_every_dtype_is_kept(dtype):
    array = (NUMBERS * 9).astype("i8").astype(dtype)
    write(x=array)
    assert_same_bits(read(), array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (10, 5)},
        {"chunks": (7, 2), "compression": "gzip"},
        {"chunks": (57, 1), "compression": "lzf", "shuffle": True},
        {"chunks": (1, 5), "fletcher32": True},
        {"chunks": True, "maxshape": (None, 5)},
        {"chunks": (100, 10), "maxshape": (None, None), "compression": "gzip"},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [1, 9, 57])
def test_chunks_of_any_shape_are_read_row_by_row(how, rows):
    write(x={"data": NUMBERS, **how})
    with open_reader(PATH, ReadOptions()) as reader:
        found = [reader.read(min(rows, 57 - start) * 5).copy() for start in range(0, 57, rows)]
        reader.finish()
    assert_same_bits(np.concatenate(found), NUMBERS.reshape(-1))


def test_a_buffer_is_read_into():
    write(x=NUMBERS)
    with open_reader(PATH, ReadOptions()) as reader:
        buffer = reader.make_buffer(20)
        found = reader.read(15, buffer)
        assert np.shares_memory(found, buffer)
        reader.skip(10)
        assert_same_bits(reader.read(10), NUMBERS.reshape(-1)[25:35])
        assert reader.make_buffer(10**12) is None


def test_opaque_numbers_of_two_bytes_are_bfloat16(capfdbinary):
    bits = narrow(LOGITS, BF16)
    write(x=bits.view("V2"))
    found = read(dtype="bf16")
    assert found.dtype == BF16
    assert found.tobytes() == bits.tobytes()
    np.save("t.npy", TARGETS)
    assert_error(inside(capfdbinary, "loss", PATH, "t.npy"), 1, "V2", "--dtype bf16")
    result = inside(capfdbinary, "loss", PATH, "t.npy", "--dtype", "bf16")
    assert_done(result)
    assert float(result.out) == pytest.approx(1.5 * np.log(2), rel=0.01)
    assert widen(found, NAMES["f64"]) == pytest.approx(LOGITS, rel=0.01)


def test_enumerations_are_integers():
    kind = h5py.enum_dtype({"cat": 0, "dog": 1}, basetype="i1")
    write(x={"data": np.array([0, 1, 1], "i1"), "dtype": kind})
    assert_same_bits(read(), np.array([0, 1, 1], "i1"))


# Which dataset


def test_a_key_is_a_path():
    write(**{"train/deep/logits": NUMBERS, "labels": np.arange(3)})
    for key in ("train/deep/logits", "/train/deep/logits"):
        assert_same_bits(read(key=key), NUMBERS)
    with pytest.raises(OptionError, match="holds 2 arrays: labels, train/deep/logits"):
        read()
    for key in ("train", "train/other", "labels/x", ""):
        with pytest.raises(OptionError, match=f"no array '{key}'"):
            read(key=key)


def test_a_file_without_datasets_is_an_error():
    write()
    with pytest.raises(OptionError, match="holds 0 arrays"):
        read()


def test_what_leads_out_of_the_file_is_refused(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["g/x"] = NUMBERS
    np.arange(6.0).tofile("raw.bin")
    layout = h5py.VirtualLayout((57, 5), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "g/x", (57, 5))
    with h5py.File(PATH, "w") as file:
        file["external"] = h5py.ExternalLink("secret.h5", "/g/x")
        file["group"] = h5py.ExternalLink("secret.h5", "/g")
        file["soft"] = h5py.SoftLink("/group/x")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("stored", (2, 3), "f8", external=[("raw.bin", 0, 48)])
        file["inside"] = np.zeros(3)
    for key, words in {
        "external": "'external' is a link into the file secret.h5",
        "group/x": "'group' is a link into the file secret.h5",
        "soft": "'soft' is a link to /group/x",
        "virtual": "virtual dataset",
        "stored": "its numbers are in the file raw.bin",
    }.items():
        with pytest.raises(FormatError, match=words):
            read(key=key)
    assert_same_bits(read(key="inside"), np.zeros(3))


def test_hard_links_and_circles_are_read():
    with h5py.File(PATH, "w") as file:
        file["g/x"] = NUMBERS
        file["g/self"] = file["g"]
    assert_same_bits(read(), NUMBERS)


# What is wrong


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.array([True, False]), "bool"),
        (np.array([1j]), "complex128"),
        (np.zeros(2, "f4,i4"), "V8"),
        (["a", "b"], "object"),
        (np.array([b"a"]), "bytes"),
        (np.zeros(2, "V3"), "V3"),
        (np.zeros(2, "g"), "float128|longdouble"),
        (h5py.Empty("f4"), "empty dataset"),
    ],
    ids=str,
)
def test_other_dtypes_are_an_error(data, words):
    write(x=data)
    with pytest.raises((DtypeError, FormatError), match=words):
        read()


def test_lists_of_any_length_are_an_error():
    with h5py.File(PATH, "w") as file:
        dataset = file.create_dataset("x", (2,), h5py.vlen_dtype("f4"))
        dataset[0], dataset[1] = [1, 2], [3]
    with pytest.raises(DtypeError, match="object"):
        read()


@pytest.mark.parametrize("how", [{}, {"chunks": (1 << 10, 1000), "compression": "gzip"}])
def test_numbers_that_only_the_header_claims_are_not_allocated(how):
    write(x={"shape": (10**9, 10**3), "dtype": "f8", **how})
    result = run("inspect", PATH, memory=1 << 31)
    assert_error(result, 1, "declares 8000000000000 bytes of numbers, but stores")
    with pytest.raises(FormatError, match="declares"):
        read()


def test_chunks_that_only_the_header_claims_are_not_allocated():
    chunks = {"chunks": (8, 1 << 25), "maxshape": (None, None), "compression": "gzip"}
    write(x={"shape": (1, 4), "dtype": "f8", **chunks})
    with pytest.raises(FormatError, match="declares chunks of 2147483648 bytes"):
        read()


def test_a_file_that_changes_while_it_is_read_is_an_error():
    write(x=NUMBERS)
    with open_reader(PATH, ReadOptions()) as reader:
        reader.read(50)
        with Path(PATH).open("ab") as file:
            file.write(b"x")
        with pytest.raises(FileError, match="changed"):
            reader.finish()


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_an_error_of_the_disk_is_one_of_the_disk(number, monkeypatch):
    write(x={"data": NUMBERS, "chunks": (7, 5)}, y=NUMBERS)
    reads, real = [], random_access.RandomAccess.readinto

    def failing(self, buffer):
        reads.append(len(buffer))
        if len(reads) > number:
            raise FileError("a", "reading failed: Input/output error")
        return real(self, buffer)

    monkeypatch.setattr(random_access.RandomAccess, "readinto", failing)
    found = None
    with contextlib.suppress(FileError):
        found = read(key="x")
    if found is None:
        assert len(reads) > number
    else:
        assert len(reads) <= number
        assert_same_bits(found, NUMBERS)


def test_without_h5py_the_error_says_how_to_install_it(monkeypatch, capfdbinary):
    write(x=LOGITS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnavailableError):
        read()
    result = inside(capfdbinary, "softmax", PATH)
    assert_error(result, 3, "extra hdf5", "pip install 'xentcli[hdf5]'")


def test_another_file_is_no_hdf5_file():
    Path(PATH).write_bytes(b"1,2,3\n")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        read()
    Path(PATH).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(FormatError, match="cannot read this HDF5 file"):
        read()


# The commands


def test_one_file_holds_logits_and_targets(capfdbinary):
    write(logits=LOGITS, labels=TARGETS)
    result = inside(capfdbinary, "grad", PATH, "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_a_pipe_is_read(capfdbinary):
    write(**{"g/x": LOGITS, "g/y": TARGETS})
    np.save("t.npy", TARGETS)
    data = Path(PATH).read_bytes()
    result = inside(capfdbinary, "grad", "-", "t.npy", "--key", "g/x", "-f", "npy", stdin=data)
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_the_inspection_names_datasets_shapes_chunks_and_attributes(capfdbinary):
    write(**{"g/x": {"data": LOGITS, "chunks": (1, 3), "compression": "gzip"}, "y": ["a", "b"]})
    with h5py.File(PATH, "a") as file:
        file["g/x"].attrs["model"] = "m\n1"
        file["g/x"].attrs["step"] = 3
    result = inside(capfdbinary, "inspect", PATH)
    first, second = result.text.splitlines()
    words = r"(2, 3) float64, hdf5, chunks=(1, 3), compression=gzip, model=m\n1"
    assert first == f"{PATH}[g/x]: {words}"
    assert second == f"{PATH}[y]: (2,) object, hdf5"
    about = strict_json(inside(capfdbinary, "inspect", PATH, "--json", "--stats").text)["arrays"]
    assert about[0]["max"] == pytest.approx(np.log(2))
