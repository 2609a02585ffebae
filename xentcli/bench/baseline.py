"""Comparison with an earlier benchmark, as `xent bench --json` wrote it.

Machines differ, and one machine from hour to hour. So times are not compared as they are, but in
units of something that was measured in the same rounds: the limit of memory, or else the NumPy that
took part, or else nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from xentcli.bench.columns import Result
from xentcli.errors import FileError, FormatError, OptionError, visible
from xentcli.records import dataclass

LARGEST = 1 << 26  # characters that are read


@dataclass(frozen=True)
class Change:
    """How many times as long xent takes as it did."""

    case: str
    factor: float
    unit: str  # in which both times are


def load(path: str, titles: Collection[str]) -> list[dict[str, Any]]:
    """Those of the cases of an earlier benchmark that have these titles; at least one."""
    where = visible(path)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (Path would change the name)
            cases = json.loads(file.read(LARGEST))["cases"]
        for case in cases:
            _time(case, _units(case)[-1])
            assert isinstance(case["case"], str)
    except FileNotFoundError as error:
        raise OptionError(where, "no such file") from error
    except OSError as error:
        raise FileError(where, f"reading failed: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError) as error:
        hint = "write one with xent bench -o old.json"
        raise FormatError(where, "is not the JSON of xent bench", hint) from error
    known = [case for case in cases if case["case"] in titles]
    if not known:
        raise OptionError("baseline", f"{where} has none of these cases")
    return known


def changes(old: Sequence[dict[str, Any]], results: Sequence[Result]) -> list[Change]:
    """The change of each case that both have."""
    before = {case["case"]: case for case in old}
    found = []
    for result in results:
        case = {**result.about(), "contestants": result.rows()}
        if earlier := before.get(case["case"]):
            unit = next(unit for unit in _units(case) if unit in _units(earlier))
            factor = _time(case, unit) / _time(earlier, unit)
            found.append(Change(case["case"], factor, unit))
    return found


def _units(case: dict[str, Any]) -> list[str]:
    """What a time of this case can be counted in, the best first."""
    peers = [row["who"] for row in case["contestants"] if row["median_ms"]]
    units = [f"the time of {name}" for name in ("numpy",) if name in peers]
    return [*(["the limit"] if case.get("limit_ms") else []), *units, "ms"]


def _time(case: dict[str, Any], unit: str) -> float:
    """What xent takes, in a unit."""
    times = {row["who"]: row["median_ms"] for row in case["contestants"]}
    mine = float(times["xent"])
    if unit == "ms":
        return mine
    return mine / float(case["limit_ms"] if unit == "the limit" else times["numpy"])
