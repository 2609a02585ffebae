"""The three passes over long rows that `long_rows_fast` takes, of three rows in one loop."""

from __future__ import annotations

from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import inline_jit
from xentcli.backends.cpu.exp_pipeline import LATENCY
from xentcli.backends.cpu.exponential import F32_SCALE_BITS, ONE
from xentcli.backends.cpu.half_types import is_float64, itemsize
from xentcli.backends.cpu.load_store import prefetch, prefetch_to_write
from xentcli.backends.cpu.row_steps import (
    before_boundary,
    entries_of_step,
    feed,
    feed_last,
    from_class,
    step_size,
    with_target,
    write_part,
    write_step,
)
from xentcli.backends.cpu.workspace import long_row_offsets as offsets

long_row_offsets = inline_jit(offsets)

PREFETCH_BYTES = 8192  # with 2048 rows of 32,768 classes waited for memory, and took twice as long


class GradientScale(NamedTuple):
    """What pass 3 needs: the factor of a row's exponentials, and the target's own entry."""

    high: Any
    low: Any
    target: Any
    in_range: Any  # if not, the exponentials have been replaced by the gradient itself


@inline_jit
def exp_scale(exps):
    """The power of two that the exponentials in a buffer are multiplied by."""
    return ONE if is_float64(exps) else 2.0**F32_SCALE_BITS


@inline_jit
def exp_pass(state, rows, classes, begin, peak, exps, keep):
    """Pass 1 of the next row and pass 2 of this one, from a class on to the end.

    Unless `keep` is None, the exponentials are kept in a buffer.
    """
    step = step_size(exps)
    body = classes - classes % step
    for c in range(begin, body, step):
        prefetch_next(rows[0], c)
        state = feed(state, rows, peak, exps, c, keep)
    for c in range(body, classes + LATENCY, step):  # the last classes, then empty the pipeline
        state = feed_last(state, rows, classes, peak, exps, c, keep)
    return state.sums


@inline_jit
def prefetch_next(x, c):
    """Prefetch what pass 1 reads soon."""
    prefetch(x, c + PREFETCH_BYTES // itemsize(x))
    if itemsize(x) == 8:
        prefetch(x, c + (PREFETCH_BYTES + 64) // itemsize(x))


@inline_jit
def exp_pass_and_write(state, rows, classes, peak, buffers, grad_scale, out):
    """Pass 1 of the next row, pass 2 of this one, pass 3 of the one before.

    The target's own entry is written with the step it belongs to. Written afterwards, it made the
    processor read back a line that had just been streamed past the caches: 200 ns a row.
    """
    x, (exps, before), (grad, y, streaming) = rows[1], buffers, out
    step = step_size(exps)
    start = before_boundary(grad, exps) if streaming else 0
    if streaming:
        prefetch_to_write(grad, classes)
    write_ends(x, grad, start, before, (0, y), grad_scale)
    shifted = from_class(x, before, start)
    body = (classes - start) // step * step
    c, stop = 0, min(max(y - start, 0) // step * step, body)
    while True:
        while c < stop:
            prefetch_next(rows[0], c)
            state = feed(state, rows, peak, exps, c, True)
            g = entries_of_step(x, grad, shifted, c, grad_scale)
            write_step(x, grad, c + start, g, streaming)
            c += step
        if c >= body:
            break
        state = feed(state, rows, peak, exps, c, True)
        g = entries_of_step(x, grad, shifted, c, grad_scale)
        g = with_target(x, grad, g, y - c - start, grad_scale.target)
        write_step(x, grad, c + start, g, streaming)
        c, stop = c + step, body
    # Not as a full step that overlaps what was streamed, which would have to be waited for.
    end = start + body
    write_ends(x, grad, classes - end, before, (end, y), grad_scale)
    return exp_pass(state, rows, classes, body, peak, exps, True)


@inline_jit
def write_ends(x, grad, count, exps, at, grad_scale):
    """Write the first entries of a step, with the target's own if it is one of them."""
    c, y = at
    g = entries_of_step(x, grad, from_class(x, exps, c), 0, grad_scale)
    write_part(x, grad, c, count, with_target(x, grad, g, y - c, grad_scale.target))
