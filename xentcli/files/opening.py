"""Arrays from paths and to streams, in any of the registered formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import OptionError, Setting
from xentcli.files import registry
from xentcli.files.columns import ALL
from xentcli.files.compression import (
    CompressedStream,
    CompressedWriter,
    by_first_bytes,
    by_suffix,
    without_suffix,
)
from xentcli.files.format import FIRST_BYTES, Format
from xentcli.files.keys import LOGITS, TARGETS, known_key
from xentcli.files.options import DEFAULT, ReadOptions, WriteOptions
from xentcli.files.paths import is_folder
from xentcli.files.reader import InMemoryReader, Reader
from xentcli.files.sink import Writable
from xentcli.files.source import Source, open_source
from xentcli.files.writer import Writer


@contextmanager
def open_input(path: str, *, raw: bool = False) -> Iterator[tuple[Source, str]]:
    """The bytes of a path, decompressed, and the path without the suffix of a compression.

    Raw numbers may begin with any bytes, so that only the suffix shows that they are compressed.
    """
    if is_folder(path):
        from xentcli.files.store import open_folder  # few inputs need it

        yield open_folder(path), path
        return
    with open_source(path) as source:
        kind = None
        if not raw or by_suffix(path):
            kind = by_first_bytes(source.peek(FIRST_BYTES))
        if kind is None:
            yield source, without_suffix(path)
            return
        from xentcli.files.inflated import InflatedSource  # few inputs need it

        with closing(InflatedSource(source, kind)) as inflated:
            yield inflated, without_suffix(path)


@contextmanager
def open_reader(path: str, options: ReadOptions = DEFAULT) -> Iterator[Reader]:
    """The array in a file, or on standard input for `-`, to be read piece by piece."""
    with open_input(path, raw=options.raw is not None) as (source, bare):
        if options.raw:
            from xentcli.files.raw import open_raw

            raw = open_raw(source, options.raw)
            yield _interpreted(raw, replace(options, dtype=options.raw.dtype))
            return
        yield reader_of(source, registry.input_format(source, bare, options.format), options)


@contextmanager
def open_both(
    path: str, logits: ReadOptions, targets: ReadOptions, *, required: bool = True
) -> Iterator[tuple[Reader, Reader | None]]:
    """Logits and targets in one file, found by their names unless the options have a key.

    Without targets where the file holds none under their names, and they are not `required`.
    """
    with open_input(path) as (source, bare), ExitStack() as stack:
        format = registry.input_format(source, bare, logits.format)
        if format.has_columns and targets.columns.keep:
            logits = without_targets(logits, targets)
            targets = replace(targets, style=replace(logits.style, of_targets=True))
        else:
            names = _member_names(format, source, path)
            if not required and targets.key is None and not set(names) & set(TARGETS):
                yield reader_of(source, format, logits), None
                return
            if not format.member_names:
                raise _no_targets(format, source.name)
            logits = replace(logits, key=known_key(names, LOGITS, logits, source.name))
            targets = replace(targets, key=known_key(names, TARGETS, targets, source.name))
        if source.can_be_opened_again:
            reader = reader_of(source, format, logits)
            targets = _named(targets, reader)
            found = reader_of(stack.enter_context(_again(source, path)), format, targets)
        else:
            found = _held_targets(source, format, logits, targets)
            reader = reader_of(source, format, logits)
        found.remarks = tuple(words for words in found.remarks if words not in reader.remarks)
        yield reader, found


def _held_targets(
    source: Source, format: Format, logits: ReadOptions, targets: ReadOptions
) -> Reader:
    """The targets of a source that is no plain file, in memory; it is copied to a file."""
    if format.has_columns:
        with _again(source, "") as first:
            targets = _named(targets, reader_of(first, format, logits))
    with _again(source, "") as first:
        reader = reader_of(first, format, targets)
        held = InMemoryReader(reader.whole(), reader.name, format.name, column_names(reader))
        held.remarks = reader.remarks
    return held


def without_targets(logits: ReadOptions, targets: ReadOptions) -> ReadOptions:
    """How logits are read from a table whose other columns are the targets."""
    columns = logits.columns
    dropped = (*columns.drop, *(name for name in targets.columns.keep if name not in columns.drop))
    return replace(logits, columns=replace(columns, drop=dropped))


def column_names(reader: Reader) -> tuple[str, ...]:
    """The names of the columns of a table, if it has any."""
    names: tuple[str, ...] = getattr(reader, "column_names", ())
    return names


def _member_names(format: Format, source: Source, path: str) -> list[str]:
    """The names of the arrays in a file, none where its format has no names."""
    if not format.member_names:
        return []
    with _again(source, path) as first:
        return format.member_names(first)


def _named(targets: ReadOptions, logits: Reader) -> ReadOptions:
    """How targets are read that may be the names of the logits' columns."""
    return replace(targets, class_names=targets.class_names or column_names(logits))


def _no_targets(format: Format, where: str) -> OptionError:
    """The error for logits without targets."""
    if format.has_columns:
        hint = "if a column of this file holds them: ", Setting("target_column"), " NAME"
        return OptionError(where, "TARGETS is missing", hint)
    keyed = " or ".join(registry.suffixes(registry.with_keys()))
    what = f"TARGETS is missing; one {keyed} file may hold logits and targets"
    return OptionError(where, what)


def names_in(path: str) -> list[str]:
    """The names of the arrays in a file whose suffix says that it may hold several; else none."""
    formats = registry.with_suffix(path)
    if not formats or not formats[0].member_names:
        return []
    with open_input(path) as (source, _):
        return formats[0].member_names(source)


@contextmanager
def _again(source: Source, path: str) -> Iterator[Source]:
    """An input from its beginning, where `source` stays."""
    if source.can_be_opened_again:
        with open_input(path) as (other, _):
            yield other
    else:
        source.make_seekable()
        with source.lookahead():
            yield source


def reader_of(source: Source, format: Format, options: ReadOptions) -> Reader:
    """The reader of an array in a format that can be read."""
    if options.key is not None and not format.has_keys:
        keyed = " or ".join(registry.suffixes(registry.with_keys()))
        key = Setting(options.key_option or "key")
        what = f"this is {format.name}, and ", key, f" is for {keyed}"
        raise OptionError(source.name, what)
    if options.columns != ALL and not format.has_columns:
        tables = ", ".join(registry.names(registry.with_columns()))
        kept = "columns" if options.style.prefix == "" else "target_column"
        flag = Setting(kept if options.columns.keep else f"{options.style.prefix}drop")
        what = f"this is {format.name}, and ", flag, f" is for tables: {tables}"
        raise OptionError(source.name, what)
    assert format.open_reader
    reader = format.open_reader(source, options)
    reader.format = format.name
    return _interpreted(reader, options)


def _interpreted(reader: Reader, options: ReadOptions) -> Reader:
    """The reader itself, or what its numbers stand for by the options."""
    if not (options.bfloat16 or options.probabilities):
        return reader
    from xentcli.files.interpreted import interpreted  # few inputs need it

    return interpreted(reader, options)


def load(path: str, options: ReadOptions = DEFAULT) -> Array:
    """The whole array in a file, or on standard input for `-`."""
    with open_reader(path, options) as reader:
        return reader.whole()


def is_table(reader: Reader) -> bool:
    """Whether an array comes from a table of lines and columns, which always has two axes."""
    return registry.get(reader.format).is_table


def create_writer(
    stream: Writable, shape: tuple[int, ...], dtype: np.dtype[Any], options: WriteOptions
) -> Writer:
    """The writer of a format; an OptionError for one that cannot be written."""
    format = registry.get_writable(options.format)
    kind = by_suffix(options.path)

    def create(to: Writable) -> Writer:
        assert format.create_writer
        return format.create_writer(to, shape, dtype, options)

    return CompressedWriter(stream, kind, create) if kind else create(stream)


def save_members(stream: Writable, members: Mapping[str, Array], format: Format, path: str) -> None:
    """Write several arrays into a file of a format that can hold them."""
    kind = by_suffix(path)
    assert format.save_members
    if not kind:
        format.save_members(stream, members)
        return
    compressing = CompressedStream(stream, kind)
    format.save_members(compressing, members)
    compressing.finish()


def save(stream: Writable, array: Array, options: WriteOptions) -> None:
    """Write a whole array."""
    writer = create_writer(stream, array.shape, array.dtype, options)
    if array.size:
        writer.write(array.reshape(-1))
    writer.finish()
