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
KINDS: dict[Kind, str] = {
    "plain": "class indices, any reduction",
    "factors": "temperature, weight, sample_weight, upstream, normalizer",
    "softcap": "softcap",
    "cancelling": "label_smoothing, probability targets, z_loss",
}


class Bound(NamedTuple):
    """The largest errors of the loss, of the target's entry and of the other entries.

    In ULP of the result; with `terms`, in float64 units in the last place of the largest of the
    terms that are added, besides the rounding of the result to its own dtype.
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
    **{
        (output, "cancelling"): Bound(8, 8, 8, terms=True)
        for output in ("f16", "bf16", "f32", "f64")
    },
}
