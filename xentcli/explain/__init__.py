"""The derivation of one row's gradient, step by step: as data and as a document."""

from xentcli.explain.compute import derive
from xentcli.explain.derivation import Derivation

__all__ = ["Derivation", "derive"]
