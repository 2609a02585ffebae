"""The result of a row with any target and any option, from the sums over all its classes."""

from __future__ import annotations

from numba import float64, int64

from xentcli.backends.cuda.formulas import (
    device,
    exponential,
    finish_row,
    gradient_entry,
    mass,
    min_of,
    slope,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, PROBS
from xentcli.backends.cuda.primitives import get, times
from xentcli.backends.cuda.reductions import NO_CLASS, row_offset


@device
def mass_of_class(given, c, params, row):
    """a of a class, without the one-hot part of an index target."""
    _, targets, weight, _ = given
    q = 0.0
    if params.kind == PROBS:
        place = row_offset(row, params.inner, params.q_outer, params.q_inner)
        q = float64(get(targets, place + c * params.q_step))
    return mass(get(weight, c), q, params)


@device
def has_other_masses(params):
    """Whether classes other than an index target have a mass."""
    return params.kind == PROBS or (params.kind == INDEX and params.smoothing > 0.0)


@device
def target_mass(y, weight, params):
    """The one-hot part of an index target: weight·(1 − label_smoothing)."""
    if params.kind != INDEX:
        return 0.0
    return times(1.0 - params.smoothing, weight[y])


@device
def store_row_result(sums, start, given, params, task, out):
    """Write the row's loss and log-sum-exp. Returns what its gradient needs: the factors of e and
    of a, `others`, and the indices and entries of the largest logit and of the target."""
    x, _, weight, scale = given
    results, grad = out
    hot = target_mass(task.y, weight, params)
    is_max = params.kind == INDEX and sums.target_z == sums.peak
    of_max, argmax = 0.0, int64(-1)
    if has_other_masses(params) and sums.argmax < NO_CLASS:
        argmax = int64(sums.argmax)
        if is_max:
            argmax = int64(task.y)
        of_max = mass_of_class(given, argmax, params, task.row)
    row = finish_row(sums, hot, of_max, params)
    per_mass = 0.0
    if params.mode == GRADIENT:
        per_mass = scale[min_of(task.row, scale.size - 1)] / params.temperature
        if task.part == 0 or grad.size == 0:
            results[0, task.row] = row.loss
            results[1, task.row] = row.lse
    place, largest = argmax - task.begin, 0.0
    if 0 <= place < task.count:
        dz = slope(float64(get(x, start + place * params.x_step)), params)
        largest = gradient_entry(1.0, of_max, True, row) * (per_mass * dz) + 0.0
    else:
        place = int64(-1)
    inside, target = task.y - task.begin, 0.0
    if params.kind == INDEX and 0 <= inside < task.count:
        dz = slope(float64(get(x, start + inside * params.x_step)), params)
        a = mass_of_class(given, task.y, params, task.row) + hot
        e = exponential(sums.peak, sums.target_z, params)
        target = gradient_entry(e, a, is_max, row) * (per_mass * dz) + 0.0
    else:
        inside = int64(-1)
    per_e = row.b / (1.0 + row.others) * per_mass
    return per_e, per_mass, row.others, float64(place), largest, float64(inside), target
