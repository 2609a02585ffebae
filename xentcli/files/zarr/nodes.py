"""The arrays of a zarr store: the one that it is, or those of a group, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from xentcli.errors import FileError, FormatError, OptionError, visible
from xentcli.files.keys import choose_key
from xentcli.files.options import ReadOptions
from xentcli.files.paths import is_address
from xentcli.files.store import Store
from xentcli.files.zarr.metadata import Document, ZarrArray, parse_array, parse_json

ROOT = "array"  # the name of an array that is no member of a group
V3, ARRAY_2, GROUP_2, CONSOLIDATED_2 = "zarr.json", ".zarray", ".zgroup", ".zmetadata"
METADATA = (V3, ARRAY_2, GROUP_2)


def names(store: Store) -> list[str]:
    """The names of the arrays, in order."""
    found = _node(store, "")
    return [ROOT] if found and found.is_array else sorted(_members(store, found))


def find(store: Store, options: ReadOptions) -> ZarrArray:
    """The array that the options name, or the only one."""
    root = _node(store, "")
    if root and root.is_array:
        choose_key([ROOT], options, store.name)
        return root.array(store)
    members = _members(store, root)
    key = choose_key(sorted(members), options, store.name)
    return members[key].array(store)


def every(store: Store, options: ReadOptions) -> list[ZarrArray]:
    """All arrays, or the one that the options name."""
    chosen = names(store) if options.key is None else [options.key]
    return [find(store, replace(options, key=key)) for key in chosen]


def called(store: Store, array: ZarrArray) -> str:
    """The name of an array in messages."""
    return f"{store.name}[{visible(array.key)}]" if array.key else store.name


def require_same(store: Store, array: ZarrArray) -> None:
    """An error where the metadata of an array are not what they were."""
    node = _node(store, array.key)
    if node is None or not node.is_array or not node.array(store).is_same(array):
        raise FileError(called(store, array), "changed while it was read")


class Node:
    """An array or a group, as its metadata describe it."""

    def __init__(self, key: str, version: int, document: Document, *, is_array: bool) -> None:
        self.key, self.version, self.document, self.is_array = key, version, document, is_array

    def array(self, store: Store) -> ZarrArray:
        """The array."""
        where = f"{store.name}[{visible(self.key)}]" if self.key else store.name
        return parse_array(self.document, self.version, self.key, where)


def _node(store: Store, key: str) -> Node | None:
    """The array or group at a key; None if there is none."""
    for name in METADATA:
        full = f"{key}/{name}" if key else name
        raw = store.read(full)
        if raw is not None:
            where = f"{store.name}/{visible(full)}"
            document = parse_json(raw, where)
            version, kind = document.get("zarr_format"), document.get("node_type")
            if version != (3 if name == V3 else 2):
                raise FormatError(where, f"zarr_format is {visible(str(version)[:40])}, not 2 or 3")
            is_array = kind == "array" if name == V3 else name == ARRAY_2
            return Node(key, version, document, is_array=is_array)
    return None


def _members(store: Store, root: Node | None) -> dict[str, Node]:
    """The arrays of a group, from its consolidated metadata if it has them."""
    if root is None and not is_address(store.place):
        what = "is a directory that holds no zarr array: no zarr.json, .zarray or .zgroup"
        raise FileError(store.name, what)
    if root is None:
        raise OptionError(store.name, "there is no zarr array at this address, or no such bucket")
    listed = dict(_consolidated(store, root))
    return listed or {node.key: node for node in _walk(store, "")}


def _consolidated(store: Store, root: Node) -> Iterator[tuple[str, Node]]:
    if root.version == 3:
        documents = _object(_object(root.document.get("consolidated_metadata")).get("metadata"))
    else:
        raw = store.read(CONSOLIDATED_2)
        found = parse_json(raw, f"{store.name}/{CONSOLIDATED_2}") if raw else {}
        documents = {
            key.removesuffix(f"/{ARRAY_2}"): value
            for key, value in _object(found.get("metadata")).items()
            if key.endswith(f"/{ARRAY_2}")
        }
    for key, document in documents.items():
        if not isinstance(document, dict) or {"", ".", ".."} & set(key.split("/")):
            what = f"the consolidated metadata have no array at '{visible(key[:80])}'"
            raise FormatError(store.name, what)
        if root.version == 2 or document.get("node_type") == "array":
            yield key, Node(key, root.version, document, is_array=True)


def _object(value: Any) -> Document:
    """An object of JSON; an empty one where there is something else."""
    return value if isinstance(value, dict) else {}


def _walk(store: Store, key: str) -> Iterator[Node]:
    """The arrays below a group."""
    for name in store.folders(key):
        inner = f"{key}/{name}" if key else name
        node = _node(store, inner)
        if node and node.is_array:
            yield node
        elif node:
            yield from _walk(store, inner)
