"""What other libraries compute, from their published definitions, and the options that say it.

Each formula is written out here from its library's documentation or source, in float64 NumPy; the
gradient is a difference. PyTorch's is its own, where it is installed.
"""

import numpy as np
import pytest

from xentcli import Teacher, cross_entropy

N, C, K = 6, 12, 4
TAU = 2.0


def log_softmax(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.fixture
def job(rng):
    """Student and teacher logits, labels of which one is ignored, the teacher's K largest."""
    x, t = rng.standard_normal((2, N, C)) * 2
    y = rng.integers(0, C, N)
    y[3] = -100
    indices = np.argsort(-t, axis=1)[:, :K]
    return x, t, y, np.take_along_axis(log_softmax(t), indices, axis=1), indices


def assert_same_loss(loss, x, r):
    """The value and the gradient of a function of the logits."""
    assert r.loss == pytest.approx(loss(x), rel=1e-12)
    grad, h = np.zeros_like(x), 1e-5
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = h
        grad[place] = (loss(x + step) - loss(x - step)) / (2 * h)
    np.testing.assert_allclose(r.grad, grad, atol=1e-9)


def stored(log_p, indices):
    return np.take_along_axis(log_p, indices, axis=1)


def with_tail(logs):
    """TRL's and verl's K + 1 outcomes: the last is what the others leave of 1."""
    return np.concatenate([logs, np.log(-np.expm1(np.log(np.exp(logs).sum(1, keepdims=True))))], 1)


def kl(log_a, log_b):
    return np.sum(np.exp(log_a) * (log_a - log_b), axis=1)


def jsd(log_p, log_q, beta):
    """TRL's and Liger's: the teacher weighs β."""
    log_m = np.logaddexp(np.log(beta) + log_q, np.log1p(-beta) + log_p)
    return beta * kl(log_q, log_m) + (1 - beta) * kl(log_p, log_m)


def mean(rows, y):
    return rows[y != -100].mean()


DENSE = {"kind": "logits"}
TOP = {"kind": "log-probs"}
LIBRARIES = {
    "trl gkd": (
        lambda x, t, y, v, i: mean(jsd(log_softmax(x / TAU), log_softmax(t / TAU), 0.3), y),
        {**DENSE, "divergence": "jsd", "beta": 0.3},
        TAU,
    ),
    "trl gkd, beta 0": (
        lambda x, t, y, v, i: mean(kl(log_softmax(t / TAU), log_softmax(x / TAU)), y),
        {**DENSE, "divergence": "forward-kl"},
        TAU,
    ),
    "trl gkd, beta 1": (
        lambda x, t, y, v, i: mean(kl(log_softmax(x / TAU), log_softmax(t / TAU)), y),
        {**DENSE, "divergence": "reverse-kl"},
        TAU,
    ),
    "trl top-k with its tail bucket": (
        lambda x, t, y, v, i: mean(jsd(with_tail(stored(log_softmax(x), i)), with_tail(v), 0.5), y),
        {**TOP, "divergence": "jsd", "beta": 0.5, "tail": "bucket"},
        1.0,
    ),
    "trl top-k with its tail bucket, beta 1": (
        lambda x, t, y, v, i: mean(kl(with_tail(stored(log_softmax(x), i)), with_tail(v)), y),
        {**TOP, "divergence": "reverse-kl", "tail": "bucket"},
        1.0,
    ),
    "trl gold top-k without tail, MaxText": (
        lambda x, t, y, v, i: mean(kl(log_softmax(v / TAU), log_softmax(stored(x, i) / TAU)), y),
        {"kind": "logits", "divergence": "forward-kl", "tail": "subset"},
        TAU,
    ),
    "torchtune ForwardKLLoss": (
        lambda x, t, y, v, i: mean(-np.sum(np.exp(log_softmax(t)) * log_softmax(x), axis=1), y),
        {**DENSE, "divergence": "ce"},
        1.0,
    ),
    "DistillKit, dense": (
        lambda x, t, y, v, i: TAU**2 * mean(kl(log_softmax(t / TAU), log_softmax(x / TAU)), y),
        {**DENSE, "divergence": "forward-kl", "scale_t2": True},
        TAU,
    ),
    "DistillKit, missing probability zero": (
        lambda x, t, y, v, i: mean(kl(log_softmax(v), stored(log_softmax(x), i)), y),
        {**TOP, "divergence": "forward-kl", "tail": "teacher"},
        1.0,
    ),
    "DistillKit, missing probability symmetric uniform": (
        lambda x, t, y, v, i: mean(kl(with_tail(v), with_tail(stored(log_softmax(x), i))), y),
        {**TOP, "divergence": "forward-kl", "tail": "bucket"},
        1.0,
    ),
    "Megatron, verl before its PR 7855": (
        lambda x, t, y, v, i: mean(kl(v, stored(log_softmax(x), i)), y),
        {**TOP, "divergence": "forward-kl", "tail": "drop"},
        1.0,
    ),
    "Liger JSD": (
        lambda x, t, y, v, i: mean(jsd(log_softmax(x / TAU), log_softmax(t / TAU), 0.7), y),
        {**DENSE, "divergence": "jsd", "beta": 0.7},
        TAU,
    ),
    "mlx-kld": (
        lambda x, t, y, v, i: mean(uniform_kl(log_softmax(x), v, i), y),
        {**TOP, "divergence": "forward-kl", "tail": "uniform"},
        1.0,
    ),
}


def uniform_kl(log_p, v, indices):
    share = (1 - np.exp(v).sum(axis=1)) / (C - K)
    log_q = np.repeat(np.log(share)[:, None], C, axis=1)
    np.put_along_axis(log_q, indices, v, axis=1)
    return kl(log_q, log_p)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_is_reproduced(job, name):
    x, t, y, v, indices = job
    loss, how, temperature = LIBRARIES[name]
    top = "tail" in how
    teacher = Teacher(v if top else t, indices if top else None, **how)
    r = cross_entropy(x, y, teacher=teacher, temperature=temperature)
    assert_same_loss(lambda z: loss(z, t, y, v, indices), x, r)


def test_the_sampled_teacher_of_rs_kd(job, rng):
    """Counts of sampled tokens, as many as were drawn: their shares are the targets."""
    x, t, y, *_ = job
    q = np.exp(log_softmax(t))
    ids = np.array([rng.choice(C, 12, p=row) for row in q])
    shares = np.array([np.bincount(row, minlength=C) / 12 for row in ids])
    teacher = Teacher(np.ones((N, 12), "i4"), ids, divergence="ce")
    r = cross_entropy(x, y, teacher=teacher)
    assert_same_loss(lambda z: mean(-np.sum(shares * log_softmax(z), axis=1), y), x, r)


def test_what_the_libraries_compute_differs(job):
    """Otherwise an option could be ignored, and every one of these tests pass."""
    x, t, y, v, indices = job
    losses = {name: one(x, t, y, v, indices) for name, (one, _, _) in LIBRARIES.items()}
    same = {"trl top-k with its tail bucket", "DistillKit, missing probability symmetric uniform"}
    values = [round(value, 9) for name, value in losses.items() if name not in same]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_kl_div_of_pytorch(rng, reduction):
    torch = pytest.importorskip("torch")
    x, t = rng.standard_normal((2, N, C))
    z = torch.tensor(x, requires_grad=True)
    log_p = torch.log_softmax(z / TAU, -1)
    log_q = torch.log_softmax(torch.tensor(t) / TAU, -1)
    loss = torch.nn.functional.kl_div(log_p, log_q, reduction=reduction, log_target=True)
    loss.sum().backward()
    ours = {"batchmean": "mean"}.get(reduction, reduction)
    teacher = Teacher(t, kind="logits", divergence="forward-kl")
    r = cross_entropy(x, teacher=teacher, temperature=TAU, reduction=ours)
    expected = loss.detach().numpy()
    np.testing.assert_allclose(r.loss, expected.sum(1) if reduction == "none" else expected)
    np.testing.assert_allclose(r.grad, z.grad.numpy(), atol=1e-15)


def test_hintons_recipe_in_pytorch(rng):
    """α·T²·KL at temperature T, and (1 − α) of the cross-entropy at temperature 1."""
    torch = pytest.importorskip("torch")
    x, t = rng.standard_normal((2, N, C))
    y = rng.integers(0, C, N)
    z = torch.tensor(x, requires_grad=True)
    functional = torch.nn.functional
    soft = functional.kl_div(
        torch.log_softmax(z / TAU, -1),
        torch.softmax(torch.tensor(t) / TAU, -1),
        reduction="batchmean",
    )
    loss = 0.4 * TAU**2 * soft + 0.6 * functional.cross_entropy(z, torch.tensor(y))
    loss.backward()
    teacher = Teacher(t, kind="logits", divergence="forward-kl", alpha=0.4, scale_t2=True)
    r = cross_entropy(x, y, teacher=teacher, temperature=TAU)
    assert r.loss == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(r.grad, z.grad.numpy(), atol=1e-15)
