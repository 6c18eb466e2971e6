"""Portable operator meanings, written once against an array namespace.

One file per family. Used by constant folding, by the CPU fallback and by any provider whose device has
an array library.
"""

from __future__ import annotations

import importlib
from functools import cache

from .operator import DECLARED, Operator, OperatorTable, make_operator, op

__all__ = ["Operator", "OperatorTable", "make_operator", "op", "table"]

FAMILIES = (
    "elementwise",
    "arithmetic",
    "logic",
    "cast",
    "activation",
    "softmax",
    "quantize",
    "creation",
    "random",
    "shape",
    "crop",
    "index",
    "select",
    "resize",
    "grid",
    "sequence",
    "text",
    "reduce",
    "matmul",
    "conv",
    "pool",
    "normalize",
    "recurrent",
    "attention",
    "loss",
    "signal",
    "detection",
    "image",
    "training",
    "ml",
    "ml_encode",
    "ml_linear",
    "trees",
)


@cache
def table() -> OperatorTable:
    """The table of all portable operators (the families are imported on the first call)."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    result = OperatorTable()
    for operator in DECLARED:
        result.add(operator)
    return result
