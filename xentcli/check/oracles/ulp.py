"""Units in the last place, and the error of numbers in them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from xentcli.arrays.dtypes import BF16, NAMES, Array, name_of, narrow, native, widen
from xentcli.check.oracles.dd_arithmetic import Pair
from xentcli.errors import DtypeError, OptionError, Setting
from xentcli.options import require_allowed, setting
from xentcli.records import dataclass

Precision: TypeAlias = Literal["exact", "plain", "given"]
JudgedDtype: TypeAlias = Literal["auto", "f16", "bf16", "f32", "f64"]


@dataclass(frozen=True)
class FloatInfo:
    """A float dtype: its name, the bits after its first, and the power of two of its smallest."""

    name: str
    dtype: np.dtype[Any]
    digits: int
    smallest: int

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0**-self.digits

    def unit(self, size: Array) -> Array:
        """One unit in the last place of numbers of this size.

        >>> float(FLOATS["f32"].unit(np.array(1.5))) == 2.0**-23
        True
        """
        exponent = np.where(size == 0, self.smallest, np.frexp(size)[1] - 1 - self.digits)
        exponent = np.where(np.isfinite(size), exponent, self.smallest)
        return np.ldexp(1.0, np.maximum(exponent, self.smallest).astype(np.int32))


FLOATS = {
    "f16": FloatInfo("float16", NAMES["f16"], 10, -24),
    "bf16": FloatInfo("bfloat16", BF16, 7, -133),
    "f32": FloatInfo("float32", NAMES["f32"], 23, -149),
    "f64": FloatInfo("float64", NAMES["f64"], 52, -1074),
}


def float_info_of(dtype: np.dtype[Any], name: JudgedDtype = "auto") -> FloatInfo:
    """The dtype to judge in: the one asked for, else the array's own."""
    if name != "auto":
        return FLOATS[name]
    for finfo in FLOATS.values():
        if native(dtype) == finfo.dtype:
            return finfo
    what = f"dtype {name_of(dtype)} cannot be compared: a gradient holds floats"
    hint = "use ", Setting("dtype", "bf16"), " if it holds bfloat16"
    raise DtypeError("grad", what, hint if dtype == np.dtype("V2") else None)


FIT = 1000  # numbers that are looked at


def fits_float32(values: Array) -> bool:
    """Whether numbers read from text have no more digits than those of float32 have.

    >>> fits_float32(np.array([0.1, float(np.float32(0.3))])), fits_float32(np.array([1 / 3]))
    (True, False)
    """
    used = values[(values != 0) & np.isfinite(values)]
    with np.errstate(over="ignore"):
        more = used[widen(narrow(used, NAMES["f32"]), NAMES["f64"]) != used]
    nine = all(float(f"{value:.8e}") == value for value in more[:FIT].tolist())
    return bool(len(used)) and nine


class Errors(NamedTuple):
    """How far numbers are from the exact ones; infinite where one of them is not finite."""

    absolute: Array
    relative: Array
    ulp: Array
    unit: Array


def errors(
    candidate: Array, exact: Pair, size: Array, error_bound: Array, finfo: FloatInfo
) -> Errors:
    """Errors of float64 values that came from numbers of some dtype."""
    with np.errstate(all="ignore"):
        rounded = widen(narrow(exact.high, finfo.dtype), NAMES["f64"])
        same = np.isnan(candidate) & np.isnan(rounded)
        same |= (candidate == rounded) & np.isinf(candidate)
        difference = np.abs((candidate - exact.high) - exact.low)
        absolute = np.where(np.isinf(error_bound), 0.0, np.maximum(difference - error_bound, 0.0))
        absolute = np.where(np.isnan(absolute), np.inf, absolute)
        absolute = np.where(same, 0.0, absolute)
        unit = finfo.unit(np.maximum(size, np.abs(exact.high)))
        relative = np.where(absolute == 0, 0.0, absolute / np.abs(exact.high))
        relative = np.where(np.isnan(relative), np.inf, relative)
        return Errors(absolute, relative, absolute / unit, unit)


def beyond(found: Errors, most: Array) -> Array:
    """Which numbers are off by more than so much."""
    return np.asarray((found.absolute > 0) & ~(found.absolute <= most))


@dataclass(frozen=True)
class Tolerance:
    """How far off an entry may be.

    By default up to twice the error of a naive implementation in the same dtype; with `exact`
    the ULP that xent promises; else the largest of `ulp`, `rtol` and `atol`, and of the default
    too with `like_peers`.
    """

    ulp: float | None = setting(None, "In units in the last place.", low=0.0, infinite=True)
    rtol: float | None = setting(None, "Relative.", low=0.0, infinite=True)
    atol: float | None = setting(None, "Absolute.", low=0.0, infinite=True)
    like_peers: bool = setting(False, "Twice the error of a naive implementation.", boolean=True)
    exact: bool = setting(False, "The ULP that xent promises.", boolean=True)

    def __post_init__(self) -> None:
        require_allowed(self)
        if self.exact and (self.given or self.like_peers):
            raise OptionError("exact", "cannot be combined with another tolerance")

    @property
    def given(self) -> bool:
        """Whether any of the numbers is."""
        return (self.ulp, self.rtol, self.atol) != (None, None, None)

    @property
    def plain(self) -> bool:
        """Whether the error of a naive implementation is accepted."""
        return self.like_peers or not (self.given or self.exact)

    def precision(self, off: int, inexact: int) -> Precision | None:
        """How numbers passed of which so many are off, and so many are not exact."""
        if off:
            return None
        return "given" if self.given else "plain" if inexact else "exact"

    def allowed(self, found: Errors, exact: Array) -> Array:
        """The largest error that the numbers accept, of each entry."""
        allowed = np.zeros_like(found.absolute)
        if self.ulp is not None:
            allowed = np.maximum(allowed, self.ulp * found.unit)
        if self.rtol is not None:
            allowed = np.maximum(allowed, self.rtol * np.abs(exact))
        return allowed if self.atol is None else np.maximum(allowed, self.atol)

    def words(self, finfo: FloatInfo, promised: float) -> str:
        """The tolerance in words; `promised` are the ULP of an exact gradient.

        >>> Tolerance(exact=True).words(FLOATS["f32"], 2)
        '2 ULP of float32'
        >>> Tolerance(rtol=1e-3, atol=1e-6).words(FLOATS["f16"], 0.51)
        'a relative error of 0.001 or an absolute error of 1e-06'
        """
        ulp = promised if self.exact else self.ulp
        parts = [] if ulp is None else [f"{ulp:g} ULP of {finfo.name}"]
        parts += [] if self.rtol is None else [f"a relative error of {self.rtol:g}"]
        parts += [] if self.atol is None else [f"an absolute error of {self.atol:g}"]
        if self.plain:
            parts.append(f"twice the error of a naive {finfo.name} implementation")
        return " or ".join(parts)
