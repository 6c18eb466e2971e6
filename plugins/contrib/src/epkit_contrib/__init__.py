"""Operators of the domain com.microsoft, as an operator package: one hook, one file a family."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from epkit.backend import CustomOperator, hookimpl

from .declare import DECLARED

FAMILIES = (
    "activation",
    "attention",
    "linear_attention",
    "matmul",
    "moe",
    "normalize",
    "quantized",
    "quantized_nn",
    "rotary",
    "vision",
    "misc",
)


@hookimpl
def epkit_operators() -> Sequence[CustomOperator]:
    """All operators of this package."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return tuple(DECLARED)
