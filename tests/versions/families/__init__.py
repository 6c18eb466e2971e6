"""The generators, one file per family of operators."""

from __future__ import annotations

from . import binary, index, product, recurrent, reduce, shape, unary, window

__all__ = ["binary", "index", "product", "recurrent", "reduce", "shape", "unary", "window"]
