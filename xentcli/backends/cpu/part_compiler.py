"""Numba's compiler for functions that are only parts of others, and never called by themselves.

A kernel has about 100 parts. Numba makes machine code of each, though only that of the whole is
used: a sixth of the time that a kernel takes to compile.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

# This is no public interface of Numba's: later versions make machine code of each part.
IS_KNOWN = numba.version_info.full[:2] <= (0, 68)


class PartCompiler(Compiler):
    """The usual compiler, with a library of its own."""

    def compile_extra(self, function: Any) -> Any:
        """Compile a function."""
        if self.state.library is None and IS_KNOWN:
            codegen = self.state.targetctx.codegen()
            self.state.library = PartLibrary(codegen, function.__qualname__)
            self.state.library.enable_object_caching()
        return super().compile_extra(function)


class PartLibrary(JITCodeLibrary):
    """LLVM code to be linked into other libraries: optimised, and not made into machine code."""

    @property
    def codegen(self) -> Any:
        """What Numba would set in the machine code."""
        return _NoMachineCode

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0: there is no machine code to point to."""
        self._ensure_finalized()
        return 0


class _NoMachineCode:
    """Takes the place of Numba's code generator once a function is compiled."""

    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Nothing: no machine code has a pointer to it."""
