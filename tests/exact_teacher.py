"""A teacher's divergences with 60 digits: an oracle that imports nothing of the package.

A row is lists of numbers. A term is a pair of probabilities (p, q); the value is a sum over terms,
and its gradient comes from the derivative of each term by p, through that of the softmax.
"""

from mpmath import MPContext

mp = MPContext()
mp.dps = 60


def softmax(row, temperature):
    """Probabilities of logits; 0 for −∞."""
    scaled = [mp.mpf(float(x)) / mp.mpf(temperature) for x in row]
    top = max(scaled)
    e = [mp.exp(z - top) if z > -mp.inf else mp.mpf(0) for z in scaled]
    total = mp.fsum(e)
    return [one / total for one in e], top + mp.log(total)


def terms_of(p, stored, tail):
    """Pairs (indices, q) of a row, from {class: q} and the name of the tail; r is 1 − Σq."""
    others = [c for c in range(len(p)) if c not in stored]
    rest = 1 - mp.fsum(stored.values())
    terms = [([c], q) for c, q in sorted(stored.items())]
    if tail == "bucket" and others:
        terms.append((others, rest))
    if tail == "uniform":
        terms += [([c], rest / len(others)) for c in others]
    if tail == "teacher":
        terms = [([c], q / (1 - rest)) for [c], q in terms] + [([c], mp.mpf(0)) for c in others]
    if tail == "subset":
        terms = [([c], q / (1 - rest)) for [c], q in terms]
    return terms


def value_and_slope(name, beta, p, q):
    """A term, and its derivative by p."""
    zero = mp.mpf(0)
    if name == "ce":
        return (-q * mp.log(p), -q / p) if q else (zero, zero)
    if name == "forward-kl":
        return (q * mp.log(q / p), -q / p) if q else (zero, zero)
    if name == "reverse-kl":
        return (p * mp.log(p / q), mp.log(p / q) + 1) if p else (zero, zero)
    m = beta * q + (1 - beta) * p
    value = beta * q * mp.log(q / m) if q else zero
    if not p:
        return value, zero
    u = mp.log(p / m)
    # d/dp of β·q·ln(q/m) + (1−β)·p·ln(p/m), of which the terms with dm cancel to 1 − β
    return value + (1 - beta) * p * u, (1 - beta) * (u + 1 - (beta * q + (1 - beta) * p) / m)


def row(name, x, stored, tail="all", beta=0.5, temperature=1.0):
    """Value, log-sum-exp, and the gradient with respect to the logits x, with the sizes of the two
    numbers that each entry is the difference of."""
    beta = mp.mpf(beta)
    p, lse = softmax(x, temperature)
    terms = terms_of(p, stored, tail)
    inside = {c for classes, _ in terms for c in classes}
    mass = mp.fsum(p[c] for c in inside) if tail == "subset" else mp.mpf(1)
    value, size, slopes = mp.mpf(0), mp.mpf(0), {}
    for classes, q in terms:
        of_term, slope = value_and_slope(name, beta, mp.fsum(p[c] for c in classes) / mass, q)
        value, size = value + of_term, size + abs(of_term)
        slopes.update(dict.fromkeys(classes, slope))
    if tail == "drop":  # all others move with the sum of the softmax
        slopes = {c: slopes.get(c, mp.mpf(0)) for c in range(len(p))}
    shares = [p[c] / mass if c in slopes else mp.mpf(0) for c in range(len(p))]
    pulls = [shares[c] * slopes.get(c, 0) for c in range(len(p))]
    mean, by = mp.fsum(pulls), 1 / mp.mpf(temperature)
    grad = [(pull - share * mean) * by for pull, share in zip(pulls, shares, strict=True)]
    sizes = [
        (abs(pull) + abs(share * mean)) * by for pull, share in zip(pulls, shares, strict=True)
    ]
    return value, size, lse, grad, sizes
