"""Train a softmax regression on the UCI handwritten digits and write its logits.

    pip install scikit-learn xentcli
    python make.py

Gradient descent on all 1797 images, with the gradient that `xentcli` computes; no random numbers
are involved.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from xentcli import cross_entropy

STEPS, LEARNING_RATE, WEIGHT_DECAY = 400, 2.0, 1e-4


def main() -> None:
    """Write logits.npy (1797 × 10, float32) and targets.npy (1797, uint8) beside this file."""
    pixels, digits = load_digits(return_X_y=True)
    x = np.hstack([pixels / 16, np.ones((len(pixels), 1))])
    coefficients = np.zeros((x.shape[1], 10))
    for _ in range(STEPS):
        result = cross_entropy(x @ coefficients, digits)
        gradient = x.T @ result.grad + WEIGHT_DECAY * coefficients
        coefficients -= LEARNING_RATE * gradient
    here = Path(__file__).parent
    np.save(here / "logits.npy", (x @ coefficients).astype(np.float32))
    np.save(here / "targets.npy", digits.astype(np.uint8))


if __name__ == "__main__":
    main()
