"""How accurate losses and gradients are: the promise, in one table.

README's table, the sentence in the docstring of `cross_entropy` and the bounds of the tests are
read from `PROMISES`. It holds for every backend. Errors are counted in units in the last place
(ULP) of the result's dtype at the exact result, or of the smallest subnormal number below the
normal range, with no absolute tolerance. A loss is a float64; where the logits have fewer bits, its
error is counted in ULP of float32.

Numbers keep these digits as far as float64 reaches, with the borders in `BORDERS`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["plain", "factors", "softcap", "cancelling"]
Output: TypeAlias = Literal["f16", "bf16", "f32", "f64"]

# What each kind of options includes besides those before it. `cancelling` options subtract terms
# that may be nearly equal, so that no bound in ULP of the difference can be given.
KINDS: dict[Kind, tuple[str, ...]] = {
    "plain": ("class indices", "reduction", "ignore_index", "empty_mean"),
    "factors": ("temperature", "weight", "sample_weight", "upstream", "normalizer"),
    "softcap": ("softcap",),
    "cancelling": ("label_smoothing", "z_loss", "probability targets", "a teacher"),
}


class Bound(NamedTuple):
    """The largest errors of the loss, of the target's entry and of the other entries.

    In ULP of the result; with `terms`, in ULP at the sum of the sizes of all terms, of float64 for
    results in float64 and of float32 for the others, besides the rounding of the result to its own
    dtype. The terms are a_c·(−log p_c) and λ·lse² of a loss, p_c·a_j, a_c·p_j and 2·λ·lse·p_c of a
    gradient, where lse is itself the sum of max z and log Σ exp(z − max z); q·ln q and q·ln p and
    the like of a divergence.
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

BORDERS = (
    "upstream, weights and 1/temperature bring back entries below 1e-308 with all digits where "
    "their product is up to 1e250",
    "the loss of a row below 2.2e-308 has the digits of a subnormal number before a weight "
    "multiplies it",
    "class weights keep their digits down to 1e-300 of the largest",
    "the product of upstream, sample_weight and the largest class weight reaches to 1e300",
    "softcap reaches to 1e300, and its slope counts as 0 below 1e-410",
    "z_loss reaches to logits of 1e50",
)

_NAMES: dict[Output, str] = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
}


def table() -> list[str]:
    """The promise as lines of Markdown: loss / target's entry / other entries.

    >>> table()[3]
    '| temperature, weight, sample_weight, upstream, normalizer | 3 / 3 / 3 | 2 / 2 / 2 | \
2 / 0.51 / 0.51 | 2 / 0.51 / 0.51 |'
    """
    head = ["options", *_NAMES.values()]
    lines = [head, ["---"] * len(head)]
    for kind, options in KINDS.items():
        lines.append([", ".join(options), *(_words(PROMISES[output, kind]) for output in _NAMES)])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _words(bound: Bound) -> str:
    numbers = " / ".join(f"{number:g}" for number in bound[:3])
    return f"{numbers} of the terms" if bound.terms else numbers


def sentence() -> str:
    """The promise for float64 and float32 in a sentence.

    >>> sentence()[:68]
    'in float64 within 2 units in the last place (ULP), 3 with temperatur'
    """
    most = {kind: f"{max(PROMISES['f64', kind][:3]):g}" for kind in KINDS}
    single = max(max(PROMISES["f32", kind][:3]) for kind in KINDS)
    return (
        f"in float64 within {most['plain']} units in the last place (ULP), {most['factors']} with "
        f"temperature, weights, upstream or normalizer, {most['softcap']} with softcap, and "
        f"{most['cancelling']} ULP of the terms that are added with label_smoothing, z_loss or "
        f"probabilities; in float32 within {single:g}."
    )
