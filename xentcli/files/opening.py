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
from xentcli.files.reader import InMemoryReader, Reader
from xentcli.files.sink import Writable
from xentcli.files.source import Source, open_source
from xentcli.files.writer import Writer


@contextmanager
def open_input(path: str, *, raw: bool = False) -> Iterator[tuple[Source, str]]:
    """The bytes of a path, decompressed, and the path without the suffix of a compression.

    Raw numbers may begin with any bytes, so that only the suffix shows that they are compressed.
    """
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

            yield open_raw(source, options.raw)
            return
        yield reader_of(source, registry.input_format(source, bare, options.format), options)


@contextmanager
def open_both(
    path: str, logits: ReadOptions, targets: ReadOptions
) -> Iterator[tuple[Reader, Reader]]:
    """Logits and targets in one file, found by their names unless the options have a key."""
    with open_input(path) as (source, bare), ExitStack() as stack:
        format = registry.input_format(source, bare, logits.format)
        if not format.member_names:
            keyed = " or ".join(registry.suffixes(registry.with_keys()))
            what = f"TARGETS is missing; one {keyed} file may hold logits and targets"
            raise OptionError(source.name, what)
        with _again(source, path) as first:
            names = format.member_names(first)
        logits = replace(logits, key=known_key(names, LOGITS, logits, source.name))
        targets = replace(targets, key=known_key(names, TARGETS, targets, source.name))
        if source.can_be_opened_again:
            found: Reader = reader_of(stack.enter_context(_again(source, path)), format, targets)
        else:
            with _again(source, path) as first:
                reader = reader_of(first, format, targets)
                found = InMemoryReader(reader.whole(), reader.name, format.name)
        yield reader_of(source, format, logits), found


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
    assert format.open_reader
    reader = format.open_reader(source, options)
    reader.format = format.name
    return reader


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
