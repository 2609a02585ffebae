"""The oracle of `report` and `calibrate`: plain Python, straight from the definitions.

It imports nothing of the package. Rows are in mpmath with 400 digits, so that e^−1000 is more
than 0; statistics over rows are in float64 with `math.fsum`, term by term.
"""

import math
from fractions import Fraction

import mpmath

DIGITS = 400


def probabilities(row):
    """The softmax of a row of numbers below infinity."""
    e = [mpmath.exp(mpmath.mpf(float(z))) if z > -math.inf else mpmath.mpf(0) for z in row]
    total = mpmath.fsum(e)
    return [value / total for value in e], mpmath.log(total)


def row(logits, target):
    """The quantities of one row, exact."""
    with mpmath.workdps(DIGITS):
        p, lse = probabilities(logits)
        nll = -mpmath.log(p[target]) if p[target] else mpmath.inf
        top = mpmath.mpf(float(max(logits)))
        gaps = [top - mpmath.mpf(float(z)) if z > -math.inf else mpmath.inf for z in logits]
        mean_gap = mpmath.fsum(v * d for v, d in zip(p, gaps, strict=True) if v)
        return {
            "target_gap": gaps[target],
            "mean_gap": mean_gap,
            "gap_variance": mpmath.fsum(
                v * (d - mean_gap) ** 2 for v, d in zip(p, gaps, strict=True) if v
            ),
            "nll": nll,
            "confidence": max(p),
            "p_target": p[target],
            "entropy": -mpmath.fsum(v * mpmath.log(v) for v in p if v),
            "brier": mpmath.fsum((v - (c == target)) ** 2 for c, v in enumerate(p)),
            "lse": lse,
            "prediction": max(range(len(p)), key=lambda c: (logits[c], -c)),
            "above": sum(z > logits[target] for z in logits),
            "ties": sum(z == logits[target] for z in logits) - 1,
        }


def kl(base, model):
    """KL(base‖model) of one row, exact: by the usual formula, with digits to spare."""
    with mpmath.workdps(DIGITS):
        p, _ = probabilities(base)
        q, _ = probabilities(model)
        if any(a and not b for a, b in zip(p, q, strict=True)):
            return mpmath.inf
        return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True) if a)


def weights_of(x, v):
    return [Fraction(1)] * len(x) if v is None else [Fraction(float(w)) for w in v]


def mean(x, v=None):
    """Σ v·x / Σ v in fractions."""
    v = weights_of(x, v)
    return sum(w * Fraction(float(a)) for w, a in zip(v, x, strict=True)) / sum(v)


def standard_error(x, v=None):
    """√(n/(n−1)·Σ v²(x−x̄)²) / Σ v in fractions."""
    middle, n, v = mean(x, v), len(x), weights_of(x, v)
    scatter = sum(w * w * (Fraction(float(a)) - middle) ** 2 for w, a in zip(v, x, strict=True))
    return math.sqrt(Fraction(n, n - 1) * scatter / sum(v) ** 2)


def clustered_error(x, group, v=None):
    """√(G/(G−1)·Σ_g (Σ v(x−x̄))²) / Σ v in fractions."""
    middle, v = mean(x, v), weights_of(x, v)
    sums = {}
    for w, a, g in zip(v, x, group, strict=True):
        sums[g] = sums.get(g, 0) + w * (Fraction(float(a)) - middle)
    scatter = sum(value * value for value in sums.values())
    return math.sqrt(Fraction(len(sums), len(sums) - 1) * scatter / sum(v) ** 2)


def quantile(values, share):
    """Linear between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def bins_of_width(confidence, count):
    """Lists of rows: bin k holds those with k/M < confidence ≤ (k+1)/M."""
    found = [[] for _ in range(count)]
    for i, value in enumerate(confidence):
        number = next(k for k in range(count) if value <= (k + 1) / count)
        found[number].append(i)
    return [rows for rows in found if rows]


def bins_of_mass(confidence, count):
    """Lists of rows: cut where k·n/M rows are below, and never between equal confidences."""
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    found, start = [], 0
    for k in range(1, count + 1):
        end = round(len(order) * k / count)
        while 0 < end < len(order) and confidence[order[end]] == confidence[order[end - 1]]:
            end += 1
        if end > start:
            found.append(order[start:end])
            start = end
    return found


def calibration(confidence, correct, bins, v=None):
    """(ECE, MCE, debiased ℓ2 error) over lists of rows."""
    v = [1.0] * len(confidence) if v is None else [float(w) for w in v]
    total, gaps, squares = math.fsum(v), [], []
    for rows in bins:
        mass = math.fsum(v[i] for i in rows)
        accuracy = math.fsum(v[i] * correct[i] for i in rows) / mass
        gap = accuracy - math.fsum(v[i] * confidence[i] for i in rows) / mass
        effective = mass**2 / math.fsum(v[i] ** 2 for i in rows)
        noise = accuracy * (1 - accuracy) / (effective - 1) if effective > 1 else gap**2
        gaps.append((mass / total, abs(gap)))
        squares.append(mass / total * (gap**2 - noise))
    return (
        math.fsum(w * gap for w, gap in gaps),
        max(gap for _, gap in gaps),
        math.sqrt(max(0.0, math.fsum(squares))),
    )


def temperature(logits, targets, start=1.0):
    """T at which the derivative of the mean loss is 0, by mpmath's root finder in 40 digits."""
    with mpmath.workdps(40):
        rows = [
            ([mpmath.mpf(float(z)) for z in row], y) for row, y in zip(logits, targets, strict=True)
        ]

        def slope(beta):
            total = mpmath.mpf(0)
            for z, y in rows:
                e = [mpmath.exp(beta * (value - max(z))) for value in z]
                total += mpmath.fdot(e, z) / mpmath.fsum(e) - z[y]
            return total / len(rows)

        return 1 / mpmath.findroot(slope, (start * 0.7, start), solver="secant", tol=1e-30)
