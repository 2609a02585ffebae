"""Run the CPU kernels with all their arrays beside pages that may not be touched.

    python guard_pages.py before|behind f32|f64

A read or write that leaves an array ends the process. Run by test_kernels.py.
"""

import ctypes
import mmap
import sys
import warnings

import numpy as np

from xentcli import cross_entropy, softmax
from xentcli.arrays.dtypes import NAMES, narrow
from xentcli.backends.cpu import backend

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_rooms = []


def beside_a_guard(shape, dtype, side):
    """An array whose first or last byte is next to a page without any rights."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    pages = -(-nbytes // PAGE)
    room = mmap.mmap(-1, (pages + 2) * PAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for guard in (begin, begin + (pages + 1) * PAGE):
        assert _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) == 0
    _rooms.append(room)
    skip = PAGE if side == "before" else (pages + 1) * PAGE - nbytes
    return np.frombuffer(room, np.uint8, nbytes, skip).view(dtype).reshape(shape)


def moved(array, side):
    """A copy of an array, in the same memory order, beside a guard."""
    if not isinstance(array, np.ndarray):
        return array
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    room = beside_a_guard([array.shape[axis] for axis in order], array.dtype, side)
    copy = room.transpose(np.argsort(order))
    copy[...] = array
    return copy


def guarded(function, side, outputs):
    """A method of the backend that is given copies of its arrays, beside guards."""

    def call(self, *arguments):
        copies = [moved(array, side) for array in arguments]
        function(self, *copies)
        for place in outputs:
            if arguments[place] is not None:
                arguments[place][...] = copies[place]
        _rooms.clear()

    return call


def work_space(nbytes, side):
    """Work space is a multiple of cache lines, so that both of its ends can be at a page."""
    return beside_a_guard([nbytes], np.uint8, side)


def compute(x, y, **options):
    """In both memory orders."""
    for logits in (x, np.asfortranarray(x)):
        cross_entropy(logits, y, backend="cpu", out=np.empty_like(x), threads=1, **options)
        cross_entropy(logits, y, backend="cpu", grad=False, threads=1, **options)
        softmax(logits, backend="cpu", out=np.empty_like(x), threads=1)


def main(side, kind):
    cpu = backend.CpuBackend
    cpu.rows = guarded(cpu.rows, side, (5, 6))
    cpu.softmax = guarded(cpu.softmax, side, (3,))
    backend.work_space = lambda nbytes: work_space(nbytes, side)
    rng = np.random.default_rng(0)
    every = {"label_smoothing": 0.1, "softcap": 30.0, "temperature": 0.7, "z_loss": 0.01}
    for classes in (1, 2, 3, 15, 16, 17, 40, 64, 65, 79, 80, 100, 1000):
        for rows in (1, 5, 16, 33):
            backend.STREAM_FROM = 0 if rows in (5, 33) else 1 << 60
            x = rng.normal(size=(rows, classes)) * 5
            x = narrow(x if kind == "f64" else x.astype("f4"), NAMES[kind])
            y = rng.integers(0, classes, rows)
            compute(x, y)
            compute(x, y, weight=rng.random(classes), **every)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
    sys.stdout.write("inside\n")
