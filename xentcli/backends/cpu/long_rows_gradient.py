"""Pass 3 of long rows with any option: the gradient, 16 classes at a time, in float64.

The entries of the target and of the largest logit have formulas of their own, because B·p − a may
cancel there. They are written together with the vector that they belong to, not afterwards: see
`exp_pass_and_write` in `long_rows_fast`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import flag, inline_jit, jit
from xentcli.backends.cpu.gradient_formulas import (
    entries,
    entries_with_masses,
    entry_of_target,
    entry_with_mass,
    in_every_lane,
    row_factors,
)
from xentcli.backends.cpu.half_types import cast_for, constant_for
from xentcli.backends.cpu.load_store import load, store, store_masked, stream_store
from xentcli.backends.cpu.long_rows_masses import mass_of_class, masses_from
from xentcli.backends.cpu.row_ops import elements_to_boundary, multiply, with_lane
from xentcli.backends.cpu.simd import LANES, lanes_below
from xentcli.backends.cpu.softcap import times_slope


class OneClass(NamedTuple):
    """The target, or the class of the largest logit."""

    gap: Any
    error: Any
    e: Any
    slope: Any


class Specials(NamedTuple):
    """The classes whose entries have formulas of their own."""

    target: Any
    max: Any
    y: Any  # the index of the target, or −1
    argmax: Any  # of the largest logit where all classes have masses, otherwise −1
    max_is_target: Any


class Entries(NamedTuple):
    """What the vectors of a row's gradient are made of."""

    factors: Any
    specials: Any
    of_target: Any
    of_max: Any


@inline_jit
def special_entries(q, setup, row, factors, specials):
    """The entries of the target and of the largest logit."""
    exact, is_max = setup.exact, specials.max_is_target
    of_target, of_max = 0.0, 0.0
    if q is None:
        _, _, e, slope = specials.target
        if setup.has_masses or setup.scalars.z_loss > 0.0:
            hot = (1.0 - setup.scalars.label_smoothing) * setup.weight[specials.y]
            a = mass_of_class(q, setup, specials.y) + hot
            of_target = entry_with_mass(e, a, is_max, row, factors, slope, exact)
        else:
            of_target = entry_of_target(e, is_max, row, factors, slope, exact)
    if setup.has_masses:
        _, _, e, slope = specials.max
        a = mass_of_class(q, setup, specials.argmax)
        of_max = entry_with_mass(e, a, True, row, factors, slope, exact)
    return of_target, of_max


@inline_jit
def plain_vector(q, setup, factors, buffers, grad, c, how):
    """The gradient of classes c to c + 15, without the one-hot part of an index target."""
    has_masses, are_plain = how
    e = load(buffers.exps, c)
    if has_masses:
        pull = masses_from(q, setup, c, are_plain) * factors.per_mass
        if setup.scalars.softcap < math.inf:
            pull = times_slope(pull, load(buffers.slopes, c))
        g = entries_with_masses(e, pull, factors, setup.exact)
    else:
        g = entries(e, factors, setup.exact) * factors.unit
    return cast_for(grad, g) + constant_for(grad, 0.0)  # −0.0 becomes 0.0


@inline_jit
def vector_with_specials(q, setup, row, buffers, grad, c, how):
    """The same with the entries of the target and of the largest logit."""
    g = plain_vector(q, setup, row.factors, buffers, grad, c, how)
    g = with_lane(grad, g, row.specials.argmax - c, row.of_max)
    return with_lane(grad, g, row.specials.y - c, row.of_target)


@inline_jit
def write_vector(grad, c, g, streaming):
    """Write 16 entries."""
    if streaming:
        stream_store(grad, c, g)
    else:
        store(grad, c, g)


@inline_jit
def next_special(c, specials, start, body):
    """Where the next vector from c on begins that has an entry with a formula of its own."""
    stop = body
    if specials.y >= c:
        stop = min(stop, start + (specials.y - start) // LANES * LANES)
    if specials.argmax >= c:
        stop = min(stop, start + (specials.argmax - start) // LANES * LANES)
    return stop


@inline_jit
def write_row(q, setup, row, buffers, grad, streaming, how):
    """The gradient of a row into the caller's buffer, which may be x itself."""
    classes = setup.classes
    start = elements_to_boundary(grad) if streaming else 0
    body = start + (classes - start) // LANES * LANES
    c, count = min(start, 0), start  # a literal 0 would be another type, compiled twice
    while c < classes:
        if count > 0:  # both ends of the row too, of which this is one copy of the code
            g = vector_with_specials(q, setup, row, buffers, grad, c, how)
            if count < LANES:
                store_masked(grad, c, lanes_below(count), g)
            else:
                write_vector(grad, c, g, streaming)
            c += count
        stop = next_special(c, row.specials, start, body)
        while c < stop:
            g = plain_vector(q, setup, row.factors, buffers, grad, c, how)
            write_vector(grad, c, g, streaming)
            c += LANES
        count = min(LANES, classes - c)


@jit
def write_gradient(q, setup, scale, streaming, buffers, sums, specials, grad):
    """Pass 3."""
    factors = row_factors(sums, scale, setup.scalars, setup.has_masses, setup.exact)
    of_target, of_max = special_entries(q, setup, sums, factors, specials)
    if factors.before != 1.0:
        multiply(buffers.exps, setup.classes, factors.before)
    row = Entries(in_every_lane(buffers.exps, factors), specials, of_target, of_max)
    if not setup.has_masses:
        write_row(q, setup, row, buffers, grad, streaming, (flag(False), flag(False)))
    elif setup.are_plain:
        write_row(q, setup, row, buffers, grad, streaming, (flag(True), flag(True)))
    else:
        write_row(q, setup, row, buffers, grad, streaming, (flag(True), flag(False)))
