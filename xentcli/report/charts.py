"""The charts of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xentcli.display.chart import Bars, Chart, Line, Points, short
from xentcli.errors import plural
from xentcli.report.along import Segment
from xentcli.report.bins import Bin
from xentcli.report.result import Histogram, Report


def reliability(bins: Sequence[Bin], when: str = "") -> Chart:
    """Accuracy against confidence, with intervals; behind it the share of rows in each bin."""
    words = [
        f"confidence {item.confidence:.4g}, accuracy {item.accuracy:.4g}, {plural(item.n, 'row')}"
        for item in bins
    ]
    shares = [
        Bars((item.low, item.high), (item.weight,), (text,), quiet=True)
        for item, text in zip(bins, words, strict=True)
    ]
    points = Points(
        tuple((item.confidence, item.accuracy) for item in bins),
        tuple(item.interval for item in bins),
        tuple(words),
    )
    return Chart(
        f"Reliability{when and ' '}{when}; grey: share of rows",
        "confidence",
        "accuracy",
        (0.0, 1.0),
        (0.0, 1.0),
        (*shares, Line(((0.0, 0.0), (1.0, 1.0)), guide=True), points),
    )


def histograms(report: Report) -> tuple[Chart, ...]:
    """The distributions of the loss and of the rank."""
    found = []
    if report.nll_histogram:
        found.append(_loss_histogram(report.nll_histogram))
    if report.ranks:
        found.append(_rank_histogram(report.ranks.histogram))
    return tuple(found)


def _loss_histogram(shape: Histogram) -> Chart:
    words = tuple(
        f"{low:.4g} to {high:.4g}: {plural(count, 'row')}"
        for low, high, count in zip(shape.edges, shape.edges[1:], shape.counts, strict=False)
    )
    heights = tuple(map(float, shape.counts))
    return Chart(
        "Loss of the rows",
        "nll (nats)",
        "rows",
        (shape.edges[0], shape.edges[-1]),
        (0.0, max(heights)),
        (Bars(shape.edges, heights, words),),
    )


def _rank_histogram(shape: Histogram) -> Chart:
    labels = []
    for low, high in zip(shape.edges, shape.edges[1:], strict=False):
        last = int(high) - 1
        many = f"{short(low)}+" if last > 10**8 else f"{short(low)}–{short(last)}"
        labels.append(str(int(low)) if low == last else many)
    heights = tuple(map(float, shape.counts))
    words = tuple(
        f"rank {label}: {plural(count, 'row')}"
        for label, count in zip(labels, shape.counts, strict=True)
    )
    count = len(labels)
    return Chart(
        "Rank of the target, 0 is the largest logit",
        "rank",
        "rows",
        (0.0, float(count)),
        (0.0, max(heights)),
        (Bars(tuple(map(float, range(count + 1))), heights, words),),
        tuple((place + 0.5, label) for place, label in enumerate(labels)),
    )


def along(parts: Sequence[Segment]) -> Chart:
    """The mean loss of consecutive parts of the file."""
    known = [(part, part.nll) for part in parts if part.nll is not None and math.isfinite(part.nll)]
    places = tuple(((part.first + part.last) / 2, nll) for part, nll in known)
    most = max((nll for _, nll in known), default=1.0)
    return Chart(
        "Loss along the file",
        "row",
        "mean nll",
        (0.0, float(parts[-1].last)),
        (0.0, most or 1.0),
        (Line(places),),
    )


def of_base(report: Report) -> tuple[Chart, ...]:
    """The loss of the model against that of the base, row by row."""
    if not report.sample:
        return ()
    most = max(max(pair) for pair in report.sample) or 1.0
    return (
        Chart(
            f"Loss of {plural(len(report.sample), 'row')} under base and model",
            "nll of the base",
            "nll of the model",
            (0.0, most),
            (0.0, most),
            (Points(report.sample), Line(((0.0, 0.0), (most, most)), guide=True)),
        ),
    )
