"""A report as a document: its tables for text, and charts where there are pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from xentcli.display.chart import Chart
from xentcli.display.document import Column, Document, Step
from xentcli.errors import plural, visible
from xentcli.report import charts
from xentcli.report.along import Segment
from xentcli.report.result import Report
from xentcli.report.statistic import Statistic
from xentcli.report.tables import bins_step, column, statistics_step

ALL_CLASSES = 20  # with more, only those with the largest loss are shown
SEGMENTS = 12  # of the loss along the file, in text
SPOKEN = {
    "nll": "nll (nats)",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "word perplexity",
    "brier": "Brier score",
    "entropy": "entropy (nats)",
    "ece": "ECE",
    "mce": "MCE",
    "ece_l2_debiased": "debiased ℓ2 error",
    "nll_difference": "nll − base",
    "perplexity_ratio": "perplexity ratio",
    "kl": "KL(base‖model)",
    "delta_p": "Δp of the target",
    "delta_p_rms": "RMS of Δp",
    "same_prediction": "same prediction",
}
OF_BASE = ("nll_difference", "perplexity_ratio", "kl", "delta_p", "delta_p_rms", "same_prediction")


def to_document(report: Report, names: Sequence[str] = (), decimals: int = 4) -> Document:
    """The document of a report; `names` are those of the classes, one for each, or none."""
    return Document(
        title="Report on logits and targets",
        intro=tuple(_intro(report)),
        steps=tuple(_steps(report, tuple(names))),
        decimals=decimals,
        data={**report.facts(), **({"names": list(names)} if names else {})},
    )


def _intro(report: Report) -> Iterator[str]:
    """The rows, and the numbers that are asked for most."""
    counted = [plural(report.rows, "row")]
    counted += [f"{report.ignored} ignored"] if report.ignored else []
    counted += [f"{report.nonfinite} not finite"] if report.nonfinite else []
    counted += [f"{plural(report.groups, 'group')}: clustered errors"] if report.groups else []
    yield ", ".join(counted)
    words = [
        f"{name} {_with_interval(report.statistics[name])}"
        for name in ("perplexity", "accuracy")
        if name in report.statistics
    ]
    yield "; ".join(words) + ("; 95 % intervals" if "(" in "".join(words) else "")


def _with_interval(item: Statistic) -> str:
    if item.interval is None:
        return f"{item.value:.4g}"
    low, high = item.interval
    return f"{item.value:.4g} ({low:.4g} to {high:.4g})"


def _steps(report: Report, names: tuple[str, ...]) -> Iterator[Step]:
    mine = {n: s for n, s in report.statistics.items() if n not in OF_BASE}
    yield _table_of("Statistics", mine, ())
    if report.bins:
        yield _calibration(report)
    theirs = {n: s for n, s in report.statistics.items() if n in OF_BASE}
    if theirs:
        pictures = charts.of_base(report)
        yield _table_of("Against the base", theirs, pictures)
    if "nll" in report.statistics and report.statistics["nll"].quantiles:
        yield _quantiles(report)
    if any(segment.n for segment in report.along) and len(report.along) > 1:
        yield _along(report)
    if report.classes:
        yield _classes(report, names)
    if report.confusion:
        yield _confusion(report, names)
    if report.worst:
        yield _worst(report, names)


def _table_of(title: str, found: dict[str, Statistic], pictures: tuple[Chart, ...]) -> Step:
    """Statistics with their errors and intervals."""
    labels = tuple(SPOKEN.get(name, name.replace("top_", "top-")) for name in found)
    return replace(statistics_step(title, labels, tuple(found.values())), charts=pictures)


def _calibration(report: Report) -> Step:
    kind = "equal width" if report.binning == "width" else "equal counts"
    return bins_step("Calibration", report.bins, kind, charts.reliability(report.bins))


def _quantiles(report: Report) -> Step:
    """Quantiles of the loss, the rank and of the comparison to the base."""
    columns: list[Column] = []
    labels: tuple[str, ...] = ()
    for name in ("nll", "kl", "delta_p"):
        item = report.statistics.get(name)
        if item and item.quantiles:
            labels = tuple(item.quantiles)
            columns.append(column(SPOKEN[name], item.quantiles.values()))
    remarks: tuple[str, ...] = ()
    if report.ranks:
        columns.append(column("rank", map(_whole, report.ranks.quantiles.values())))
        ties = f"{plural(report.ranks.tied, 'row')} with ties" if report.ranks.tied else "no ties"
        remarks = (f"Ranks count from 0; {ties}.",)
    return Step(
        "Loss of the rows",
        heading="quantile",
        labels=labels,
        columns=tuple(columns),
        remarks=remarks,
        charts=charts.histograms(report),
    )


def _whole(value: float) -> float:
    """A whole number as an integer, which is printed without decimals."""
    return int(value) if value == int(value) else value


def _along(report: Report) -> Step:
    parts = [part for part in _joined(report.along) if part.n]
    finite = [part.nll for part in parts if part.nll is not None and math.isfinite(part.nll)]
    columns = (
        column("n", [part.n for part in parts]),
        column("nll", [part.nll for part in parts], bar="fraction", scale=max(finite, default=0.0)),
    )
    return Step(
        "Loss along the file",
        heading="rows",
        labels=tuple(f"{part.first}–{part.last}" for part in parts),
        columns=columns,
        charts=(charts.along(report.along),),
    )


def _joined(parts: Sequence[Segment]) -> Iterator[Segment]:
    """At most `SEGMENTS` parts, made of consecutive ones."""
    size = -(-len(parts) // SEGMENTS)
    for first in range(0, len(parts), size):
        some = parts[first : first + size]
        n = sum(part.n for part in some)
        total = math.fsum(part.n * part.nll for part in some if part.nll is not None)
        yield Segment(some[0].first, some[-1].last, n, total / n if n else None)


def class_name(index: int | None, names: Sequence[str]) -> str:
    """What a class is called."""
    if index is None:
        return ""
    return visible(names[index]) if names else str(index)


def _classes(report: Report, names: Sequence[str]) -> Step:
    found = list(report.classes)
    remarks: tuple[str, ...] = ()
    if len(found) > ALL_CLASSES:
        found = sorted(found, key=lambda item: -item.nll)[:ALL_CLASSES]
        remarks = (
            f"The {ALL_CLASSES} of {plural(len(report.classes), 'class')} with the largest loss.",
        )
    columns = (
        column("rows", [item.n for item in found]),
        column("accuracy", [item.accuracy for item in found], bar="fraction"),
        column("nll", [item.nll for item in found]),
        column("confidence", [item.confidence for item in found]),
    )
    labels = tuple(class_name(item.index, names) for item in found)
    return Step("Classes", heading="target", labels=labels, columns=columns, remarks=remarks)


def _confusion(report: Report, names: Sequence[str]) -> Step:
    pairs = report.confusion
    columns = (
        column("rows", [item.n for item in pairs]),
        column("share", [item.share for item in pairs], bar="fraction"),
    )
    labels = tuple(
        f"{class_name(item.target, names)} → {class_name(item.prediction, names)}" for item in pairs
    )
    remarks = ("Target → prediction; share of the target's rows.",)
    return Step("Most confused", heading="pair", labels=labels, columns=columns, remarks=remarks)


def _worst(report: Report, names: Sequence[str]) -> Step:
    rows = report.worst
    columns = [column("nll", [item.nll for item in rows])]
    if all(item.target is not None for item in rows):
        columns += [
            column("target", [class_name(item.target, names) for item in rows]),
            column("p", [item.p_target for item in rows]),
            column("rank", [item.rank for item in rows]),
        ]
    columns += [
        column("predicted", [class_name(item.prediction, names) for item in rows]),
        column("its p", [item.p_prediction for item in rows]),
    ]
    labels = tuple(str(item.row) for item in rows)
    return Step("Worst rows", heading="row", labels=labels, columns=tuple(columns))
