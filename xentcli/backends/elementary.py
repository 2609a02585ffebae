"""Constants and formulas of exp, log1p and exact sums that both compiled backends share.

A polynomial is a tuple of coefficients, highest power first, for Horner's rule with one `fma` per
coefficient. `tests/constants/make_polynomials.py` makes the constants, or bounds their errors.

The functions are plain Python: `backends.cpu` compiles them for numbers and for vectors of 16,
`backends.cuda` for numbers. The other formulas of a row are written once per backend, because they
differ in the order of operations and in the use of `fma`, and so in the last bit.
"""

from __future__ import annotations

from typing import Any

ROUND = 6755399441055744.0  # 1.5·2⁵²: the last bits of ROUND + n are the integer n
LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: n·LN2_HIGH is exact
LN2_LOW = 1.90821492927058770002e-10  # ln 2 − LN2_HIGH
PER_LN2 = 1.4426950408889634  # 1 / ln 2
MAX_GAP = 746.0  # exp(−746) is 0 as a float64

# t(r) = (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2, in float64.
EXP = (
    2.4970346612558245e-08,
    2.7629653634202374e-07,
    2.7557689580954227e-06,
    2.480149521752667e-05,
    0.00019841269378535748,
    0.0013888888941000317,
    0.00833333333356072,
    0.04166666666654339,
    0.16666666666666294,
    0.5000000000000009,
)

# The same with a relative error of eʳ of 2⁻⁵¹·⁵, 2⁻⁴⁵·⁷ and 2⁻³⁹·⁶, for results with the digits of
# float32: of terms that cancel, of softcaps, and of others.
EXP_51 = (
    2.7476368708556646e-07,
    2.7635405185757153e-06,
    2.4801935402926125e-05,
    0.00019841184331898562,
    0.0013888888510227803,
    0.008333333371473003,
    0.041666666668168116,
    0.16666666666610372,
    0.4999999999999828,
)
EXP_45 = (
    2.7492717127733457e-06,
    2.4881213663083755e-05,
    0.00019841541903914064,
    0.0013888810352632602,
    0.008333333091375005,
    0.04166666696675027,
    0.16666666667277633,
    0.49999999999657524,
)
EXP_39 = (
    2.470779230448657e-05,
    0.00019909300145152972,
    0.0013889200430228915,
    0.008333281257253237,
    0.041666664368648215,
    0.16666666786333073,
    0.5000000000436001,
)

# The same in float32.
EXP_SINGLE = (
    0.0013780283443455664,
    0.00836903769562092,
    0.0416691049164819,
    0.1666651768658146,
    0.4999998988166617,
)

# eʳ for |r| ≤ ln 2 / 2 in float64, with the accuracy that a float32 result needs.
EXP_FOR_FLOAT32 = (
    0.001384365101867992,
    0.008374155954367846,
    0.041668002119414696,
    0.16666431252836963,
    0.4999999420844264,
    1.0000000321680262,
    1.0,
)

# R(z) of log(1 + f) = f − f²/2 + s·(f²/2 + z·R(z)), s = f / (2 + f), z = s², √½ < 1 + f < √2:
# Lg7 to Lg1 of FreeBSD's e_log.c.
LOG1P = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)

# The same with the accuracy of float32: Lg4 to Lg1 of FreeBSD's e_logf.c.
LOG1P_SINGLE = (
    0.24279078841209412,
    0.2849878668785095,
    0.40000972151756287,
    0.6666666269302368,
)


def add(high: Any, low: Any, value: Any) -> tuple[Any, Any]:
    """Add to a sum that carries its rounding error (Knuth)."""
    total = high + value
    shadow = total - high
    return total, low + ((high - (total - shadow)) + (value - shadow))


def difference(a: Any, b: Any) -> tuple[Any, Any]:
    """a − b as a rounded number and the error of that (Knuth)."""
    high = a - b
    shadow = high - a
    return high, (a - (high - shadow)) - (b + shadow)
