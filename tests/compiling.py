"""Every CUDA kernel compiled to PTX, without a device: `python tests/compiling.py 9.0`, for the
compute capability 9.0.

The simulator runs kernels as Python and sees no type and no compiler. This says so and stops where
Numba finds no compiler of CUDA's that it can use.
"""

import sys
import warnings
from types import SimpleNamespace

CAPABILITY = tuple(int(part) for part in (sys.argv[1:] or ["9.0"])[0].split("."))


def one(x, y):
    """The smallest kernel there is, to see whether the compiler works at all."""
    y[0] = x[0]


def compile_all(say):
    """Compile each kernel for some kinds of arrays; None where that cannot be done here."""
    import numba
    from numba import cuda, types

    for name in ("numba.cuda", "numba.cuda.api", "numba.cuda.dispatcher"):
        __import__(name)
        sys.modules[name].get_current_device = lambda: SimpleNamespace(
            compute_capability=CAPABILITY
        )

    def arrays(*kinds):
        return tuple(types.Array(kind, 1, "C") for kind in kinds)

    f4, f8, f16, bf16, i8 = (
        types.float32,
        types.float64,
        types.uint16,
        types.int16,
        types.int64,
    )
    try:
        cuda.compile_ptx(one, arrays(f4, f4), cc=CAPABILITY)
    except Exception as error:  # noqa: BLE001 (a compiler that is missing fails in any way)
        say(f"no compiler: {type(error).__name__}")
        return None

    from xentcli.backends.cuda import (
        launch,
        long_rows,
        long_rows_fast,
        per_row_kernels,
        short_rows,
        teacher_rows,
        teacher_top,
    )
    from xentcli.backends.cuda.launch_params import ExpConstants, LaunchParams
    from xentcli.backends.cuda.teacher_formulas import TeacherParams

    plain, capped = (
        numba.typeof(LaunchParams(*[1] * 19, *[1.0] * 7, with_softcap, ExpConstants()))
        for with_softcap in ((), (1.0,))
    )
    results = types.Array(f8, 2, "C")

    def rows(x, targets, grad, call=plain):
        return (*arrays(x, targets, f8, f8), call, *arrays(f8, i8), results, *arrays(grad))

    def dense(x, t, grad):
        return (*arrays(x, t, i8, f8), against, results, *arrays(grad))

    def top(x, grad):
        stored = types.Array(i8, 1, "C"), *arrays(f8, f8, f8, f8)
        return (*arrays(x), *stored, *arrays(i8, f8), against, results, *arrays(grad))

    against = numba.typeof(TeacherParams(*[1] * 17, *[1.0] * 5))
    steps = types.UniTuple(i8, 2)
    jobs = [
        (long_rows_fast.fast_rows, rows(f4, i8, f4)),
        (long_rows_fast.fast_rows, rows(bf16, i8, bf16)),
        (long_rows_fast.fast_rows, rows(f16, i8, f4)),
        (long_rows_fast.fast_deferred, rows(bf16, i8, f4)),
        (long_rows.general_rows, rows(f8, i8, f8)),
        (long_rows.general_rows, rows(bf16, i8, bf16, capped)),
        (long_rows.general_deferred, rows(f16, bf16, f16)),
        (long_rows.general_deferred, rows(f8, i8, f8, capped)),
        (short_rows.short_rows, (*arrays(f4, f4, f8, f8), plain, results, *arrays(f4))),
        (short_rows.short_rows, (*arrays(f8, i8, f8, f8), capped, results, *arrays(f8))),
        (teacher_rows.dense_rows, dense(f4, f4, f4)),
        (teacher_rows.dense_rows, dense(bf16, f8, f16)),
        (teacher_top.top_rows, top(f4, f4)),
        (teacher_top.top_rows, top(f8, f8)),
        (launch._clear, (*arrays(i8), i8)),
        (per_row_kernels.class_indices, (*arrays(i8), i8, steps, i8, i8, *arrays(i8, i8))),
        (per_row_kernels.as_float64, (*arrays(f4), i8, steps, *arrays(f8, i8))),
        (per_row_kernels.row_weights, arrays(i8, f8, f8, f8)),
        (per_row_kernels.scaled, (*arrays(f8), f8, *arrays(f8, f8))),
        (per_row_kernels.block_sums, (*arrays(f8), results)),
    ]
    for kernel, signature in jobs:
        ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=CAPABILITY)
        wide = "".join(f", {kind}.global.v4" for kind in ("ld", "st") if f"{kind}.global.v4" in ptx)
        say(f"{kernel.py_func.__name__}: {len(ptx.splitlines())} lines{wide}")
    return len(jobs)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of a compiler that is newer than Numba
    print(f"compiled: {compile_all(print)}")  # noqa: T201 (a script)
