"""Calibration by a temperature and a bias for each class, by Newton's method.

    f(γ, b) = mean(lse(γ·z + b) − γ·z_y − b_y) + RIDGE/2·Σ b²

with z the logits divided by the best temperature, where the search starts, at γ = 1 and b = 0. f is
convex. Adding a constant to all b changes only the ridge, so at the minimum Σ b = 0; the ridge also
keeps the bias of a class finite that is never a target. The error of γ is that of the sandwich
formula: row i moves it by a·g_i, where g_i is the gradient of the row and a the row of H⁻¹ for γ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.backends import Scalars
from xentcli.backends.fields import Field
from xentcli.backends.reference_statistics import row_statistics
from xentcli.engine.rows import float_rows
from xentcli.engine.targets import IGNORED
from xentcli.errors import DataError
from xentcli.records import dataclass
from xentcli.report.calibration_result import Calibration, Fitted
from xentcli.report.calibration_rows import Evaluation, Rows
from xentcli.report.fitting import BINS, Calibrator
from xentcli.report.scores import Scores

RIDGE = 1e-6
MOST_CLASSES = 2048  # Newton's method solves as many equations
BLOCK = 1 << 16  # logits at a time
PASSES = 60
DONE = 1e-25  # of the squared length of a step, in the curvature of f: f is exact to rounding there


class Point(NamedTuple):
    """β = 1/T and the biases."""

    beta: float
    biases: Array


@dataclass
class Derivatives:
    """The sums of f, its gradient and its Hessian over rows, in (β, b)."""

    total: float
    value: float
    gradient: Array
    hessian: Array

    @classmethod
    def of(cls, classes: int) -> Derivatives:
        """Of no rows."""
        return cls(0.0, 0.0, np.zeros(classes + 1), np.zeros((classes + 1, classes + 1)))

    def add(self, block: Block) -> None:
        """Take the next rows."""
        v, p = block.weights, block.p
        gradients = block.gradients()
        self.total += float(v.sum())
        self.value += float((v * block.scores[Field.NLL]).sum())
        self.gradient += v @ gradients
        moved = p * (block.z - block.mean[:, None])
        weighted = v[:, None] * p
        self.hessian[0, 0] += float((v * (moved * block.z).sum(axis=1)).sum())
        self.hessian[0, 1:] += v @ moved
        self.hessian[1:, 1:] += np.diag(weighted.sum(axis=0)) - weighted.T @ p

    def at(self, biases: Array) -> tuple[float, Array, Array]:
        """Value, gradient and Hessian of f: means, and the ridge."""
        value = self.value / self.total + RIDGE / 2 * float(biases @ biases)
        gradient, hessian = self.gradient / self.total, self.hessian / self.total
        gradient[1:] += RIDGE * biases
        hessian[1:, 0] = hessian[0, 1:]
        hessian[1:, 1:] += RIDGE * np.eye(len(biases))
        return value, gradient, hessian


@dataclass(frozen=True)
class Block:
    """Some rows at one point: finite logits z, probabilities, Σ p·z, and their scores."""

    z: Array
    p: Array
    mean: Array
    weights: Array
    fold: Array
    scores: Scores

    def gradients(self) -> Array:
        """g of each row: Σ p·z − z_y, then p_c − 1 at the target and p_c elsewhere."""
        targets = self.scores.targets
        assert targets is not None
        rows = np.arange(len(targets))
        found = np.concatenate([self.mean[:, None], self.p], axis=1)
        found[:, 0] -= self.z[rows, targets]
        found[rows, targets + 1] -= 1.0
        return found

    def chosen(self, which: Array) -> Block:
        """Some of the rows."""
        z, p, mean, weights, fold = (
            array[which] for array in (self.z, self.p, self.mean, self.weights, self.fold)
        )
        return Block(z, p, mean, weights, fold, self.scores.chosen(which))


class BiasCalibrator:
    """Fits a temperature and biases, on all rows and outside of each fold."""

    def __init__(self, rows: Rows, *, skip_nonfinite: bool = False) -> None:
        classes = rows.problem.layout.classes
        if classes > MOST_CLASSES:
            what = f"{classes} classes; biases are fitted for {MOST_CLASSES} at most"
            raise DataError("logits", what)
        self._rows, self._skip, self._passes = rows, skip_nonfinite, 0
        self._classes = classes

    def run(self) -> Calibration:
        """All passes, then the result."""
        start = Calibrator(replace(self._rows, folds=1), skip_nonfinite=self._skip).run()
        self._passes = start.passes
        begin = Point(1 / start.temperature, np.zeros(self._classes))
        point, hessian = self._fit(begin, None)
        folds = (
            [self._fit(point, k)[0] for k in range(self._rows.folds)]
            if self._rows.folds > 1
            else []
        )
        influence = np.linalg.solve(hessian, np.eye(self._classes + 1)[0])
        before, error = self._evaluated([Point(1.0, begin.biases)]), self._error(point, influence)
        fitted = Fitted(
            method="bias",
            beta=point.beta,
            error=error,
            before=before,
            after=self._evaluated(folds or [point]),
            passes=self._passes,
            nonfinite=start.nonfinite,
            backend="numpy",
            biases=tuple(map(float, point.biases - point.biases.mean())),
            fold_temperatures=tuple(1 / item.beta for item in folds),
        )
        return fitted.calibration(self._rows)

    def _fit(self, start: Point, fold: int | None) -> tuple[Point, Array]:
        """The minimum over all rows, or those outside of a fold, and the Hessian there.

        Where a step does not lower f it is halved.
        """
        unit = start.beta  # γ = β / unit
        point, best, step = start, math.inf, np.zeros(self._classes + 1)
        for _ in range(PASSES):
            value, gradient, hessian = self._derivatives(point, fold)
            gradient[0] *= unit
            hessian[0] *= unit
            hessian[:, 0] *= unit
            if value > best + 1e-15 * abs(best):
                step = step / 2
                point = _moved(point, step, unit)
                continue
            best, step = value, np.linalg.solve(hessian, gradient)
            if float(step @ gradient) <= DONE:
                hessian[0] /= unit
                hessian[:, 0] /= unit
                return point, hessian
            point = _moved(point, -step, unit)
        what = f"no minimum found in {PASSES} passes: with biases every row may be right"
        raise DataError("logits", what)

    def _blocks(self, points: list[Point]) -> Iterator[Block]:
        """All rows with a finite loss, each fold at its point, or all at the only one."""
        for piece in self._rows.pieces():
            for part in piece.split(BLOCK):
                z, targets = float_rows(part.logits), part.targets
                assert targets is not None
                numbers = np.arange(part.rows.start, part.rows.stop)
                group = None if self._rows.group is None else self._rows.group[numbers]
                fold = (numbers if group is None else group) % self._rows.folds
                v = part.problem.sample_weight
                keep = targets != IGNORED
                for k, point in enumerate(points):
                    mine = keep & (fold == k) if len(points) > 1 else keep
                    known = (numbers, targets, np.ones(len(z)) if v is None else v, group, fold)
                    yield _block(z[mine], point, [a if a is None else a[mine] for a in known])
        self._passes += 1

    def _derivatives(self, point: Point, fold: int | None) -> tuple[float, Array, Array]:
        sums = Derivatives.of(self._classes)
        for block in self._blocks([point]):
            sums.add(block if fold is None else block.chosen(block.fold != fold))
        return sums.at(point.biases)

    def _evaluated(self, points: list[Point]) -> Evaluation:
        evaluation = Evaluation(self._rows.groups, BINS)
        for block in self._blocks(points):
            evaluation.add(block.scores, 1.0)
        return evaluation

    def _error(self, point: Point, influence: Array) -> float | None:
        """The standard error of β, from what each row, or group, moves it by."""
        by_row: list[Array] = []
        groups: list[Array] = []
        total = 0.0
        for block in self._blocks([point]):
            by_row.append(block.weights * (block.gradients() @ influence))
            groups += [] if block.scores.group is None else [block.scores.group]
            total += float(block.weights.sum())
        moves = np.concatenate(by_row)
        if not groups:
            return math.sqrt(math.fsum(moves * moves)) / total
        _, index = np.unique(np.concatenate(groups), return_inverse=True)
        sums = np.bincount(index, moves)
        if len(sums) < 2:
            return None
        return math.sqrt(len(sums) / (len(sums) - 1) * math.fsum(sums * sums)) / total


def _moved(point: Point, step: Array, unit: float) -> Point:
    return Point(point.beta + unit * float(step[0]), point.biases + step[1:])


def _block(z: Array, point: Point, known: list[Array | None]) -> Block:
    """Rows at a point; those whose loss is not finite are left out."""
    numbers, targets, weights, group, fold = known
    assert numbers is not None
    assert targets is not None
    assert weights is not None
    assert fold is not None
    with np.errstate(all="ignore"):
        fields = row_statistics(point.beta * z + point.biases, targets, Scalars())
        p = np.exp(point.beta * z + point.biases - fields[Field.LSE][:, None])
    scores = Scores(numbers, fields, targets, weights, group)
    finite = np.where(p > 0, z, 0.0)
    block = Block(finite, p, (p * finite).sum(axis=1), weights, fold, scores)
    return block.chosen(np.isfinite(fields[Field.NLL]))
