"""What kernels need and Numba lacks: half types, vectors of four elements, bits of floats.

| dtype of the array | meaning  | as a number |
|--------------------|----------|-------------|
| float64            | float64  | float64     |
| float32            | float32  | float32     |
| uint16             | float16  | float32     |
| int16              | bfloat16 | float32     |

On Numba's simulator each is a Python function instead, from `simulator`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numba
from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

_config: Any = numba.config  # its attributes are set at import, unknown to type checkers
SIMULATED = bool(_config.ENABLE_CUDASIM)

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF, _FLOAT, _DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()


def _number(array: Any) -> Any:
    """The type that an element is loaded as."""
    return types.float64 if array.dtype in (types.float64, types.int64) else types.float32


def _element_pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _widened(builder: Any, dtype: Any, value: Any) -> Any:
    if dtype == types.int64:  # class indices, where probabilities could stand
        return builder.sitofp(value, _DOUBLE)
    if dtype == types.uint16:
        return builder.fpext(builder.bitcast(value, _HALF), _FLOAT)
    if dtype == types.int16:
        bits = builder.shl(builder.zext(value, _I32), ir.Constant(_I32, 16))
        return builder.bitcast(bits, _FLOAT)
    return value


def _narrowed(builder: Any, dtype: Any, value: Any, finite: bool = False) -> Any:
    """A number converted to the dtype of an array, rounded to nearest, ties to even."""
    if dtype == types.float64:
        return value if value.type == _DOUBLE else builder.fpext(value, _DOUBLE)
    value = builder.fptrunc(value, _FLOAT) if value.type == _DOUBLE else value
    if dtype == types.uint16:
        return builder.bitcast(builder.fptrunc(value, _HALF), _I16)
    return _to_bfloat16(builder, value, finite) if dtype == types.int16 else value


def _without_minus_zero(builder: Any, number: Any) -> Any:
    if number.type == _I16:  # the bits of a half type
        is_minus_zero = builder.icmp_unsigned("==", number, ir.Constant(_I16, 0x8000))
        return builder.select(is_minus_zero, ir.Constant(_I16, 0), number)
    return builder.fadd(number, ir.Constant(number.type, 0.0))


def _to_bfloat16(builder: Any, value: Any, finite: bool) -> Any:
    bits = builder.bitcast(value, _I32)
    high = builder.lshr(bits, ir.Constant(_I32, 16))
    odd = builder.and_(high, ir.Constant(_I32, 1))
    up = builder.add(builder.add(bits, ir.Constant(_I32, 0x7FFF)), odd)
    rounded = builder.lshr(up, ir.Constant(_I32, 16))
    if not finite:
        is_nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.select(is_nan, builder.or_(high, ir.Constant(_I32, 0x40)), rounded)
    return builder.trunc(rounded, _I16)


def kernel(registers: int) -> Any:
    """A decorator for kernels that limits the registers of each thread."""
    return cuda.jit if SIMULATED else cuda.jit(max_registers=registers)


def configured(kernel, blocks, threads, stream, shared=0):
    """A kernel with its launch configuration, without Numba's warning about few blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kernel[blocks, threads, stream, shared]


def device_number():
    """The number of the current device."""
    return getattr(cuda.current_context().device, "id", 0)  # the simulator's has none


@intrinsic
def get(typing: Any, array: Any, index: Any) -> Any:
    """One element as a number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _element_pointer(context, builder, array, *values)
        return _widened(builder, array.dtype, builder.load(place))

    return _number(array)(array, index), generate


@intrinsic
def put(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write one number, rounded to the dtype of the array; −0.0 of another dtype becomes 0.0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _element_pointer(context, builder, array, values[0], values[1])
        number = _narrowed(builder, array.dtype, values[2])
        if number.type != values[2].type:
            number = _without_minus_zero(builder, number)
        builder.store(number, place)

    return types.void(array, index, value), generate


def _split_word(builder: Any, dtype: Any, word: Any) -> list[Any]:
    """The two numbers of a half type in one 32-bit word; bfloat16 is the upper half of float32."""
    if dtype == types.uint16:
        pair = builder.bitcast(word, ir.VectorType(_HALF, 2))
        halves = [builder.extract_element(pair, ir.Constant(_I32, i)) for i in range(2)]
        return [builder.fpext(half, _FLOAT) for half in halves]
    low = builder.shl(word, ir.Constant(_I32, 16))
    high = builder.and_(word, ir.Constant(_I32, 0xFFFF0000))
    return [builder.bitcast(low, _FLOAT), builder.bitcast(high, _FLOAT)]


@intrinsic
def load4(typing: Any, array: Any, index: Any) -> Any:
    """Four consecutive elements as numbers, not of float64; aligned to their total size."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = array.dtype == types.float32
        kind = ir.VectorType(_FLOAT, 4) if whole else ir.VectorType(_I32, 2)
        place = builder.bitcast(
            _element_pointer(context, builder, array, *values), kind.as_pointer()
        )
        line = builder.load(place, align=array.dtype.bitwidth // 2)
        words = [builder.extract_element(line, ir.Constant(_I32, i)) for i in range(kind.count)]
        if not whole:
            words = [half for word in words for half in _split_word(builder, array.dtype, word)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.float32, 4)(array, index), generate


@intrinsic
def store4(typing: Any, array: Any, index: Any, numbers: Any) -> Any:
    """Write four consecutive elements, aligned as for `load4`; a half type gets no NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = [builder.extract_value(values[2], i) for i in range(4)]
        if array.dtype == types.int16 and _has_ampere_instructions():
            elements = [
                _bfloat16_pair(builder, *numbers[:2]),
                _bfloat16_pair(builder, *numbers[2:]),
            ]
        else:
            elements = [_narrowed(builder, array.dtype, number, finite=True) for number in numbers]
        vector = ir.Constant(ir.VectorType(elements[0].type, len(elements)), ir.Undefined)
        for i, element in enumerate(elements):
            vector = builder.insert_element(vector, element, ir.Constant(_I32, i))
        place = _element_pointer(context, builder, array, values[0], values[1])
        line = builder.bitcast(place, vector.type.as_pointer())
        builder.store(vector, line, align=array.dtype.bitwidth // 2)

    return types.void(array, index, numbers), generate


def _has_ampere_instructions() -> bool:
    """Whether the device has the instructions that came with compute capability 8.0."""
    try:
        return bool(cuda.get_current_device().compute_capability >= (8, 0))
    except Exception:  # noqa: BLE001 (without a device kernels can still be compiled)
        return True


def _bfloat16_pair(builder: Any, low: Any, high: Any) -> Any:
    """Two numbers as bfloat16 in one word."""
    function = ir.FunctionType(_I32, [_FLOAT, _FLOAT])
    return builder.asm(function, "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", [high, low], False)


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers; NaN where one is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x, y = values
        if a == types.float32 and _has_ampere_instructions():
            function = ir.FunctionType(_FLOAT, [_FLOAT, _FLOAT])
            return builder.asm(function, "max.NaN.f32 $0, $1, $2;", "=f,f,f", values, False)
        above = builder.fcmp_ordered(">", x, y)
        return builder.select(builder.or_(above, builder.fcmp_unordered("uno", x, x)), x, y)

    return a(a, a), generate


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two numbers of float32; the other one of a NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = ir.FunctionType(_FLOAT, [_FLOAT, _FLOAT])
        return builder.asm(function, "min.f32 $0, $1, $2;", "=f,f,f", values, False)

    return a(a, a), generate


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """a·b of float64, rounded. The compiler may fuse other products with an addition that follows,
    in one kernel and not in another, and the same sum would differ between them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = ir.FunctionType(_DOUBLE, [_DOUBLE, _DOUBLE])
        return builder.asm(function, "mul.rn.f64 $0, $1, $2;", "=d,d,d", values, False)

    return types.float64(types.float64, types.float64), generate


@intrinsic
def times_power(typing: Any, value: Any, biased: Any) -> Any:
    """A finite number times 2ⁿ, given `biased` = n + 1.5·2⁵²."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, power = (builder.bitcast(value, ir.VectorType(_I32, 2)) for value in values)
        low, high = ir.Constant(_I32, 0), ir.Constant(_I32, 1)
        power = builder.shl(builder.extract_element(power, low), ir.Constant(_I32, 20))
        moved = builder.add(builder.extract_element(number, high), power)
        return builder.bitcast(builder.insert_element(number, moved, high), _DOUBLE)

    return types.float64(types.float64, types.float64), generate


@intrinsic
def fraction_and_power(typing: Any, value: Any) -> Any:
    """f and n of a positive normal number f·2ⁿ, ½ ≤ f < 1. (With the library's `frexp` some
    orders of the same functions do not compile: "Symbol name with unsupported characters".)"""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, high = builder.bitcast(values[0], ir.VectorType(_I32, 2)), ir.Constant(_I32, 1)
        bits = builder.extract_element(number, high)
        power = builder.sub(builder.lshr(bits, ir.Constant(_I32, 20)), ir.Constant(_I32, 1022))
        digits = builder.and_(bits, ir.Constant(_I32, 0xFFFFF))
        bits = builder.or_(digits, ir.Constant(_I32, 1022 << 20))
        fraction = builder.bitcast(builder.insert_element(number, bits, high), _DOUBLE)
        both = [fraction, builder.sitofp(power, _DOUBLE)]
        return context.make_tuple(builder, signature.return_type, both)

    return types.UniTuple(types.float64, 2)(types.float64), generate


@intrinsic
def size_of(typing: Any, array: Any) -> Any:
    """Bytes per element: a constant at compile time."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(_I64, array.dtype.bitwidth // 8)

    return types.int64(array), generate


device = cuda.jit(device=True)


@device
def fma(a, b, c):
    """a·b + c, rounded once."""
    return cuda.fma(a, b, c)


def polynomial(coefficients: tuple[float, ...]) -> Any:
    """A compiled function that evaluates a polynomial of a float64, highest power first."""

    @intrinsic
    def value_at(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            first, *others = [ir.Constant(_DOUBLE, one) for one in coefficients]
            value = first
            for coefficient in others:
                value = builder.fma(value, values[0], coefficient)
            return value

        return types.float64(types.float64), generate

    return value_at


if SIMULATED:
    from xentcli.backends.cuda import simulator

    simulator.patch_numba()
    globals().update(simulator.STAND_INS)
