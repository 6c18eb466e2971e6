"""Slices that cut a value into consecutive pieces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from .rule import Scope, Verdict, input_of, rule


class _Cut(NamedTuple):
    start: int
    end: int
    node: ir.Node


@rule("Slice")
def slices_to_split(node: ir.Node, scope: Scope) -> Verdict:
    """Slice(x, 0:a), Slice(x, a:b), ..., Slice(x, z:n) along one axis of n = Split(x, [a, b - a, ..., n - z])."""
    data = node.inputs[0]
    if data is None or data.shape is None or scope.opset(node) < 13:
        return False
    axis = _axis(node)
    size = None if axis is None else data.shape[axis]
    if axis is None or not isinstance(size, int):
        return False
    siblings = [
        u.node for u in data.uses() if u.node.op_type == "Slice" and u.node.domain == "" and u.idx == 0
    ]
    if len(siblings) < 2 or any(each.graph is not node.graph for each in siblings):
        return False
    cuts = sorted(cut for each in siblings if (cut := _cut(each, axis, size)) is not None)
    if len(cuts) != len(siblings) or not cuts:
        return False
    edges = [cut.start for cut in cuts] + [size]
    if edges[0] != 0 or any(cut.end != end for cut, end in zip(cuts, edges[1:], strict=True)):
        return f"the slices of {data.name} are {[(c.start, c.end) for c in cuts]}: not all of 0..{size}, once"
    _split(data, axis, cuts, scope)
    return True


def _split(data: ir.Value, axis: int, cuts: list[_Cut], scope: Scope) -> None:
    first = min((cut.node for cut in cuts), key=lambda node: scope.place(node))
    sizes = scope.constant(np.array([cut.end - cut.start for cut in cuts], np.int64), f"{data.name}/split")
    outputs = [ir.Value(type=cut.node.outputs[0].type, shape=cut.node.outputs[0].shape) for cut in cuts]
    split = ir.Node(
        "",
        "Split",
        [data, sizes],
        [ir.AttrInt64("axis", axis)],
        outputs=outputs,
        version=first.version,
        name=scope.fresh(f"{first.name}/Split"),
    )
    scope.insert(first, split)
    for cut, new in zip(cuts, outputs, strict=True):
        old = cut.node.outputs[0]
        name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
    scope.remove([cut.node for cut in cuts])


def _axis(node: ir.Node) -> int | None:
    """The only axis of a slice with constant bounds, counted from the front."""
    data, axes, starts = node.inputs[0], constant_of(input_of(node, 3)), constant_of(input_of(node, 1))
    if data is None or not data.shape or starts is None or starts.size != 1:
        return None
    if input_of(node, 3) is None:
        return 0
    return None if axes is None or axes.size != 1 else int(axes.ravel()[0]) % len(data.shape)


def _cut(node: ir.Node, axis: int, size: int) -> _Cut | None:
    if _axis(node) != axis:
        return None
    starts, ends = constant_of(input_of(node, 1)), constant_of(input_of(node, 2))
    steps = constant_of(input_of(node, 4)) if input_of(node, 4) is not None else np.array([1])
    if any(each is None or each.size != 1 for each in (starts, ends, steps)):
        return None  # not known, or an error, which the node reports when it runs
    assert starts is not None and ends is not None and steps is not None
    if int(steps.ravel()[0]) != 1:
        return None
    start, end, _ = slice(int(starts.ravel()[0]), int(ends.ravel()[0])).indices(size)
    return _Cut(start, end, node) if start < end else None


RULES = (slices_to_split,)
