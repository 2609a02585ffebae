"""TEMPORARY: the same interface through NumPy, until the kernels are there."""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.dtypes import BF16
from xentcli.kernels import Scalars
from xentcli.kernels.cuda.box import Box


def _view(box: Box, host: Any) -> Any:
    kind = {"uint16": np.float16, "int16": BF16}.get(host.dtype.name, host.dtype)
    strides = tuple(s * host.itemsize for s in box.strides)
    return np.lib.stride_tricks.as_strided(host.view(kind), box.shape, strides)


def rows(
    logits: Box,
    targets: Any,
    weight: Any,
    scale: Any,
    scalars: Scalars,
    results: Any,
    grad: Box | None,
    stream: Any = 0,
) -> None:
    """What `kernels.Backend.rows` says, of arrays in device memory.

    `targets` is a device array of int64 (n,), −1 for ignored rows, or a Box of probabilities;
    `weight` (C,), `scale` (n,) or (1,), `results` (2, n) are device arrays of float64.
    Only enqueues; what it needs beside them it keeps for the next call on the same stream.
    """
    from xentcli.kernels.reference import NumpyBackend

    host = logits.data.copy_to_host()
    q = _view(targets, targets.data.copy_to_host()) if isinstance(targets, Box) else targets.copy_to_host()
    out = results.copy_to_host()
    g = None if grad is None else grad.data.copy_to_host()
    NumpyBackend().rows(
        _view(logits, host), q, weight.copy_to_host(), scale.copy_to_host(), scalars, out,
        None if grad is None else _view(grad, g),
    )
    results.copy_to_device(out)
    if grad is not None:
        grad.data.copy_to_device(g)


def softmax(logits: Box, scalars: Scalars, log: bool, out: Box, stream: Any = 0) -> None:
    """What `kernels.Backend.softmax` says, of arrays in device memory."""
    from xentcli.kernels.reference import NumpyBackend

    p = out.data.copy_to_host()
    NumpyBackend().softmax(_view(logits, logits.data.copy_to_host()), scalars, log, _view(out, p))
    out.data.copy_to_device(p)
