"""The exact result of a case, and the error of an answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, name_of, widen
from xentcli.bench.case import Case, Data, rows_of
from xentcli.check.oracles.ulp import FLOATS
from xentcli.engine.cross_entropy import cross_entropy
from xentcli.records import dataclass

FLOATS_BY_NAME = {finfo.name: finfo for finfo in FLOATS.values()}
ROWS = 64  # compared with the reference


@dataclass(frozen=True)
class ExactResult:
    """The loss, and the gradient of some rows, by the reference in float64."""

    loss: float
    rows: Array
    grad: Array

    @classmethod
    def of(cls, case: Case, data: Data) -> ExactResult:
        """The loss of all rows; the gradient of some rows, with the denominator of all."""
        options, counts = case.loss_options(), data.counts(case)
        everything = cross_entropy(
            data.logits,
            data.targets,
            weight=data.weight,
            sample_weight=counts,
            class_axis=case.class_axis,
            backend="numpy",
            grad=False,
            **options,
        )
        rows, logits, targets = data.some_rows(case, ROWS)
        n = case.layout.rows
        total = float(n)
        if data.weight is not None and not case.probs:
            total = float((data.weight[data.targets] * counts).sum())
            # the z-loss is divided by the rows, everything else by their weights
            options["z_loss"] *= total / n
        some = cross_entropy(
            logits, targets, weight=data.weight, normalizer=total, backend="numpy", **options
        )
        return cls(float(everything.loss), rows, np.asarray(some.grad))

    def errors(self, case: Case, loss: float, grad: Any) -> tuple[float, float | None]:
        """Errors in ULP of the dtype; of float32 for the losses of float16 and bfloat16."""
        finfo = FLOATS["f64" if case.dtype == "f64" else "f32"]
        loss_ulp = abs(loss - self.loss) / float(finfo.unit(np.array(self.loss)))
        if grad is None:
            return loss_ulp, None
        answer = self._some_rows(case, grad)
        unit = FLOATS_BY_NAME[name_of_grad(grad)].unit(self.grad)
        return loss_ulp, float(np.max(np.abs(answer - self.grad) / unit))

    def is_wrong(self, case: Case, loss: float, grad: Any) -> bool:
        """Whether an answer is wrong, and not merely inexact."""
        rough = 0.05 if case.dtype in ("f16", "bf16") else 1e-3
        if not abs(loss - self.loss) <= rough * max(1.0, abs(self.loss)):
            return True
        if grad is None:
            return False
        worst = float(np.max(np.abs(self._some_rows(case, grad) - self.grad)))
        return not worst <= rough * float(np.max(np.abs(self.grad)))

    def _some_rows(self, case: Case, grad: Any) -> Array:
        if case.layout.box[2] == 1 and not isinstance(grad, np.ndarray):
            # copy only what is compared from a device
            lines = grad.reshape(case.layout.rows, case.layout.classes)
            return np.stack(
                [widen(as_numpy(lines[row]), NAMES["f64"]) for row in self.rows.tolist()]
            )
        return rows_of(as_numpy(grad), case, self.rows)


def as_numpy(grad: Any) -> Array:
    """An array of NumPy, PyTorch or JAX, in host or device memory, as a NumPy array."""
    if hasattr(grad, "copy_to_host"):
        grad = grad.copy_to_host()
    if hasattr(grad, "detach"):
        grad = grad.detach().cpu()
        if str(grad.dtype) == "torch.bfloat16":
            return grad.float().numpy()  # type: ignore[no-any-return] # PyTorch's types are unknown
    array = np.asarray(grad)
    return array if array.dtype == BF16 or array.dtype.kind == "f" else array.astype(np.float32)


def name_of_grad(grad: Any) -> str:
    """The name of an array's dtype, also of PyTorch's bfloat16."""
    name = str(getattr(grad, "dtype", "")).removeprefix("torch.")
    if "bfloat16" in name:
        return "bfloat16"
    return name if name in FLOATS_BY_NAME else name_of(as_numpy(grad).dtype)
