"""The object file of a kernel, put into memory without LLVM, whose library takes 20 ms to load.

Numba compiles kernels for x86-64 so that they refer to their own parts by addresses of 64 bits, and
to nothing else. All that is left to do is to copy the sections and to fill in the addresses.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_ADDRESS = struct.Struct("<Q")

_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_OBJECT_FILE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA, _REL = 1, 2, 4, 9  # kinds of sections
_UNWIND = 0x70000001  # for exceptions, which kernels do not raise
_WRITE, _ALLOC = 1, 2  # flags of a section
_R_X86_64_64 = 1  # the address of a symbol and a number, added

_for_ever: list[mmap.mmap] = []  # a thread may still run the code when the process ends


class NeedsLinkerError(Exception):
    """An object file with more in it than code that refers to itself, or no memory for code."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def link(code: bytes, symbol: str) -> int:
    """The address of a function, once its object file is in memory."""
    object_file = _ObjectFile(code)
    starts, size = object_file.layout()
    if not hasattr(mmap, "PROT_EXEC"):
        raise NeedsLinkerError
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number, start in starts.items():
        data = object_file.data(number)
        memory[start : start + len(data)] = data
    addresses = object_file.addresses({number: base + start for number, start in starts.items()})
    for at, address in object_file.references(starts, addresses):
        _ADDRESS.pack_into(memory, at, address)
    _make_executable(base, size)
    _for_ever.append(memory)
    return addresses[object_file.number_of(symbol)]


class _ObjectFile:
    """The parts of an object file for x86-64."""

    def __init__(self, code: bytes) -> None:
        if len(code) < _HEADER.size or not code.startswith(_MAGIC):
            raise NeedsLinkerError
        header = _HEADER.unpack_from(code)
        (kind, machine), begin, (entry_size, count) = header[1:3], header[6], header[11:13]
        if (kind, machine, entry_size) != (_OBJECT_FILE, _X86_64, _SECTION.size):
            raise NeedsLinkerError
        table = code[begin : begin + count * entry_size]
        self._code = code
        self._sections = [_Section(*fields) for fields in _SECTION.iter_unpack(table)]
        tables = [n for n, section in enumerate(self._sections) if section.kind == _SYMTAB]
        if len(tables) != 1:
            raise NeedsLinkerError
        self._names = self.data(self._sections[tables[0]].link)
        self._symbols: list[Any] = list(_SYMBOL.iter_unpack(self.data(tables[0])))

    def data(self, number: int) -> bytes:
        """The bytes of a section."""
        section = self._sections[number]
        return self._code[section.offset : section.offset + section.size]

    def layout(self) -> tuple[dict[int, int], int]:
        """Where in memory each section begins that the code needs, and the size of all."""
        starts, end = {}, 0
        for number, section in enumerate(self._sections):
            if not section.flags & _ALLOC or not section.size or section.kind == _UNWIND:
                continue
            alignment = max(1, section.alignment)
            known = section.kind == _PROGBITS and not section.flags & _WRITE
            if not known or alignment > mmap.PAGESIZE:
                raise NeedsLinkerError
            starts[number] = -(-end // alignment) * alignment
            end = starts[number] + section.size
        return starts, max(1, end)

    def addresses(self, sections: dict[int, int]) -> dict[int, int]:
        """The address of each symbol that is in one of these sections."""
        return {
            number: sections[section] + value
            for number, (_, _, _, section, value, _) in enumerate(self._symbols)
            if section in sections
        }

    def references(
        self, starts: dict[int, int], addresses: dict[int, int]
    ) -> Iterator[tuple[int, int]]:
        """Places in memory, and the address that belongs there."""
        for number, section in enumerate(self._sections):
            if section.info not in starts or section.kind not in (_RELA, _REL):
                continue
            for offset, info, addend in _RELOCATION.iter_unpack(self.data(number)):
                symbol, kind = info >> 32, info & 0xFFFFFFFF
                if section.kind == _REL or kind != _R_X86_64_64 or symbol not in addresses:
                    raise NeedsLinkerError
                yield starts[section.info] + offset, addresses[symbol] + addend

    def number_of(self, name: str) -> int:
        """Of a symbol that is defined here."""
        wanted = name.encode() + b"\0"
        for number, (at, _, _, section, _, _) in enumerate(self._symbols):
            if section and self._names.startswith(wanted, at):
                return number
        raise NeedsLinkerError


def _make_executable(base: int, size: int) -> None:
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise NeedsLinkerError
