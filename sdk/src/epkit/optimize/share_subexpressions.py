"""Common subexpressions are computed once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from ..model.walk import all_graphs


def share_subexpressions(model: ir.Model) -> int:
    """Equal operators with equal inputs and attributes become one (onnx_ir's pass; random operators stay)."""
    before = sum(len(graph) for graph in all_graphs(model.graph))
    CommonSubexpressionEliminationPass()(model)
    return before - sum(len(graph) for graph in all_graphs(model.graph))
