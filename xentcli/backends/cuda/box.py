"""Boxes: logits, probabilities and gradients in device memory, with their strides."""

from __future__ import annotations

from typing import Any, NamedTuple


class Box(NamedTuple):
    """An array (outer, C, inner) in device memory.

    `data` is a flat device array from the first element to the last: float32, float64, or the bits
    of a half type as `uint16` (float16) or `int16` (bfloat16). `strides` count elements.
    """

    data: Any
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]


def boxed(data: Any, shape: tuple[int, int, int]) -> Box:
    """A box of contiguous elements."""
    _, classes, inner = shape
    return Box(data, shape, (classes * inner, inner, 1))
