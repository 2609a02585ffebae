"""The oracle: cross-entropy and its gradient in plain Python, straight from the definition.

It imports nothing of the package. With `m=mpmath.mp` and enough digits the same lines are exact,
cancellation included; with `m=math` they are ordinary float64.
"""

import math
from types import SimpleNamespace

FLOATS = SimpleNamespace(
    exp=math.exp, log=math.log, tanh=math.tanh, fsum=math.fsum, mpf=float, inf=math.inf
)


def capped(row, temperature, softcap, m):
    z = [x / temperature for x in row]
    return z if softcap is None else [softcap * m.tanh(v / softcap) for v in z]


def softmax(z, m=FLOATS):
    """p and the log-sum-exp of one row of numbers below infinity."""
    top = max(z)
    e = [m.exp(v - top) if v > -m.inf else m.mpf(0) for v in z]
    s = m.fsum(e)
    return [v / s for v in e], top + m.log(s)


def masses(target, classes, weight, smoothing):
    """a_c = w_c·Q_c for a class index or a row of probabilities."""
    q = target if isinstance(target, list) else [float(c == target) for c in range(classes)]
    return [
        w * ((1 - smoothing) * q_c + smoothing / classes) for w, q_c in zip(weight, q, strict=True)
    ]


def row_loss(z, a, z_loss, m=FLOATS):
    _, lse = softmax(z, m)
    terms = [a_c * (lse - z_c) for a_c, z_c in zip(a, z, strict=True) if a_c != 0]
    return m.fsum([*terms, z_loss * lse**2])


def row_gradient(row, a, z_loss, temperature, softcap, m=FLOATS):
    z = capped(row, temperature, softcap, m)
    p, lse = softmax(z, m)
    total = m.fsum(a)
    slope = [1 - (v / softcap) ** 2 if softcap else m.mpf(1) for v in z]
    return [
        (total * p_c - a_c + 2 * z_loss * lse * p_c) * s / temperature
        for p_c, a_c, s in zip(p, a, slope, strict=True)
    ]


def cross_entropy(
    logits,
    targets,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
    temperature=1.0,
    softcap=None,
    z_loss=0.0,
    upstream=None,
    normalizer=None,
    empty_mean="nan",
    m=FLOATS,
):
    """(loss or losses, gradient rows) for rows of logits and class indices or probability rows."""
    number = m.mpf
    logits = [[number(x) for x in row] for row in logits]
    classes = len(logits[0]) if logits else 0
    w = [number(x) for x in weight] if weight is not None else [number(1)] * classes
    v = (
        [number(x) for x in sample_weight]
        if sample_weight is not None
        else [number(1)] * len(logits)
    )
    eps, lam, temp = number(label_smoothing), number(z_loss), number(temperature)
    cap = None if softcap is None else number(softcap)
    ups = (
        upstream
        if isinstance(upstream, list)
        else [1 if upstream is None else upstream] * len(logits)
    )
    here = [isinstance(t, list) or t != ignore_index for t in targets]

    ce, zs, rows = [], [], []
    for x, t, v_i, ok in zip(logits, targets, v, here, strict=True):
        if not ok:
            ce.append(number(0))
            zs.append(number(0))
            rows.append(None)
            continue
        a = masses([number(q) for q in t] if isinstance(t, list) else t, classes, w, eps)
        z = capped(x, temp, cap, m)
        ce.append(v_i * row_loss(z, a, 0, m))
        zs.append(v_i * lam * softmax(z, m)[1] ** 2 if lam else number(0))
        plain = row_gradient(x, a, number(0), temp, cap, m)
        rows.append((plain, row_gradient(x, a, lam, temp, cap, m) if lam else plain))

    d_ce = d_z = number(1)
    if reduction == "mean":
        d_z = m.fsum([v_i for v_i, ok in zip(v, here, strict=True) if ok])
        d_ce = m.fsum(
            [
                v_i if isinstance(t, list) else v_i * w[t]
                for v_i, t, ok in zip(v, targets, here, strict=True)
                if ok
            ]
        )
        if normalizer is not None:
            d_ce = d_z = number(normalizer)
    grad = []
    for pair, v_i, u_i in zip(rows, v, ups, strict=True):
        if pair is None or d_ce == 0:
            grad.append([number(0)] * classes)
            continue
        plain, both = pair
        grad.append(
            [u_i * v_i * (g / d_ce + (h - g) / d_z) for g, h in zip(plain, both, strict=True)]
        )
    if reduction == "none":
        return [c + z for c, z in zip(ce, zs, strict=True)], grad
    if reduction == "mean" and normalizer is None and not any(here):
        return {"nan": math.nan, "zero": 0.0}[empty_mean], grad
    if d_ce == 0:
        return math.nan, grad
    return m.fsum(ce) / d_ce + m.fsum(zs) / d_z, grad
