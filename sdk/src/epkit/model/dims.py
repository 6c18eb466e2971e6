"""Symbolic dimensions: fixing them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from epkit.errors import OptionError
from epkit.model.walk import all_graphs


def fix_dims(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Put numbers in the place of symbolic dimensions, in every shape of the model.

    Raises:
        OptionError: a size is no whole number, or no input has a dimension of this name.
    """
    known = {
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim)
    }
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise OptionError(
                f"The dimension {name!r} cannot be fixed to {size!r}.", remedy="give a whole number"
            )
        if name not in known:
            named = ", ".join(sorted(repr(each) for each in known if each)) or "none"
            raise OptionError(
                f"No input of the model has a dimension named {name!r}.", remedy=f"the names are: {named}"
            )
    for value in _values(model):
        if value.shape is not None and any(_size(dim, sizes) is not dim for dim in value.shape):
            value.shape = ir.Shape([_size(dim, sizes) for dim in value.shape])


def _size(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
        return sizes.get(dim.value, dim)
    return dim


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in all_graphs(model.graph):
        yield from graph.inputs
        for node in graph:
            yield from node.outputs
