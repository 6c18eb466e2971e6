"""Chains of transpositions, and with what is between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ._edit import bypass
from .rule import Scope, Verdict, input_of, only_use, producer, rule
from .shapes import Dim, dims_text, rank_of, same_dim, same_dims


def permutation(node: ir.Node) -> list[int] | None:
    """The permutation of a Transpose; by default the axes reversed; None if the rank is unknown then."""
    given = node.attributes.get("perm")
    if given is not None:
        return list(given.as_ints())
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    return list(range(len(source.shape)))[::-1]


@rule("Transpose")
def merge_transposes(node: ir.Node, scope: Scope) -> Verdict:
    """Transpose(Transpose(x, p), q) = Transpose(x, p∘q), (p∘q)[i] = p[q[i]]; and nothing where p∘q is the identity."""
    perm = permutation(node)
    if perm is None or node.inputs[0] is None:
        return False
    if perm == sorted(perm):
        return bypass(node, node.inputs[0])
    before = producer(node.inputs[0], "Transpose")
    inner = None if before is None else permutation(before)
    if before is None or inner is None:
        return False
    both = [inner[axis] for axis in perm]
    if both == sorted(both) and before.inputs[0] is not None:
        return bypass(node, before.inputs[0])
    node.replace_input_with(0, before.inputs[0])
    node.attributes["perm"] = ir.AttrInt64s("perm", both)
    return True


@rule("Transpose")
def transpose_of_product(node: ir.Node, scope: Scope) -> Verdict:
    """Transpose(A B) = Bᵀ Aᵀ, the last two axes exchanged, where A and B are transpositions that nothing else reads."""
    product, perm = producer(node.inputs[0], "MatMul"), permutation(node)
    if product is None or perm is None or len(perm) < 2 or not only_use(product.outputs[0]):
        return False
    rank = len(perm)
    if perm != [*range(rank - 2), rank - 1, rank - 2]:
        return False
    swaps = [producer(value, "Transpose") for value in product.inputs]
    if any(each is None or not only_use(each.outputs[0]) for each in swaps):
        return False
    if [rank_of(value) for value in product.inputs] != [rank, rank]:
        return f"{dims_text(product.outputs[0])} is broadcast from factors of other ranks"
    factors = [_turned(node, value, scope) for value in product.inputs[::-1] if value is not None]
    return scope.replace(
        node, scope.make(node, "MatMul", factors, version=product.version, like=node.outputs[0])
    )


@rule("Reshape")
def transpose_in_batches(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(Transpose(Reshape(x, [a b, s, d]), 021), [a, b, d, s]) = Transpose(x, 0132) for x of [a, b, s, d]."""
    swap = producer(node.inputs[0], "Transpose")
    merged = None if swap is None else producer(swap.inputs[0], "Reshape")
    x = None if merged is None else merged.inputs[0]
    if swap is None or merged is None or x is None or permutation(swap) != [0, 2, 1]:
        return False
    before, middle, after = (value.shape for value in (x, merged.outputs[0], node.outputs[0]))
    if before is None or middle is None or after is None or len(before) != 4 or len(middle) != 3:
        return False
    wanted = [before[0], before[1], before[3], before[2]]
    if not same_dims(list(middle)[1:], list(before)[2:]) or not same_dims(list(after), wanted):
        return (
            f"{dims_text(node.outputs[0])} is not certain to be {dims_text(x)} with its last axes exchanged"
        )
    return scope.replace(
        node, scope.make(node, "Transpose", [x], {"perm": [0, 1, 3, 2]}, like=node.outputs[0])
    )


@rule("Transpose")
def unsqueeze_last(node: ir.Node, scope: Scope) -> Verdict:
    """Transpose(Unsqueeze(x, a), p) = Unsqueeze(Transpose(x, p'), a'), p' being p without the new axes."""
    before, perm, output = producer(node.inputs[0], "Unsqueeze"), permutation(node), node.outputs[0]
    axes = None if before is None else constant_of(input_of(before, 1))
    if before is None or axes is None or perm is None or not only_use(before.outputs[0]):
        return False
    new = {int(axis) % len(perm) for axis in axes.ravel()}
    kept = [axis for axis in range(len(perm)) if axis not in new]
    inner = scope.make(
        node,
        "Transpose",
        [before.inputs[0]],
        {"perm": [kept.index(axis) for axis in perm if axis in kept]},
        13,
    )
    inner.type = output.type
    if output.shape is not None:
        inner.shape = ir.Shape([output.shape[place] for place, axis in enumerate(perm) if axis in kept])
    places = np.array([place for place, axis in enumerate(perm) if axis in new], np.int64)
    wide = [inner, scope.constant(places, f"{output.name}/axes")]
    return scope.replace(node, scope.make(node, "Unsqueeze", wide, version=13, like=output))


@rule("Reshape")
def matmul_in_batches(node: ir.Node, scope: Scope) -> Verdict:
    """Reshape(MatMul(Reshape(x, [n, m, k]), Reshape(y, [n, k, p])), [a, b, m, p]) = MatMul(x, y) for n = a b."""
    product, output = producer(node.inputs[0], "MatMul"), node.outputs[0]
    if product is None or output.shape is None or len(output.shape) < 4 or not only_use(product.outputs[0]):
        return False
    whole = [_unmerged(value) for value in product.inputs]
    if None in whole:
        return False
    (x, x_turned), (y, y_turned) = (each for each in whole if each is not None)
    shapes = [list(each.shape or ()) for each in (x, y)]
    rows = shapes[0][-1 if x_turned else -2]
    columns = shapes[1][-2 if y_turned else -1]
    batches = [shape[:-2] for shape in shapes]
    if not same_dims(*batches) or not _same_but_one(list(output.shape), [*batches[0], rows, columns]):
        return f"{dims_text(output)} is not certain to have the batches of {dims_text(x)} and {dims_text(y)}"
    operands = [
        _turned(node, each, scope) if turned else each for each, turned in ((x, x_turned), (y, y_turned))
    ]
    return scope.replace(node, scope.make(node, "MatMul", operands, version=product.version, like=output))


def _same_but_one(reshaped: Sequence[Dim], wanted: Sequence[Dim]) -> bool:
    """Whether a reshaped value has the dimensions wanted: of as many elements, one of them follows from the others."""
    if len(reshaped) != len(wanted):
        return False
    differ = [pair for pair in zip(reshaped, wanted, strict=True) if not same_dim(*pair)]
    others = [dim for dim in wanted if isinstance(dim, int)]
    return not differ or (len(differ) == 1 and not isinstance(differ[0][0], int) and all(others))


def _unmerged(value: ir.Value | None) -> tuple[ir.Value, bool] | None:
    """Of what a reshape joined the first axes: that, and whether the last two are exchanged then."""
    swap = producer(value, "Transpose")
    turned = swap is not None and permutation(swap) == [0, 2, 1]
    merged = producer(swap.inputs[0] if swap is not None and turned else value, "Reshape")
    source = None if merged is None else merged.inputs[0]
    if merged is None or source is None or source.shape is None or merged.outputs[0].shape is None:
        return None
    before, after = list(source.shape), list(merged.outputs[0].shape)
    if len(after) != 3 or len(before) < 4 or not same_dims(after[1:], before[-2:]):
        return None
    return source, turned


def _turned(node: ir.Node, value: ir.Value, scope: Scope) -> ir.Value:
    assert value.shape is not None
    rank = len(value.shape)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    made = scope.make(node, "Transpose", [value], {"perm": perm}, version=13)
    made.type, made.shape = value.type, ir.Shape([value.shape[axis] for axis in perm])
    return made


RULES = (merge_transposes, transpose_of_product, transpose_in_batches, unsqueeze_last, matmul_in_batches)
