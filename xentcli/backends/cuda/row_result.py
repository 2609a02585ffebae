"""What a row with any target and any option comes to, from the sums of all its classes."""

from __future__ import annotations

from numba import float64, int64

from xentcli.backends.cuda.formulas import (
    concluded,
    device,
    entry,
    exponential,
    lesser,
    mass,
    slope,
)
from xentcli.backends.cuda.launch_params import GRADIENT, INDEX, PROBS
from xentcli.backends.cuda.primitives import get, times
from xentcli.backends.cuda.reductions import FAR, place_of


@device
def mass_at(given, c, call, row):
    """a of a class, without what an index target adds."""
    _, targets, weight, _ = given
    q = 0.0
    if call.kind == PROBS:
        place = place_of(row, call.inner, call.q_outer, call.q_inner)
        q = float64(get(targets, place + c * call.q_step))
    return mass(get(weight, c), q, call)


@device
def has_masses(call):
    """Whether classes beside an index target have a mass."""
    return call.kind == PROBS or (call.kind == INDEX and call.smoothing > 0.0)


@device
def target_mass(y, weight, call):
    """What an index target's class gets beyond smoothing."""
    if call.kind != INDEX:
        return 0.0
    return times(1.0 - call.smoothing, weight[y])


@device
def settled(sums, start, given, call, spot, out):
    """Write the row's results; what its gradient needs, from the sums of all of it: the factors
    of e and of a, `others`, and the entries of the largest and the target with their places."""
    x, _, weight, scale = given
    results, grad = out
    hot = target_mass(spot.y, weight, call)
    is_top = call.kind == INDEX and sums.score == sums.peak
    of_top, top = 0.0, int64(-1)
    if has_masses(call) and sums.top < FAR:
        top = int64(sums.top)
        if is_top:
            top = int64(spot.y)
        of_top = mass_at(given, top, call, spot.row)
    row = concluded(sums, hot, of_top, call)
    per_mass = 0.0
    if call.mode == GRADIENT:
        per_mass = scale[lesser(spot.row, scale.size - 1)] / call.temperature
        if spot.part == 0 or grad.size == 0:
            results[0, spot.row] = row.loss
            results[1, spot.row] = row.lse
    place, largest = top - spot.begin, 0.0
    if 0 <= place < spot.count:
        tilt = slope(float64(get(x, start + place * call.x_step)), call)
        largest = entry(1.0, of_top, True, row) * (per_mass * tilt) + 0.0
    else:
        place = int64(-1)
    inside, target = spot.y - spot.begin, 0.0
    if call.kind == INDEX and 0 <= inside < spot.count:
        tilt = slope(float64(get(x, start + inside * call.x_step)), call)
        a = mass_at(given, spot.y, call, spot.row) + hot
        e = exponential(sums.peak, sums.score, call)
        target = entry(e, a, is_top, row) * (per_mass * tilt) + 0.0
    else:
        inside = int64(-1)
    per_e = row.b / (1.0 + row.others) * per_mass
    return per_e, per_mass, row.others, float64(place), largest, float64(inside), target
