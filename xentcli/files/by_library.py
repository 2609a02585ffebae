"""The entries of the formats that are read by libraries, which extras install."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentcli.files.format import Format, Inspected, starts_with

if TYPE_CHECKING:
    from xentcli.files.options import ReadOptions
    from xentcli.files.reader import Reader
    from xentcli.files.source import Source


def _open_parquet(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.arrow.parquet import open_parquet

    return open_parquet(source, options)


def _inspect_parquet(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.arrow.parquet import inspect_parquet

    return inspect_parquet(source, options, stats)


def _parquet_names(source: Source) -> list[str]:
    from xentcli.files.arrow.parquet import member_names

    return member_names(source)


def _open_arrow(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.arrow.ipc import open_arrow

    return open_arrow(source, options)


def _inspect_arrow(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.arrow.ipc import inspect_arrow

    return inspect_arrow(source, options, stats)


def _arrow_names(source: Source) -> list[str]:
    from xentcli.files.arrow.ipc import member_names

    return member_names(source)


def _open_hdf5(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.hdf5 import open_hdf5

    return open_hdf5(source, options)


def _inspect_hdf5(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.hdf5 import inspect_hdf5

    return inspect_hdf5(source, options, stats)


def _hdf5_names(source: Source) -> list[str]:
    from xentcli.files.hdf5 import member_names

    return member_names(source)


BY_LIBRARY = (
    Format(
        "parquet",
        suffixes=("parquet",),
        matches=starts_with(b"PAR1", b"PARE"),
        open_reader=_open_parquet,
        inspect=_inspect_parquet,
        member_names=_parquet_names,
        has_columns=True,
    ),
    Format(
        "arrow",
        suffixes=("arrow", "feather"),
        matches=starts_with(b"ARROW1", b"FEA1", b"\xff\xff\xff\xff"),
        open_reader=_open_arrow,
        inspect=_inspect_arrow,
        member_names=_arrow_names,
        has_columns=True,
    ),
    Format(
        "hdf5",
        suffixes=("h5", "hdf5"),
        matches=starts_with(b"\x89HDF\r\n\x1a\n"),
        open_reader=_open_hdf5,
        inspect=_inspect_hdf5,
        member_names=_hdf5_names,
    ),
)
