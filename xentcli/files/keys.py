"""Which array of a file that holds several is read."""

from __future__ import annotations

from collections.abc import Sequence

from xentcli.errors import OptionError, Setting, Words, plural, visible
from xentcli.files.options import ReadOptions


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
