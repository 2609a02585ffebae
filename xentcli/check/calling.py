"""What the functions of `xentcli.check` take: arrays of any library, and options by their names."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from xentcli.arrays.dtypes import BF16, Array, attribute
from xentcli.errors import ShapeError, reason

P = ParamSpec("P")
R = TypeVar("R")


def named_options(function: Callable[P, R]) -> Callable[P, R]:
    """The function; an option of another name is a TypeError that suggests the right one."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        __tracebackhide__ = True  # pytest shows the line of the test
        for name in options:
            if name not in known:
                raise TypeError(_unknown(function.__name__, name, list(known)))
        return function(*args, **options)

    return call


def _unknown(function: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{function}() got an unexpected keyword argument {name!r}{hint}"


def host_array(values: Any, where: str) -> Any:
    """A tensor of PyTorch or CuPy on any device as an array; anything else unchanged."""
    on_device = attribute(values, "__cuda_array_interface__") is not None
    if attribute(values, "detach") is None and not (on_device and attribute(values, "get")):
        return values
    try:
        return values.get() if attribute(values, "detach") is None else _of_tensor(values)
    except Exception as error:  # a tensor may have no memory, or be none of PyTorch's
        raise ShapeError(where, f"not an array: {reason(error)}") from error


def _of_tensor(values: Any) -> Any:
    """A tensor of PyTorch as an array, its bfloat16, its sparse ones and its lazy views too."""
    tensor = values.detach().cpu()
    for name in ("to_dense", "resolve_conj", "resolve_neg"):
        if hasattr(tensor, name):
            tensor = getattr(tensor, name)()
    if str(tensor.dtype) != "torch.bfloat16":
        return tensor.numpy()
    torch = importlib.import_module("torch")
    bits: Array = tensor.contiguous().view(torch.int16).numpy()
    return bits.view(BF16)
