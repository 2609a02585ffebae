"""A derivation as a dictionary, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from xentcli.arrays.dtypes import Array
from xentcli.explain.derivation import Derivation


def as_dict(
    d: Derivation, names: Sequence[str] = (), largest: Array | None = None
) -> dict[str, Any]:
    """All fields by name, in the order of the steps; arrays stay arrays.

    `largest` are the classes that --top selects, largest gradient first.
    """
    data = {item.name: _plain(getattr(d, item.name)) for item in fields(d)}
    data["options"] = vars(d.options)
    data["names"] = list(names) or None
    if largest is not None:
        data["largest"] = largest
    return data


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
