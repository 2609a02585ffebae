"""Which array of a file that holds several is read; by which names logits and targets are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xentcli.errors import OptionError, Setting, Words, plural, visible
from xentcli.files.options import ReadOptions

LOGITS = ("logits",)
TARGETS = ("targets", "labels", "target", "y")


def known_key(names: Sequence[str], known: Sequence[str], options: ReadOptions, where: str) -> str:
    """The name that the options ask for; else the one of `known` that is there."""
    found = [name for name in names if name in known]
    if options.key is not None or len(found) == 1:
        return choose_key(names, replace(options, key=options.key or found[0]), where)
    listed = ", ".join(map(visible, names[:10])) or "none"
    what = f"holds {plural(len(names), 'array')}: {listed}"
    if found:
        what += f"; {' and '.join(found)} could both be meant"
    else:
        what += f"; none is called {' or '.join(known)}"
    key = Setting(options.key_option or "key")
    raise OptionError(where, what, ("choose one with ", key, " NAME"))


def choose_key(names: Sequence[str], options: ReadOptions, where: str) -> str:
    """The name of the array that the options ask for; of the only one where they do not."""
    key, option = options.key, options.key_option
    listed = ", ".join(map(visible, names[:10])) or "none"
    if key is None and len(names) != 1:
        hint: Words = "expected an archive of one array"
        if option:
            hint = "choose one with ", Setting(option), " NAME"
        raise OptionError(where, f"holds {plural(len(names), 'array')}: {listed}", hint)
    if key is not None and key not in names:
        raise OptionError(where, f"no array '{visible(key)}'; it holds {listed}")
    return names[0] if key is None else key
