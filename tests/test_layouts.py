"""Arrays as people have them: every layout of memory × every array argument × every backend.

The answer has the bits of the same numbers in plain arrays, and nothing but `out` is written.
"""

import array

import numpy as np
import pytest
from backends import SIMULATED, up_to
from helpers import assert_same_bits
from numpy.lib.stride_tricks import as_strided

from xentcli import DataError, cross_entropy, log_softmax, softmax
from xentcli.arrays.dtypes import BF16, narrow, native
from xentcli.check import check

N = up_to(19, 3)  # more than one tile of 16 rows
MANY = up_to(70, 5)  # classes of a long row


def strided(a):
    wide = np.zeros([3 * n for n in a.shape], a.dtype)
    part = wide[tuple(slice(1, None, 3) for _ in a.shape)]
    part[...] = a
    return part


def unaligned(a):
    return np.frombuffer(bytearray(b" " + a.tobytes()), a.dtype, offset=1).reshape(a.shape)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(a, folder):
    np.save(folder / "mapped.npy", a)
    return np.load(folder / "mapped.npy", mmap_mode="r")


def zero_strides(a):
    """All rows are the first one."""
    return np.broadcast_to(a[:1], a.shape)


def structured(a):
    records = np.zeros(a.shape, [("other", "u1"), ("value", a.dtype)])
    records["value"] = a
    return records["value"]


def subclassed(a):
    class Subclass(np.ndarray):
        pass

    return a.view(Subclass)


class Object:
    """What has nothing but `__array__`, as xarray's and JAX's arrays."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a


class Interface:
    """What has nothing but `__array_interface__`."""

    def __init__(self, a):
        self.a, self.__array_interface__ = a, a.__array_interface__


LAYOUTS = {
    "C": np.copy,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "unaligned": unaligned,
    "read-only": read_only,
    "frombuffer": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "mapped": mapped,
    "zero strides": zero_strides,
    "field of a structure": structured,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "subclass": subclassed,
    "__array__": Object,
    "__array_interface__": Interface,
    "memoryview": memoryview,
}
NOT_OF_BFLOAT16 = {"byte-swapped", "memoryview"}  # it is little-endian; buffers have no such format

# Each argument in the dtypes that it may have, for 5 classes. Of many only the reading differs.
DTYPES = {
    "logits": ["f2", "bf16", "f4", "f8", "i4"],
    "targets": ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "bf16", "f4", "f8"],
    "probabilities": ["f8"],
    "weight": ["f4", "f8", "i8"],
    "sample_weight": ["f4", "f8", "i8"],
    "upstream": ["f4", "f8", "i8"],
}
OF_MANY = {"logits": "f8", "targets": "i8", "probabilities": "f8"}


def arrays_of(classes):
    """Every array argument of a call, in float64 or int64."""
    rng = np.random.default_rng(classes)
    q = rng.integers(0, 5, (N, classes)) + np.eye(N, classes)
    return {
        "logits": np.round(rng.normal(size=(N, classes)) * 16) / 4,
        "targets": rng.integers(0, classes, N),
        "probabilities": q / q.sum(axis=1, keepdims=True),
        "weight": rng.integers(1, 4, classes).astype(float),
        "sample_weight": rng.integers(1, 4, N).astype(float),
        "upstream": rng.integers(1, 4, N).astype(float),
    }


def as_dtype(a, dtype):
    return narrow(a.astype("f4"), BF16) if dtype == "bf16" else a.astype(dtype)


def call(name, values, classes, backend):
    """A loss with one of the arguments replaced."""
    given = {**arrays_of(classes), name: values}
    q = given.pop("probabilities")
    given["targets"] = q if name == "probabilities" else given["targets"]
    return cross_entropy(**given, reduction="none", backend=backend, threads=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DTYPES)
def test_every_layout_gives_the_same_bits(name, layout, backend, tmp_path):
    cases = [(dtype, 5) for dtype in DTYPES[name]]
    cases += [(OF_MANY[name], MANY)] if name in OF_MANY else []
    cases = cases[-1:] if SIMULATED else cases
    for dtype, classes in cases:
        if dtype != "bf16" or layout not in NOT_OF_BFLOAT16:
            values = as_dtype(arrays_of(classes)[name], dtype)
            other = mapped(values, tmp_path) if layout == "mapped" else LAYOUTS[layout](values)
            assert_same_as_plain(name, other, classes, backend)


def assert_same_as_plain(name, other, classes, backend):
    """The bits of the same numbers in a plain array, and not one of them is written."""
    seen = np.asarray(other)
    before, plain = seen.tobytes(), np.array(seen, native(seen.dtype), order="C")
    found, expected = (call(name, one, classes, backend) for one in (other, plain))
    assert_same_bits(found.grad, expected.grad)
    assert_same_bits(found.loss, expected.loss)
    assert seen.tobytes() == before, f"{name} of dtype {seen.dtype} was written"


def laid_out(array, layout, folder):
    """Memory of that layout and of the array's shape, to write into."""
    if layout == "mapped":
        return np.lib.format.open_memmap(folder / "out.npy", "w+", array.dtype, array.shape)
    return LAYOUTS[layout](array)


OUT = ["C", "Fortran", "strided", "reversed", "unaligned", "mapped", "field of a structure"]
OUT += ["byte-swapped", "subclass"]


@pytest.mark.parametrize("layout", OUT)
@pytest.mark.parametrize("dtype", ["f4", "f8", pytest.param("bf16", marks=pytest.mark.slow)])
def test_out_of_every_layout_gets_the_same_numbers(dtype, layout, backend, tmp_path):
    if dtype == "bf16" and layout in NOT_OF_BFLOAT16:
        return
    for classes in {5, MANY}:
        x = as_dtype(arrays_of(classes)["logits"], "f4")
        out = laid_out(as_dtype(np.full(x.shape, 7.0), dtype), layout, tmp_path)
        plain = np.zeros(x.shape, native(out.dtype))
        for function in (softmax, log_softmax):
            assert function(x, out=out, backend=backend, threads=1) is out
            function(x, out=plain, backend=backend, threads=1)
            assert_same_bits(np.array(out, plain.dtype), plain)


@pytest.mark.parametrize("layout", ["C", "Fortran", "strided", "reversed", "unaligned", "subclass"])
def test_logits_of_every_layout_are_overwritten_in_place(layout, backend):
    x = LAYOUTS[layout](arrays_of(5)["logits"])
    expected = cross_entropy(np.array(x), arrays_of(5)["targets"], backend=backend).grad
    assert cross_entropy(x, arrays_of(5)["targets"], out=x, backend=backend).grad is x
    assert_same_bits(np.array(x), expected)


UNFIT = {
    "a broadcast array": (np.broadcast_to(np.zeros(5), (N, 5)), "read-only"),
    "one row": (as_strided(np.zeros(5), (N, 5), (0, 8)), "share memory"),
    "one number": (as_strided(np.zeros(1), (N, 5), (0, 0)), "share memory"),
    "rows that overlap": (as_strided(np.zeros(2 * N + 5), (N, 5), (16, 8)), "share memory"),
    "rows that overlap, reversed": (
        as_strided(np.zeros(2 * N + 5)[::-1], (N, 5), (-16, -8)),
        "share memory",
    ),
    "no axes": (np.zeros(()), r"shape \(\) does not fit"),
    "no rows": (np.zeros((0, 5)), r"shape \(0, 5\) does not fit"),
    "bool": (np.zeros((N, 5), bool), "dtype bool is not supported"),
    "objects": (np.zeros((N, 5), object), "dtype object is not supported"),
    "a structure": (np.zeros((N, 5), [("a", "f4")]), "dtype V4 is not supported"),
    "a masked array": (np.ma.zeros((N, 5)), "masked arrays are not supported"),
    "a memoryview": (memoryview(np.zeros((N, 5))), "expected a NumPy array, not memoryview"),
    "an array.array": (array.array("d", [0.0] * N), "expected a NumPy array, not array"),
    "an object": (Object(np.zeros((N, 5))), "expected a NumPy array, not Object"),
    "lists": ([[0.0] * 5] * N, "expected a NumPy array, not list"),
}


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("function", [cross_entropy, softmax])
def test_out_that_cannot_take_the_result(function, name, backend):
    out, words = UNFIT[name]
    targets = [arrays_of(5)["targets"]] if function is cross_entropy else []
    with pytest.raises(DataError, match=f"^out: .*{words}"):
        function(arrays_of(5)["logits"], *targets, out=out, backend=backend)


@pytest.mark.parametrize("name", DTYPES)
def test_python_s_own_sequences_are_arrays(name, backend):
    values = arrays_of(5)[name]
    flat = array.array("q" if name == "targets" else "d", values.reshape(-1).tolist())
    shaped = [values.tolist(), list(values), tuple(map(tuple, np.atleast_2d(values)))]
    for one in [*shaped, flat] if values.ndim == 1 else shaped:
        one = one[0] if values.ndim == 1 and isinstance(one, tuple) else one
        expected = call(name, values, 5, backend)
        assert_same_bits(call(name, one, 5, backend).grad, expected.grad)


def test_b105_a_column_of_a_table_of_labels(backend):
    """The layouts of what pandas, pyarrow and polars give, and a matrix of labels has."""
    y = arrays_of(5)["targets"]
    table = np.stack([y, -y, y], axis=1)
    expected = call("targets", y, 5, backend)
    for column in (table[:, 0], table[:, 2], table[::-1, 0][::-1], table[:, :1], table[:, :1].T[0]):
        assert_same_bits(call("targets", column, 5, backend).grad, expected.grad)


@pytest.mark.parametrize("name", ["logits", "targets", "grad", "loss", *DTYPES])
@pytest.mark.parametrize("layout", ["read-only", "strided", "reversed", "unaligned", "subclass"])
def test_check_takes_every_layout(name, layout):
    given = {k: v for k, v in arrays_of(5).items() if k != "probabilities"}
    if name == "probabilities":
        given["targets"] = arrays_of(5)["probabilities"]
    r = cross_entropy(**given, reduction="none")
    given |= {"grad": r.grad, "loss": r.loss}
    key = "targets" if name == "probabilities" else name
    assert check(**{**given, key: LAYOUTS[layout](given[key])}, reduction="none").ok


def of_library(name, values):
    """A column of a library of data frames, or a tensor."""
    library = pytest.importorskip(name)
    if name == "pandas":
        return [library.Series(values), library.DataFrame({"a": values, "b": values})["a"]]
    if name == "pyarrow":
        whole = library.array(values)
        twice = library.array(np.concatenate([values, values]))
        return [whole, library.chunked_array([whole[:3], whole[3:]]), twice[len(values) :]]
    if name == "polars":
        return [library.Series(values), library.DataFrame({"a": values})["a"]]
    tensor = library.from_numpy(values.copy())
    return [tensor, library.stack([tensor, tensor], 1)[:, 0], tensor.flip(0).flip(0)]


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars", "torch"])
@pytest.mark.parametrize("name", ["targets", "sample_weight", "upstream", "weight"])
@pytest.mark.parametrize("kernels", ["numpy", "cpu"])
def test_columns_of_data_frames_and_tensors(name, library, kernels):
    values = arrays_of(5)[name]
    for column in of_library(library, values):
        expected = call(name, values, 5, kernels)
        assert_same_bits(call(name, column, 5, kernels).grad, expected.grad)
        assert_same_bits(np.asarray(column), values)


@pytest.mark.parametrize("library", ["pandas", "torch"])
@pytest.mark.parametrize("kernels", ["numpy", "cpu"])
def test_frames_and_tensors_of_logits(library, kernels):
    module, x = pytest.importorskip(library), arrays_of(5)["logits"]
    if library == "pandas":
        tables = [module.DataFrame(x), module.DataFrame(np.c_[x, x])[list(range(5, 10))]]
    else:
        tables = [module.from_numpy(x), module.from_numpy(x.T.copy()).T]
    for table in tables:
        expected = call("logits", np.asarray(table), 5, kernels)
        assert_same_bits(call("logits", table, 5, kernels).grad, expected.grad)


@pytest.mark.parametrize("kernels", ["numpy", "cpu"])
def test_tensors_of_bfloat16(kernels):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(arrays_of(5)["logits"]).bfloat16()
    expected = call("logits", as_dtype(x.float().numpy(), "bf16"), 5, kernels)
    for tensor in (x, x.T.contiguous().T, torch.stack([x, x])[1]):
        assert_same_bits(call("logits", tensor, 5, kernels).grad, expected.grad)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", ["logits", "probabilities", "weight", "sample_weight", "upstream"])
def test_a_tensor_that_requires_grad_says_what_to_do(name, dtype):
    torch = pytest.importorskip("torch")
    values = torch.from_numpy(arrays_of(5)[name]).to(getattr(torch, dtype)).requires_grad_()
    where = "targets" if name == "probabilities" else name
    with pytest.raises(DataError, match=f"^{where}: the tensor requires grad.*tensor.detach"):
        call(name, values, 5, "numpy")
