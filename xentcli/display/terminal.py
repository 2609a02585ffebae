"""A document for a terminal: panels, tables, bars.

The target is marked by a dot, a logit that rises by ▲ and a bar to the left, one that falls by ▼
and a bar to the right. Colours, blue and orange, only repeat that.
"""

from __future__ import annotations

import io
from dataclasses import replace

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from xentcli.display import grid
from xentcli.display.document import Document, Fact, Step, shown
from xentcli.display.grid import GAP, Cells, groups, labels_width, share_of

# Seen alike by people who do not tell red from green; readable on black and on white.
RISES, FALLS, QUIET, FRAME = "color(32)", "color(166)", "dim", "color(244)"
GLYPHS = {"rises": ("▲ rises", RISES), "falls": ("▼ falls", FALLS), "stays": ("= stays", "")}
COLOURS = dict(GLYPHS.values())
MARK = " ●"
TWO = 120  # columns from which on the steps stand in two
FRAMES = 4  # columns that a panel takes
LONGEST_BAR = 40
EIGHTHS = " ▏▎▍▌▋▊▉"


def as_text(document: Document, width: int) -> str:
    """Lines without colour."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, legacy_windows=False)
    console.print(draw(document, width), crop=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def draw(document: Document, width: int) -> RenderableType:
    """Everything, in one column of panels or two."""
    two = width >= TWO and len(document.steps) > 1
    inner = (width - 1) // 2 if two else width
    panels = [
        _panel(step, number, document.decimals, inner)
        for number, step in enumerate(document.steps, 1)
    ]
    parts: list[RenderableType] = [_head(document, width)]
    parts += [_two(panels, document.steps)] if two else panels
    if document.commands:
        words = "The same by the ordinary commands"
        lines = [Text(command, overflow="fold") for command in document.commands]
        parts.append(_framed(Group(*lines), Text(words), width))
    return Group(*parts)


def _head(document: Document, width: int) -> RenderableType:
    lines = [Text(document.title, style="bold"), *map(Text, document.lead)]
    if any(step.marked for step in document.steps):
        lines.append(Text(f"{MARK.strip()} marks the target", style=QUIET))
    return Panel(Group(*lines), box=box.HEAVY, border_style=RISES, width=width)


def _two(panels: list[RenderableType], steps: tuple[Step, ...]) -> RenderableType:
    """Side by side, about equally long."""
    heights = [
        3 + len(step.labels) + len(step.facts) + 2 * len(step.remarks) + bool(step.formula.text)
        for step in steps
    ]
    middle = min(
        range(1, len(panels) + 1),
        key=lambda cut: max(sum(heights[:cut]), sum(heights[cut:])),
    )
    table = Table.grid(padding=0)
    table.add_column()
    table.add_column(width=1)
    table.add_column()
    table.add_row(Group(*panels[:middle]), Text(), Group(*panels[middle:]))
    return table


def _framed(content: RenderableType, title: Text, width: int) -> RenderableType:
    title.stylize("bold default")
    return Panel(
        content,
        title=title,
        title_align="left",
        box=box.ROUNDED,
        border_style=FRAME,
        width=width,
    )


def _panel(step: Step, number: int, decimals: int, width: int) -> RenderableType:
    title = Text(f"{number} {step.title}", overflow="fold")
    parts: list[RenderableType] = []
    if title.cell_len > width - FRAMES - 2:  # a title in the frame would be cut
        title, full = Text(f"{number}"), Text(step.title, style="bold")
        parts.append(full)
    if step.formula.text:
        parts.append(Text(step.formula.text, style="italic"))
    marked = _with_glyphs(replace(step, labels=step.marked_labels(MARK)))
    inner = width - FRAMES
    first = labels_width(marked, decimals, inner) if step.labels else 0
    parts += [
        _table(marked, group, first) for group in groups(marked, decimals, inner, LONGEST_BAR)
    ]
    parts += [_fact(fact, decimals) for fact in step.facts]
    parts += [Text(remark) for remark in step.remarks]
    return _framed(Group(*parts), title, width)


def _with_glyphs(step: Step) -> Step:
    """The words for directions with an arrow before them."""
    columns = [
        replace(column, values=tuple(GLYPHS.get(str(v), (v,))[0] for v in column.values))
        for column in step.columns
    ]
    return replace(step, columns=tuple(columns))


def _fact(fact: Fact, decimals: int) -> Text:
    text = Text(f"{fact.formula.text} = ")
    text.append(shown(fact.value, decimals), style="bold")
    if fact.words:
        text.append(f"  {fact.words}", style=QUIET)
    return text


def _table(step: Step, group: grid.Group, first: int) -> RenderableType:
    """The gaps are columns: what rich makes of padding differs between its versions."""
    table = Table.grid(padding=0)
    table.add_column(width=first, overflow="fold")
    for cells in group.columns:
        justify: JustifyMethod = "left" if cells.words else "right"
        table.add_column(width=GAP)
        table.add_column(width=cells.width, justify=justify, overflow="fold")
    if group.bar:
        table.add_column(width=GAP)
        table.add_column(width=group.length, no_wrap=True)
    titles = [Text(cells.title, style="bold") for cells in group.columns]
    table.add_row(*_apart([Text(step.label, style="bold"), *titles]))
    for line, label in enumerate(step.labels):
        style = "bold" if line in step.marked else ""
        cells_of = [_cell(cells, line, style) for cells in group.columns]
        table.add_row(*_apart([Text(label, style=style), *cells_of, *_bar(group, line)]))
    return table


def _apart(texts: list[Text]) -> list[Text]:
    """An empty column between each two."""
    return [part for text in texts for part in (Text(), text)][1:]


def _cell(cells: Cells, line: int, style: str) -> Text:
    text = cells.cells[line]
    return Text(text, style=f"{style} {COLOURS.get(text, '')}".strip())


def _bar(group: grid.Group, line: int) -> list[Text]:
    column = group.bar
    if column is None:
        return []
    share = share_of(column.values[line], column.reach)
    if column.bar == "share":
        return [Text(_eighths(share * group.length), style=RISES)]
    half = (group.length - 1) // 2
    left, right = (_halves(max(0.0, part) * half) for part in (-share, share))
    text = Text(" " * (half - len(left)))
    text.append(_mirrored(left), style=RISES)
    text.append("│", style=FRAME)
    text.append(right, style=FALLS)
    return [text]


def _eighths(length: float) -> str:
    whole, part = divmod(round(length * 8), 8)
    return "█" * whole + EIGHTHS[part].strip()


def _halves(length: float) -> str:
    whole, part = divmod(round(length * 2), 2)
    return "█" * whole + "▌" * part


def _mirrored(bar: str) -> str:
    return bar[::-1].replace("▌", "▐")
