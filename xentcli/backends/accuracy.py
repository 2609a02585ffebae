"""How accurate losses and gradients are: the promise, in one table.

README's table and the bounds of the tests are read from `PROMISES`. Errors are counted in units in
the last place (ULP) of the result's dtype at the exact result, or of the smallest subnormal number
below the normal range, with no absolute tolerance. A loss is a float64; where the logits have
fewer bits, its error is counted in ULP of float32.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["plain", "factors", "softcap", "cancelling"]
Output: TypeAlias = Literal["f16", "bf16", "f32", "f64"]

# What each kind of options includes besides those before it. `cancelling` options subtract terms
# that may be nearly equal, so that no bound in ULP of the difference can be given.
KINDS: dict[Kind, tuple[str, ...]] = {
    "plain": ("reduction", "ignore_index", "empty_mean"),
    "factors": ("temperature", "weight", "sample_weight", "upstream", "normalizer"),
    "softcap": ("softcap",),
    "cancelling": ("label_smoothing", "z_loss", "probability targets"),
}


class Bound(NamedTuple):
    """The largest errors of the loss, of the target's entry and of the other entries.

    In ULP of the result; with `terms`, in ULP at the sum of the sizes of all terms, of float64 for
    results in float64 and of float32 for the others, besides the rounding of the result to its own
    dtype. The terms are a_c·(−log p_c) and λ·lse² of a loss, p_c·a_j, a_c·p_j and 2·λ·lse·p_c of a
    gradient, where lse is itself the sum of max z and log Σ exp(z − max z).
    """

    loss: float
    target: float
    others: float
    terms: bool = False


_HALF = Bound(2, 0.51, 0.51)  # gradients in float16 or bfloat16
_SINGLE = Bound(2, 2, 2)

PROMISES: dict[tuple[Output, Kind], Bound] = {
    ("f64", "plain"): Bound(2, 2, 2),
    ("f64", "factors"): Bound(3, 3, 3),
    ("f64", "softcap"): Bound(4, 4, 4),
    **{("f32", kind): _SINGLE for kind in ("plain", "factors", "softcap")},
    **{("f16", kind): _HALF for kind in ("plain", "factors", "softcap")},
    **{("bf16", kind): _HALF for kind in ("plain", "factors", "softcap")},
    ("f64", "cancelling"): Bound(8, 8, 8, terms=True),
    **{(output, "cancelling"): Bound(2, 2, 2, terms=True) for output in ("f16", "bf16", "f32")},
}
