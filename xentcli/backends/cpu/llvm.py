"""LLVM's own way to put object code into memory, by llvmlite alone, without Numba.

LLVM's ORC is used because a symbol that does not exist is an error there. LLVM's older MCJIT, which
Numba uses, ends the process.
"""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any

from llvmlite import binding

_library_numbers = count()


def link(code: bytes, symbol: str) -> int:
    """The address of a function, once its object file is in memory."""
    name = f"xent{next(_library_numbers)}"
    builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
    library = builder.export_symbol(symbol).link(_jit(), name)
    address: int = library[symbol]
    library.detach()  # never unloaded: a thread may still run it when the process ends
    return address


@cache
def _jit() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(suppress_errors=True)  # on stderr; they are raised


def processor() -> tuple[str, str, str]:
    """The platform, the processor's name and its features."""
    features = binding.get_host_cpu_features().flatten()
    return binding.get_process_triple(), binding.get_host_cpu_name(), features
