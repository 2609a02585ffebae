"""The entries of the binary formats: their names, first bytes and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xentcli.files.format import ZIP, Format, Inspected, starts_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from xentcli.arrays.dtypes import Array
    from xentcli.files.options import ReadOptions, WriteOptions
    from xentcli.files.reader import Reader
    from xentcli.files.sink import Writable
    from xentcli.files.source import Source
    from xentcli.files.writer import Writer

    Shape = tuple[int, ...]
    Dtype = np.dtype[Any]


def _open_npy(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.npy.reader import open_npy

    return open_npy(source, options)


def _create_npy(stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions) -> Writer:
    from xentcli.files.npy.writer import NpyWriter

    return NpyWriter(stream, shape, dtype)


def _inspect_npy(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.npy.reader import inspect_npy

    return [inspect_npy(source, stats)]


def _open_npz(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.npz import open_npz

    return open_npz(source, options)


def _create_npz(stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions) -> Writer:
    from xentcli.files.npz import NpzWriter

    return NpzWriter(stream, shape, dtype, options.key)


def _save_npz(stream: Writable, members: Mapping[str, Array]) -> None:
    from xentcli.files.npz import save_npz

    save_npz(stream, members)


def _inspect_npz(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.npz import inspect_npz

    return inspect_npz(source, options, stats)


def _npz_names(source: Source) -> list[str]:
    from xentcli.files.npz import member_names

    return member_names(source)


def _is_safetensors(start: bytes) -> bool:
    """A header of at most 4 GB, in JSON; no text has a NUL there."""
    return start[4:9] == b"\0\0\0\0{"


def _open_safetensors(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.safetensors import open_safetensors

    return open_safetensors(source, options)


def _create_safetensors(
    stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions
) -> Writer:
    from xentcli.files.safetensors import SafetensorsWriter

    return SafetensorsWriter(stream, shape, dtype, options.key)


def _save_safetensors(stream: Writable, members: Mapping[str, Array]) -> None:
    from xentcli.files.safetensors import save_safetensors

    save_safetensors(stream, members)


def _inspect_safetensors(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.safetensors import inspect_safetensors

    return inspect_safetensors(source, options, stats)


def _safetensors_names(source: Source) -> list[str]:
    from xentcli.files.safetensors import member_names

    return member_names(source)


def _open_zarr(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.zarr.reader import open_zarr

    return open_zarr(source, options)


def _create_zarr(stream: Writable, shape: Shape, dtype: Dtype, options: WriteOptions) -> Writer:
    from xentcli.files.zarr.writer import create_zarr

    return create_zarr(stream, shape, dtype, options.path)


def _inspect_zarr(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.zarr.reader import inspect_zarr

    return inspect_zarr(source, options, stats)


def _zarr_names(source: Source) -> list[str]:
    from xentcli.files.zarr.reader import member_names

    return member_names(source)


def _open_kld(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.kld import open_kld

    return open_kld(source, options)


def _is_pytorch(start: bytes) -> bool:
    """A zip whose first member is the pickle."""
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return start.startswith(ZIP) and name.endswith(b"/data.pkl")


def _open_pytorch(source: Source, options: ReadOptions) -> Reader:
    from xentcli.files.pytorch import open_pytorch

    return open_pytorch(source, options)


def _inspect_pytorch(source: Source, options: ReadOptions, stats: bool) -> Inspected:
    from xentcli.files.pytorch import inspect_pytorch

    return inspect_pytorch(source, options, stats)


def _pytorch_names(source: Source) -> list[str]:
    from xentcli.files.pytorch import member_names

    return member_names(source)


BINARY = (
    Format(
        "npy",
        suffixes=("npy",),
        matches=starts_with(b"\x93NUMPY"),
        open_reader=_open_npy,
        create_writer=_create_npy,
        inspect=_inspect_npy,
        is_raw=True,
    ),
    Format(
        "npz",
        suffixes=("npz",),
        matches=lambda start: start.startswith(ZIP) and not _is_pytorch(start),
        open_reader=_open_npz,
        create_writer=_create_npz,
        save_members=_save_npz,
        inspect=_inspect_npz,
        member_names=_npz_names,
    ),
    Format(
        "safetensors",
        suffixes=("safetensors",),
        matches=_is_safetensors,
        open_reader=_open_safetensors,
        create_writer=_create_safetensors,
        save_members=_save_safetensors,
        inspect=_inspect_safetensors,
        member_names=_safetensors_names,
        is_raw=True,
    ),
    Format(
        "zarr",
        suffixes=("zarr",),
        open_reader=_open_zarr,
        create_writer=_create_zarr,
        inspect=_inspect_zarr,
        member_names=_zarr_names,
        pipes=False,
        is_folder=True,
    ),
    Format(
        "pt",
        suffixes=("pt", "pth"),
        matches=_is_pytorch,
        open_reader=_open_pytorch,
        inspect=_inspect_pytorch,
        member_names=_pytorch_names,
    ),
    Format("kld", suffixes=("kld",), matches=starts_with(b"_logits_"), open_reader=_open_kld),
)
