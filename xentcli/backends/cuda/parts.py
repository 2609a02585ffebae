"""The sums over the classes of a part of a row, and the row's sums from those of its parts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import cuda

from xentcli.backends.cuda.formulas import UNIT, exponential, gap_of, min_of, peak_of
from xentcli.backends.cuda.primitives import device, larger, times
from xentcli.backends.cuda.reductions import (
    NO_CLASS,
    SUMS_SIZE,
    WARP,
    reduce_max,
    reduce_sum_with_error,
    reduce_sums,
)
from xentcli.backends.cuda.two_words import add, add_pairs, multiply


class PartSums(NamedTuple):
    """Sums over a part of a row's classes, to be combined with those of the other parts.

    `peak` is their largest logit; the exponentials are relative to it, or to 0 where it is −inf.
    A name with `_low` is the second word of a number.
    """

    peak: Any
    ones: Any  # how many classes have the largest logit
    others: Any  # Σ e of the other classes, times 2⁹⁶⁰
    others_low: Any
    target: Any  # the logit of an index target, 0 if it is in another part
    peak_mass: Any  # Σ a of the classes with the largest logit
    peak_mass_low: Any
    other_mass: Any  # Σ a of the other classes
    other_mass_low: Any
    gap_sum: Any  # Σ a·gap
    gap_sum_low: Any
    argmax: Any  # the first class with the largest logit


@device
def sums_of(peak, ones, others, target, peak_mass, other_mass, gap_sum, argmax):
    """A part's sums from numbers of one word and of two."""
    return PartSums(
        peak,
        ones,
        others[0],
        others[1],
        target,
        peak_mass[0],
        peak_mass[1],
        other_mass[0],
        other_mass[1],
        gap_sum[0],
        gap_sum[1],
        argmax,
    )


@device
def load_sums(memory, at):
    """Read a part's sums from memory."""
    return PartSums(
        memory[at],
        memory[at + 1],
        memory[at + 2],
        memory[at + 3],
        memory[at + 4],
        memory[at + 5],
        memory[at + 6],
        memory[at + 7],
        memory[at + 8],
        memory[at + 9],
        memory[at + 10],
        memory[at + 11],
    )


@device
def store_sums(memory, at, sums):
    """Write a part's sums to memory."""
    for i in range(SUMS_SIZE):
        memory[at + i] = sums[i]


@device
def combine_parts(states, params, task, sums):
    """The sums of a whole row, valid in its first thread; all threads must call this."""
    first = task.row * params.parts * SUMS_SIZE
    largest = -math.inf
    for k in range(task.thread, params.parts, task.threads):
        largest = larger(largest, states[first + k * SUMS_SIZE])
    largest = reduce_max(largest, sums, task)
    ones, target, argmax = 0.0, 0.0, NO_CLASS
    others, peak_mass, other_mass, gap_sum = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    if task.thread < WARP:
        peak = peak_of(largest, params)
        for k in range(task.thread, params.parts, WARP):
            part = load_sums(states, first + k * SUMS_SIZE)
            target += part.target
            gap_sum = add(gap_sum[0], gap_sum[1] + part.gap_sum_low, part.gap_sum)
            mass = part.peak_mass, part.peak_mass_low
            if part.peak == largest:
                ones += part.ones
                others = add(others[0], others[1] + part.others_low, part.others)
                peak_mass = add(peak_mass[0], peak_mass[1] + mass[1], mass[0])
                argmax = min_of(argmax, part.argmax)
            else:
                gap, error = gap_of(peak, part.peak, params)
                of_part = times(part.others, UNIT), times(part.others_low, UNIT)
                of_part = multiply(add_pairs((part.ones, 0.0), of_part), exponential(gap, error))
                others = add(others[0], others[1] + of_part[1], of_part[0])
                other_mass = add(other_mass[0], other_mass[1] + mass[1], mass[0])
                a = mass[0] + part.other_mass
                if a != 0.0:
                    gap_sum = add(gap_sum[0], gap_sum[1], times(a, gap))
            other_mass = add(other_mass[0], other_mass[1] + part.other_mass_low, part.other_mass)
        at = task.first + task.thread
        store_pair(sums, at, others)
        store_pair(sums, at + 2 * WARP, peak_mass)
        store_pair(sums, at + 4 * WARP, other_mass)
        store_pair(sums, at + 6 * WARP, gap_sum)
        sums[at + 8 * WARP] = ones
        sums[at + 9 * WARP] = target
    for i in range(4):
        reduce_sum_with_error(sums[2 * i * WARP :], WARP, task, WARP)
    reduce_sums(sums[8 * WARP :], 2, WARP, task, WARP)
    others, peak_mass = (sums[0], sums[WARP]), (sums[2 * WARP], sums[3 * WARP])
    other_mass, gap_sum = (sums[4 * WARP], sums[5 * WARP]), (sums[6 * WARP], sums[7 * WARP])
    ones, target = sums[8 * WARP], sums[9 * WARP]
    cuda.syncthreads()
    argmax = -reduce_max(-argmax, sums, task)
    return sums_of(largest, ones, others, target, peak_mass, other_mass, gap_sum, argmax)


@device
def store_pair(sums, at, pair):
    """Two words of a warp's sums, a warp's width apart."""
    sums[at] = pair[0]
    sums[at + WARP] = pair[1]
