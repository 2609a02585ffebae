"""Writes the PyTorch files of the tests: `python tests/pytorch/make.py` where PyTorch is installed.

Other versions of PyTorch write other bytes, of the same tensors.
"""

from pathlib import Path

import torch

FOLDER = Path(__file__).parent
LOGITS = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
COUNT = torch.arange(24.0)
KINDS = (
    *("float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32"),
    *("int64", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "complex64"),
)


def contents():
    """What is in each file."""
    numbers = COUNT.reshape(4, 6)
    small = torch.arange(6).reshape(2, 3)
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(COUNT[:6].reshape(2, 3))
        linear.bias.copy_(COUNT[:2])
    return {
        "tensor.pt": numbers,
        "parameter.pth": torch.nn.Parameter(numbers),
        "eval.pt": {
            "epoch": 3, "rate": 0.5, "name": "a", "nothing": None, "sizes": [1, 2],
            "logits": numbers.bfloat16(), "targets": torch.tensor([0, 5, 1, 2]),
        },
        "views.pt": [numbers, numbers.T, numbers[1:, ::2], numbers[2], numbers[:0], COUNT[7],
                     COUNT[:3].expand(2, 3), numbers.reshape(2, 2, 6).permute(2, 0, 1)],
        "kinds.pt": {name: small.to(getattr(torch, name)) for name in KINDS},
        "views-of-kinds.pt": (numbers.bfloat16().T, (numbers % 8).to(torch.float8_e5m2).T),
        "state.pt": linear.state_dict(),
    }  # fmt: skip


def main():
    """Write all files."""
    for name, value in contents().items():
        torch.save(value, FOLDER / name)
    torch.save(COUNT, FOLDER / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(LOGITS.to_sparse(), FOLDER / "sparse.pt")


if __name__ == "__main__":
    main()
