"""Charts as data, and each of them as a picture in SVG with the colours of the page around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from xentcli.records import dataclass

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 28, 44  # margins of the plot area
CSS = """
.chart text { font: 12px system-ui, sans-serif; fill: var(--text); }
.chart .title { font-weight: 600; font-size: 13px; }
.chart .tick, .chart .axis { fill: var(--quiet); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .bars { fill: var(--rise); fill-opacity: .75; }
.chart .count { fill: var(--quiet); fill-opacity: .3; }
.chart .point { fill: var(--fall); stroke: var(--card); stroke-width: 1; }
.chart .cloud { fill: var(--rise); fill-opacity: .35; }
.chart .whisker { stroke: var(--fall); stroke-width: 1.5; }
.chart .line { fill: none; stroke: var(--rise); stroke-width: 2; }
.chart .guide { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 4; }
"""


class Bars(NamedTuple):
    """A bar from each edge to the next; `words` say of each what it is."""

    edges: tuple[float, ...]
    heights: tuple[float, ...]
    words: tuple[str, ...]
    quiet: bool = False  # in the background


class Points(NamedTuple):
    """Points with a vertical interval each, or a cloud of small ones without."""

    places: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()
    words: tuple[str, ...] = ()


class Line(NamedTuple):
    """A line through points; a `guide` is thin and dashed."""

    places: tuple[tuple[float, float], ...]
    guide: bool = False


@dataclass(frozen=True)
class Chart:
    """Marks over two axes; `x_ticks` are labels at places where they are not the numbers."""

    title: str
    x: str
    y: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    marks: tuple[Bars | Points | Line, ...]
    x_ticks: tuple[tuple[float, str], ...] = ()


class _Axes:
    """From the numbers of a chart to places in its picture."""

    def __init__(self, chart: Chart) -> None:
        (self._left, right), (self._low, high) = chart.x_range, chart.y_range
        self._across = (WIDTH - LEFT - RIGHT) / ((right - self._left) or 1.0)
        self._up = (HEIGHT - TOP - BOTTOM) / ((high - self._low) or 1.0)

    def x(self, value: float) -> float:
        return LEFT + (value - self._left) * self._across

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self._low) * self._up


def as_svg(chart: Chart, place: str = "") -> str:
    """The picture; `place` are attributes that put it somewhere in a larger one."""
    axes, title = _Axes(chart), escape(chart.title)
    size = place or f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'<svg class="chart" {size} role="img" aria-label="{title}"><title>{title}</title>',
        f'<text class="title" x="{LEFT}" y="16">{title}</text>',
        *_grid(chart, axes),
        *(part for marks in chart.marks for part in _marks(marks, axes)),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 8}" '
        f'text-anchor="middle">{escape(chart.x)}</text>',
        f'<text class="axis" transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:g}) '
        f'rotate(-90)" text-anchor="middle">{escape(chart.y)}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _grid(chart: Chart, axes: _Axes) -> Iterator[str]:
    for value in ticks(*chart.y_range):
        y = axes.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield (
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short(value)}</text>"
        )
    labels = chart.x_ticks or tuple((value, short(value)) for value in ticks(*chart.x_range))
    for value, label in labels:
        yield (
            f'<text class="tick" x="{axes.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{escape(label)}</text>'
        )


def _marks(marks: Bars | Points | Line, axes: _Axes) -> Iterator[str]:
    if isinstance(marks, Bars):
        yield from _bars(marks, axes)
    elif isinstance(marks, Line):
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in marks.places)
        yield f'<polyline class="{"guide" if marks.guide else "line"}" points="{path}"/>'
    elif marks.intervals:
        yield from _points(marks, axes)
    else:
        for x, y in marks.places:
            yield f'<circle class="cloud" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2"/>'


def _bars(bars: Bars, axes: _Axes) -> Iterator[str]:
    kind = "count" if bars.quiet else "bars"
    for left, right, height, words in zip(
        bars.edges, bars.edges[1:], bars.heights, bars.words, strict=False
    ):
        x, y = axes.x(left), axes.y(height)
        width, tall = max(1.0, axes.x(right) - x - 1), axes.y(0.0) - y
        if height > 0:
            yield (
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{tall:.1f}"><title>{escape(words)}</title></rect>'
            )


def _points(points: Points, axes: _Axes) -> Iterator[str]:
    for (x, y), interval, words in zip(points.places, points.intervals, points.words, strict=True):
        across = axes.x(x)
        if interval:
            low, high = map(axes.y, interval)
            yield (
                f'<line class="whisker" x1="{across:.1f}" x2="{across:.1f}" y1="{low:.1f}" '
                f'y2="{high:.1f}"/>'
            )
        yield (
            f'<circle class="point" cx="{across:.1f}" cy="{axes.y(y):.1f}" r="4">'
            f"<title>{escape(words)}</title></circle>"
        )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two, at most six.

    >>> ticks(0.0, 1.0), ticks(0.0, 1797.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 500.0, 1000.0, 1500.0])
    """
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def short(value: float) -> str:
    """A tick's label.

    >>> short(0.2), short(1500.0), short(2_000_000.0)
    ('0.2', '1500', '2M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"
