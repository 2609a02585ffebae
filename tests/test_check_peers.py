"""Gradients of PyTorch, JAX with optax, and SciPy, judged: only where they are installed.

`python tests/test_check_peers.py` prints the table that the README shows.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from xentcli.check import check

ROOT = Path(__file__).parent.parent
WEIGHT = np.arange(1, 11, dtype="f4")
SMOOTHING = 0.1
PLACES = ("less certain rows", "confident rows")


def digits():
    """The real logits of the sample data, and their targets."""
    folder = ROOT / "sample_data" / "digits"
    return np.load(folder / "logits.npy"), np.load(folder / "targets.npy").astype("i8")


def torch_gradient(x, t, **options):
    import torch

    kind = {"f4": torch.float32, "f8": torch.float64, "bf16": torch.bfloat16}[
        options.pop("dtype", "f4")
    ]
    leaf = torch.from_numpy(x).to(kind).requires_grad_(True)
    if "weight" in options:
        options["weight"] = torch.from_numpy(options["weight"]).to(kind)
    torch.nn.functional.cross_entropy(leaf, torch.from_numpy(t), **options).backward()
    return leaf, leaf.grad


def jax_gradient(x, t):
    import jax
    import optax

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, t).mean()

    return x, jax.grad(loss)(x)


def scipy_gradient(x, t):
    from scipy.special import softmax

    grad = softmax(x, axis=1)
    grad[np.arange(len(t)), t] -= 1
    return x, grad / np.float32(len(t))


CASES = {
    "PyTorch float32": (torch_gradient, {}, ("torch",)),
    "with weights": (torch_gradient, {"weight": WEIGHT}, ("torch",)),
    "with smoothing": (torch_gradient, {"label_smoothing": SMOOTHING}, ("torch",)),
    "float64": (torch_gradient, {"dtype": "f8"}, ("torch",)),
    "bfloat16": (torch_gradient, {"dtype": "bf16"}, ("torch",)),
    "optax float32": (jax_gradient, {}, ("jax", "optax")),
    "SciPy float32": (scipy_gradient, {}, ("scipy",)),
}


def judged(name):
    """The report on a library's gradient if it should be exact, and by the default tolerance."""
    make, options, needed = CASES[name]
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    x, t = digits()
    logits, grad = make(x, t, **options)
    meant = {key: value for key, value in options.items() if key != "dtype"}
    return [check(logits, t, grad, **meant, exact=exact) for exact in (True, False)]


def line(name):
    report, peers = judged(name)
    places = report.facts()["places"]
    cells = [f"{places[place]['max_ulp']:.3g}" for place in PLACES]
    found = ", ".join(finding.name for finding in report.findings) or "none"
    return f"| {name} | {' | '.join(cells)} | {'yes' if peers.ok else 'no'} | {found} |"


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_of_others_are_right_but_for_rounding(name):
    report, peers = judged(name)
    half = name == "bfloat16"
    found = {finding.name for finding in report.findings}
    assert found <= ({"rounding"} if half else {"cancellation"})
    assert peers.ok != half


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_sign_is_seen_in_the_gradients_of_others(name):
    make, options, needed = CASES[name]
    if any(importlib.util.find_spec(module) is None for module in needed):
        pytest.skip(f"{needed} are not installed")
    x, t = digits()
    logits, grad = make(x, t, **options)
    meant = {key: value for key, value in options.items() if key != "dtype"}
    (finding,) = check(logits, t, -grad, **meant).findings
    assert finding.name == "sign"


def shown(name):
    """What the README's table says of a library: its largest errors in ULP."""
    lines = (ROOT / "README.md").read_text().splitlines()
    head = next(row for row, line in enumerate(lines) if line.startswith("| PyTorch float32 |"))
    column = [cell.strip() for cell in lines[head].split("|")].index(name)
    return [float(number) for number in lines[head + 2].split("|")[column].split(";")]


@pytest.mark.parametrize("name", CASES)
def test_the_readme_shows_what_they_are_off_by(name):
    report, _ = judged(name)
    places = report.facts()["places"]
    now = [places[place]["max_ulp"] for place in PLACES]
    np.testing.assert_allclose(now, shown(name), rtol=0.5)  # other processors add in another order


if __name__ == "__main__":
    for case in CASES:
        sys.stdout.write(f"{line(case)}\n")
