"""A file format of two lines of text and raw float64, which one entry adds to the registry.

`python tests/added_format.py ARGUMENTS` is `xent ARGUMENTS` with it.
"""

import sys

from xentcli.files import registry
from xentcli.files.format import Format, starts_with

MAGIC = b"XF8\n"


def to_bytes(array):
    """An array as such a file."""
    return MAGIC + f"{array.shape}\n".encode() + array.astype("<f8").tobytes()


def from_bytes(data):
    """The array in such a file."""
    import numpy as np

    assert data.startswith(MAGIC)
    shape, numbers = data.removeprefix(MAGIC).split(b"\n", 1)
    return np.frombuffer(numbers, "<f8").reshape([int(n) for n in shape[1:-1].split(b",") if n])


def open_reader(source, options):
    """A reader of the array."""
    from xentcli.files.reader import InMemoryReader

    return InMemoryReader(from_bytes(source.read_all()), source.name, "xf8")


class Writer:
    """A writer of the header, and of the numbers as they come."""

    def __init__(self, stream, shape, dtype, options):
        self.stream = stream
        stream.write(MAGIC + f"{shape}\n".encode())

    def write(self, values):
        """The next numbers."""
        self.stream.write(values.astype("<f8").tobytes())

    def finish(self):
        """Nothing follows."""


ENTRY = Format(
    "xf8",
    suffixes=("xf8",),
    matches=starts_with(MAGIC),
    open_reader=open_reader,
    create_writer=Writer,
    keeps_dtype=False,
    streams=False,
)

if __name__ == "__main__":
    registry.FORMATS += (ENTRY,)

    from xentcli.cli import main

    main(sys.argv[1:])
