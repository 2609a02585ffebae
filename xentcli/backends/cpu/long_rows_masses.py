"""The masses a_c of long rows: what they are, and their sums over a row.

Where all weights are 1, and there are no probabilities or no label smoothing, masses take no
arithmetic: they are `equal`, label_smoothing/C or the probabilities themselves. Without
probabilities Σ a_c is the same for all rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xentcli.backends.cpu.arithmetic import add, add_wide, any_lane, inline_jit
from xentcli.backends.cpu.formulas import finite_or_zero, mass, mass_times_gap
from xentcli.backends.cpu.half_types import as_float64, constant_for
from xentcli.backends.cpu.row_ops import element, load_padded, sum_across
from xentcli.backends.cpu.simd import LANES, constant, equal, less, select


class Setup(NamedTuple):
    """What all rows have in common."""

    weight: Any
    classes: Any
    scalars: Any
    exact: Any
    uniform: Any  # label_smoothing/C
    has_masses: Any  # whether all classes have masses, and not only the target
    are_plain: Any  # whether they take no arithmetic
    total: Any  # Σ a_c without probabilities, and its error
    total_low: Any


class MassSums(NamedTuple):
    """The sums of a row, in 16 lanes."""

    gaps: Any  # Σ a_c·d_c, with its error; Σ d_c for masses that are all equal
    gaps_low: Any
    masses: Any  # with probabilities, Σ a_c and its error
    masses_low: Any  # unless `exact`, Σ a_c of the classes with d_c = 0, which `masses` leaves out


@inline_jit
def setup_of(weight, classes, scalars, probs, exact):
    """What all rows have in common."""
    uniform = scalars.label_smoothing / classes
    plain, total, total_low = True, 0.0, 0.0
    if probs is not None:
        plain = scalars.label_smoothing == 0.0
    plain = plain and are_ones(weight, classes)
    if probs is None:
        total, total_low = sum_of_masses(weight, classes, scalars, uniform)
    has_masses = probs is not None or uniform > 0.0
    return Setup(weight, classes, scalars, exact, uniform, has_masses, plain, total, total_low)


@inline_jit
def are_ones(weight, classes):
    """Whether all weights are 1."""
    one = constant_for(weight, 1.0)
    for c in range(0, classes, LANES):
        w = load_padded(weight, classes, c, 1.0)
        if any_lane(less(w, one)) or any_lane(less(one, w)):
            return False
    return True


@inline_jit
def sum_of_masses(weight, classes, scalars, uniform):
    """Σ a_c of label smoothing, and its error."""
    high = constant_for(weight, 0.0)
    low = high
    for c in range(0, classes, LANES):
        w = load_padded(weight, classes, c, 0.0)
        high, low = add(high, low, mass(w, None, scalars, uniform))
    return sum_across(high, low)


@inline_jit
def masses_from(q, setup, c, are_plain):
    """a of classes c to c + 15, without the one-hot part of an index target."""
    weight, classes, scalars = setup.weight, setup.classes, setup.scalars
    if q is None:
        if are_plain:
            return constant_for(weight, setup.uniform)
        return mass(load_padded(weight, classes, c, 0.0), None, scalars, setup.uniform)
    wide = as_float64(load_padded(q, classes, c, 0.0))
    if are_plain:
        return wide
    return mass(load_padded(weight, classes, c, 0.0), wide, scalars, setup.uniform)


@inline_jit
def mass_of_class(q, setup, c):
    """a of one class, without the one-hot part."""
    if q is None:
        return mass(setup.weight[c], None, setup.scalars, setup.uniform)
    return mass(setup.weight[c], element(q, c), setup.scalars, setup.uniform)


@inline_jit
def no_masses(like):
    """Sums of nothing."""
    zero = constant(like, 0.0)
    return MassSums(zero, zero, zero, zero)


@inline_jit
def add_masses(sums, q, setup, c, gap, are_plain):
    """Add the masses of 16 classes, and their products with gaps, which are 0 beyond the end."""
    exact = setup.exact
    if q is None:
        if are_plain:
            high, low = add_wide(sums.gaps, sums.gaps_low, gap, exact)
        else:
            a = masses_from(q, setup, c, are_plain)
            high, low = add_wide(sums.gaps, sums.gaps_low, mass_times_gap(a, gap), exact)
        return MassSums(high, low, sums.masses, sums.masses_low)
    a = masses_from(q, setup, c, are_plain)
    high, low = add_wide(sums.gaps, sums.gaps_low, mass_times_gap(a, gap), exact)
    if exact:
        return MassSums(high, low, *add(sums.masses, sums.masses_low, a))
    zero = constant(a, 0.0)
    is_max = equal(gap, zero)
    rest = sums.masses + select(is_max, zero, a)
    return MassSums(high, low, rest, sums.masses_low + select(is_max, a, zero))


@inline_jit
def total_masses(sums, q, setup, argmax):
    """Σ a_c·d_c, a of the largest logit, and Σ a_c of the others."""
    of_max = mass_of_class(q, setup, argmax)
    high, low = sum_across(sums.gaps, sums.gaps_low)
    gaps = high + finite_or_zero(low, high)
    if q is None:
        if setup.are_plain:
            gaps = gaps * setup.uniform
        return gaps, of_max, (setup.total - of_max) + setup.total_low
    if setup.exact:
        total, error = sum_across(sums.masses, sums.masses_low)
        return gaps, of_max, (total - of_max) + error
    zero = constant(sums.masses, 0.0)
    rest, ties = sum_across(sums.masses, zero)[0], sum_across(sums.masses_low, zero)[0]
    return gaps, of_max, rest + (ties - of_max)
