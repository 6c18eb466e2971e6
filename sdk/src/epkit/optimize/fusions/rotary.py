"""Rotary position embedding. Su et al., "RoFormer" (2021)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from ...backend.subgraph import constant_of
from ..fuse import Fused, Inside, fusion
from ..pattern import Match
from ..rule import Rule, Scope, Verdict, input_of, producer, rule
from ..shapes import dims_text, rank_of, same_dim

_ROTARY = ("rotary_embedding", "rotary_embedding_of_microsoft", "rotary_embedding_by_sample")


@rule("Cos", "Sin", "Cast", "Gather", "Slice", serves=_ROTARY)
def halve_angles(node: ir.Node, scope: Scope) -> Verdict:
    """f([a, a]) = [f(a), f(a)], f being cos, sin, a cast, or a choice of rows: half the work, and equal halves.

    A table of angles that is known may have its halves equal, too.
    """
    data = node.inputs[0]
    if node.op_type in ("Gather", "Slice") and not _takes_rows(node):
        return False
    half = _half(data, node, scope) if data is not None and _leads_to_product(node) else None
    if data is None or half is None:
        return False
    name = scope.fresh(f"{node.name}/half")
    one = ir.Node(
        "",
        node.op_type,
        [half, *node.inputs[1:]],
        list(node.attributes.values()),
        version=node.version,
        name=name,
    )
    one.outputs[0].type, one.outputs[0].shape = node.outputs[0].type, _half_shape(node.outputs[0])
    scope.insert(node, one)
    return scope.replace(node, _twice(one.outputs[0], node, node.outputs[0], scope))


def _twice(half: ir.Value, before: ir.Node, like: ir.Value, scope: Scope) -> ir.Value:
    return scope.make(before, "Concat", [half, half], {"axis": -1}, 13, like)


def _half(value: ir.Value, reader: ir.Node, scope: Scope) -> ir.Value | None:
    """The a of [a, a] along the last axis, or None where the halves are not the same for certain."""
    joined = producer(value, "Concat")
    if joined is not None:
        is_last = value.shape is not None and joined.attributes["axis"].as_int() in (-1, len(value.shape) - 1)
        same = len(joined.inputs) == 2 and joined.inputs[0] is joined.inputs[1]
        return joined.inputs[0] if is_last and same else None
    array = constant_of(value) if reader.op_type in ("Gather", "Slice") else None
    if array is None or array.ndim != 2 or array.shape[1] % 2 or array.dtype.kind not in "fV":
        return None
    key = ("half", value)
    if key not in scope.memo:
        one, other = np.split(array, 2, axis=1)
        if not np.array_equal(one, other):
            return None
        scope.memo[key] = scope.constant(np.ascontiguousarray(one), f"{value.name}/half")
    return scope.memo[key]


def _half_shape(value: ir.Value) -> ir.Shape | None:
    if value.shape is None:
        return None
    *dims, last = value.shape
    return ir.Shape([*dims, last // 2 if isinstance(last, int) else None])


def _takes_rows(node: ir.Node) -> bool:
    """Whether a Gather or a Slice is along the first axis of a matrix."""
    data = node.inputs[0]
    if data is None or data.shape is None or len(data.shape) != 2:
        return False
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) in (0, -2)
    axes = constant_of(input_of(node, 3))
    return axes is not None and axes.ravel().tolist() in ([0], [-2])


def _leads_to_product(node: ir.Node) -> bool:
    """Whether what a node makes becomes the factor of something, at once or in another form."""
    for _ in range(6):
        readers = [use.node for use in node.outputs[0].uses()]
        if not readers:
            return False
        node = readers[0]
        if node.op_type == "Mul":
            return True
        if node.op_type not in ("Cos", "Sin", "Cast", "Gather", "Slice", "Unsqueeze"):
            return False
    return False


@rule("Mul", serves=_ROTARY)
def spell_out_angles(node: ir.Node, scope: Scope) -> Verdict:
    """x · c = x · Unsqueeze([h, h], 1) for known angles c = [h, h], where two such products are added: a rotation."""
    for side in (0, 1):
        array, value = constant_of(node.inputs[side]), node.inputs[side]
        if array is None or value is None or not _is_rotation(node):
            continue
        *ones, length, size = (1, 1, *array.shape) if array.ndim >= 2 else (0, 0, 0)
        one, other = np.split(array.reshape(-1, size), 2, axis=1) if size and size % 2 == 0 else (array, None)
        if any(n != 1 for n in ones) or other is None or not np.array_equal(one, other):
            return False
        key = ("angles", value)
        if key not in scope.memo:
            half = scope.constant(np.ascontiguousarray(one)[None], f"{value.name}/half")
            both = scope.make(scope.graph[0], "Concat", [half, half], {"axis": 2}, 13)
            both.type, both.shape = value.type, ir.Shape([1, length, size])
            axes = scope.constant(np.array([1], np.int64), "second")
            maker = both.producer()
            assert maker is not None
            behind = next(after for before, after in pairwise(scope.graph) if before is maker)
            scope.memo[key] = scope.make(behind, "Unsqueeze", [both, axes], version=13)
            scope.memo[key].type, scope.memo[key].shape = value.type, ir.Shape([1, 1, length, size])
        node.replace_input_with(side, scope.memo[key])
        return True
    return False


def _is_rotation(node: ir.Node) -> bool:
    """Whether a product of four axes is added to another, and one of them is that of the turned halves."""
    uses = list(node.outputs[0].uses())
    if rank_of(node.outputs[0]) != 4 or len(uses) != 1 or uses[0].node.op_type != "Add":
        return False
    products = [producer(value, "Mul") for value in uses[0].node.inputs]
    joined = [producer(value, "Concat") for each in products if each is not None for value in each.inputs]
    return None not in products and any(j and producer(j.inputs[0], "Neg") for j in joined)


@rule("Concat", serves=_ROTARY)
def lift_angles(node: ir.Node, scope: Scope) -> Verdict:
    """Angles [length, size] that all samples share, as [1, 1, length, size]: as a factor of heads they are the same."""
    both, shape = node.outputs[0], node.outputs[0].shape
    if shape is None or len(shape) != 2 or _half(both, node, scope) is None or both.is_graph_output():
        return False
    readers = [use.node for use in both.uses()]
    wide = [each for each in readers if each.op_type == "Unsqueeze" and _lifts(each)]
    factors = [each for each in readers if each.op_type == "Mul" and rank_of(each.outputs[0]) == 4]
    if not readers or len(wide) + len(factors) != len(readers):
        return False
    half, first = node.inputs[0], [1, *shape]
    row = scope.make(node, "Unsqueeze", [half, scope.constant(np.array([0]), "first")], version=13)
    assert half is not None
    row.type = half.type
    row.shape = None if half.shape is None else ir.Shape([1, *half.shape])
    joined = _twice(row, node, both, scope)
    joined.shape = ir.Shape(first)
    whole = scope.make(node, "Unsqueeze", [joined, scope.constant(np.array([1]), "second")], version=13)
    whole.type, whole.shape = both.type, ir.Shape([1, *first])
    for each in wide:
        each.outputs[0].replace_all_uses_with(whole, replace_graph_outputs=True)
    for each in factors:
        each.replace_input_with(each.inputs.index(both), whole)
    scope.remove([*wide, node])
    return True


def _lifts(node: ir.Node) -> bool:
    """Whether an Unsqueeze makes four axes of two, the new ones in front; and is no result."""
    given = node.attributes.get("axes")
    axes = constant_of(input_of(node, 1)) if given is None else np.array(given.as_ints())
    if axes is None or node.outputs[0].is_graph_output():
        return False
    return sorted(axes.ravel() % 4) == [0, 1]


_BOTH = "Concat({0}, {0}, axis=joined)"
_ANGLES = f"shared(Any(Unsqueeze({_BOTH}, [1]), Unsqueeze({_BOTH}, axes=[1])))"
_FORMULA, _IN_TWO = (
    f"""
    low, high = {split}
    y = x * {_ANGLES.format("cos")} + Concat(Neg(high), low, axis=turned) * {_ANGLES.format("sin")}
    """
    for split in ("Split(x, array(sizes), axis=split)", "Split(x, num_outputs=2, axis=split)")
)


@fusion("RotaryEmbedding-23(x, cos, sin, position_ids) -> y", _FORMULA, _IN_TWO)
def rotary_embedding(match: Match) -> Fused | str:
    """RotaryEmbedding([a, b], c, s) = [a c - b s, b c + a s] for the halves a and b of each head."""
    problem = _halves(match)
    x, cos = match["x"].shape, match["cos"].shape
    if problem or x is None or cos is None:
        return problem or "unknown shapes"
    if not same_dim(cos[0], x[0]):
        return (
            f"the angles {dims_text(match['cos'])} are not given for each sample of {dims_text(match['x'])}"
        )
    return Fused()


@fusion("ms.RotaryEmbedding(x, position_ids, cos_cache, sin_cache) -> y", _FORMULA, _IN_TWO)
def rotary_embedding_of_microsoft(match: Match, scope: Scope) -> Fused | str:
    """com.microsoft.RotaryEmbedding: the same, where all samples have the positions 0, 1, 2, ... of the cache."""
    problem = _halves(match)
    cos = match["cos"].shape
    if problem or cos is None:
        return problem or "unknown shapes"
    if cos[0] != 1:
        return f"the angles {dims_text(match['cos'])} differ from sample to sample"
    inputs = {f"{name}_cache": _without_batch(match[name], match.root, scope) for name in ("cos", "sin")}
    inputs["position_ids"] = _zero(scope)
    axes = (np.array([0], np.int64),)
    inside = {name: Inside("Unsqueeze", f"{name}_cache", axes) for name in ("cos", "sin")}
    return Fused(inputs=inputs, inside=inside)


@fusion("RotaryEmbedding-23(x, cos, sin, position_ids) -> y", _FORMULA, _IN_TWO)
def rotary_embedding_by_sample(match: Match, scope: Scope) -> Fused | str:
    """RotaryEmbedding, with angles that all samples share repeated for each: the operator wants them so."""
    problem = _halves(match)
    x, cos = match["x"].shape, match["cos"].shape
    if problem or x is None or cos is None:
        return problem or "unknown shapes"
    if cos[0] != 1:
        return f"the angles {dims_text(match['cos'])} differ from sample to sample"
    return Fused(
        inputs={name: _repeated(match[name], match["x"], match.root, scope) for name in ("cos", "sin")}
    )


def _repeated(value: ir.Value, x: ir.Value, root: ir.Node, scope: Scope) -> ir.Value:
    """[1, length, pairs] as [batch, length, pairs], the batch being that of x."""
    assert x.shape is not None and value.shape is not None
    batch = x.shape[0]
    if isinstance(batch, int):
        target = scope.constant(np.array([batch, 1, 1], np.int64), f"{value.name}/samples")
    else:
        rows = scope.make(root, "Shape", [x], {"start": 0, "end": 1}, version=15)
        ones = scope.constant(np.array([1, 1], np.int64), "ones")
        target = scope.make(root, "Concat", [rows, ones], {"axis": 0}, version=13)
    made = scope.make(root, "Expand", [value, target], version=13)
    made.type, made.shape = value.type, ir.Shape([batch, *list(value.shape)[1:]])
    return made


def _halves(match: Match) -> str | None:
    """Why the parts are not the halves of heads [batch, heads, length, size], or None."""
    x, given = match["x"], match.attributes
    for name in ("cos", "sin"):
        angles = match[name]
        if x.shape is None or len(x.shape) != 4 or angles.shape is None or len(angles.shape) != 3:
            return f"{dims_text(x)} should have 4 axes, and {dims_text(angles)} 3"
        size, half = x.shape[3], angles.shape[2]
        sizes = list(given.get("sizes", [half, half]))
        if not isinstance(size, int) or size != 2 * half or sizes != [half, half]:
            return f"{dims_text(x)} is split into {sizes}, with {half} angles"
        if not same_dim(angles.shape[1], x.shape[2]):
            return f"{dims_text(angles)} may have another length than {dims_text(x)}"
    axes = [given["split"], given["turned"]]
    if any(axis not in (-1, 3) for axis in axes) or given["joined"] not in (-1, 2):
        return f"the halves are cut along the axes {axes}"
    return None


def _without_batch(value: ir.Value, root: ir.Node, scope: Scope) -> ir.Value:
    """[1, length, pairs] as [length, pairs]; made once, where the angles are made."""
    key = ("without batch", value)
    if key not in scope.memo:
        reader = min((use.node for use in value.uses() if use.node.graph is scope.graph), key=scope.place)
        axes = scope.constant(np.array([0], np.int64), "first_axis")
        scope.memo[key] = scope.make(reader, "Squeeze", [value, axes], version=13)
        made = scope.memo[key]
        made.type = value.type
        made.shape = None if value.shape is None else ir.Shape(list(value.shape)[1:])
    return scope.memo[key]


def _zero(scope: Scope) -> ir.Value:
    if "zero" not in scope.memo:
        scope.memo["zero"] = scope.constant(np.array([0], np.int64), "first_position")
    return scope.memo["zero"]


RULES: tuple[Rule, ...] = (
    halve_angles,
    spell_out_angles,
    lift_angles,
    rotary_embedding,
    rotary_embedding_of_microsoft,
    rotary_embedding_by_sample,
)
