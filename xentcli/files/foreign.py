"""What people have their logits in and xent does not read: named, and how to convert it."""

from __future__ import annotations

from xentcli.errors import FormatError

LOOK = 12  # bytes

PICKLE = (
    "a pickle, which can run any code and which xent never opens",
    "in Python: numpy.save('logits.npy', array)",
)
PYTORCH = (
    "a file of PyTorch's, which holds a pickle that xent never opens",
    "in Python: numpy.save('logits.npy', torch.load('FILE').float().numpy())",
)
KINDS = (
    (
        b"\x89HDF",
        "an HDF5 file",
        "in Python: numpy.save('logits.npy', h5py.File('FILE')['NAME'][:])",
    ),
    (b"PAR1", "a Parquet file", "in Python: numpy.save('logits.npy', pandas.read_parquet('FILE'))"),
    (
        b"ARROW1",
        "an Arrow file",
        "in Python: numpy.save('logits.npy', pandas.read_feather('FILE'))",
    ),
    (b"BZh", "compressed with bzip2", "bunzip2 -c FILE | xent … -"),
    (b"\xfd7zXZ", "compressed with xz", "xz -dc FILE | xent … -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc FILE | xent … -"),
)
SAFETENSORS = (
    "a safetensors file",
    "in Python: numpy.save('logits.npy', safetensors.numpy.load_file('FILE')['NAME'])",
)


def refuse(start: bytes, where: str) -> None:
    """An error that names the format of a stream's first bytes, where it is known."""
    found = next(((name, hint) for magic, name, hint in KINDS if start.startswith(magic)), None)
    if start[:1] == b"\x80" and b"\x02" <= start[1:2] <= b"\x05":
        found = PICKLE
    elif start[8:10] == b'{"' and b"\0" in start[:8]:
        found = SAFETENSORS
    if found:
        raise FormatError(where, f"this is {found[0]}", found[1])


def refuse_archive(names: list[str], where: str) -> None:
    """The same for an archive, by the names of its members."""
    if any(name.endswith("data.pkl") for name in names):
        raise FormatError(where, f"this is {PYTORCH[0]}", PYTORCH[1])
