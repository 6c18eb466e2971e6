"""From ONNX nodes to native steps, one file per family. What no lowering takes stays with its portable kernel."""

from __future__ import annotations

from .step import Lowering
from .table import LOWERINGS

__all__ = ["LOWERINGS", "Lowering"]
