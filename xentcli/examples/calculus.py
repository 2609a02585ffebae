"""Other ways to the gradient: numerical differentiation, and the Jacobian with the chain rule."""

from __future__ import annotations

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.display.document import Column, Fact, Formula, Step
from xentcli.examples.example import SOURCES, ComputedExample, Example, Published, equal_within
from xentcli.options import LossOptions

N, C = 128, 256
STEP = 1e-200  # can be so small because a complex step subtracts nothing
TOLERANCE = 1e-14

JACOBIAN_FORMULA = Formula(
    "dp[i]/dx[j] = p[i]·(δ[ij] - p[j])",
    r"\partial p_i/\partial x_j = p_i(\delta_{ij} - p_j)",
)
CHAIN_FORMULA = Formula(
    "dL/dx = dL/dp[y] · dp[y]/dx",
    r"dL/dx_j = dL/dp_y\cdot\partial p_y/\partial x_j",
)


def _random(count: int, stream: int) -> Array:
    """Integers below 2¹⁶; the bits of PCG64 are the same in every version of NumPy."""
    raw = np.random.PCG64(stream).random_raw(count)
    return (raw >> np.uint64(48)).astype(np.int64)


def _uniform(count: int, stream: int) -> Array:
    """Multiples of 1/64 in [0, 1): exact in float32, and short as text."""
    return (_random(count, stream) % 64) / 64.0


def _differentiated(computed: ComputedExample) -> Array:
    """upstream·dL/dx by the complex-step method, Im L(x + ih)/h, one logit at a time.

    L = log Σ exp(x) - x[target]. Source: Squire, Trapp, Using complex variables to estimate
    derivatives of real functions, SIAM Review 40 (1998), doi:10.1137/S003614459631241X.
    """
    e = computed.example
    assert e.upstream is not None
    gradient = np.empty(e.logits.shape)
    for row, (x, target, u) in enumerate(
        zip(e.logits.astype(float), e.targets, e.upstream, strict=True)
    ):
        shifted = x + 1j * STEP * np.eye(len(x))
        loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[:, target]
        gradient[row] = u * loss.imag / STEP
    return gradient


def _distance(computed: ComputedExample) -> float:
    return float(np.abs(computed.gradient - _differentiated(computed)).max())


def _agrees(computed: ComputedExample) -> list[str]:
    return equal_within(TOLERANCE, _distance(computed))


def _numerical_steps(computed: ComputedExample) -> tuple[Step, ...]:
    title, note = Formula.in_words("largest difference"), f"over {computed.gradient.size} entries"
    facts = (Fact(title, _distance(computed), note),)
    words = (
        "The loss is differentiated numerically, by the complex-step method Im L(x + ih)/h. The "
        "article compared with PyTorch autograd, to a tolerance of 1e-5."
    )
    return (Step("Comparison with numerical differentiation", facts=facts, remarks=(words,)),)


def _jacobian(computed: ComputedExample) -> Array:
    """dp_i/dx_j = p_i·(δ_ij - p_j)."""
    p = computed.derivation().p
    matrix: Array = np.diag(p) - np.outer(p, p)
    return matrix


def _chained(computed: ComputedExample) -> Array:
    """The target's row of the Jacobian times dL/dp_y = -1/p_y."""
    d = computed.derivation()
    chained: Array = -1 / d.p[d.target] * _jacobian(computed)[d.target]
    return chained


def _chain_agrees(computed: ComputedExample) -> list[str]:
    differences = np.abs(_chained(computed) - computed.derivation().difference)
    return equal_within(TOLERANCE, *differences)


def _jacobian_steps(computed: ComputedExample) -> tuple[Step, ...]:
    """The Jacobian, and the chain rule from it to p - y."""
    matrix = _jacobian(computed)
    labels = tuple(map(str, range(len(matrix))))
    columns = tuple(
        Column(Formula(f"x[{j}]", f"x_{j}"), tuple(column.tolist()))
        for j, column in enumerate(matrix.T)
    )
    words = "Rows and columns sum to 0, because the probabilities always sum to 1."
    jacobian = Step(
        "The Jacobian of the softmax",
        JACOBIAN_FORMULA,
        heading="p[i]",
        labels=labels,
        columns=columns,
        remarks=(words,),
    )
    return jacobian, _chain(computed, labels)


def _chain(computed: ComputedExample, labels: tuple[str, ...]) -> Step:
    d = computed.derivation()
    assert d.target is not None
    columns = {
        ("dp[y]/dx", r"\partial p_y/\partial x_j"): _jacobian(computed)[d.target],
        ("times -1/p[y]", r"\cdot(-1/p_y)"): _chained(computed),
        ("p - y", "p_j - y_j"): d.difference,
    }
    slope = Formula("dL/dp[y] = -1/p[y]", r"dL/dp_y = -1/p_y")
    return Step(
        "The chain rule",
        CHAIN_FORMULA,
        labels=labels,
        columns=tuple(Column(Formula(*title), tuple(v.tolist())) for title, v in columns.items()),
        facts=(Fact(slope, -1 / d.p[d.target].item()),),
        remarks=("L = -log p[y] depends only on p[y], so one row of the Jacobian is enough.",),
    )


UPSTREAM = Example(
    name="upstream",
    source=SOURCES["tensors"],
    description="one upstream gradient per row: upstream·(p - y), checked by differentiation",
    logits=_uniform(N * C, 0).reshape(N, C).astype(np.float32),
    targets=_random(N, 1) % C,
    upstream=_uniform(N, 2),
    options=LossOptions(reduction="none"),
    published=(Published("upstream·(p - y), numerical derivative", ("equal",), _agrees),),
    top=5,
    extra_steps=_numerical_steps,
    command="xent grad {folder}/logits.csv {folder}/targets.csv --reduction none "
    "--upstream {folder}/upstream.csv",
)

JACOBIAN = Example(
    name="jacobian",
    source=SOURCES["tensors"],
    description="the softmax Jacobian, and how the chain rule with -1/p[y] gives p - y",
    logits=np.array([[1.0, 2.0, 3.0]]),
    targets=np.array([0]),
    published=(Published("chain rule, p - y", ("equal",), _chain_agrees),),
    extra_steps=_jacobian_steps,
)

EXAMPLES = {example.name: example for example in (UPSTREAM, JACOBIAN)}
