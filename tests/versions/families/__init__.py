"""The generators, one file per family of operators."""

from __future__ import annotations

from . import binary, unary

__all__ = ["binary", "unary"]
