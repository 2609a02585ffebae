"""The exponential: range reduction, a polynomial, and the power of two put back.

exp(−g) = 2ⁿ·(1 + s), −g = n·ln 2 + r, |r| ≤ ln 2 / 2, and s = r + r²·t(r). The polynomials are
minimax for t = (eʳ − 1 − r) / r² with the weight of one unit in the last place of 1 + s.

It is written here because a call of the C library's keeps the loop scalar, and costs 150 ns
where 256-bit registers are in use. Everything takes one number or 16.
"""

from __future__ import annotations

from xentcli.backends import elementary
from xentcli.backends.cpu.arithmetic import compiled, difference, polynomial
from xentcli.backends.cpu.simd import (
    absolute,
    constant,
    equal,
    fma,
    less,
    not_above,
    power_of_two,
    select,
    smaller,
)
from xentcli.backends.elementary import FARTHEST, LN2_HIGH, LN2_LOW, PER_LN2, ROUND

# The same for float32.
SINGLE_FARTHEST = -120.0
SINGLE_ROUND = 12582912.0
SINGLE_LN2_HIGH = 0.693145751953125
SINGLE_LN2_LOW = 1.42860677e-06

# A row's exponentials are kept multiplied by a power of two, so that also the smallest are normal
# numbers, and a gradient that is subnormal is rounded once.
BOOST = 100
SINGLE_BOOST = 48
BOOSTED_FARTHEST = 776.0

series = polynomial(elementary.EXP)
single_series = polynomial(elementary.EXP_SINGLE)


@compiled
def nearest(gap):
    """n, and n + 1.5·2⁵², of −gap, and −gap − n·ln 2 but for the last bits of ln 2."""
    biased = fma(gap, constant(gap, -PER_LN2), constant(gap, ROUND))
    n = biased - ROUND
    return n, biased, fma(n, constant(gap, -LN2_HIGH), 0.0 - gap)


@compiled
def reduced(gap, error):
    """r, what its rounding took, and n + 1.5·2⁵², of −gap − error."""
    n, biased, high = nearest(gap)
    low = fma(n, constant(gap, LN2_LOW), error)
    r = high - low
    return r, (high - r) - low, biased


@compiled
def rest(r, taken):
    """s of r and of what its rounding took."""
    return r + fma(r * r, series(r), taken)


@compiled
def rest_and_exponent(gap, error):
    """s, and n + 1.5·2⁵², of exp(−gap − error); an error of None is 0."""
    if error is None:
        n, biased, high = nearest(gap)
        r = fma(n, constant(gap, -LN2_LOW), high)
        return fma(r * r, series(r), r), biased
    r, taken, biased = reduced(gap, error)
    return rest(r, taken), biased


@compiled
def exp_below(gap, error):
    """exp(−gap − error) for gap ≥ 0, within 0.9 ULP (1.2 without the error); subnormals too."""
    far = constant(gap, FARTHEST)
    if error is None:
        s, biased = rest_and_exponent(smaller(gap, far), None)
    else:  # of a gap of 1e16 the error alone is 1
        known = select(less(gap, far), error, constant(gap, 0.0))
        s, biased = rest_and_exponent(smaller(gap, far), known)
    power = power_of_two(biased, 100)  # else it is subnormal, and the product rounded twice
    return fma(power, s, power) * 2.0**-100


# What follows is in three parts, for loops that do each of them for other numbers: see `pipeline`.


@compiled
def begun(x, top):
    """The first part of exp(x − top)·2¹⁰⁰ of float64 x ≤ top."""
    gap, error = difference(top, x)
    r, taken, biased = reduced(gap, error)
    return gap, r, taken, power_of_two(biased, BOOST)


@compiled
def continued(parts):
    """The second part."""
    gap, r, taken, power = parts
    return gap, rest(r, taken), power


@compiled
def boosted(parts):
    """The exponential; NaN where there is none."""
    gap, s, power = parts
    beyond = less(constant(gap, BOOSTED_FARTHEST), gap)
    return select(beyond, constant(gap, 0.0), fma(power, s, power))


@compiled
def begun_single(x, top):
    """The first part of exp(x − top)·2⁴⁸ of float32 x ≤ top."""
    gap, error = difference(x, top)
    biased = fma(gap, constant(gap, PER_LN2), constant(gap, SINGLE_ROUND))
    n = biased - constant(gap, SINGLE_ROUND)
    high = fma(n, constant(gap, -SINGLE_LN2_HIGH), gap)  # exact
    low = fma(n, constant(gap, -SINGLE_LN2_LOW), error)
    return gap, high, low, high + low, power_of_two(biased, SINGLE_BOOST)


@compiled
def continued_single(parts):
    """The second part."""
    gap, high, low, r, power = parts
    curved = fma(r * r, single_series(r), low)
    return gap, high, curved, high + curved, power


@compiled
def boosted_single(parts):
    """The exponential, and what its rounding took; NaN where there is none."""
    gap, high, curved, s, power = parts
    zero = constant(gap, 0.0)
    near = not_above(constant(gap, SINGLE_FARTHEST), gap)  # true of NaN, which shall stay
    e = select(near, fma(power, s, power), zero)
    taken = fma(power, s, power - e) + power * (curved - (s - high))
    return e, select(near, taken, zero)


@compiled
def tanh(x):
    """tanh without cancellation near 0: with m = expm1(−2·|x|) it is ∓m / (2 + m); NaN of NaN."""
    gap = smaller(absolute(x) * 2.0, constant(x, 64.0))  # beyond, it is ±1
    s, biased = rest_and_exponent(gap, constant(x, 0.0))
    power = power_of_two(biased, 0)
    m = fma(power, s, power - 1.0)
    t = m / (2.0 + m)
    t = select(less(x, constant(x, 0.0)), t, 0.0 - t)
    return select(equal(x, x), t, x)


@compiled
def sech_squared(x):
    """1 − tanh², without cancellation: 4·e / (1 + e)², e = exp(−2·|x|)."""
    e = exp_below(absolute(x) * 2.0, constant(x, 0.0))
    return (e * 4.0) / ((1.0 + e) * (1.0 + e))
