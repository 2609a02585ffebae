"""Which parts of an array lie in which chunks, when it is read in C order.

A row is a run of the last axis. Positions count numbers in the C order of the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import TypeAlias

from xentcli.records import dataclass

Shape: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[slice, ...]

WANTED = 1 << 24  # bytes that are decoded together: several chunks in parallel
LARGEST = 1 << 28  # bytes; of larger chunks only some rows are kept, and they are decoded again


def boxes(shape: Shape, start: int, stop: int) -> Iterator[Box]:
    """The boxes that make up the numbers from `start` to `stop`, in order.

    >>> list(boxes((4, 3), 3, 9))
    [(slice(1, 3, None), slice(0, 3, None))]
    >>> [box[:2] for box in boxes((2, 3, 5), 10, 20)]
    [(slice(0, 1, None), slice(2, 3, None)), (slice(1, 2, None), slice(0, 1, None))]
    """
    if len(shape) < 2:
        if start < stop:
            yield (slice(start, stop),) if shape else ()
        return
    inner = prod(shape[1:])
    first, within = divmod(start, inner)
    if within:
        end = min(inner, stop - first * inner)
        for box in boxes(shape[1:], within, end):
            yield slice(first, first + 1), *box
        start = first * inner + end
    first, last = start // inner, stop // inner
    if first < last:
        yield slice(first, last), *(slice(0, n) for n in shape[1:])
    if start < stop and stop > last * inner:
        for box in boxes(shape[1:], 0, stop - last * inner):
            yield slice(last, last + 1), *box


def size_of(box: Box) -> int:
    """How many numbers are in a box."""
    return prod(part.stop - part.start for part in box)


def pieces(box: Box, chunks: Shape) -> Iterator[tuple[Shape, Box]]:
    """The parts of a box that lie in one chunk each, with the place of the chunk.

    >>> list(pieces((slice(1, 4),), (2,)))
    [((0,), (slice(1, 2, None),)), ((1,), (slice(2, 4, None),))]
    """
    ranges = [
        range(part.start // size, -(-part.stop // size))
        for part, size in zip(box, chunks, strict=True)
    ]
    for place in product(*ranges):
        yield (
            place,
            tuple(
                slice(max(part.start, n * size), min(part.stop, (n + 1) * size))
                for part, size, n in zip(box, chunks, place, strict=True)
            ),
        )


@dataclass(frozen=True)
class Bands:
    """An array cut into bands of whole rows, each a box, in the order of its numbers.

    A band is `step` indices of an axis for one index of each axis before it, made of whole chunks
    unless they are too large: then a chunk is in `times` bands, and decoded for each.
    """

    shape: Shape
    axis: int
    step: int
    times: int

    @classmethod
    def of(cls, shape: Shape, chunks: Shape, itemsize: int, factor: int = 1) -> Bands:
        """The bands of an array, of about `factor` times `WANTED` bytes."""
        times, wanted = 1, WANTED * factor
        for axis in range(max(1, len(shape) - 1)):
            if not shape:
                break
            inner = max(1, prod(shape[axis + 1 :]) * itemsize)
            whole = max(1, min(chunks[axis], shape[axis]))
            last = axis >= len(shape) - 2
            if whole * inner <= LARGEST:
                return cls(shape, axis, max(1, wanted // (whole * inner)) * whole, times)
            if last or inner <= wanted:
                step = max(1, wanted // inner)
                return cls(shape, axis, step, times * -(-whole // step))
            times *= whole
        return cls(shape, 0, 1, 1)

    def at(self, position: int) -> tuple[Box, int, int]:
        """The band that holds a position: its box, and where it starts and ends."""
        if not self.shape:
            return (), 0, 1
        inner = prod(self.shape[self.axis + 1 :])
        lead, within = divmod(position, self.shape[self.axis] * inner)
        first = within // inner // self.step * self.step
        last = min(first + self.step, self.shape[self.axis])
        before = []
        for n in reversed(self.shape[: self.axis]):
            lead, index = divmod(lead, n)
            before.append(slice(index, index + 1))
        after = (slice(0, n) for n in self.shape[self.axis + 1 :])
        box = (*reversed(before), slice(first, last), *after)
        start = position - within + first * inner
        return box, start, start + (last - first) * inner
