"""NumPy's floating-point errors, which are ignored inside the package.

NaN and infinity are valid results here, and notes tell of them. So whatever computes is entered
through `ignoring_float_errors`: the functions of the library, the commands, the threads of a
pipeline. Nothing depends on the caller's `numpy.seterr`, no RuntimeWarning leaves the package, and
the caller's settings are as before afterwards. What the caller's own objects do, such as an
`__array__`, comes before that, under the caller's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


def ignoring_float_errors(function: Callable[P, T]) -> Callable[P, T]:
    """The function without warnings and errors for NaN, infinity and underflow.

    >>> import numpy as np
    >>> with np.errstate(all="raise"):
    ...     ignoring_float_errors(np.multiply)(1e300, np.array([1e300, 1e-300])).tolist()
    [inf, 1.0]
    """

    return np.errstate(all="ignore")(function)
