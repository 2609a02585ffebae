"""Inputs that can be read only once: standard input and other pipes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from xentcli.errors import OptionError, visible


def read_once(paths: Sequence[str]) -> None:
    """Standard input and other pipes can be read only once."""
    if paths.count("-") > 1:
        raise OptionError("command line", "'-' is standard input, which can be read only once")
    pipes: set[tuple[int, int]] = set()
    for path in paths:
        identity = _pipe(path)
        if identity in pipes:
            what = f"'{visible(path)}' is a pipe, which can be read only once"
            raise OptionError("command line", what)
        if identity:
            pipes.add(identity)


def _pipe(path: str) -> tuple[int, int] | None:
    """The identity of a pipe, or None for everything else."""
    try:
        state = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 (Path would change the name)
    except (OSError, ValueError):  # opening it will report that
        return None
    is_pipe = stat.S_ISFIFO(state.st_mode) or stat.S_ISSOCK(state.st_mode)
    return (state.st_dev, state.st_ino) if is_pipe else None
