"""Where logits, probabilities and gradients lie in device memory."""

from __future__ import annotations

from typing import Any, NamedTuple


class Box(NamedTuple):
    """(outer, C, inner) elements of device memory.

    `data` is a flat device array from the first element on to the last: float32, float64, or the
    bits of a half type as `uint16` (float16) or `int16` (bfloat16). `strides` count elements.
    """

    data: Any
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]


def boxed(data: Any, shape: tuple[int, int, int]) -> Box:
    """Elements that lie one after the other."""
    _, classes, inner = shape
    return Box(data, shape, (classes * inner, inner, 1))
