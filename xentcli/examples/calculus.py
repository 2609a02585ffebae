"""Examples that come to the gradient in another way: by the Jacobian, by differentiation."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.display.document import Column, Fact, Formula, Step
from xentcli.examples.model import SOURCES, Claim, Example, Worked
from xentcli.options import LossOptions

N, C = 128, 256
STEP = 1e-200  # of the complex step: nothing is subtracted, so it can be as small as this
NEAR = 1e-14


JACOBIAN_FORMULA = Formula(
    "dp[i]/dx[j] = p[i]·(δ[ij] - p[j])",
    r"\partial p_i/\partial x_j = p_i(\delta_{ij} - p_j)",
)
CHAIN_FORMULA = Formula(
    "dL/dx = dL/dp[y] · dp[y]/dx",
    r"dL/dx_j = dL/dp_y\cdot\partial p_y/\partial x_j",
)


def _random(count: int, stream: int) -> Array:
    """Whole numbers below 2¹⁶; the bits of PCG64 are the same in every version of NumPy."""
    raw = np.random.PCG64(stream).random_raw(count)
    return (raw >> np.uint64(48)).astype(np.int64)


def _uniform(count: int, stream: int) -> Array:
    """Multiples of 1/64 from 0 to 1: exact in float32, and short in text."""
    return (_random(count, stream) % 64) / 64.0


def _differentiated(w: Worked) -> Array:
    """upstream·dL/dx without a formula for it: Im L(x + ih)/h, one logit at a time.

    L = log Σ exp(x) - x[target]. Source: Squire, Trapp, Using complex variables to estimate
    derivatives of real functions, SIAM Review 40 (1998), doi:10.1137/S003614459631241X.
    """
    e = w.example
    assert e.upstream is not None
    gradient = np.empty(e.logits.shape)
    for row, (x, target, u) in enumerate(
        zip(e.logits.astype(float), e.targets, e.upstream, strict=True)
    ):
        moved = x + 1j * STEP * np.eye(len(x))
        loss = np.log(np.exp(moved).sum(axis=1)) - moved[:, target]
        gradient[row] = u * loss.imag / STEP
    return gradient


def _distance(w: Worked) -> float:
    return float(np.abs(w.gradient - _differentiated(w)).max())


def _agrees(w: Worked) -> list[str]:
    return ["equal" if _distance(w) <= NEAR else "different"]


def _comparison(w: Worked) -> tuple[Step, ...]:
    facts = (
        Fact(
            Formula("largest difference", r"\text{largest difference}"),
            _distance(w),
            f"of {w.gradient.size} entries",
        ),
    )
    words = (
        "The loss is differentiated without a formula, by a complex step: Im L(x + ih)/h. "
        "The article compared with PyTorch's automatic differentiation, to within 1e-5."
    )
    return (Step("Compared with differentiation", facts=facts, remarks=(words,)),)


def _jacobian(w: Worked) -> Array:
    """dp_i/dx_j = p_i·(δ_ij - p_j)."""
    p = w.derivation().p
    matrix: Array = np.diag(p) - np.outer(p, p)
    return matrix


def _chained(w: Worked) -> Array:
    """The row of the target times dL/dp = -1/p_y."""
    d = w.derivation()
    chained: Array = -1 / d.p[d.target] * _jacobian(w)[d.target]
    return chained


def _chain_agrees(w: Worked) -> list[str]:
    distance = np.abs(_chained(w) - w.derivation().difference).max()
    return ["equal" if distance <= NEAR else "different"]


def _matrix(w: Worked) -> tuple[Step, ...]:
    """The Jacobian, and the chain from it to p - y."""
    matrix = _jacobian(w)
    labels = tuple(map(str, range(len(matrix))))
    columns = tuple(
        Column(Formula(f"x[{j}]", f"x_{j}"), tuple(column.tolist()))
        for j, column in enumerate(matrix.T)
    )
    words = "Rows and columns sum to 0: probability only moves from class to class."
    whole = Step(
        "The Jacobian of the softmax",
        JACOBIAN_FORMULA,
        label="p[i]",
        labels=labels,
        columns=columns,
        remarks=(words,),
    )
    return whole, _chain(w, labels)


def _chain(w: Worked, labels: tuple[str, ...]) -> Step:
    d = w.derivation()
    assert d.target is not None
    columns = {
        ("dp[y]/dx", r"\partial p_y/\partial x_j"): _jacobian(w)[d.target],
        ("times -1/p[y]", r"\cdot(-1/p_y)"): _chained(w),
        ("p - y", "p_j - y_j"): d.difference,
    }
    slope = Formula("dL/dp[y] = -1/p[y]", r"dL/dp_y = -1/p_y")
    return Step(
        "The chain rule",
        CHAIN_FORMULA,
        labels=labels,
        columns=tuple(Column(Formula(*title), tuple(v.tolist())) for title, v in columns.items()),
        facts=(Fact(slope, -1 / d.p[d.target].item()),),
        remarks=("L = -log p[y] depends on p[y] alone, so one row of the matrix is enough.",),
    )


UPSTREAM = Example(
    name="upstream",
    source=SOURCES["tensors"],
    shows="one upstream gradient per row: upstream·(p - y), as differentiation gives it",
    logits=_uniform(N * C, 0).reshape(N, C).astype(np.float32),
    targets=_random(N, 1) % C,
    upstream=_uniform(N, 2),
    options=LossOptions(reduction="none"),
    claims=(Claim("upstream·(p - y), differentiated", ("equal",), _agrees),),
    top=5,
    more=_comparison,
    command="xent grad {folder}/logits.csv {folder}/targets.csv --reduction none "
    "--upstream {folder}/upstream.csv",
)

JACOBIAN = Example(
    name="jacobian",
    source=SOURCES["tensors"],
    shows="the softmax Jacobian, and how its chain with -1/p[y] becomes p - y",
    logits=np.array([[1.0, 2.0, 3.0]]),
    targets=np.array([0]),
    claims=(Claim("chain rule, p - y", ("equal",), _chain_agrees),),
    more=_matrix,
    command="xent grad {folder}/logits.csv {folder}/targets.csv",
)

EXAMPLES = {example.name: example for example in (UPSTREAM, JACOBIAN)}
