"""Shapes that onnx's inference leaves open although they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import reduce
from math import prod

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ..model.infer import INVENTED
from ..model.walk import graphs_with_nodes
from .dims import broadcast, elements
from .shapes import terms, times

Dims = list[int | ir.SymbolicDim]


def refine_shapes(model: ir.Model) -> int:
    """Write down dimensions that follow from a node's constants; no node changes."""
    return sum(_refine(node) for _, nodes in graphs_with_nodes(model.graph) for node in nodes)


def _refine(node: ir.Node) -> int:
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    found = rule(node) if rule is not None else None
    output = node.outputs[0]
    if found is None:
        return 0
    known = found if output.shape is None else list(output.shape)
    if len(known) != len(found):
        return 0
    pairs = zip(known, found, strict=True)
    better = [old if isinstance(old, int) or _unnamed(new) else new for old, new in pairs]
    if output.shape is not None and better == known:
        return 0
    output.shape = ir.Shape(better)
    # a name that inference made up is lost when it runs again: writing one down must not make it run again
    return int(any(_is_lasting(dim) for dim, old in zip(better, known, strict=True) if dim != old))


def _is_lasting(dim: int | ir.SymbolicDim) -> bool:
    return isinstance(dim, int) or not str(dim.value).startswith(INVENTED)


def _slice(node: ir.Node) -> Dims | None:
    """Slice leaves the axes alone that it does not name; the first ``length`` of n rows are Min(n, length)."""
    data = node.inputs[0]
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if data is None or data.shape is None or axes is None:
        return None
    rank = len(data.shape)
    if any(not -rank <= axis < rank for axis in axes.ravel()):
        return None  # an error, which the node reports when it runs
    touched = {int(axis) % rank for axis in axes.ravel()}
    found: Dims = [ir.SymbolicDim(None) if i in touched else dim for i, dim in enumerate(data.shape)]
    if len(touched) == 1:
        (axis,) = touched
        found[axis] = _first(data.shape[axis], node)
    return found


def _first(rows: int | ir.SymbolicDim, node: ir.Node) -> int | ir.SymbolicDim:
    start, end = (elements(value) for value in node.inputs[1:3])
    steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
    if start != [0] or end is None or len(end) != 1 or steps is None or steps.ravel().tolist() != [1]:
        return ir.SymbolicDim(None)
    if isinstance(end[0], int) or end[0].value is None or not isinstance(rows, int):
        return ir.SymbolicDim(None)
    return ir.SymbolicDim(f"Min({rows}, {end[0].value})")


def _elementwise(node: ir.Node) -> Dims | None:
    """What is known of a part of a table tells, against the whole, that it is all of it."""
    is_part, shapes = False, []
    for value in node.inputs:  # loops: this is asked for most nodes of most models
        if value is None or value.shape is None:
            return None
        dims = value.shape.dims
        shapes.append(dims)
        for dim in dims:
            if not isinstance(dim, int) and dim.value is not None and dim.value.startswith("Min("):
                is_part = True
    return reduce(broadcast, map(list, shapes)) if is_part else None


def _reshape(node: ir.Node) -> Dims | None:
    """A reshape keeps the number of elements: where all other named dimensions are on both sides, one follows."""
    data, output = node.inputs[0], node.outputs[0]
    if data is None or data.shape is None or output.shape is None:
        return None
    before, after = list(data.shape), list(output.shape)
    mine, theirs = (Counter(terms(d)[1] for d in dims if not isinstance(d, int)) for dims in (before, after))
    if None in mine or theirs[None] > 1:
        return None
    unknown = [None] if theirs[None] else list((theirs - mine).elements())
    theirs.subtract(unknown)
    missing = list((mine - theirs).elements())
    numbers = [prod(terms(dim)[0] for dim in dims) for dims in (before, after)]
    if len(unknown) != 1 or not all(numbers) or (theirs - mine):
        return None
    if len(missing) > 1 or numbers[0] % numbers[1]:
        return None
    count, name = numbers[0] // numbers[1], missing[0] if missing else None
    return [
        times(terms(dim)[0] * count, name)
        if not isinstance(dim, int) and terms(dim)[1] == unknown[0]
        else dim
        for dim in after
    ]


def _expand(node: ir.Node) -> Dims | None:
    """Expand to dimensions that are computed, from the shapes of other values, say."""
    data, target = node.inputs[0], elements(node.inputs[1])
    return (
        None if data is None or data.shape is None or target is None else broadcast(list(data.shape), target)
    )


def _tile(node: ir.Node) -> Dims | None:
    """Tile leaves the axes alone that it repeats once."""
    data, repeats = node.inputs[0], constant_of(node.inputs[1]) if len(node.inputs) == 2 else None
    if data is None or data.shape is None or repeats is None or repeats.size != len(data.shape):
        return None
    return [_times(dim, int(count)) for dim, count in zip(data.shape, repeats, strict=True)]


def _times(dim: int | ir.SymbolicDim, count: int) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim * count
    return dim if count == 1 else ir.SymbolicDim(None)


def _range(node: ir.Node) -> Dims | None:
    """Range(0, n, 1) has n elements."""
    start, limit, step = (elements(value) for value in node.inputs)
    if start != [0] or step != [1] or limit is None or len(limit) != 1:
        return None
    return None if isinstance(limit[0], int) and limit[0] < 0 else limit


def _unnamed(dim: int | ir.SymbolicDim) -> bool:
    return not isinstance(dim, int) and dim.value is None


_RULES: dict[str, Callable[[ir.Node], Dims | None]] = {
    "Slice": _slice,
    "Reshape": _reshape,
    "Expand": _expand,
    "Range": _range,
    "Tile": _tile,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "And", "Or", "Where"), _elementwise),
}
REFINED = frozenset(_RULES)
"""The operators of the standard of which something is known here."""
