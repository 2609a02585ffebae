"""Compiling a kernel to machine code, by Numba.

A kernel takes no array and no Python object, allocates nothing and raises nothing. So its machine
code calls nothing but the C library, and can be kept and loaded without Numba.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types

from xentcli.backends import Scalars
from xentcli.backends.cpu import dispatch, memory, teacher_boxes
from xentcli.backends.cpu.arithmetic import EXPORT_OPTIONS
from xentcli.backends.cpu.kernel import Kernel
from xentcli.backends.cpu.loader import CannotLoadError
from xentcli.backends.cpu.row_ops import BoxView, PerRow
from xentcli.backends.cpu.short_rows_passes import fast_short_boxes
from xentcli.backends.cpu.teacher_stored import TopView
from xentcli.backends.teacher import TeacherScalars

FUNCTIONS: dict[str, Any] = {
    "fast": dispatch.fast_boxes,
    "tempered": dispatch.tempered_boxes,
    "general": dispatch.general_boxes,
    "short": dispatch.short_boxes,
    "short_fast": fast_short_boxes,
    "softmax": dispatch.softmax_boxes,
    "statistics": dispatch.statistics_boxes,
    "divergence": dispatch.divergence_boxes,
    "teacher": teacher_boxes.dense_boxes,
    "teacher_fast": teacher_boxes.dense_fast_boxes,
    "top": teacher_boxes.top_boxes,
    "top_fast": teacher_boxes.top_fast_boxes,
    "copy": memory.copy_lines,
    "read": memory.read_lines,
    "rewrite": memory.scale_lines,
}
# Numba knows neither half type on the CPU: they are passed as their bits, see `half_types`.
ELEMENTS: dict[str, Any] = {
    "float16": types.uint16,
    "bfloat16": types.int16,
    "float32": types.float32,
    "float64": types.float64,
}
SPAN = types.UniTuple(types.int64, 3)


def _named(cls: type, *fields: Any) -> Any:
    return types.BaseTuple.from_types(fields, cls)


def _box(dtype: str | None) -> Any:
    if dtype is None:
        return types.none
    return _named(
        BoxView,
        types.CPointer(ELEMENTS[dtype]),
        types.int64,
        types.int64,
        types.int64,
        types.UniTuple(types.int64, 3),
    )


def signature(kernel: Kernel) -> tuple[Any, ...]:
    """The Numba types of a kernel's arguments."""
    scalars = _named(Scalars, *[types.float64] * len(Scalars._fields))
    space = types.CPointer(ELEMENTS[kernel.compute])
    boxes = [_box(dtype) for dtype in kernel.dtypes]
    if kernel.function in ("copy", "read", "rewrite"):
        flat = types.CPointer(types.float32)
        return SPAN, flat, flat, types.float64, space
    if kernel.function == "softmax":
        return SPAN, boxes[0], scalars, types.int64, boxes[2], space
    numbers = types.CPointer(types.float64)
    if kernel.function == "statistics":
        return SPAN, boxes[0], types.CPointer(types.int64), scalars, numbers, types.int64, space
    if kernel.function == "divergence":
        return SPAN, boxes[1], boxes[0], scalars, numbers, space
    if kernel.function.startswith(("teacher", "top")):
        return teacher_signature(kernel, boxes, space)
    targets = types.none if kernel.probs else types.CPointer(types.int64)
    per_row = _named(PerRow, numbers, types.int64, numbers, numbers)
    return SPAN, boxes[0], targets, boxes[1], numbers, scalars, per_row, boxes[2], space


def teacher_signature(kernel: Kernel, boxes: list[Any], space: Any) -> tuple[Any, ...]:
    """The same of a kernel for a teacher's soft targets."""
    numbers, integers = types.CPointer(types.float64), types.CPointer(types.int64)
    fields = [
        types.float64 if isinstance(field, float) else types.int64 for field in TeacherScalars(0)
    ]
    scalars = _named(TeacherScalars, *fields)
    per_row = _named(PerRow, numbers, types.int64, numbers, numbers)
    teacher = boxes[1]
    if kernel.function.startswith("top"):
        teacher = _named(TopView, integers, *[numbers] * 4, types.int64)
    return SPAN, boxes[0], teacher, integers, scalars, per_row, boxes[2], space


def compile_kernel(kernel: Kernel) -> tuple[str, bytes]:
    """The name of the kernel's C function, and the object file that it is in.

    The C function is `int f(void **result, void **error, arguments …)`.
    """
    function, types_ = njit(**EXPORT_OPTIONS)(FUNCTIONS[kernel.function].py_func), signature(kernel)
    function.compile(types_)
    try:
        compiled = function.overloads[types_]
        _, _, (code, _) = compiled.library.serialize_using_object_code()
        return compiled.fndesc.llvm_func_name, code
    except Exception as error:  # this is no public interface of Numba's
        raise CannotLoadError(str(error)) from error
