"""Mistakes with the options of the loss: smoothing, weights, z-loss, softcap, temperature,
upstream gradients, and lower precision."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import NAMES, Array, narrow, widen
from xentcli.check.diagnosis.hypothesis_case import Hypothesis, HypothesisCase, capped, softmax
from xentcli.check.diagnosis.mistakes import Make, Mistake, Mistakes

LOWER = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}
SHARDS = (2, 4, 8, 16, 32, 64)

MISTAKES = Mistakes()


def _smoothing(case: HypothesisCase, q: Array, mass: Array | None = None) -> Hypothesis:
    a = case.rows.weight * q
    return case.make(a=a) if mass is None else case.make(a=a, mass=mass)


@MISTAKES.named(
    "smoothing-among-others", "a different smoothing: 1 − ε on the target, ε/(C − 1) on the others"
)
def _smoothing_among_others(case: HypothesisCase) -> Hypothesis | None:
    smoothing, classes, q = case.options.label_smoothing, case.classes, case.rows.q
    if not smoothing or classes < 2:
        return None
    return _smoothing(case, (1 - smoothing) * q + smoothing / (classes - 1) * (1 - q))


@MISTAKES.named("no-smoothing", "the label smoothing is left out")
def _no_smoothing(case: HypothesisCase) -> Hypothesis | None:
    return _smoothing(case, case.rows.q) if case.options.label_smoothing else None


@MISTAKES.named("smoothing-not-on-target", "the smoothing's ε/C is left out at the target")
def _smoothing_not_on_target(case: HypothesisCase) -> Hypothesis | None:
    smoothing, q = case.options.label_smoothing, case.rows.q
    if not smoothing:
        return None
    return _smoothing(case, (1 - smoothing) * q + smoothing / case.classes * (1 - q))


@MISTAKES.named("smoothing-scales-only", "the smoothing only scales: (1 − ε)·(p − y), without ε/C")
def _smoothing_scales_only(case: HypothesisCase) -> Hypothesis | None:
    smoothing = case.options.label_smoothing
    return _smoothing(case, (1 - smoothing) * case.rows.q) if smoothing else None


@MISTAKES.named("smoothing-no-share", "the smoothing's ε/C is left out of p − (1 − ε)·y − ε/C")
def _smoothing_no_share(case: HypothesisCase) -> Hypothesis | None:
    smoothing = case.options.label_smoothing
    mass = case.a.sum(axis=1, keepdims=True)
    return _smoothing(case, (1 - smoothing) * case.rows.q, mass) if smoothing else None


def _shards(count: int, *, rescaled: bool) -> Make:
    def make(case: HypothesisCase) -> Hypothesis | None:
        if not case.options.label_smoothing or case.classes % count:
            return None
        mass = None if rescaled else case.a.sum(axis=1, keepdims=True)
        return _smoothing(case, case.smoothed(case.rows.q, float(count)), mass)

    return make


for _count in SHARDS:
    _words = f"the smoothing divides by the classes of one of {_count} shards, not by all"
    for _rescaled in (True, False):
        MISTAKES.append(
            Mistake("smoothing-of-a-shard", _words, _shards(_count, rescaled=_rescaled))
        )


def _weighted(case: HypothesisCase) -> bool:
    return bool((case.rows.weight != 1).any())


@MISTAKES.named("no-weight", "the class weights are left out")
def _no_weight(case: HypothesisCase) -> Hypothesis | None:
    return case.make(a=case.smoothed(case.rows.q)) if _weighted(case) else None


@MISTAKES.named("weight-twice", "the class weights are applied twice")
def _weight_twice(case: HypothesisCase) -> Hypothesis | None:
    return case.make(a=case.a * case.rows.weight) if _weighted(case) else None


@MISTAKES.named("weight-on-softmax", "the class weights are applied to p alone, not to the one-hot")
def _weight_on_softmax(case: HypothesisCase) -> Hypothesis | None:
    mass = case.a.sum(axis=1, keepdims=True)
    return case.make(a=case.smoothed(case.rows.q), mass=mass) if _weighted(case) else None


@MISTAKES.named("weight-on-one-hot", "the class weights are applied to the one-hot alone, not to p")
def _weight_on_one_hot(case: HypothesisCase) -> Hypothesis | None:
    mass = case.smoothed(case.rows.q).sum(axis=1, keepdims=True)
    return case.make(mass=mass) if _weighted(case) else None


@MISTAKES.named(
    "weight-by-column",
    "each column is multiplied by its class's weight, not each row by its target's",
)
def _weight_by_column(case: HypothesisCase) -> Hypothesis | None:
    if not _weighted(case):
        return None
    plain = case.make(a=case.smoothed(case.rows.q))
    return Hypothesis(plain.grad * case.rows.weight, plain.size * np.abs(case.rows.weight))


@MISTAKES.named(
    "weight-of-target",
    "the smoothing's terms have the target's weight, not their own class's",
)
def _weight_of_target(case: HypothesisCase) -> Hypothesis | None:
    if not _weighted(case) or not case.options.label_smoothing:
        return None
    return case.make(a=case.smoothed(case.rows.q) * case.target_weight)


@MISTAKES.named("no-weight-on-smoothing", "the smoothing's terms are not weighted")
def _no_weight_on_smoothing(case: HypothesisCase) -> Hypothesis | None:
    smoothing = case.options.label_smoothing
    if not _weighted(case) or not smoothing:
        return None
    return case.make(a=(1 - smoothing) * case.rows.weight * case.rows.q + smoothing / case.classes)


def _row_factor(name: str, words: str, power: int) -> None:
    """A factor of each row that was left out (power 0) or applied twice (2)."""

    def make(case: HypothesisCase) -> Hypothesis | None:
        values = getattr(case.rows, name)
        if (values == values[:1]).all():
            return None  # a constant: one of the factors
        with np.errstate(all="ignore"):
            return case.make(factor=case.factor * (values if power == 2 else 1 / values))

    what = name.replace("_", "-")
    MISTAKES.append(Mistake(f"twice-{what}" if power else f"no-{what}", words, make))


_row_factor("sample_weight", "the row weights are left out", 0)
_row_factor("sample_weight", "the row weights are applied twice", 2)
_row_factor("upstream", "the upstream gradient is left out", 0)
_row_factor("upstream", "the upstream gradient is applied twice", 2)


@MISTAKES.named("no-z-loss", "the z-loss is left out")
def _no_z_loss(case: HypothesisCase) -> Hypothesis | None:
    return case.make(z_loss=0.0) if case.options.z_loss else None


@MISTAKES.named("half-z-loss", "the z-loss lacks a factor 2: λ·lse·p instead of 2λ·lse·p")
def _half_z_loss(case: HypothesisCase) -> Hypothesis | None:
    return case.make(z_loss=case.z_loss / 2) if case.options.z_loss else None


@MISTAKES.named(
    "z-loss-by-weights", "the z-loss is divided by the sum of the weights, not of the rows"
)
def _z_loss_by_weights(case: HypothesisCase) -> Hypothesis | None:
    plain = case.options.z_loss
    return case.make(z_loss=plain) if plain and case.z_loss != plain else None


@MISTAKES.named(
    "no-softcap-slope", "the softcap is left out of the chain rule: no factor 1 − (z/κ)²"
)
def _no_softcap_slope(case: HypothesisCase) -> Hypothesis | None:
    if case.options.softcap is None:
        return None
    return case.make(slope=np.full_like(case.z, 1 / case.options.temperature))


@MISTAKES.named("no-softcap", "the softcap is left out altogether")
def _no_softcap(case: HypothesisCase) -> Hypothesis | None:
    if case.options.softcap is None:
        return None
    z = case.rows.x / case.options.temperature
    return case.make(p=softmax(z), slope=np.full_like(z, 1 / case.options.temperature))


@MISTAKES.named("softcap-first", "the softcap comes before the temperature, not after it")
def _softcap_first(case: HypothesisCase) -> Hypothesis | None:
    o = case.options
    if o.softcap is None or o.temperature == 1:
        return None
    z = capped(case.rows.x, 1.0, o.softcap)
    return case.make(p=softmax(z / o.temperature), slope=(1 - (z / o.softcap) ** 2) / o.temperature)


@MISTAKES.named("no-temperature", "the temperature is left out altogether")
def _no_temperature(case: HypothesisCase) -> Hypothesis | None:
    o = case.options
    if o.temperature == 1:
        return None
    z = capped(case.rows.x, 1.0, o.softcap)
    bent = 0.0 if o.softcap is None else z / o.softcap
    return case.make(p=softmax(z), slope=np.ones_like(z) * (1 - bent**2))


def _rounded(values: Array, name: str) -> Array:
    return widen(narrow(values, NAMES[LOWER[name]]), NAMES["f64"])


def _precision(name: str, what: str) -> Make:
    def make(case: HypothesisCase) -> Hypothesis | None:
        names = [*LOWER, "float64"]
        is_lower = names.index(name) < names.index(case.finfo.name)
        if not is_lower and (name != case.finfo.name or what != "log-probabilities"):
            return None
        if what == "logits":
            return case.with_logits(_rounded(case.rows.x, name)).make()
        if what == "probabilities":
            return case.make(p=_rounded(case.p, name))
        return case.make(p=np.exp(_rounded(case.z - case.lse, name)))

    return make


# Where a number lies near the middle between two, its last bit decides how it is rounded.
NEARLY_ALL = 0.999
for _name in LOWER:
    for _what in ("logits", "probabilities", "log-probabilities"):
        _words = f"computed in lower precision: the {_what} are rounded to {_name}"
        _make = _precision(_name, _what)
        MISTAKES.append(Mistake(f"{_name}-{_what}", _words, _make, NEARLY_ALL))
