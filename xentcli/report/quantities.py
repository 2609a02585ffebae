"""The quantities whose means are reported, and what each of them is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends.fields import Field
from xentcli.report.divergence import BaseField
from xentcli.report.scores import Scores

DEFINITIONS = {
    "nll": "mean of −log p of the target, in nats",
    "perplexity": "exp(mean nll)",
    "bits_per_byte": "Σ nll / (ln 2 · bytes)",
    "word_perplexity": "exp(Σ nll / words)",
    "accuracy": "share of rows whose target has the largest logit; a tie counts in part",
    "brier": "mean of Σ_c (p_c − y_c)², from 0 to 2",
    "entropy": "mean of −Σ_c p_c·log p_c, in nats",
    "confidence": "mean of the largest probability",
    "nll_difference": "mean of nll − nll of the base, row by row, in nats",
    "perplexity_ratio": "exp(mean nll difference): perplexity / perplexity of the base",
    "kl": "mean of Σ_c p_c·(log p_c − log q_c), p of the base and q of the model, in nats",
    "delta_p": "mean of the target's probability − that of the base",
    "delta_p_rms": "root of the mean square of the target's probability − that of the base",
    "same_prediction": "share of rows with the same prediction as the base",
}
WITH_PROBABILITIES = {
    "nll": "mean of −Σ_c q_c·log p_c over the target probabilities q, in nats",
    "brier": "mean of Σ_c (p_c − q_c)², from 0 to 2",
}
SHARES = ("accuracy", "top_", "same_prediction")  # the names of shares begin like this


def is_share(name: str) -> bool:
    """Whether a quantity is a share of rows, with a Wilson interval."""
    return name.startswith(SHARES)


def definition(name: str, *, probabilities: bool = False) -> str:
    """What a statistic is.

    >>> definition("top_5")
    'share of rows whose target is among the 5 largest logits; a tie counts in part'
    """
    if name.startswith("top_"):
        k = name.removeprefix("top_")
        return f"share of rows whose target is among the {k} largest logits; a tie counts in part"
    return WITH_PROBABILITIES.get(name, "") * probabilities or DEFINITIONS[name]


def names(ranks: Iterable[int], *, probabilities: bool, base: bool) -> tuple[str, ...]:
    """The quantities that are defined: of probability targets none that needs a class."""
    found = ["nll"]
    if not probabilities:
        found += ["accuracy" if k == 1 else f"top_{k}" for k in ranks]
    found += ["brier", "entropy", "confidence"]
    if base:
        found += ["nll_difference", "kl", "same_prediction"]
        found += [] if probabilities else ["delta_p", "delta_p²"]
    return tuple(found)


def quantity(name: str, scores: Scores) -> Array:
    """One of them, for each row."""
    if name in ("nll", "brier", "entropy", "confidence"):
        return scores[Field[name.upper()]]
    if name == "accuracy" or name.startswith("top_"):
        return scores.share(1 if name == "accuracy" else int(name.removeprefix("top_")))
    base = scores.base
    assert base is not None
    if name == "nll_difference":
        return np.asarray(scores[Field.NLL] - base[BaseField.NLL])
    if name == "kl":
        return np.asarray(base[BaseField.KL])
    if name == "same_prediction":
        same = (scores[Field.PREDICTION] == base[BaseField.PREDICTION]).astype(np.float64)
        return np.where(np.isnan(base[BaseField.KL]), np.nan, same)
    delta = scores[Field.P_TARGET] - base[BaseField.P_TARGET]
    return np.asarray(delta if name == "delta_p" else delta * delta)
