"""A document for a terminal: panels, tables and bars.

A dot marks the target; a rising logit has ▲ and a bar to the left, a falling one ▼ and a bar to the
right. Blue and orange only repeat that, so nothing depends on colour.
"""

from __future__ import annotations

import io
from dataclasses import replace

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from xentcli.display.document import ARROWS, COMMANDS_TITLE, Document, Fact, Step, format_number
from xentcli.display.grid import GAP, ColumnGroup, bar_fraction, column_groups, label_width

# Distinguishable with red-green colour blindness, and readable on black and on white.
RISES, FALLS, QUIET, FRAME = "color(32)", "color(166)", "dim", "color(244)"
COLOURS = {ARROWS["rises"]: RISES, ARROWS["falls"]: FALLS}
MARK = " ●"
TWO_COLUMNS = 120  # minimum width for two columns of panels
FRAME_WIDTH = 4  # of a panel, with its padding
LONGEST_BAR = 40
EIGHTHS = " ▏▎▍▌▋▊▉"


def as_text(document: Document, width: int) -> str:
    """The document without colour."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, legacy_windows=False)
    console.print(draw(document, width), crop=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def draw(document: Document, width: int) -> RenderableType:
    """The whole document, in one or two columns of panels."""
    numbered = document.numbered()
    two = width >= TWO_COLUMNS and len(numbered) > 1
    inner = (width - 1) // 2 if two else width
    panels = [_panel(step, number, document.decimals, inner) for number, step in numbered]
    parts: list[RenderableType] = [_head(document, width)]
    steps = tuple(step for _, step in numbered)
    parts += [_side_by_side(panels, steps)] if two else panels
    if document.commands:
        lines = [Text(command, overflow="fold") for command in document.commands]
        parts.append(_framed(Group(*lines), Text(COMMANDS_TITLE), width))
    return Group(*parts)


def _head(document: Document, width: int) -> RenderableType:
    lines = [Text(document.title, style="bold"), *map(Text, document.intro)]
    if any(step.marked for _, step in document.numbered()):
        lines.append(Text(f"{MARK.strip()} marks the target", style=QUIET))
    return Panel(Group(*lines), box=box.HEAVY, border_style=RISES, width=width)


def _side_by_side(panels: list[RenderableType], steps: tuple[Step, ...]) -> RenderableType:
    """The panels in two columns of about the same height."""
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


def _panel(step: Step, number: str, decimals: int, width: int) -> RenderableType:
    title = Text(f"{number} {step.title}".lstrip(), overflow="fold")
    parts: list[RenderableType] = []
    if title.cell_len > width - FRAME_WIDTH - 2:  # the frame would truncate it
        title, full = Text(f"{number}"), Text(step.title, style="bold")
        parts.append(full)
    if step.formula.text:
        parts.append(Text(step.formula.text, style="italic"))
    marked = _with_arrows(replace(step, labels=step.marked_labels(MARK)))
    inner = width - FRAME_WIDTH
    first = label_width(marked, decimals, inner) if step.labels else 0
    groups = column_groups(marked, decimals, inner, LONGEST_BAR)
    parts += [_table(marked, group, first) for group in groups]
    parts += [_fact(fact, decimals) for fact in step.facts]
    parts += [Text(remark) for remark in step.remarks]
    return _framed(Group(*parts), title, width)


def _with_arrows(step: Step) -> Step:
    """The step with arrows before the words for directions."""
    columns = [
        replace(column, values=tuple(ARROWS.get(str(v), v) for v in column.values))
        for column in step.columns
    ]
    return replace(step, columns=tuple(columns))


def _fact(fact: Fact, decimals: int) -> Text:
    text = Text(f"{fact.formula.text} = ")
    text.append(format_number(fact.value, decimals), style="bold")
    if fact.note:
        text.append(f"  {fact.note}", style=QUIET)
    return text


def _table(step: Step, group: ColumnGroup, first: int) -> RenderableType:
    """The gaps are columns of their own, because padding differs between versions of rich."""
    table = Table.grid(padding=0)
    table.add_column(width=first, overflow="fold")
    for column in group.columns:
        justify: JustifyMethod = "left" if column.is_words else "right"
        table.add_column(width=GAP)
        table.add_column(width=column.width, justify=justify, overflow="fold")
    if group.bar:
        table.add_column(width=GAP)
        table.add_column(width=group.length, no_wrap=True)
    titles = [Text(column.title, style="bold") for column in group.columns]
    table.add_row(*_with_gaps([Text(step.heading, style="bold"), *titles]))
    for row, label in enumerate(step.labels):
        style = "bold" if row in step.marked else ""
        cells = [_cell(column.cells[row], style) for column in group.columns]
        table.add_row(*_with_gaps([Text(label, style=style), *cells, *_bar(group, row)]))
    return table


def _with_gaps(texts: list[Text]) -> list[Text]:
    """The texts, separated by empty ones."""
    return [part for text in texts for part in (Text(), text)][1:]


def _cell(text: str, style: str) -> Text:
    return Text(text, style=f"{style} {COLOURS.get(text, '')}".strip())


def _bar(group: ColumnGroup, row: int) -> list[Text]:
    column = group.bar
    if column is None:
        return []
    part = bar_fraction(column, row)
    if column.bar == "fraction":
        return [Text(_eighths(part * group.length), style=RISES)]
    half = (group.length - 1) // 2
    left, right = (_halves(max(0.0, side) * half) for side in (-part, part))
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
