"""Print floating-point numbers, thousands at a time: the shortest digits for the same bits.

The text is that of Python's repr for float64, and of NumPy's str (since 2.3) for float32 and
float16. A number is scaled to an integer of 17 digits (9 for float32), which loses digits on the
right as long as the rest is nearer to the number than to its neighbours. Where the precision does
not suffice to decide that, NumPy prints the number.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.files.text.powers_of_ten import power, times_power
from xentcli.records import dataclass

PIECE = 1 << 14  # numbers at a time: their arrays stay in the CPU cache
_RANGE = (1e-260, 1e280)  # where scaling is exact enough
_NEAR = 2.0**-40  # relative; far above the error of the margins


@dataclass(frozen=True)
class _Float:
    """What decides the digits of a floating-point type."""

    most: int  # digits that suffice to distinguish all numbers
    bits: int  # of the mantissa
    lowest: int  # exponent of the smallest normal number
    large: int  # numbers from 10**large on are written with an exponent


_SMALL = -4  # and so are numbers below 10**-4
_FLOATS = {2: _Float(5, 11, -14, 3), 4: _Float(9, 24, -126, 6), 8: _Float(17, 53, -1022, 16)}


def digits(values: Array, decimals: int | None) -> list[str]:
    """Numbers as text: the shortest digits for the same bits, or rounded to `decimals`.

    >>> digits(np.float32([0.1, 1e-8, np.inf]), None), digits(np.float64([0.125]), 2)
    (['0.1', '1e-08', 'inf'], ['0.12'])
    """
    if decimals is not None:
        return [f"{value:.{decimals}f}" for value in values.tolist()]
    parts = encode(values.reshape(-1, 1), b"\n", None)
    return b"".join(parts).decode("ascii").splitlines()


def encode(table: Array, delimiter: bytes, decimals: int | None) -> Iterator[bytes]:
    """The lines of a table, in pieces of some thousand numbers."""
    width = table.shape[1]
    rows = max(1, PIECE // max(1, width))
    for start in range(0, len(table), rows):
        flat = table[start : start + rows].reshape(-1)
        for first in range(0, len(flat), PIECE):
            part = flat[first : first + PIECE]
            last = np.arange(first + 1, first + 1 + len(part)) % width == 0
            separators = np.where(last, ord("\n"), ord(delimiter)).astype(np.uint8)
            yield (
                _joined(part, separators)
                if decimals is None
                else _rounded(part, separators, decimals)
            )


def _rounded(values: Array, separators: Array, decimals: int) -> bytes:
    pairs = zip(digits(values, decimals), map(chr, separators.tolist()), strict=True)
    return "".join(text + separator for text, separator in pairs).encode("ascii")


def _joined(values: Array, separators: Array) -> bytes:
    """Every number followed by its separator."""
    kind = _FLOATS[values.itemsize]
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        size = np.abs(values.astype(np.float64))
    decimals = _shortest(size, kind)
    some = np.flatnonzero(~decimals.certain)
    if some.size:
        _ask_numpy(values, size, decimals, some)
    columns, shown = _layout(size, decimals, kind)
    columns[:, -1] = separators
    shown[:, 0] = np.signbit(values)
    for name, where in ((b"nan", np.isnan(size)), (b"inf", np.isinf(size))):
        columns[where, 1:4] = np.frombuffer(name, np.uint8)
        shown[where, 1:-1] = np.arange(1, shown.shape[1] - 1) < 4
        shown[where, 0] &= name == b"inf"
    columns *= shown
    return columns.tobytes().translate(None, b"\0")  # several times as fast as columns[shown]


@dataclass(frozen=True)
class _Decimals:
    """Decimal numbers: digits as an integer of full length, the exponent of the first digit, how
    many digits count, and where that is certain."""

    whole: Array
    exponents: Array
    counts: Array
    certain: Array


def _shortest(size: Array, kind: _Float) -> _Decimals:
    zero, certain = size == 0, (size > _RANGE[0]) & (size < _RANGE[1])
    if not certain.all():
        size = np.where(certain, size, 1.0)
    pattern = size.view(np.int64)
    binary = (pattern >> 52) - 1023
    exponents = (binary * 78913) >> 18  # log10(2) · 2**18: at most 1 too small
    exponents += size >= power(exponents + 1)
    scale = kind.most - 1 - exponents
    scaled = times_power(size, np.zeros(len(size)), scale)
    half_step = (np.maximum(binary, kind.lowest) - kind.bits + 1023) << 52
    upper = half_step.view(np.float64) * power(scale)
    edge = (pattern & (2**52 - 1) == 0) & (binary > kind.lowest)
    whole, counts, safe = _shorten(scaled, upper, np.where(edge, 0.5, 1.0) * upper, kind.most)
    over = whole >= 10**kind.most  # 9.99 became 10
    whole[over] //= 10
    counts[over] = 1
    whole[zero], counts[zero], exponents[zero] = 0, 1, 0
    return _Decimals(whole, exponents + over, counts, (certain & safe) | zero)


def _shorten(
    scaled: tuple[Array, Array], upper: Array, lower: Array, most: int
) -> tuple[Array, Array, Array]:
    """The integers with the fewest digits that are nearer than the margins, how many digits count,
    and where that is certain.

    The margins differ at powers of two, below which the next number is half as far.
    """
    nearest = np.rint(scaled[0])
    rest = (scaled[0] - nearest) + scaled[1]
    nudge = np.rint(rest)
    whole, rest = (nearest.astype(np.int64) + nudge.astype(np.int64)), rest - nudge
    result, counts, certain = whole.copy(), np.full(len(whole), most), np.ones(len(whole), np.bool_)
    some = np.arange(len(whole))
    for place in range(1, most):
        step = 10**place
        down = whole // step * step
        beyond = (2 * (whole - down) - step) + 2 * rest  # twice the way past the middle
        up = beyond > 0
        distance = np.abs((whole - (down + up * step)) + rest)  # of whole numbers first: exact
        fits = distance < upper
        close = (distance > lower * (1 - _NEAR)) & (distance < upper * (1 + _NEAR))
        close |= fits & (np.abs(beyond) < _NEAR * step + 2.0**-30)
        certain[some[close]] = False
        some = some[fits]
        if not some.size:
            break
        result[some] = (down + up * step)[fits]
        counts[some] = most - place
        whole, rest, upper, lower = whole[fits], rest[fits], upper[fits], lower[fits]
    return result, counts, certain


def _ask_numpy(values: Array, size: Array, decimals: _Decimals, some: Array) -> None:
    """Take the digits of `some` numbers from NumPy, which is exact."""
    most = _FLOATS[values.itemsize].most
    for index in some[np.isfinite(size[some])]:
        text = np.format_float_scientific(abs(values[index]), unique=True, trim="-")
        mantissa, _, exponent = text.replace(".", "").partition("e")
        decimals.whole[index] = int(mantissa.ljust(most, "0"))
        decimals.exponents[index] = int(exponent)
        decimals.counts[index] = len(mantissa)


@cache
def _template(kind: _Float) -> tuple[Array, Array]:
    """Columns of characters for any number, and which of them each layout shows.

    Layouts are ordered by exponent, the last two being those with an exponent of two and of three
    digits, and within these by the count of digits.
    """
    columns = b"-0.000" + b"0." * kind.most + b"e+000,"
    masks = np.zeros((kind.large - _SMALL + 2, kind.most + 1, len(columns)), np.bool_)
    masks[:, :, -1] = True
    digits, tail = masks[:, :, 6 : 6 + 2 * kind.most : 2], masks[:, :, 6 + 2 * kind.most :]
    points = masks[:, :, 7 : 7 + 2 * kind.most : 2]
    for count in range(1, kind.most + 1):
        digits[:, count, :count] = True
        for exponent in range(_SMALL, 0):
            masks[exponent - _SMALL, count, 1 : 2 - exponent] = True
        for exponent in range(kind.large):
            digits[exponent - _SMALL, count, : exponent + 2] = True
            points[exponent - _SMALL, count, exponent] = True
        points[-2:, count, 0] = count > 1
        tail[-2, count, [0, 1, 3, 4]] = True
        tail[-1, count, :5] = True
    return np.frombuffer(columns, np.uint8), masks.reshape(-1, len(columns))


def _layout(size: Array, decimals: _Decimals, kind: _Float) -> tuple[Array, Array]:
    """The characters of all columns of the numbers, and which columns are shown."""
    template, masks = _template(kind)
    exponents = decimals.exponents
    columns = np.empty((len(size), len(template)), np.uint8)
    columns[:] = template
    end = 6 + 2 * kind.most
    columns[:, 6:end:2] = _characters(decimals.whole, kind.most)
    layout = exponents - _SMALL
    some = np.flatnonzero(((size < 10.0**_SMALL) & (size > 0)) | (size >= 10.0**kind.large))
    if some.size:
        power_of_ten = exponents[some]
        digits = np.abs(power_of_ten)
        layout[some] = kind.large - _SMALL + (digits >= 100)
        columns[some, end + 1] = np.where(power_of_ten < 0, ord("-"), ord("+"))
        for place in range(3):
            columns[some, end + 4 - place] = digits // 10**place % 10 + ord("0")
    rows = masks.view(f"V{len(template)}")[:, 0]
    shown = rows[layout * (kind.most + 1) + decimals.counts]
    return columns, shown.view(np.bool_).reshape(columns.shape)


def _characters(whole: Array, most: int) -> Array:
    """Integers of `most` digits as characters, eight in each 64-bit word."""
    words = np.empty((len(whole), -(-most // 8)), "<u8")
    rest = whole.view(np.uint64)
    for word in range(words.shape[1] - 1, -1, -1):
        front = rest // 10**8
        words[:, word] = _eight(rest - front * 10**8)
        rest = front
    return words.view(np.uint8)[:, -most:]


def _eight(number: Array) -> Array:
    """The eight digits of integers, the first in the lowest byte; by fours, then pairs."""
    front = number // 10**4
    fours = front | ((number - front * 10**4) << 32)
    front = (fours * 10486 >> 20) & 0x0000007F0000007F
    pairs = front | ((fours - front * 100) << 16)
    front = (pairs * 103 >> 10) & 0x000F000F000F000F
    result: Array = front | ((pairs - front * 10) << 8) | 0x3030303030303030
    return result
