"""Operators of the domain com.microsoft, as an operator package: one hook, one file a family."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from epkit.backend import CustomOperator, hookimpl

from .declare import DECLARED

FAMILIES = (
    "activation",
    "attention",
    "causal_conv",
    "decoder_attention",
    "gated_delta_net",
    "generation",
    "group_query",
    "leftovers",
    "linear_attention",
    "matmul",
    "moe",
    "normalize",
    "packed_attention",
    "quantized",
    "quantized_elementwise",
    "quantized_moe",
    "quantized_nn",
    "rotary",
    "sequences",
    "texts",
    "vision",
    "misc",
)


@hookimpl
def epkit_operators() -> Sequence[CustomOperator]:
    """All operators of this package."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return tuple(DECLARED)
