"""The steps of a loop over the classes of a long row: 16 classes, or a line of 32 halves.

A step's numbers are one vector, or the two of `half_lines`. Which it is follows from the buffer of
exponentials: a pointer, or the two of `Planes`, and from nothing at run time. So the loops in
`long_rows_fast_passes` are written once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import overload

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.exp_pipeline import INLINE_OPTIONS, LATENCY, pipeline_step
from xentcli.backends.cpu.half_lines import (
    LINE,
    in_order,
    load_line,
    load_line_below,
    store_line,
    store_line_below,
    stream_line,
    takes_turns,
)
from xentcli.backends.cpu.half_types import cast_for, constant_for, itemsize
from xentcli.backends.cpu.load_store import (
    address,
    advance,
    load,
    store,
    store_masked,
    stream_store,
)
from xentcli.backends.cpu.row_ops import elements_to_boundary, load_padded, with_lane
from xentcli.backends.cpu.simd import F32, F64, LANES, fma, intrinsic, lanes_below


class Planes(NamedTuple):
    """Where the exponentials of half types are kept: those of each step's first vectors, and those
    of its second ones. They are apart where the vectors take turns, so that a step may begin at
    any class."""

    first: Any
    second: Any


def _is_planes(exps: Any) -> bool:
    return isinstance(exps, types.BaseTuple)


@intrinsic
def step_size(typing: Any, exps: Any) -> Any:
    """How many classes there are in a step: a constant at compile time."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(ir.IntType(64), LINE if _is_planes(exps) else LANES)

    return types.int64(exps), generate


@inline_jit
def planes(x, exps, classes):
    """The two parts of a buffer."""
    second = LANES
    if takes_turns(x):
        second = (classes // LINE + 4) * LANES
    return Planes(exps, advance(exps, second))


def buffer_for(x: Any, exps: Any, classes: Any) -> Any:
    """A buffer for the exponentials of the logits `x` in the memory at `exps`."""
    raise NotImplementedError  # compiled code takes `_buffer_for`


@overload(buffer_for, jit_options=INLINE_OPTIONS)
def _buffer_for(x, exps, classes):
    if x.dtype in (types.int16, types.uint16) and exps.dtype == types.float32:
        return lambda x, exps, classes: planes(x, exps, classes)
    return lambda x, exps, classes: exps


@inline_jit
def place(x, c):
    """Where in each plane a step begins."""
    return c >> 1 if takes_turns(x) else c


def from_class(x: Any, exps: Any, c: Any) -> Any:
    """The buffer from a class on, which any step may begin with."""
    raise NotImplementedError  # compiled code takes `_from_class`


@overload(from_class, jit_options=INLINE_OPTIONS)
def _from_class(x, exps, c):
    if not _is_planes(exps):
        return lambda x, exps, c: advance(exps, c)

    def pair(x, exps, c):
        at = place(x, c)
        if takes_turns(x) and c & 1:
            return Planes(advance(exps.second, at), advance(exps.first, at + 1))
        return Planes(advance(exps.first, at), advance(exps.second, at))

    return pair


@inline_jit
def feed_pair(state, x, pairs, peak, exps, c, keep):
    """Passes 1 and 2 of a step of two vectors, of the next row and of this one."""
    at = place(x, c - LATENCY)
    state, e = pipeline_step(state, pairs[0][0], pairs[1][0], *peak)
    if keep is not None:
        store(exps.first, at, e)
    state, e = pipeline_step(state, pairs[0][1], pairs[1][1], *peak)
    if keep is not None:
        store(exps.second, at, e)
    return state


@inline_jit
def feed_vector(state, vectors, peak, exps, c, keep):
    """The same of one vector."""
    state, e = pipeline_step(state, *vectors, *peak)
    if keep is not None:
        store(exps, c - LATENCY, e)
    return state


def feed(state: Any, rows: Any, peak: Any, exps: Any, c: Any, keep: Any) -> Any:
    """Passes 1 and 2 of a step: of the next row, and of this one.

    Unless `keep` is None, the exponentials that leave the pipeline are written to the buffer.
    """
    raise NotImplementedError  # compiled code takes `_feed`


@overload(feed, jit_options=INLINE_OPTIONS)
def _feed(state, rows, peak, exps, c, keep):
    if _is_planes(exps):

        def pair(state, rows, peak, exps, c, keep):
            pairs = load_line(rows[0], c), load_line(rows[1], c)
            return feed_pair(state, rows[1], pairs, peak, exps, c, keep)

        return pair

    def single(state, rows, peak, exps, c, keep):
        return feed_vector(state, (load(rows[0], c), load(rows[1], c)), peak, exps, c, keep)

    return single


def feed_last(state: Any, rows: Any, classes: Any, peak: Any, exps: Any, c: Any, keep: Any) -> Any:
    """The same of a step beyond the end of the row, where logits are −inf."""
    raise NotImplementedError  # compiled code takes `_feed_last`


@overload(feed_last, jit_options=INLINE_OPTIONS)
def _feed_last(state, rows, classes, peak, exps, c, keep):
    if _is_planes(exps):

        def pair(state, rows, classes, peak, exps, c, keep):
            count = classes - c
            pairs = load_line_below(rows[0], c, count), load_line_below(rows[1], c, count)
            return feed_pair(state, rows[1], pairs, peak, exps, c, keep)

        return pair

    def single(state, rows, classes, peak, exps, c, keep):
        last = load_padded(rows[0], classes, c, -math.inf)
        vectors = last, load_padded(rows[1], classes, c, -math.inf)
        return feed_vector(state, vectors, peak, exps, c, keep)

    return single


@inline_jit
def scaled(grad, exps, c, grad_scale):
    """16 exponentials times the factor of their row, for the gradient; −0.0 only for half types,
    where it is what rounding may give as well."""
    e, high = load(exps, c), constant_for(exps, grad_scale.high)
    if itemsize(grad) == 2:
        return cast_for(grad, e * high)
    g = fma(e, high, e * constant_for(exps, grad_scale.low))
    return cast_for(grad, g) + constant_for(grad, 0.0)


def entries_of_step(x: Any, grad: Any, exps: Any, c: Any, grad_scale: Any) -> Any:
    """The gradient of a step, without the target's own entry."""
    raise NotImplementedError  # compiled code takes `_entries_of_step`


@overload(entries_of_step, jit_options=INLINE_OPTIONS)
def _entries_of_step(x, grad, exps, c, grad_scale):
    if not _is_planes(exps):
        return lambda x, grad, exps, c, grad_scale: scaled(grad, exps, c, grad_scale)

    def pair(x, grad, exps, c, grad_scale):
        at = place(x, c)
        first = scaled(grad, exps.first, at, grad_scale)
        return first, scaled(grad, exps.second, at, grad_scale)

    return pair


def with_target(x: Any, grad: Any, entries: Any, at: Any, number: Any) -> Any:
    """Entries with that of the target, if it is one of them."""
    raise NotImplementedError  # compiled code takes `_with_target`


@overload(with_target, jit_options=INLINE_OPTIONS)
def _with_target(x, grad, entries, at, number):
    if entries in (F32, F64):
        return lambda x, grad, entries, at, number: with_lane(grad, entries, at, number)

    def pair(x, grad, entries, at, number):
        lane, other = float(at), float(at - LANES)
        if takes_turns(x):
            lane, other = 0.5 * at, 0.5 * (at - 1)  # the lanes are whole numbers
        first = with_lane(grad, entries[0], lane, number)
        return first, with_lane(grad, entries[1], other, number)

    return pair


def write_step(x: Any, grad: Any, c: Any, entries: Any, streaming: Any) -> Any:
    """Write the gradient of a step."""
    raise NotImplementedError  # compiled code takes `_write_step`


@overload(write_step, jit_options=INLINE_OPTIONS)
def _write_step(x, grad, c, entries, streaming):
    if entries in (F32, F64):

        def single(x, grad, c, entries, streaming):
            if streaming:
                stream_store(grad, c, entries)
            else:
                store(grad, c, entries)

        return single
    if grad.dtype in (types.int16, types.uint16):

        def halves(x, grad, c, entries, streaming):
            if streaming:
                stream_line(grad, c, x, entries)
            else:
                store_line(grad, c, x, entries)

        return halves

    def pair(x, grad, c, entries, streaming):
        first, second = in_order(x, entries)
        if streaming:
            stream_store(grad, c, first)
            stream_store(grad, c + LANES, second)
        else:
            store(grad, c, first)
            store(grad, c + LANES, second)

    return pair


def write_part(x: Any, grad: Any, c: Any, count: Any, entries: Any) -> Any:
    """Write the first entries of a step."""
    raise NotImplementedError  # compiled code takes `_write_part`


@overload(write_part, jit_options=INLINE_OPTIONS)
def _write_part(x, grad, c, count, entries):
    if entries in (F32, F64):
        return lambda x, grad, c, count, entries: store_masked(grad, c, lanes_below(count), entries)
    if grad.dtype in (types.int16, types.uint16):
        return lambda x, grad, c, count, entries: store_line_below(grad, c, count, x, entries)

    def pair(x, grad, c, count, entries):
        first, second = in_order(x, entries)
        store_masked(grad, c, lanes_below(count), first)
        store_masked(grad, c + LANES, lanes_below(count - LANES), second)

    return pair


@inline_jit
def before_boundary(grad, exps):
    """How many classes lie before the first step that may be streamed."""
    if step_size(exps) == LANES:
        return elements_to_boundary(grad)
    return -address(grad) % 64 // itemsize(grad)
