"""The constants of `xentcli.backends.elementary`: `python tests/constants/make_polynomials.py`.

Of three kinds:

- ln 2 in two parts, 1/ln 2 and the like: made here from the definition, digit by digit.
- EXP and others with its name: minimax polynomials. Remez's algorithm on a grid of 2001 points
  gives them here but for the last digits: within 10⁻¹⁰ of each coefficient of EXP, and 2·10⁻⁷ of
  EXP_SINGLE and EXP_FOR_FLOAT32 (the program that made them had another grid; EXP_51, EXP_45 and
  EXP_39 are from here). So they are not made but checked: each
  has at most the error that is stated here, and `excess` says how far above the best possible one
  that is. The coefficients themselves stay: others would change results.
- LOG1P, LOG1P_SINGLE: published, in FreeBSD's e_log.c and e_logf.c, with their error bounds of
  2⁻⁵⁸·⁴⁵ and 2⁻³⁴·²², which are checked.

Everything is computed with 40 digits. `test_constants.py` runs the same.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from mpmath import MPContext

from xentcli.backends import elementary

mp = MPContext()
mp.dps = 40
HALF_LN2 = mp.log(2) / 2
POINTS = 2000  # of each interval at which errors are looked for


def cut_to(value, bits):
    """The first significant bits of a number."""
    _, exponent = mp.frexp(value)
    return mp.ldexp(mp.floor(mp.ldexp(value, bits - exponent)), exponent - bits)


def made():
    """Every constant that has a definition, by its name in the sources."""
    high, single_high = cut_to(mp.log(2), 32), cut_to(mp.log(2), 15)
    return {
        "ROUND": float(mp.mpf(3) / 2 * 2**52),
        "LN2": float(mp.log(2)),
        "LN2_HIGH": float(high),
        "LN2_LOW": float(mp.log(2) - high),
        "PER_LN2": float(1 / mp.log(2)),
        "SINGLE_ROUND": float(mp.mpf(3) / 2 * 2**23),
        "SINGLE_LN2_HIGH": float(single_high),
        "SINGLE_LN2_LOW": np.float32(float(mp.log(2) - single_high)),
    }


class Polynomial(NamedTuple):
    """Σ coefficients·rᵏ for a function on an interval, and how far it may be from that."""

    coefficients: tuple[float, ...]  # the highest power first
    function: Callable
    weight: Callable  # the error is this times the difference
    interval: tuple
    bound: float  # of the error of these coefficients

    def error(self, r, coefficients=None):
        """At one place; with the rounded coefficients unless others are given."""
        value = mp.mpf(0)
        for coefficient in coefficients or self.coefficients:
            value = value * r + coefficient
        return self.weight(r) * (value - self.function(r))

    def worst(self, coefficients=None):
        """The largest error on the interval."""
        return max(abs(self.error(r, coefficients)) for r in self.points())

    def points(self):
        low, high = self.interval
        return [low + (high - low) * i / POINTS for i in range(POINTS + 1)]


def rest_of_exp(r):
    """t of eʳ = 1 + r + r²·t(r)."""
    return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf(10) ** -12 else mp.mpf(1) / 2 + r / 6


def slope_of_exp(r):
    """(eʳ − 1) / r."""
    return mp.expm1(r) / r if r else mp.mpf(1)


def ulps_of(digits):
    """The weight of r²·t in units in the last place of eʳ, which are half as large below 1."""
    return lambda r: r**2 * 2**digits * (1 if r >= 0 else 2)


def relative_of_exp(r):
    """The weight of r²·t in parts of eʳ."""
    return r**2 * mp.exp(-r)


def rest_of_log(z):
    """R(z) / z of log((1 + s) / (1 − s)) = s·(2 + R(s²))."""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) / s - 2) / z if z > mp.mpf(10) ** -12 else mp.mpf(2) / 3 + 2 * z / 5


# Reduction leaves |r| a little above ln 2 / 2 where it rounds.
WIDER = -mp.mpf("0.3475"), mp.mpf("0.3475")
POLYNOMIALS = {
    "EXP": Polynomial(elementary.EXP, rest_of_exp, ulps_of(52), WIDER, 0.0746),  # ULP
    "EXP_SINGLE": Polynomial(elementary.EXP_SINGLE, rest_of_exp, ulps_of(23), WIDER, 0.03587),
    **{
        name: Polynomial(coefficients, rest_of_exp, relative_of_exp, WIDER, 2.0**bound)
        for name, coefficients, bound in (
            ("EXP_51", elementary.EXP_51, -51.57),
            ("EXP_45", elementary.EXP_45, -45.75),
            ("EXP_39", elementary.EXP_39, -39.64),
        )
    },
    "EXP_FOR_FLOAT32": Polynomial(
        elementary.EXP_FOR_FLOAT32[:-1],  # without the 1 that makes exp(0) exact
        slope_of_exp,
        lambda r: abs(r) * mp.exp(-r),  # the relative error of eʳ
        (-HALF_LN2, HALF_LN2),
        1.975e-9,
    ),
    "LOG1P": Polynomial(
        elementary.LOG1P,
        rest_of_log,
        lambda z: z,
        (mp.mpf(0), (mp.sqrt(2) - 1) ** 4),  # s = f / (2 + f) for 1 + f = √2
        2.0**-58.45,
    ),
    "LOG1P_SINGLE": Polynomial(
        elementary.LOG1P_SINGLE,
        rest_of_log,
        lambda z: z,
        (mp.mpf(0), (mp.sqrt(2) - 1) ** 4),
        2.0**-34.22,
    ),
}


@cache
def best(polynomial):
    """The coefficients that have the smallest largest error (Remez), as many as there are."""
    low, high = polynomial.interval
    count = len(polynomial.coefficients)
    nodes = [
        (low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count + 2))
        for i in range(count + 1)
    ]
    for _ in range(12):
        system, right = mp.matrix(count + 1, count + 1), mp.matrix(count + 1, 1)
        for i, r in enumerate(nodes):
            for k in range(count):
                system[i, k] = polynomial.weight(r) * r**k
            system[i, count] = (-1) ** i
            right[i] = polynomial.weight(r) * polynomial.function(r)
        coefficients = [*mp.lu_solve(system, right)[:count]][::-1]
        before, nodes = nodes, alternating(polynomial, coefficients, count + 1)
        if nodes == before:
            break
    return coefficients


def alternating(polynomial, coefficients, count):
    """Where the error is largest, once for each run of one sign."""
    errors = [(polynomial.error(r, coefficients), r) for r in polynomial.points()]
    runs = [[errors[0]]]
    for error, r in errors[1:]:
        if error * runs[-1][-1][0] < 0:
            runs.append([])
        runs[-1].append((error, r))
    peaks = [max(run, key=lambda at: abs(at[0])) for run in runs]
    while len(peaks) > count:
        peaks.remove(min(peaks[0], peaks[-1], key=lambda at: abs(at[0])))
    return [r for _, r in peaks]


def excess(polynomial):
    """By how much the error is above that of the best polynomial of the same degree."""
    return float(polynomial.worst() / polynomial.worst(best(polynomial)) - 1)


def main():
    """A table of everything."""
    for name, value in made().items():
        print(f"{name} = {float(value)!r}")  # noqa: T201 (a script)
    for name, polynomial in POLYNOMIALS.items():
        worst, coefficients = polynomial.worst(), best(polynomial)
        least = polynomial.worst(coefficients)
        print(f"{name}: error {mp.nstr(worst, 5)}, at most {polynomial.bound}; best")  # noqa: T201 (a script)
        for ours, other in zip(polynomial.coefficients, coefficients, strict=True):
            print(f"    {ours!r:24}  {float(other)!r}")  # noqa: T201 (a script)
        print(f"    its error {mp.nstr(least, 5)}")  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
