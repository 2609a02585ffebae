"""PyTorch files are read without their pickle being run; `pytorch/make.py` has made those here."""

import io
import os
import pickle
import runpy
import shutil
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from cli import GRADIENT, LOGITS, assert_done, assert_error, from_npy, inside, run
from helpers import assert_same_bits
from pytorch_files import pickled, pytorch, repacked, value

from xentcli.arrays.dtypes import BF16, widen
from xentcli.errors import XentError
from xentcli.files.opening import load
from xentcli.files.options import ReadOptions
from xentcli.files.pytorch import open_pytorch
from xentcli.files.source import Source

FOLDER = Path(__file__).parent / "pytorch"
COUNT = np.arange(24, dtype="f4")
NUMBERS = COUNT.reshape(4, 6)
VIEWS = [
    *(NUMBERS, NUMBERS.T, NUMBERS[1:, ::2], NUMBERS[2], NUMBERS[:0], COUNT[7]),
    *(np.broadcast_to(COUNT[:3], (2, 3)), NUMBERS.reshape(2, 2, 6).transpose(2, 0, 1)),
]
DTYPES = ["float16", "float32", "float64", "bool"]
DTYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def read(name, key=None):
    """A tensor of one of the files, in C order."""
    return np.ascontiguousarray(load(str(FOLDER / name), ReadOptions(key=key)))


@pytest.mark.parametrize("name", ["tensor.pt", "parameter.pth"])
def test_a_single_tensor_needs_no_key(name):
    assert_same_bits(read(name), NUMBERS)


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_views_of_a_list_are_chosen_by_number(number):
    found = load(str(FOLDER / "views.pt"), ReadOptions(key=str(number)))
    assert found.shape == VIEWS[number].shape
    assert_same_bits(np.array(found), np.array(VIEWS[number]))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_read(name):
    assert_same_bits(read("kinds.pt", name), np.arange(6).reshape(2, 3).astype(name))


def test_small_floats_are_read():
    expected = np.arange(6, dtype="f4").reshape(2, 3)
    found = read("kinds.pt", "bfloat16")
    assert found.dtype == BF16
    assert_same_bits(widen(found, np.dtype("f4")), expected)
    for name in ("float8_e4m3fn", "float8_e5m2"):
        assert_same_bits(read("kinds.pt", name), expected)


def test_views_of_small_floats_are_read():
    first, second = (load(str(FOLDER / "views-of-kinds.pt"), ReadOptions(key=key)) for key in "01")
    assert_same_bits(widen(np.array(first), np.dtype("f4")), np.array(NUMBERS.T))
    assert_same_bits(np.array(second), np.array(NUMBERS.T % 8))


def test_what_is_not_read_is_named_and_harms_no_other():
    with pytest.raises(XentError, match="complex64 is not supported"):
        read("kinds.pt", "complex64")


def test_a_state_dict_is_read():
    assert_same_bits(read("state.pt", "weight"), COUNT[:6].reshape(2, 3))
    assert_same_bits(read("state.pt", "bias"), COUNT[:2])


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_logits_and_targets_of_one_file_are_found(piped, capfdbinary):
    path = FOLDER / "eval.pt"
    given = {"stdin": path.read_bytes()} if piped else {}
    result = inside(capfdbinary, "grad", "-" if piped else path, "-f", "npy", **given)
    assert_done(result)
    inner = np.exp(NUMBERS.astype("f8"))
    expected = inner / inner.sum(axis=1, keepdims=True)
    expected[np.arange(4), [0, 5, 1, 2]] -= 1
    np.testing.assert_allclose(from_npy(result.out), expected / 4, rtol=1e-6, atol=1e-9)


def test_a_format_that_is_only_read_needs_another_for_the_result(files, capfdbinary):
    shutil.copy(FOLDER / "tensor.pt", "l.pt")
    assert_error(inside(capfdbinary, "softmax", "l.pt"), 2, "cannot write pt, only read it")
    assert_error(inside(capfdbinary, "softmax", "l.npy", "-o", "p.pt"), 2, "cannot write pt")


def test_inspect_shows_every_tensor(capfdbinary):
    result = inside(capfdbinary, "inspect", FOLDER / "kinds.pt", "--stats")
    lines = result.text.splitlines()
    assert result.code == 0, result.err
    assert len(lines) == 16
    assert lines[2].startswith(f"{FOLDER / 'kinds.pt'}[float32]: (2, 3) float32, pt, min 0, max 5,")
    assert lines[-1] == f"{FOLDER / 'kinds.pt'}[complex64]: (2, 3) complex64, pt"


def test_what_pytorch_wrote_before_1_6_is_named(capfdbinary):
    for arguments in (["softmax", FOLDER / "old.pt"], ["inspect", FOLDER / "old.pt"]):
        assert_error(inside(capfdbinary, *arguments), 1, "before version 1.6", "torch.save")
    data = (FOLDER / "old.pt").read_bytes()
    assert_error(inside(capfdbinary, "softmax", "-", stdin=data), 1, "before version 1.6")


def test_other_functions_are_named(capfdbinary):
    result = inside(capfdbinary, "softmax", FOLDER / "sparse.pt")
    assert_error(result, 1, "sparse.pt", "torch._utils._rebuild_sparse_tensor", "torch.load")


class Hostile:
    """A pickle of it calls a function when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [Hostile(), {"logits": Hostile()}, [Hostile()]],
    ids=["alone", "in-a-dict", "in-a-list"],  # repr has the address: other in each process
)
def test_no_code_is_run(value, protocol, files, capfdbinary):
    Path("l.pt").write_bytes(repacked({"a/data.pkl": pickle.dumps(value, protocol)}))
    for command in ("softmax", "inspect"):
        assert_error(inside(capfdbinary, command, "l.pt"), 1, "l.pt", "pickle")
    assert not Path("hacked").exists()


GOOD = {"storage": ("DoubleStorage", "0", 6), "offset": 0, "shape": (2, 3), "strides": (3, 1)}
BROKEN = {
    "a-storage-that-is-too-small": ({"storage": ("DoubleStorage", "0", 5)}, "reach to 6"),
    "a-storage-that-is-not-as-large": ({"storage": ("DoubleStorage", "0", 7)}, "48 bytes, not 56"),
    "a-storage-that-is-not-there": ({"storage": ("DoubleStorage", "1", 6)}, "a/data/1"),
    "a-path": ({"storage": ("DoubleStorage", "../data.pkl", 6)}, "no member"),
    "an-offset": ({"offset": 1}, "reach to 7"),
    "a-negative-offset": ({"offset": -1}, "sizes"),
    "a-negative-stride": ({"strides": (3, -1)}, "sizes"),
    "a-long-stride": ({"strides": (4, 1)}, "reach to 7"),
    "a-stride-too-few": ({"strides": (1,)}, "2 axes with 1 strides"),
    "a-petabyte": ({"shape": (10**12, 125), "strides": (0, 0)}, "expanded"),
    "beyond-the-address-space": ({"shape": (2**62, 2**62), "strides": (0, 0)}, "larger"),
    "beyond-64-bits": ({"shape": (2**64, 1), "strides": (0, 0)}, "sizes"),
    "a-size-of-text": ({"offset": "0"}, "sizes"),
    "a-size-of-truth": ({"offset": True}, "sizes"),
    "65-axes": ({"shape": (1,) * 65, "strides": (1,) * 65}, "larger"),
    "an-unknown-storage": ({"storage": ("QInt8Storage", "0", 6)}, "QInt8Storage"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_tensor_that_its_file_does_not_hold_is_one_error(name, files):
    changes, words = BROKEN[name]
    Path("l.pt").write_bytes(repacked(pytorch(LOGITS, **changes)))
    result = run("softmax", "l.pt", "-f", "npy", cwd=files, memory=2_000_000_000)
    assert_error(result, 1, "l.pt", words)


def test_the_forged_files_are_right_but_for_one_thing(files, capfdbinary):
    Path("l.pt").write_bytes(repacked(pytorch(LOGITS)))
    result = inside(capfdbinary, "grad", "l.pt", "t.npy", "-f", "npy")
    assert_done(result)
    np.testing.assert_allclose(from_npy(result.out), GRADIENT, rtol=1e-15)


def test_an_archive_that_was_packed_again_is_read(files):
    Path("l.pt").write_bytes(repacked(pytorch(LOGITS), zipfile.ZIP_DEFLATED))
    assert_same_bits(load("l.pt", ReadOptions()), LOGITS)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "0 members data.pkl"),
        ({"a/data.pkl": b"", "b/data.pkl": b""}, "2 members data.pkl"),
        ({"a/data.pkl": b""}, "pickle"),
        ({"a/data.pkl": b"\x80\x02K\x01."}, "neither a tensor"),
        ({"a/data.pkl": b"\x80\x02" + b"(" * 10000 + b"t."}, "neither"),
        ({"a/data.pkl": b"\x80\x02h\x07."}, "damaged"),
        ({"a/data.pkl": b"\x80\x02s."}, "damaged"),
        ({"a/data.pkl": b"\x80\x02]]s."}, "damaged"),
        ({"a/data.pkl": b"\x80\x02}]K\x01s."}, "keys"),
        ({"a/data.pkl": b"\x80\x02X\xff\xff\xff\xff."}, "damaged"),
        ({"a/data.pkl": pickled(**GOOD), "a/data/0": bytes(48), "a/byteorder": b"big"}, "byte"),
        ({"a/data.pkl": b"\x80\x02}."}, "holds no tensors"),
    ],
)
def test_a_damaged_file_is_one_error(members, words, files, capfdbinary):
    Path("l.pt").write_bytes(repacked(members))
    assert_error(inside(capfdbinary, "softmax", "l.pt"), 1, "l.pt", words)


def test_every_cut_is_an_error():
    data = (FOLDER / "tensor.pt").read_bytes()
    for end in range(0, len(data), 37):
        with (
            closing(Source(io.BytesIO(data[:end]), "a stream")) as source,
            pytest.raises(XentError),
        ):
            open_pytorch(source, ReadOptions()).whole()


def test_a_pytorch_file_under_another_name_is_named(files, capfdbinary):
    shutil.copy(FOLDER / "tensor.pt", "l.npz")
    assert_error(inside(capfdbinary, "softmax", "l.npz"), 1, "PyTorch")


@pytest.mark.slow
def test_the_files_are_those_that_pytorch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    made = runpy.run_path(str(FOLDER / "make.py"))["contents"]()
    for name, tensors in made.items():
        torch.save(tensors, tmp_path / name)
        with zipfile.ZipFile(tmp_path / name) as new, zipfile.ZipFile(FOLDER / name) as old:
            datas = [[n for n in z.namelist() if "/data" in n] for z in (new, old)]
            assert datas[0] == datas[1]
            assert [new.read(n) for n in datas[0]] == [old.read(n) for n in datas[1]]


@pytest.mark.parametrize("stride", [0, 7, 2**62, 2**63 - 1])
def test_the_stride_of_an_axis_of_one_number_does_not_matter(stride, tmp_path):
    array = np.arange(6.0)
    made = pytorch(array, shape=(1, 3, 1), strides=(stride, 2, stride))
    path = tmp_path / "a.pt"
    path.write_bytes(repacked(made))
    assert_same_bits(load(str(path), ReadOptions()), array[::2].reshape(1, 3, 1))


def test_tensors_in_dicts_in_dicts_have_both_names(files, capfdbinary):
    members = pytorch(LOGITS)
    inner = members["a/data.pkl"][2:-1]
    members["a/data.pkl"] = (
        b"\x80\x02}(" + value("epoch") + value(3) + value("out")
        + b"}(" + value("logits") + inner + value("list") + b"]" + inner + b"auu."
    )  # fmt: skip
    Path("l.pt").write_bytes(repacked(members))
    for key in ("out.logits", "out.list.0"):
        assert_same_bits(load("l.pt", ReadOptions(key=key)), LOGITS)
    result = inside(capfdbinary, "inspect", "l.pt")
    assert [line.split(":")[0] for line in result.text.splitlines()] == [
        "l.pt[out.logits]",
        "l.pt[out.list.0]",
    ]


def test_a_pickle_that_is_nested_without_end_is_an_error(files, capfdbinary):
    itself = b"\x80\x02]q\x00h\x00a."  # a list in itself
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    for data, words in ((itself, "holds no tensors"), (deep, "nested too deeply")):
        Path("l.pt").write_bytes(repacked({"a/data.pkl": data}))
        for command in ("softmax", "inspect"):
            assert_error(inside(capfdbinary, command, "l.pt"), 1, "l.pt", words)
