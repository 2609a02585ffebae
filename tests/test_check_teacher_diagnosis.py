"""`xent check` names the mistake in a loss against a teacher, and accuses nobody wrongly.

What is wrong is made here from the definition of each loss, in NumPy; the gradient is the imaginary
part of the loss at a complex logit, so that no formula of a derivative is shared.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from cli import inside

from xentcli import Teacher
from xentcli.check import assert_loss_close, check, diagnosis
from xentcli.check.diagnosis import sample, teacher_losses, teacher_mistakes

N, C, K = 24, 8, 3
STEP = 1e-150


@dataclass(frozen=True)
class Loss:
    """A loss against a teacher, of all classes where there is no tail, and how it is reduced."""

    divergence: str = "forward-kl"
    tail: str | None = None
    beta: float | None = None
    t: float = 1.7
    teacher_t: float = 1.7
    t2: bool = False
    alpha: float = 1.0
    factor: float = 1.0  # of the gradient
    hard: float | None = None  # what multiplies the hard targets, if not 1 − alpha

    def value(self, d, x):
        """The losses of the rows, before the mean."""
        p, q = softmax(x / self.t), softmax(d["z"] / self.teacher_t)
        if self.tail is not None:
            p, q = self.compared(p, d)
        soft = self.of(p, q).sum(axis=1) * (self.t**2 if self.t2 else 1) * self.factor
        rows = np.arange(N)
        hard = -np.log(softmax(x)[rows, d["y"]])
        share = 1 - self.alpha if self.hard is None else self.hard
        return self.alpha * soft + share * hard

    def compared(self, p, d):
        """The student's and the teacher's probabilities of what is compared, by the tail."""
        at, q = d["indices"], np.exp(d["values"])
        mine = np.take_along_axis(p, at, axis=1)
        rest = 1 - q.sum(axis=1, keepdims=True)
        whole = np.zeros((N, C))
        if self.tail == "bucket":
            return np.hstack([mine, 1 - mine.sum(axis=1, keepdims=True)]), np.hstack([q, rest])
        if self.tail == "drop":
            return mine, q
        if self.tail == "subset":
            total = mine.sum(axis=1, keepdims=True)
            return mine / total, q / q.sum(axis=1, keepdims=True)
        if self.tail == "uniform":
            whole += rest / (C - K)
        np.put_along_axis(whole, at, q if self.tail == "uniform" else q / (1 - rest), axis=1)
        return p, whole

    def of(self, p, q):
        """The terms."""
        ln_q = np.log(np.where(q > 0, q, 1))
        if self.divergence == "ce":
            return -q * np.log(p)
        if self.divergence == "forward-kl":
            return q * (ln_q - np.log(p))
        if self.divergence == "reverse-kl":
            return p * (np.log(p) - ln_q)
        m = self.beta * q + (1 - self.beta) * p
        return self.beta * q * (ln_q - np.log(m)) + (1 - self.beta) * p * (np.log(p) - np.log(m))

    def gradient(self, d):
        """The gradient of the mean."""
        columns = []
        for c in range(C):
            x = d["x"].astype(complex)
            x[:, c] += 1j * STEP
            columns.append(self.value(d, x).imag / STEP / N)
        return np.stack(columns, axis=1)

    def loss(self, d):
        """The mean."""
        return self.value(d, d["x"]).mean()

    def meant(self, d):
        """The options of a check."""
        values, indices = (d["z"], None) if self.tail is None else (d["values"], d["indices"])
        teacher = Teacher(
            values,
            indices,
            kind="logits" if indices is None else "log-probs",
            divergence=self.divergence,
            beta=self.beta,
            tail=self.tail,
            alpha=self.alpha,
            scale_t2=self.t2,
        )
        return {"teacher": teacher, "temperature": self.t}


def softmax(z):
    e = np.exp(z - z.real.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def made(seed, width=2.0):
    """Logits of a student and a teacher, a top-K of another temperature, and targets."""
    rng = np.random.default_rng(seed)
    x, z = (rng.standard_normal((2, N, C)) * width).astype("f4").astype("f8")
    q = softmax(z / 1.7)
    indices = np.argsort(-q, axis=1)[:, :K]
    values = np.log(np.take_along_axis(q, indices, axis=1)).astype("f4").astype("f8")
    return {"x": x, "z": z, "y": rng.integers(0, C, N), "values": values, "indices": indices}


@pytest.fixture
def data():
    """Everything that losses are computed from."""
    return made(7)


# Each mistake: its name, the loss that is meant, and what changes.
DENSE = {
    "no-t2": (Loss(t2=True), {"t2": False}),
    "extra-t2": (Loss(), {"t2": True}),
    "beta-swapped": (Loss("jsd", beta=0.3), {"beta": 0.7}),
    "swapped": (Loss("reverse-kl"), {"divergence": "forward-kl"}),
    "no-teacher-temperature": (Loss(), {"teacher_t": 1.0}),
    "divergence-reverse-kl": (Loss("jsd", beta=0.3), {"divergence": "reverse-kl"}),
    "divergence-forward-kl": (Loss("jsd", "drop", 0.3), {"divergence": "forward-kl"}),
    "divergence-jsd": (Loss("ce"), {"divergence": "jsd", "beta": 0.5}),
}
CASES = [(name, *case) for name, case in DENSE.items()]
CASES += [
    ("swapped", Loss("ce"), {"divergence": "reverse-kl"}),
    ("swapped", Loss("forward-kl"), {"divergence": "reverse-kl"}),
    ("swapped", Loss("forward-kl", "bucket"), {"divergence": "reverse-kl"}),
    ("no-t2", Loss("reverse-kl", "subset", t2=True), {"t2": False}),
    ("beta-swapped", Loss("jsd", "uniform", beta=0.2), {"beta": 0.8}),
]
TAILS = ("bucket", "uniform", "subset", "teacher", "drop")
CASES += [
    (f"tail-{other}", Loss(divergence, tail, beta), {"tail": other})
    for divergence, beta in (("forward-kl", None), ("reverse-kl", None), ("jsd", 0.4))
    for tail in TAILS
    for other in TAILS
    if tail != other and not (divergence == "reverse-kl" and "teacher" in (tail, other))
]
MIXED = {
    "no-hard-part": (Loss(), {"hard": 0.0}),
    "alpha-swapped": (Loss("reverse-kl"), {"alpha": 0.7}),
}
GRADIENT_ONLY = {
    "no-temperature-factor": (Loss(), {"factor": 1.7}),
    "twice-temperature": (Loss("jsd", beta=0.3), {"factor": 1 / 1.7}),
}
ONLY_LOSS = {
    "divergence-ce": (Loss("jsd", beta=0.3), {"divergence": "ce", "beta": None}),
    "kl-for-ce": (Loss("ce"), {"divergence": "forward-kl"}),
    "ce-for-kl": (Loss("forward-kl", "uniform"), {"divergence": "ce"}),
}
WITH_HARD = [(name, replace(loss, alpha=0.3), changes) for name, loss, changes in CASES]
WITH_HARD += [(name, replace(loss, alpha=0.3), how) for name, (loss, how) in MIXED.items()]
OF_FACTORS = [
    (name, replace(loss, alpha=alpha), how)
    for name, (loss, how) in GRADIENT_ONLY.items()
    for alpha in (1.0, 0.3)
]
OF_LOSSES = [(name, *case) for name, case in ONLY_LOSS.items()]


def first_ones(cases):
    """The cases, of which the first of each name are in the fast tier."""
    names = [name for name, *_ in cases]
    marks = ([] if name not in names[:at] else [pytest.mark.slow] for at, name in enumerate(names))
    return [pytest.param(case, marks=mark) for case, mark in zip(cases, marks, strict=True)]


def words(case):
    name, loss, changes = case
    return f"{name} in {loss.divergence} {loss.tail} {loss.alpha} {changes}"


def named(loss, wrong, d, dtype):
    d = {**d, "x": d["x"].astype(dtype)}
    report = check(d["x"], d["y"], wrong.gradient(d).astype(dtype), **loss.meant(d))
    assert not report.ok
    return [finding.name for finding in report.findings]


@pytest.mark.parametrize("case", first_ones([*CASES, *WITH_HARD, *OF_FACTORS]), ids=words)
def test_the_mistake_in_a_gradient_is_named(case, data):
    name, loss, changes = case
    assert named(loss, replace(loss, **changes), data, "f8") == [name]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES[:12], *OF_FACTORS], ids=words)
def test_the_mistake_in_a_float32_gradient_is_named(case, data):
    name, loss, changes = case
    assert named(loss, replace(loss, **changes), data, "f4") == [name]


@pytest.mark.parametrize("reduction", ["mean", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", first_ones([*OF_LOSSES, *CASES, *WITH_HARD[::5]]), ids=words)
def test_the_mistake_in_a_loss_is_named(case, reduction, data):
    name, loss, changes = case
    wrong, how = replace(loss, **changes), {**loss.meant(data), "reduction": reduction}
    losses = wrong.value(data, data["x"])
    losses = losses.mean() if reduction == "mean" else losses
    with pytest.raises(AssertionError) as error:
        assert_loss_close(data["x"], data["y"], losses, **how)
    found = [line for line in str(error.value).splitlines() if line.startswith("diagnosis: loss:")]
    known = {mistake.words for mistake in teacher_losses.OF_LOSSES if mistake.name == name}
    assert len(found) == 1
    assert any(text in found[0] for text in known)


def test_every_mistake_that_is_known_has_a_case():
    known = {mistake.name for mistake in teacher_mistakes.TEACHER_MISTAKES}
    tested = {name for name, *_ in (*CASES, *WITH_HARD, *OF_FACTORS, *OF_LOSSES)}
    elsewhere = {"no-temperature", "no-student-temperature", "no-weight"}
    factors = ("sample-weight", "upstream")
    elsewhere |= {f"{how}-{what}" for how in ("no", "twice") for what in factors}
    assert known == tested | elsewhere


# Nobody is accused wrongly.


@pytest.mark.parametrize("case", [*CASES[:3], *WITH_HARD[:9:3]], ids=words)
def test_the_right_gradient_gets_no_diagnosis(case, data):
    _, loss, _ = case
    for dtype in ("f4", "f8"):
        d = {**data, "x": data["x"].astype(dtype)}
        grad = loss.gradient(d).astype(dtype)
        report = check(d["x"], d["y"], grad, loss=loss.loss(d), **loss.meant(d))
        assert report.ok


def random_loss(rng):
    divergence = str(rng.choice(["ce", "forward-kl", "reverse-kl", "jsd"]))
    tails = [None, *(tail for tail in TAILS if (divergence, tail) != ("reverse-kl", "teacher"))]
    return Loss(
        divergence,
        tails[rng.integers(len(tails))],
        float(rng.uniform(0.1, 0.4)) if divergence == "jsd" else None,
        t2=bool(rng.integers(2)),
        alpha=float(rng.choice([1.0, rng.uniform(0.2, 0.4)])),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_no_other_mistake_is_named_under_any_options(seed):
    rng = np.random.default_rng(seed)
    loss, d = random_loss(rng), made(seed, rng.uniform(0.5, 4))
    assert check(d["x"], d["y"], loss.gradient(d), loss=loss.loss(d), **loss.meant(d)).ok
    noisy = loss.gradient(d) * (1 + 1e-3 * rng.standard_normal((N, C)))
    report = check(d["x"], d["y"], noisy, **loss.meant(d))
    assert not report.ok
    assert not report.findings
    off = loss.loss(d) * (1 + 1e-3)
    report = check(d["x"], d["y"], loss.gradient(d), loss=off, **loss.meant(d))
    assert report.loss.off
    assert not report.loss.findings


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_a_mistake_is_named_under_any_options(seed):
    rng = np.random.default_rng(seed)
    loss, d = random_loss(rng), made(seed, rng.uniform(0.5, 3))
    wrong = {"no-t2": {"t2": False}} if loss.t2 else {"extra-t2": {"t2": True}}
    wrong["no-temperature-factor"] = {"factor": 1.7}
    if loss.divergence == "jsd":
        wrong["beta-swapped"] = {"beta": 1 - loss.beta}
    elif loss.divergence != "reverse-kl" and loss.tail != "teacher":
        wrong["swapped"] = {"divergence": "reverse-kl"}
    elif loss.divergence == "reverse-kl":
        wrong["swapped"] = {"divergence": "forward-kl"}
    for tail in TAILS if loss.tail else ():
        if tail != loss.tail and (loss.divergence, tail) != ("reverse-kl", "teacher"):
            wrong[f"tail-{tail}"] = {"tail": tail}
    for name, changes in wrong.items():
        assert named(loss, replace(loss, **changes), d, "f8") == [name]


def test_a_random_gradient_gets_no_diagnosis(data, rng):
    report = check(data["x"], None, rng.standard_normal((N, C)), **Loss().meant(data))
    assert not report.findings


def test_other_mistakes_are_named_too(data):
    loss = Loss("reverse-kl")
    grad, how = loss.gradient(data), loss.meant(data)

    def names(wrong):
        return [finding.name for finding in check(data["x"], None, wrong, **how).findings]

    assert names(-grad) == ["sign"]
    assert names(grad * N) == ["not-divided"]
    assert names(np.roll(grad, 1, axis=1)) == ["last-column"]
    assert names(np.zeros_like(grad)) == ["zeros"]
    uniform = Loss("forward-kl", "uniform")
    wrong = replace(uniform, tail="drop").gradient(data) * N
    found = check(data["x"], None, wrong, **uniform.meant(data)).findings
    assert [finding.name for finding in found] == ["tail-drop and not-divided"]


def test_row_factors_are_named(data, rng):
    v, u = rng.random(N) + 0.5, rng.random(N) + 0.5
    loss = Loss("jsd", beta=0.3)
    plain = loss.gradient(data) * N
    how = {**loss.meant(data), "reduction": "none", "sample_weight": v, "upstream": u}
    for wrong, name in (
        (plain * u[:, None], "no-sample-weight"),
        (plain * (u * v * v)[:, None], "twice-sample-weight"),
        (plain * v[:, None], "no-upstream"),
        (plain * (u * u * v)[:, None], "twice-upstream"),
    ):
        report = check(data["x"], None, wrong, **how)
        assert [finding.name for finding in report.findings] == [name]


def test_weights_and_temperatures_that_are_left_out_are_named(data, rng):
    w, loss = rng.random(C) + 0.5, Loss("ce")
    report = check(data["x"], None, loss.gradient(data), weight=w, **loss.meant(data))
    assert [finding.name for finding in report.findings] == ["no-weight"]
    for changes, name in (
        ({"t": 1.0, "teacher_t": 1.0}, "no-temperature"),
        ({"t": 1.0}, "no-student-temperature"),
    ):
        assert named(loss, replace(loss, **changes), data, "f8") == [name]


def test_the_diagnosis_is_printed_with_flags(data, files, capfdbinary):
    loss = Loss("forward-kl", "uniform")
    np.save("x.npy", data["x"])
    np.savez("top.npz", values=data["values"], indices=data["indices"])
    np.save("g.npy", replace(loss, tail="drop").gradient(data))
    np.save("l.npy", replace(loss, divergence="ce").loss(data))
    how = ["--teacher", "top.npz", "--teacher-kind", "log-probs", "--divergence", "forward-kl"]
    how += ["--tail", "uniform", "--temperature", "1.7", "--loss", "l.npy"]
    result = inside(capfdbinary, "check", "x.npy", "g.npy", *how, "-q")
    assert result.code == 1
    assert "diagnosis: another tail, drop: nothing: matches" in result.text
    assert "if it is meant: --tail drop" in result.text
    assert "diagnosis: loss: CE for KL: the teacher's own entropy is not subtracted" in result.text


def test_mistakes_are_named_from_a_sample(data, monkeypatch):
    monkeypatch.setattr(sample, "ENTRIES", 8 * C)
    loss = Loss("reverse-kl", "bucket")
    assert named(loss, replace(loss, tail="drop"), data, "f8") == ["tail-drop"]
    assert diagnosis.MOST == 3
