"""Entropy, cross-entropy and KL divergence of two distributions, in nats and bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.display.document import Column, Formula, Step
from xentcli.examples.example import SOURCES, ComputedExample, Example, Published, equal_within

TOLERANCE = 1e-15


def _cross(p: Array, log_q: Array) -> float:
    """H(p, q) = -Σ p·log q."""
    return float(exact_sum(-p * log_q))


def quantities(computed: ComputedExample) -> dict[str, float]:
    """All quantities in nats, where p is the target and q the softmax of the logits."""
    d = computed.derivation()
    p, q, log_q = d.q, d.p, d.log_p
    log_p = np.log(p)
    return {
        "H(p)": _cross(p, log_p),
        "H(q)": _cross(q, log_q),
        "H(p,q)": d.row_loss,
        "H(q,p)": _cross(q, log_p),
        "KL(p|q)": float(exact_sum(p * (log_p - log_q))),
        "KL(q|p)": float(exact_sum(q * (log_q - log_p))),
    }


def _is_sum(computed: ComputedExample) -> list[str]:
    h = quantities(computed)
    return equal_within(
        TOLERANCE,
        abs(h["H(p,q)"] - (h["H(p)"] + h["KL(p|q)"])),
        abs(h["H(q,p)"] - (h["H(q)"] + h["KL(q|p)"])),
    )


def _asymmetric(computed: ComputedExample) -> list[str]:
    h = quantities(computed)
    return ["different" if h["H(p,q)"] != h["H(q,p)"] else "equal"]


MEANINGS = {
    "H(p)": "entropy of the target",
    "H(q)": "entropy of the prediction",
    "H(p,q)": "cross-entropy (the loss)",
    "H(q,p)": "the same with p and q swapped",
    "KL(p|q)": "excess of H(p,q) over H(p)",
    "KL(q|p)": "the same with p and q swapped",
}


def _steps(computed: ComputedExample) -> tuple[Step, ...]:
    h = quantities(computed)
    columns = (
        Column(Formula.in_words("nats"), tuple(h.values())),
        Column(Formula.in_words("bits"), tuple(v / math.log(2) for v in h.values())),
        Column(Formula.in_words("meaning"), tuple(MEANINGS.values())),
    )
    words = (
        "H(p,q) = H(p) + KL(p|q). Cross-entropy is not symmetric: H(p,q) differs from H(q,p).",
        "H(p) does not depend on the logits, so H(p,q) and KL(p|q) have the same gradient, q - p.",
    )
    return (
        Step(
            "Information",
            Formula("H(p,q) = -Σ p·log q", r"H(p,q) = -\sum_c p_c \log q_c"),
            heading="",
            labels=tuple(h),
            columns=columns,
            remarks=words,
        ),
    )


def _data(computed: ComputedExample) -> dict[str, Any]:
    return {"nats": quantities(computed)}


INFORMATION = Example(
    name="information",
    source=f"{SOURCES['bahumi']}; {SOURCES['sorix']}",
    description="entropy, cross-entropy and KL divergence, in nats and bits",
    logits=np.array([[1.0, 2.0, 0.5]]),
    targets=np.array([[0.5, 0.25, 0.25]]),
    published=(
        Published("H(p,q), H(p) + KL(p|q)", ("equal",), _is_sum),
        Published("H(p,q), H(q,p)", ("different",), _asymmetric),
    ),
    extra_steps=_steps,
    extra_data=_data,
    command="xent loss {folder}/logits.csv {folder}/targets.csv",
)

EXAMPLES = {"information": INFORMATION}
