"""The formats that xent knows, one entry each, and which of them a file is in.

An input's suffix says its format, else its first bytes do; an option overrules both. An output's
suffix says its format, and one that no format has is an error; without a suffix, on standard
output, in pipes and devices the format is that of the logits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from xentcli.errors import FileError, FormatError, OptionError, Setting, visible
from xentcli.files.binary import BINARY
from xentcli.files.by_library import BY_LIBRARY
from xentcli.files.compression import require_library, without_suffix
from xentcli.files.foreign import FOREIGN, refusal
from xentcli.files.format import FIRST_BYTES, ZIP, ZIP_BYTES, Format
from xentcli.files.paths import is_address

if TYPE_CHECKING:
    import numpy as np

    from xentcli.files.options import ReadOptions, WriteOptions
    from xentcli.files.reader import Reader
    from xentcli.files.sink import Writable
    from xentcli.files.source import Source
    from xentcli.files.writer import Writer

    Shape = tuple[int, ...]
    Dtype = np.dtype[Any]


def _open_text(delimiter: str, source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.text.table import open_text

    return open_text(source, options, delimiter)


def _create_text(
    delimiter: str, stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions
) -> Writer:
    from xentcli.files.text.writer import TextWriter

    return TextWriter(stream, shape, options.style, delimiter)


def _create_json(stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions) -> Writer:
    from xentcli.files.json import JsonWriter

    return JsonWriter(stream, shape, dtype, options.style.decimals)


def _text(name: str, delimiter: str) -> Format:
    """A table of numbers in text; all of them share the suffix .txt."""
    return Format(
        name,
        suffixes=(name, "txt"),
        open_reader=partial(_open_text, delimiter),
        create_writer=partial(_create_text, delimiter),
        has_columns=True,
        is_table=True,
        keeps_dtype=False,
    )


FORMATS: tuple[Format, ...] = (
    *BINARY,
    *BY_LIBRARY,
    _text("csv", ","),
    _text("tsv", "\t"),
    Format("json", suffixes=("json",), create_writer=_create_json, keeps_dtype=False),
    *FOREIGN,
)
TEXT = "csv"  # has no first bytes of its own: what no format recognises is read as text


def readable() -> list[Format]:
    """The formats that can be read."""
    return [format for format in FORMATS if format.can_read]


def writable() -> list[Format]:
    """The formats that can be written."""
    return [format for format in FORMATS if format.can_write]


def with_keys() -> list[Format]:
    """The formats of which one file can hold several arrays, each with a name."""
    return [format for format in readable() if format.has_keys]


def with_columns() -> list[Format]:
    """The formats of tables whose columns can be chosen."""
    return [format for format in readable() if format.has_columns]


def names(formats: Iterable[Format]) -> list[str]:
    """The names of some formats.

    >>> names(readable())
    ['npy', 'npz', 'safetensors', 'zarr', 'pt', 'kld', 'parquet', 'arrow', 'hdf5', 'csv', 'tsv']
    >>> names(writable())
    ['npy', 'npz', 'safetensors', 'zarr', 'csv', 'tsv', 'json']
    """
    return [format.name for format in formats]


def suffixes(formats: Iterable[Format]) -> list[str]:
    """The suffixes of some formats, each once.

    >>> suffixes(writable())
    ['.npy', '.npz', '.safetensors', '.zarr', '.csv', '.txt', '.tsv', '.json']
    """
    return list(dict.fromkeys(f".{suffix}" for format in formats for suffix in format.suffixes))


def get(name: str, where: str = "format") -> Format:
    """The format of this name; for any other an OptionError, at `where`."""
    for format in FORMATS:
        if format.name == name:
            return format
    known = [format for format in FORMATS if format.can_read or format.can_write]
    what = f"there is no format '{visible(name)}'; allowed: {', '.join(names(known))}"
    raise OptionError(where, what)


def get_readable(name: str, where: str = "format") -> Format:
    """The format of this name; an OptionError unless it can be read."""
    format = get(name, where)
    if not format.can_read:
        what = f"cannot read {name}" + (", only write it" if format.can_write else "")
        raise OptionError(where, f"{what}; allowed: {', '.join(names(readable()))}", format.convert)
    return format


def get_writable(name: str, where: str = "format") -> Format:
    """The format of this name; an OptionError unless it can be written."""
    format = get(name, where)
    if not format.can_write:
        what = f"cannot write {name}" + (", only read it" if format.can_read else "")
        raise OptionError(where, f"{what}; allowed: {', '.join(names(writable()))}")
    return format


def with_suffix(path: str) -> list[Format]:
    """The formats with the suffix of a path: none, one, or several that share the suffix.

    >>> names(with_suffix("a.NPY")), names(with_suffix("a.txt")), names(with_suffix("a"))
    (['npy'], ['csv', 'tsv'], [])
    """
    return [format for format in FORMATS if _suffix(path) in format.suffixes]


def _suffix(path: str) -> str:
    """The suffix that says the format: that before a suffix of a compression."""
    return PurePath(without_suffix(path)).suffix.lower().removeprefix(".")


def sniff(source: Source) -> Format:
    """The format that a source's first bytes show; an error for one that cannot be read."""
    start = source.peek(FIRST_BYTES)
    start = source.peek(ZIP_BYTES) if start.startswith(ZIP) else start
    recognised = (format for format in FORMATS if format.recognises(start))
    format = next(recognised, None) or get(TEXT)
    if not format.can_read:
        raise refusal(format, source.name)
    return format


def input_format(source: Source, path: str, name: str | None) -> Format:
    """The format to read a source in: the one asked for, else by its suffix or first bytes."""
    if source.store:
        return _folder_format(source.name, path, name)
    found = with_suffix(path)
    if name is None and len(found) != 1:
        format = sniff(source)
    else:
        format = get_readable(found[0].name if name is None else name, source.name)
    if format.is_folder:
        raise FormatError(source.name, f"is a file; {format.name} arrays are folders of chunks")
    if source.file is None and not format.pipes:
        what = f"cannot read {format.name} from a pipe or standard input"
        raise OptionError(source.name, what, "save it to a file, and give its path")
    return format


def _folder_format(where: str, path: str, name: str | None) -> Format:
    """The format of a folder or an address."""
    asked = [get(name, where)] if name else with_suffix(path)
    folders = [format for format in asked or FORMATS if format.is_folder]
    if folders:
        return folders[0]
    what = "an address" if is_address(path) else "a directory"
    allowed = ", ".join(names(format for format in FORMATS if format.is_folder))
    raise FileError(where, f"is {what}, which cannot be read as {asked[0].name}; only as {allowed}")


def writes_folder(path: str, name: str | None) -> bool:
    """Whether an output of this path and format is a folder; an error for a wrong address."""
    asked = [get(name, visible(path))] if name else with_suffix(path)
    folder = any(format.is_folder for format in asked)
    if is_address(path) and not folder and asked:
        allowed = " or ".join(names(format for format in writable() if format.is_folder))
        raise OptionError(visible(path), f"only {allowed} can be written to an address")
    return folder or is_address(path)


def output_formats(path: str, name: str | None, *, chosen: bool = False) -> list[Format]:
    """The formats that an output may have, preferred first; none where its path does not say.

    `name` is the format asked for; `chosen` is whether the user can ask for one. A suffix that
    no format has is an error, before anything is read or written.
    """
    require_library(path)
    if name is not None:
        return [get_writable(name, visible(path))]
    if is_address(path) and not with_suffix(path):
        return [format for format in writable() if format.is_folder]
    suffix = _suffix(path)
    found = with_suffix(path)
    allowed = [format for format in found if format.can_write]
    if allowed or not suffix or _is_special(path):
        return allowed
    what = f"cannot write {found[0].name}" if found else f"no format has the suffix '.{suffix}'"
    hint = Setting("format"), f" sets the format for any suffix: {', '.join(names(writable()))}"
    raise OptionError(
        visible(path),
        f"{visible(what)}; allowed: {', '.join(suffixes(writable()))}",
        hint if chosen else None,
    )


def _is_special(path: str) -> bool:
    """Whether a path is standard output, a pipe, a device or a folder, and not a plain file."""
    if path == "-" or path.endswith(os.sep):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (Path would change the name)
    except OSError:  # a new file
        return False


def choose(allowed: list[Format], like: str) -> Format:
    """The format to write in: of those `allowed` that of the logits, `like`, else the first."""
    if not allowed:
        format = get_writable(like)
        return FORMATS[0] if format.is_folder else format  # a stream takes no folder
    return next((format for format in allowed if format.name == like), allowed[0])
