"""The verdict of a check as JUnit XML, which CI services show as test results.

    <testsuites><testsuite name="xent check" tests="2" failures="1" …><testcase …>…

Source: the schema of Jenkins (junit-10.xsd), which GitLab, GitHub actions and others read too.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from xentcli.check.report import Report
from xentcli.errors import Speak

ALLOWED = "\t\n\r"  # control characters of XML


class Case(NamedTuple):
    """One test: what was judged, and the verdict on it, by its first words."""

    name: str
    verdict: str
    passes: bool


def as_junit(report: Report, names: dict[str, str], seconds: float, speak: Speak) -> str:
    """The report as XML; `names` are those of the files, by their role."""
    cases = [
        Case(f"{role} {names.get(role, '')}".strip(), words, passes)
        for role in ("gradient", "loss")
        for words, passes in report.verdicts()
        if words[5:].startswith(role)
    ]
    failures = sum(not case.passes for case in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" time="{seconds:.3f}"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="xent" {counts}>',
        f'  <testsuite name="xent check" {counts} skipped="0">',
    ]
    details = "\n".join(report.lines(speak))
    for case in cases:
        lines += _case(case, seconds / len(cases), details)
    return "\n".join([*lines, "  </testsuite>", "</testsuites>", ""])


def _case(case: Case, seconds: float, details: str) -> list[str]:
    start = f'    <testcase classname="xent.check" name={_quoted(case.name)} time="{seconds:.3f}">'
    if case.passes:
        return [start, f"      <system-out>{_text(case.verdict)}</system-out>", "    </testcase>"]
    failure = f'<failure type="AssertionError" message={_quoted(case.verdict)}>'
    return [start, f"      {failure}{_text(details)}</failure>", "    </testcase>"]


def _text(words: str) -> str:
    return escape(_clean(words))


def _quoted(words: str) -> str:
    return quoteattr(_clean(words))


def _clean(words: str) -> str:
    """The text without characters that XML has no way to write."""
    return "".join(c if c.isprintable() or c in ALLOWED else "?" for c in words)
