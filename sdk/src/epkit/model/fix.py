"""Giving symbolic dimensions of the inputs a value, before types and shapes are inferred."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..errors import OptionError
from .read import ReadModel


def fix_dimensions(read: ReadModel, values: Mapping[str, int]) -> None:
    """Replace each named dimension of the graph's inputs by its value, in place.

    Raises:
        OptionError: if no input has a dimension of that name, or a value is negative.
    """
    names = {
        dim.value
        for value in read.model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim)
    }
    for name, size in values.items():
        if name not in names or size < 0:
            known = ", ".join(sorted(filter(None, names))) or "none"
            raise OptionError(
                f"cannot fix dimension {name!r} to {size}",
                remedy=f"the symbolic dimensions of the inputs are: {known}; sizes start at 0",
            ).at(stage="read", model=read.name)
    if values:
        _fix_graph(read.model.graph, values)
        _fix_skeleton(read, values)


def _fix_graph(graph: ir.Graph, values: Mapping[str, int]) -> None:
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            dims = [values.get(d.value or "", d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape]
            value.shape = ir.Shape(dims)


def _fix_skeleton(read: ReadModel, values: Mapping[str, int]) -> None:
    if read.skeleton is None:
        return
    graph = read.skeleton.graph
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in values:
                dim.dim_value = values[dim.dim_param]
