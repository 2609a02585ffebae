"""Loss and gradient as a PyTorch user writes them: `python torch_script.py LOGITS TARGETS GRAD`."""

import sys

import numpy as np


def main(logits: str, targets: str, grad: str) -> None:
    """Load, compute, save."""
    import torch  # type: ignore[import-not-found, unused-ignore] # it may be installed

    x = torch.from_numpy(np.load(logits)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(x, torch.from_numpy(np.load(targets)))
    loss.backward()
    np.save(grad, x.grad.numpy())
    sys.stderr.write(f"{loss.item()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
