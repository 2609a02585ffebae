"""The layout of a file without a header, from options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentcli.errors import OptionError

if TYPE_CHECKING:
    from xentcli.files.raw import RawLayout


def raw_layout(
    flag: str, dtype: str | None, shape: str | None, offset: int, other: str | None
) -> RawLayout | None:
    """The layout of a file without a header; an error where half of it is given."""
    if dtype is None:
        if shape is not None or offset:
            raise OptionError("command line", f"{flag}shape and {flag}offset are for {flag}raw")
        return None
    if shape is None:
        raise OptionError("command line", f"{flag}raw needs {flag}shape", f"{flag}shape 512,1000")
    if other is not None:
        what = f"{flag}raw is for files without a header, which have neither format nor key"
        raise OptionError("command line", what)
    from xentcli.files.raw import RawLayout

    return RawLayout(dtype, tuple(map(int, shape.split(","))), offset)
