"""Paths that are not those of one file: addresses, which fsspec opens, and folders."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*://")
_LOCAL = re.compile(r"^(file|local)://")


def is_address(path: str) -> bool:
    """Whether a path is an address with a scheme, and not one of this machine.

    >>> is_address("s3://bucket/x.zarr"), is_address("file:///x.zarr"), is_address("x.zarr")
    (True, False, False)
    """
    return bool(_SCHEME.match(path)) and not _LOCAL.match(path)


def local_path(path: str) -> str:
    """A path without file://, which says that it is one of this machine.

    >>> local_path("file:///data/x.zarr"), local_path("x.zarr")
    ('/data/x.zarr', 'x.zarr')
    """
    return _LOCAL.sub("", path)


def is_folder(path: str) -> bool:
    """Whether a path is an address, or that of a folder."""
    return is_address(path) or os.path.isdir(local_path(path))  # noqa: PTH112 (Path would change the name)


def secrets_of(address: str) -> list[str]:
    """What must not be printed of an address: user, password, the parts of its query.

    >>> secrets_of("https://me:word@host/x?sig=abc&v=1")
    ['sig=abc&v=1', 'me:word', 'sig=abc', 'word', 'abc', 'v=1']
    """
    rest, _, query = address.partition("://")[2].partition("?")
    login = rest.rpartition("@")[0]
    words = [login, login.partition(":")[2], query, *query.split("&")]
    words += [part.partition("=")[2] for part in query.split("&")]
    return sorted({word for word in words if len(word) > 2}, key=lambda word: (-len(word), word))
