"""A derivation as a document."""

from __future__ import annotations

from xentcli.display.document import Document
from xentcli.errors import OptionError, plural, visible
from xentcli.explain import Derivation
from xentcli.explain.as_dict import as_data
from xentcli.explain.class_selection import Chosen, View
from xentcli.explain.steps import of_ignored, of_row


def tell(d: Derivation, view: View) -> Document:
    """The document of a derivation; errors where the names do not fit its classes."""
    if view.names and len(view.names) != d.classes:
        raise OptionError(
            "names", f"{plural(len(view.names), 'name')} given, the row has {d.classes} classes"
        )
    chosen = Chosen(d, view)
    return Document(
        title=_title(d),
        lead=_lead(d, view),
        steps=of_ignored(d, chosen) if d.ignored else of_row(d, chosen),
        decimals=view.decimals,
        data=as_data(d, view.names, chosen.order if view.top else None),
    )


def _title(d: Derivation) -> str:
    return f"The gradient of row {d.row} of {d.rows}"


def _lead(d: Derivation, view: View) -> tuple[str, ...]:
    name = f" ({visible(view.names[d.target])})" if view.names and d.target is not None else ""
    target = "probabilities" if d.target is None else f"class {d.target}{name}"
    if d.ignored:
        target = f"left out (--ignore-index {d.options.ignore_index})"
    default = type(d.options)()
    options = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in vars(d.options).items()
        if value != getattr(default, name)
    ]
    if d.weighted:
        options.append("class weights")
    words = f"{plural(d.classes, 'class')}; target: {target}"
    return (words, f"With {', '.join(options)}.") if options else (words,)
