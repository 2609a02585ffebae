"""A derivation as a document."""

from __future__ import annotations

from xentcli.display.document import Document
from xentcli.errors import plural, visible
from xentcli.explain.as_dict import as_dict
from xentcli.explain.class_selection import ClassSelection, DisplayOptions, require_names
from xentcli.explain.derivation import Derivation
from xentcli.explain.result import result_step
from xentcli.explain.steps import ignored_row_steps, row_steps


def to_document(d: Derivation, display: DisplayOptions) -> Document:
    """The document of a derivation; raises `OptionError` unless there is a name per class."""
    require_names(display, d.classes)
    selection = ClassSelection(d, display)
    return Document(
        title=f"The gradient of row {d.row} of {d.rows}",
        intro=_intro(d, display),
        result=result_step(d, selection),
        steps=ignored_row_steps(d, selection) if d.ignored else row_steps(d, selection),
        decimals=display.decimals,
        data=as_dict(d, display.names, selection.indices if display.top else None),
    )


def _intro(d: Derivation, display: DisplayOptions) -> tuple[str, ...]:
    """The number of classes, the target, and the options that are not the default."""
    target = "probabilities"
    if d.ignored:
        target = f"ignored (ignore_index {d.options.ignore_index})"
    elif d.target is not None:
        name = f" ({visible(display.names[d.target])})" if display.names else ""
        target = f"class {d.target}{name}"
    default = type(d.options)()
    options = [
        f"{name} {value}"
        for name, value in vars(d.options).items()
        if value != getattr(default, name)
    ]
    if d.class_weighted:
        options.append("class weights")
    line = f"{plural(d.classes, 'class')}; target: {target}"
    return (line, f"Options: {', '.join(options)}.") if options else (line,)
