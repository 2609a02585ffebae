"""Looks for the rows and options with the largest errors, by climbing from one to a worse one.

The errors are found with the double-double oracle of `xent check`, many rows at a time; what a
search returns is then measured with mpmath by `test_accuracy.py`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, get_args

import exact
import numpy as np

from xentcli import cross_entropy
from xentcli.backends import accuracy
from xentcli.backends.accuracy import PROMISES
from xentcli.check.oracles.double_double import DoubleDoubleOracle
from xentcli.check.oracles.rows import FloatRows, scale_of
from xentcli.engine.problem import Extras, build
from xentcli.engine.rows import RowPiece
from xentcli.engine.targets import Whole
from xentcli.options import LossOptions

KINDS = get_args(accuracy.Kind)
LIMITS = ("loss", "the target's entry", "another entry")
EXTRAS = ("weight", "sample_weight", "upstream")


def kind_of(options, probabilities=False):
    """The last kind of options that any of these belongs to."""
    given = {name for name, value in options.items() if value is not None}
    given |= {"probability targets"} if probabilities else set()
    weights = [np.asarray(options.get(name, 0)).min() for name in EXTRAS[:2]]
    if min(weights) < 0:  # losses of both signs are added
        return "cancelling"
    return next(
        kind for kind in reversed(KINDS) if kind == "plain" or given & set(accuracy.KINDS[kind])
    )


def _frozen(value):
    """Arrays and lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Case:
    """Some rows with their options, as plain Python numbers: what a test and its data hold."""

    logits: tuple
    targets: tuple
    options: tuple = field(default=())
    dtype: str = "f64"

    def __post_init__(self):
        object.__setattr__(self, "logits", _frozen(self.logits))
        object.__setattr__(self, "targets", _frozen(self.targets))
        options = self.options.items() if isinstance(self.options, dict) else self.options
        object.__setattr__(self, "options", _frozen(list(options)))

    @classmethod
    def of(cls, x, y, dtype="f64", **options):
        """A case from arrays."""
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return cls(np.asarray(x, float).tolist(), np.asarray(y).tolist(), lists, dtype)

    @cached_property
    def kind(self):
        return kind_of(dict(self.options), isinstance(self.targets[0], tuple))

    def arrays(self, dtype):
        """Logits, targets and options for the package."""
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options}
        return np.array(self.logits, dtype), np.array(self.targets), options

    def __str__(self):
        names = "+".join(name for name, _ in self.options if name != "reduction")
        return f"{self.dtype} {len(self.logits[0])} {self.kind} {names}"


def units(r, case, rows, dtype):
    """The largest errors of loss, target entries and other entries, in the units of the promise."""
    terms = PROMISES[dtype, case.kind].terms
    loss_dtype = "f64" if dtype == "f64" else "f32"
    losses = [(r.loss, rows.loss, rows.loss_size)]
    if isinstance(rows.loss, list):
        losses = list(zip(r.loss, rows.loss, rows.loss_size, strict=True))
    off = [exact.error(a, e, "f64", s if terms else None, loss_dtype) for a, e, s in losses]
    found = [max(off), 0.0, 0.0]
    for row, row_exact, sizes, t in zip(r.grad, rows.grad, rows.sizes, case.targets, strict=True):
        for c, (g, e, s) in enumerate(zip(row, row_exact, sizes, strict=True)):
            place = 1 if c == t else 2
            found[place] = max(found[place], exact.error(g, e, dtype, s if terms else None))
    return found


class Batch(NamedTuple):
    """Rows to try under the same options; weights per row and upstream are among these."""

    x: Any
    y: Any
    options: dict[str, Any]

    def row(self, i, dtype):
        """One of them as a case."""
        options = {k: v[i : i + 1] if k in EXTRAS[1:] else v for k, v in self.options.items()}
        return Case.of(self.x[i : i + 1], self.y[i : i + 1], dtype, reduction="none", **options)


def errors(backend, dtype, kind, batch):
    """How far off each row is, as a share of what is promised."""
    x, y, options = batch
    r = cross_entropy(x, y, backend=backend, reduction="none", **options)
    extras = Extras(**{name: options.get(name) for name in EXTRAS})
    scalars = {k: v for k, v in options.items() if k not in EXTRAS}
    loss_options = LossOptions(reduction="none", **scalars)
    problem = build(x.shape, Whole(y), loss_options, extras)
    oracle = DoubleDoubleOracle(loss_options, scale_of(problem, loss_options))
    e = oracle(FloatRows.of(RowPiece.of_arrays(problem, x, y if problem.probs else None)))
    bound = PROMISES[dtype, kind]
    loss_size, size = sizes(batch) if bound.terms else (None, None)
    loss = shares(r.loss, e.losses, dtype, loss_size) / bound.loss
    grad = shares(r.grad.astype(float), e.grad, dtype, size) / bound.others
    if y.ndim == 1:
        rows = np.arange(len(y))
        grad[rows, y] *= bound.others / bound.target
    return np.maximum(loss, grad.max(axis=1))


def shares(found, pair, dtype, size):
    """Errors in units in the last place; with sizes, at those after the rounding."""
    off = np.abs((found - pair.high) - pair.low)
    own = spacing(np.abs(pair.high), dtype)
    if size is None:
        return off / own
    return np.maximum(off - own / 2, 0) / spacing(size, dtype)


def spacing(size, dtype):
    """One unit in the last place of numbers of these sizes."""
    digits, lowest = exact.DTYPES[dtype]
    return np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 1, lowest) - digits + 1)


def sizes(batch):
    """The sums of the sizes of all terms, of losses and of gradients, in plain float64."""
    x, y, o = batch
    classes, temperature, cap = x.shape[1], o.get("temperature", 1.0), o.get("softcap")
    z, slope = x.astype(float) / temperature, 1 / temperature
    if cap is not None:
        e = np.exp(-2 * np.abs(z / cap))
        z, slope = cap * np.tanh(z / cap), slope * 4 * e / (1 + e) ** 2
    q = np.eye(classes)[y] if y.ndim == 1 else y
    eps, lam = o.get("label_smoothing", 0.0), o.get("z_loss", 0.0)
    a = np.abs(np.asarray(o.get("weight", np.ones(classes))) * ((1 - eps) * q + eps / classes))
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    s = e.sum(axis=1, keepdims=True)
    rest = np.stack([np.delete(e, c, axis=1).sum(axis=1) for c in range(classes)], axis=1) / s
    lse = np.abs(top) + np.log(s)
    others = np.stack([np.delete(a, c, axis=1).sum(axis=1) for c in range(classes)], axis=1)
    grad = e / s * others + a * rest + 2 * lam * lse * e / s
    loss = (a * (top - z + np.log(s))).sum(axis=1) + lam * lse[:, 0] ** 2
    v, u = (np.abs(o.get(name, 1.0)) for name in EXTRAS[1:])
    return loss * v, grad * slope * np.reshape(u * v, (-1, 1))


def fresh_options(rng, kind, rows, classes):
    """Options of a kind, some of those of the kinds before it among them."""
    options: dict[str, Any] = {}
    if kind in ("factors", "softcap", "cancelling") and (kind == "factors" or rng.random() < 0.5):
        names = rng.choice(["temperature", *EXTRAS], rng.integers(1, 4), replace=False)
        given = {"temperature": 10.0 ** rng.uniform(-1.5, 1.5), "weight": rng.random(classes) * 3}
        given["sample_weight"], given["upstream"] = rng.random(rows) * 3, rng.normal(size=rows)
        options |= {str(name): given[name] for name in names}
    if kind == "softcap" or (kind == "cancelling" and rng.random() < 0.5):
        options["softcap"] = 10.0 ** rng.uniform(-0.3, 2.5)
    if kind == "cancelling":
        both = rng.integers(1, 4)
        if both & 1:
            options["label_smoothing"] = rng.choice([1e-10, 0.1, 0.3, 1.0, rng.random()])
        if both & 2:
            options["z_loss"] = 10.0 ** rng.uniform(-4, 0)
    return options


def fresh_rows(rng, rows, classes):
    """Logits of a few different values, whose errors add up."""
    count = rng.integers(2, 6)
    values = rng.normal(size=(rows, count)) * rng.choice([0.1, 1, 5, 20, 80], size=(rows, 1))
    x = np.take_along_axis(values, rng.integers(0, count, (rows, classes)), 1)
    x[:, 0] += np.abs(rng.normal(size=rows) * 5)
    return x


def moved_rows(rng, row, rows):
    """Copies of a row, each with all logits of one value, or a single one, moved a little."""
    x = np.repeat(row[None, :], rows, 0)
    for i, own in enumerate(x):
        value = rng.choice(row)
        where = row == value if i % 2 else np.arange(len(row)) == rng.integers(len(row))
        own[where] += rng.normal() * 10.0 ** rng.integers(-9, 2)
    return x


def moved_options(rng, options):
    """The same options with one number moved."""
    options = dict(options)
    if options:
        name = str(rng.choice(list(options)))
        factor = 1 + rng.normal(size=np.shape(options[name])) * 10.0 ** rng.integers(-12, 0)
        options[name] = (
            np.abs(options[name] * factor) if name != "upstream" else options[name] * factor
        )
        if name == "label_smoothing":
            options[name] = min(1.0, options[name])
    return {k: v if np.ndim(v) else float(v) for k, v in options.items()}


def climb(backend, where, rng, steps, rows, end=None, say=None):
    """The worst case after some steps, or until a time: (dtype, kind, classes) says of what."""
    dtype, kind, classes = where
    worst, best, batch = -1.0, None, None
    step = 0
    while time.monotonic() < end if end else step < steps:
        step += 1
        new = batch is None or rng.random() < 0.3
        if new:
            options, x = fresh_options(rng, kind, rows, classes), fresh_rows(rng, rows, classes)
        else:
            one, options = best
            options = {k: np.repeat(v, rows) if k in EXTRAS[1:] else v for k, v in options.items()}
            options = moved_options(rng, options)
            x = moved_rows(rng, one, rows)
        x = x.astype({"f32": "f4", "f64": "f8"}[dtype])
        y = rng.integers(0, classes, rows)
        if kind == "cancelling" and rng.random() < 0.3:
            y = rng.dirichlet(np.ones(classes), rows)
        batch = Batch(x, y, options)
        found = errors(backend, dtype, kind, batch)
        i = int(np.argmax(found))
        if found[i] > worst:
            worst, case = float(found[i]), batch.row(i, dtype)
            kept = {k: v[i : i + 1] if k in EXTRAS[1:] else v for k, v in options.items()}
            best = x[i].astype(float), kept
            if say:
                say(worst, case)
    return case


def search(seconds="60", *backends):
    """Climb for so many seconds with each dtype, kind and length of rows; print what is worst."""
    for backend in backends or ("numpy", "cpu"):
        for dtype in ("f32", "f64"):
            for kind in KINDS:
                for classes in (2, 5, 63, 70):
                    rng, end = np.random.default_rng(), time.monotonic() + float(seconds)
                    case = climb(backend, (dtype, kind, classes), rng, 0, 300, end)
                    tell(backend, dtype, kind, classes, case)


def tell(backend, dtype, kind, classes, case):
    """The errors of what was found, and the case as it is kept in the data."""
    x, y, options = case.arrays({"f32": "f4", "f64": "f8"}[dtype])
    r = cross_entropy(x, y, backend=backend, **options)
    rows = exact.cross_entropy(case.logits, case.targets, **dict(case.options))
    figures = ", ".join(f"{error:.3f}" for error in units(r, case, rows, dtype))
    kept = {"logits": case.logits, "targets": case.targets}
    kept |= {"options": dict(case.options), "dtype": dtype}
    print(f"{backend} {dtype} {kind} {classes}: {figures}", json.dumps(kept), flush=True)  # noqa: T201 (a script)
