"""From ONNX nodes to native steps, one file per family. What no lowering takes stays with its portable kernel."""

from __future__ import annotations

from .pointwise import CONTRIB, POINTWISE
from .step import Lowering
from .table import LOWERINGS

__all__ = ["LOWERINGS", "Lowering", "is_native"]


def is_native(domain: str, op_type: str) -> bool:
    """True if the engine runs some forms of an operator."""
    chains = {"": POINTWISE, "com.microsoft": CONTRIB}
    return (domain, op_type) in LOWERINGS or op_type in chains.get(domain, {})
