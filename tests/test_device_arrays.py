"""How arrays on a device are described; the rest on Numba's simulator, in a process."""

from pathlib import Path

import numpy as np
import pytest
from backends import pass_on_the_simulator

from xentcli import cross_entropy
from xentcli.arrays.device_view import device_array
from xentcli.arrays.dtypes import BF16
from xentcli.errors import DataError, DtypeError, ShapeError

HERE = Path(__file__).parent


class Described:
    """An array that nobody will read."""

    def __init__(self, dtype="", **interface):
        self.dtype = dtype
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": (2, 3),
            "typestr": "<f4",
            "data": (4096, False),
            **interface,
        }


class Undescribed:
    """As PyTorch and JAX are where they cannot describe an array."""

    requires_grad = False

    def __init__(self, error, device=2):
        self.error, self.device = error, device

    @property
    def __cuda_array_interface__(self):
        raise self.error

    def __dlpack_device__(self):
        if self.device is None:
            raise ValueError("Unknown device type meta for Dlpack")
        return self.device, 0

    def __array__(self, dtype=None, copy=None):
        return np.zeros((2, 3))


@pytest.mark.slow
def test_everything_on_the_simulator():
    pass_on_the_simulator("simulated_device_arrays.py")


def test_what_is_described():
    array = device_array(Described(), "logits")
    assert (array.shape, array.strides, array.dtype) == ((2, 3), (12, 4), np.float32)
    assert (array.pointer, array.stream, array.device, array.span) == (4096, None, None, 6)
    assert array.folded([(0,), (1,), ()]) == (3, 1, 0)
    assert device_array(Described(shape=(3, 0)), "logits").span == 0


@pytest.mark.parametrize("dtype", ["torch.bfloat16", "bfloat16"])
def test_bfloat16_is_known_by_the_name_of_the_dtype(dtype):
    assert device_array(Described(dtype, typestr="<V2"), "logits").dtype == BF16


@pytest.mark.parametrize("values", [np.zeros(3), [1.0, 2.0], 3.0, None, "text"], ids=repr)
def test_what_is_on_the_host_is_not_described(values):
    assert device_array(values, "logits") is None


@pytest.mark.parametrize("device", [1, None])
def test_arrays_of_libraries_that_are_on_the_host_stay_there(device):
    """Or that have no memory at all, which NumPy then says."""
    values = Undescribed(AttributeError("only for CUDA tensors"), device)
    assert device_array(values, "logits") is None
    assert cross_entropy(values, [0, 1]).backend == "numpy"


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (Described(typestr="<V2"), DtypeError, "dtype V2 is not supported"),
        (Described(typestr=">f4"), DtypeError, "dtype float32 is not supported"),
        (Described(typestr="<c8"), DtypeError, "dtype complex64 is not supported"),
        (Described(strides=(12, -4)), ShapeError, r"strides of \(12, -4\) bytes"),
        (Described(strides=(18, 4)), ShapeError, r"strides of \(18, 4\) bytes"),
        (Described(data=(4098, False)), ShapeError, "not aligned to 4 bytes"),
        (Described(mask=Described()), DataError, "masked arrays are not supported"),
        (
            Undescribed(KeyError("torch.bfloat16")),
            DataError,
            "its memory cannot be found: .*bfloat16",
        ),
        (Undescribed(AttributeError("only for one device")), DataError, "only for one device"),
    ],
)
def test_what_cannot_be_used(values, error, match):
    with pytest.raises(error, match=f"^logits: .*{match}"):
        cross_entropy(values, [0, 1])


@pytest.mark.parametrize("name", ["targets", "weight", "sample_weight", "upstream", "out"])
def test_arrays_on_a_device_beside_logits_on_the_host(name):
    given = {"targets": [0, 1], name: Described()}
    with pytest.raises(DataError, match=f"^{name}: the array is on a device, but the logits are"):
        cross_entropy(np.zeros((2, 3)), **given)


def test_a_tensor_on_the_host_that_requires_grad_is_an_error_of_ours():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Use tensor.detach().numpy() instead.")

    with pytest.raises(ShapeError, match=r"^logits: not an array: Use tensor\.detach"):
        cross_entropy(Tensor(), [0, 1])


def test_a_tensor_that_requires_grad_says_what_to_do():
    values = Undescribed(RuntimeError("Can't get __cuda_array_interface__"))
    values.requires_grad = True
    with pytest.raises(DataError, match=r"logits: the tensor requires grad.*tensor\.detach\(\)"):
        cross_entropy(values, [0, 1])
