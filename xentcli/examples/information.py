"""Entropy, cross-entropy and divergence of two distributions, in nats and in bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.arrays.sums import exact_sum
from xentcli.display.document import Column, Formula, Step
from xentcli.examples.model import SOURCES, Claim, Example, Worked

NEAR = 1e-15


def _cross(p: Array, log_q: Array) -> float:
    """H(p, q) = -Σ p·log q."""
    return float(exact_sum(-p * log_q))


def quantities(w: Worked) -> dict[str, float]:
    """All of them, in nats; p is the target and q the softmax of the logits."""
    d = w.derivation()
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


def _is_sum(w: Worked) -> list[str]:
    h = quantities(w)
    distance = max(
        abs(h["H(p,q)"] - (h["H(p)"] + h["KL(p|q)"])),
        abs(h["H(q,p)"] - (h["H(q)"] + h["KL(q|p)"])),
    )
    return ["equal" if distance <= NEAR else "different"]


def _asymmetric(w: Worked) -> list[str]:
    h = quantities(w)
    return ["different" if h["H(p,q)"] != h["H(q,p)"] else "equal"]


WORDS = {
    "H(p)": "entropy of the truth",
    "H(q)": "entropy of the prediction",
    "H(p,q)": "cross-entropy, the loss",
    "H(q,p)": "the other way round",
    "KL(p|q)": "what q costs beyond p",
    "KL(q|p)": "the other way round",
}


def _table(w: Worked) -> tuple[Step, ...]:
    h = quantities(w)
    columns = (
        Column(Formula("nats", r"\text{nats}"), tuple(h.values())),
        Column(Formula("bits", r"\text{bits}"), tuple(v / math.log(2) for v in h.values())),
        Column(Formula("what it is", r"\text{what it is}"), tuple(WORDS.values())),
    )
    words = (
        "H(p,q) = H(p) + KL(p|q). Cross-entropy is no distance: H(p,q) is not H(q,p).",
        "The target p does not change while the logits do, so the gradients of H(p,q) and of "
        "KL(p|q) are the same: q - p.",
    )
    return (
        Step(
            "Information",
            Formula("H(p,q) = -Σ p·log q", r"H(p,q) = -\sum_c p_c \log q_c"),
            label="",
            labels=tuple(h),
            columns=columns,
            remarks=words,
        ),
    )


def _data(w: Worked) -> dict[str, Any]:
    return {"nats": quantities(w)}


INFORMATION = Example(
    name="information",
    source=f"{SOURCES['bahumi']}; {SOURCES['sorix']}",
    shows="H(p), H(p,q) and KL both ways, in nats and bits",
    logits=np.array([[1.0, 2.0, 0.5]]),
    targets=np.array([[0.5, 0.25, 0.25]]),
    claims=(
        Claim("H(p,q), H(p) + KL(p|q)", ("equal",), _is_sum),
        Claim("H(p,q), H(q,p)", ("different",), _asymmetric),
    ),
    more=_table,
    data=_data,
    command="xent loss {folder}/logits.csv {folder}/targets.csv",
)

EXAMPLES = {"information": INFORMATION}
