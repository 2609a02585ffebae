"""Series and scalars that the kernels for a teacher share."""

from __future__ import annotations

import math

from xentcli.backends.cpu.arithmetic import inline_jit, log1p, polynomial

# (x + expm1(−x)) / x² in powers of −x, up to the last that matters in float32 for |x| < ¾.
NEAR_F32 = 0.75
excess_series_f32 = polynomial(tuple(1.0 / math.factorial(j + 2) for j in range(8, -1, -1)))


@inline_jit
def signed_log1p(x):
    """log(1 + x) for x > −1, of a number near 0."""
    if x >= 0.0:
        return log1p(x, 0.0)[0]
    return 0.0 - log1p((0.0 - x) / (1.0 + x), 0.0)[0]


@inline_jit
def excess(x):
    """x + expm1(−x) for |x| < ¼."""
    total = 0.0
    for k in range(14, 1, -1):
        total = (total * (0.0 - x) + 1.0) / k
    return total * x * x
