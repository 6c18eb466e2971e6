"""Chains of operators that only change the shape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ._edit import bypass
from .rule import Scope, Verdict, input_of, producer, rule
from .shapes import dims_text, same_dim, same_dims, same_shape

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators whose output is their first input in another shape."""


@rule("Reshape")
def fix_reshape_target(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(x, computed) = Reshape(x, constant), where each dimension is a number or copied from its place in x."""
    data, target, output = node.inputs[0], input_of(node, 1), node.outputs[0]
    if target is None or constant_of(target) is not None or data is None:
        return False
    if data.shape is None or output.shape is None:
        return f"the shape of {output.name} is unknown"
    wanted: list[int] = []
    for place, dim in enumerate(output.shape):
        if isinstance(dim, int) and dim > 0:
            wanted.append(dim)
        elif place < len(data.shape) and same_dim(dim, data.shape[place]):
            wanted.append(0)
        else:
            return (
                f"dimension {place} of {output.name} is {dim}, which is not that of {data.name} {data.shape}"
            )
    node.replace_input_with(1, scope.constant(np.array(wanted, np.int64), f"{output.name}/shape"))
    node.attributes.pop("allowzero", None)
    return True


@rule("Reshape")
def drop_allowzero(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(x, s; allowzero = 1) = Reshape(x, s), where s has no zeros."""
    target = constant_of(input_of(node, 1))
    if not node.attributes.get_int("allowzero", 0) or target is None:
        return False
    if not target.all():
        return f"the target {target.tolist()} of {node.name} has zeros that are meant"
    del node.attributes["allowzero"]
    return True


@rule("Reshape")
def merge_reshapes(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(r(x), s) = Reshape(x, s) for r that only changes the shape, where s copies no dimension of r(x)."""
    target = constant_of(input_of(node, 1))
    before = producer(node.inputs[0], *RESHAPES)
    if before is None or target is None or before.inputs[0] is None:
        return False
    if node.attributes.get_int("allowzero", 0) or (target == 0).any():
        source, copied = before.inputs[0].shape, before.outputs[0].shape
        places = [int(place) for place in np.flatnonzero(target == 0)]
        if node.attributes.get_int("allowzero", 0) or source is None or copied is None:
            return f"{node.name} copies a dimension"
        if not all(p < len(source) and same_dim(source[p], copied[p]) for p in places):
            return f"{node.name} copies a dimension that {before.name} has changed"
    node.replace_input_with(0, before.inputs[0])
    return True


@rule("Squeeze", "Unsqueeze", "Flatten")
def reshape_whole(node: ir.Node, scope: Scope) -> Verdict:
    """f(Reshape(x, s)) = Reshape(x, s') for f that only changes the shape, and s' known but for one dimension."""
    before, output = producer(node.inputs[0], "Reshape"), node.outputs[0]
    if before is None or before.inputs[0] is None or output.shape is None or scope.opset(before) < 5:
        return False
    target = [dim if isinstance(dim, int) else -1 for dim in output.shape]
    if target.count(-1) > 1 or 0 in target:
        return f"{dims_text(output)} has more than one dimension that is not known, or none at all"
    shape = scope.constant(np.array(target, np.int64), f"{output.name}/shape")
    made = scope.make(node, "Reshape", [before.inputs[0], shape], version=before.version, like=output)
    return scope.replace(node, made)


@rule(*RESHAPES, "Expand")
def remove_reshape(node: ir.Node, scope: Scope) -> Verdict:
    """r(x) = x, where x has the shape already."""
    data = node.inputs[0]
    if data is None or not same_shape(data, node.outputs[0]):
        return False
    return bypass(node, data)


@rule("Squeeze", "Unsqueeze")
def cancel_unsqueeze(node: ir.Node, scope: Scope) -> Verdict:
    """Squeeze(Unsqueeze(x, a), a) = x, and the other way round."""
    other = "Unsqueeze" if node.op_type == "Squeeze" else "Squeeze"
    before = producer(node.inputs[0], other)
    if before is None or before.inputs[0] is None:
        return False
    axes, inner = _axes(node), _axes(before)
    if axes is None or inner is None:
        return False
    if axes != inner:
        return f"{node.op_type} is over the axes {axes}, and {other} over {inner}"
    return bypass(node, before.inputs[0])


@rule("Unsqueeze")
def merge_unsqueezes(node: ir.Node, scope: Scope) -> Verdict:
    """Unsqueeze(Unsqueeze(x, a), b) = Unsqueeze(x, b ∪ a'), a' being where the axes a come to lie."""
    before, output = producer(node.inputs[0], "Unsqueeze"), node.outputs[0]
    if before is None or before.inputs[0] is None or scope.opset(node) < 13 or output.shape is None:
        return False
    axes, inner = _axes(node), _axes(before)
    if axes is None or inner is None:
        return False
    kept = [axis for axis in range(len(output.shape)) if axis not in axes]
    merged = sorted([*axes, *(kept[axis] for axis in inner)])
    node.replace_input_with(0, before.inputs[0])
    node.replace_input_with(1, scope.constant(np.array(merged, np.int64), f"{output.name}/axes"))
    return True


@rule("Tile")
def tile_as_expand(node: ir.Node, scope: Scope) -> Verdict:
    """Tile(x, r) = Expand(x, r), where x has one element along each axis that is repeated."""
    data, repeats = node.inputs[0], constant_of(input_of(node, 1))
    if data is None or repeats is None or data.shape is None or scope.opset(node) < 13:
        return False
    if any(count != 1 and dim != 1 for count, dim in zip(repeats.tolist(), data.shape, strict=True)):
        return f"{dims_text(data)} is repeated {repeats.tolist()} times, not along axes of one element only"
    if not repeats.all():
        return f"{dims_text(data)} is repeated {repeats.tolist()} times: nothing is left"
    output = node.outputs[0]
    made = scope.make(node, "Expand", [data, node.inputs[1]], version=13, like=output)
    made.shape = ir.Shape([dim if n == 1 else int(n) for n, dim in zip(repeats, data.shape, strict=True)])
    return scope.replace(node, made)


@rule("Add")
def add_before_split(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(x, [.., h, d]) + c = Reshape(x + c', [.., h, d]), for x of [.., h d] and c of [h, d], in one row c'."""
    for side in (0, 1):
        split, array = producer(node.inputs[side], "Reshape"), constant_of(node.inputs[1 - side])
        x = None if split is None else split.inputs[0]
        if split is None or x is None or array is None or len(split.outputs[0].uses()) != 1:
            continue
        before, after = x.shape, split.outputs[0].shape
        if before is None or after is None or len(after) != len(before) + 1:
            continue
        if not same_dims(list(before)[:-1], list(after)[:-2]) or array.ndim < 2 or array.ndim > len(after):
            continue
        if list(array.shape[-2:]) != list(after)[-2:] or array.size != array.shape[-1] * array.shape[-2]:
            return f"{dims_text(split.outputs[0])} is shifted by another form than that of its last two axes"
        row = scope.constant(array.reshape(-1), f"{node.name}/row")
        shifted = scope.make(node, "Add", [x, row], version=node.version, like=x)
        again = scope.make(
            node, "Reshape", [shifted, split.inputs[1]], version=split.version, like=node.outputs[0]
        )
        allowzero = split.attributes.get("allowzero")
        if allowzero is not None:
            made = again.producer()
            assert made is not None
            made.attributes["allowzero"] = allowzero
        return scope.replace(node, again)
    return False


def _axes(node: ir.Node) -> list[int] | None:
    """The axes, counted from the front of the shape that has them."""
    given = node.attributes.get("axes")
    array = constant_of(input_of(node, 1))
    if given is not None:
        axes = list(given.as_ints())
    elif array is not None:
        axes = array.ravel().tolist()
    else:
        return None
    whole = node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0]
    if whole is None or whole.shape is None:
        return sorted(axes) if all(axis >= 0 for axis in axes) else None
    return sorted(axis % len(whole.shape) for axis in axes)


RULES = (
    fix_reshape_target,
    drop_allowzero,
    merge_reshapes,
    reshape_whole,
    cancel_unsqueeze,
    merge_unsqueezes,
    tile_as_expand,
    add_before_split,
    remove_reshape,
)
