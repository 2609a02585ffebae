"""Arrays from paths and to streams, in any of the registered formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from xentcli.arrays.dtypes import Array
from xentcli.errors import OptionError, Setting
from xentcli.files import registry
from xentcli.files.format import Format
from xentcli.files.keys import LOGITS, TARGETS, known_key
from xentcli.files.options import DEFAULT, ReadOptions, WriteOptions
from xentcli.files.reader import InMemoryReader, Reader
from xentcli.files.sink import Writable
from xentcli.files.source import Source, open_source
from xentcli.files.writer import Writer


@contextmanager
def open_reader(path: str, options: ReadOptions = DEFAULT) -> Iterator[Reader]:
    """The array in a file, or on standard input for `-`, to be read piece by piece."""
    with open_source(path) as source:
        yield reader_of(source, registry.input_format(source, path, options.format), options)


@contextmanager
def open_both(
    path: str, logits: ReadOptions, targets: ReadOptions
) -> Iterator[tuple[Reader, Reader]]:
    """Logits and targets in one file, found by their names unless the options have a key."""
    with open_source(path) as source, ExitStack() as stack:
        format = registry.input_format(source, path, logits.format)
        if not format.member_names:
            keyed = " or ".join(registry.suffixes(registry.with_keys()))
            what = f"TARGETS is missing; one {keyed} file may hold logits and targets"
            raise OptionError(source.name, what)
        is_pipe = source.file is None
        source.make_seekable()
        with source.lookahead():
            names = format.member_names(source)
        logits = replace(logits, key=known_key(names, LOGITS, logits, source.name))
        targets = replace(targets, key=known_key(names, TARGETS, targets, source.name))
        if is_pipe:
            with source.lookahead():
                found = reader_of(source, format, targets)
                other: Reader = InMemoryReader(found.whole(), found.name, format.name)
        else:
            other = reader_of(stack.enter_context(open_source(path)), format, targets)
        yield reader_of(source, format, logits), other


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
    assert format.create_writer
    return format.create_writer(stream, shape, dtype, options)


def save(stream: Writable, array: Array, options: WriteOptions) -> None:
    """Write a whole array."""
    writer = create_writer(stream, array.shape, array.dtype, options)
    if array.size:
        writer.write(array.reshape(-1))
    writer.finish()
