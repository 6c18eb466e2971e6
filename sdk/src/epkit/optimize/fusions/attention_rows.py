"""Attention over rows, a row being a head of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..rule import Rule, Scope, Verdict, only_use, producer, rule
from ..shapes import dims_text, rank_of, same_dim
from ..simplify_transposes import permutation
from .attention_forms import SERVED, axis_of, is_scaling, scores_of


@rule("MatMul", serves=SERVED)
def rows_as_batches(node: ir.Node, scope: Scope) -> Verdict:
    """Attention over [rows, length, size] is that of one head: [rows, 1, length, size].

    So nn.MultiheadAttention is exported where its weights are asked for, a row being a head of a sample.
    """
    softmax = producer(node.inputs[0], "Softmax")
    chain = [] if softmax is None else scores_of(softmax.inputs[0], 3)
    if softmax is None or not chain or axis_of(softmax) not in (-1, 2):
        return False
    product = chain[0]
    scaled = producer(product.inputs[0], "Mul", "Div")
    if scaled is not None and only_use(scaled.outputs[0]) and is_scaling(scaled):
        chain.insert(0, scaled)
    swap, values = producer(product.inputs[1], "Transpose"), node.inputs[1]
    if swap is None or product.inputs[1] is None or values is None:
        return False
    masks = [v for each in chain if each.op_type in ("Add", "Where") for v in each.inputs if v is not None]
    if problem := _other_rows([*product.inputs, values, *masks], product.outputs[0]):
        return problem
    lifted = {product.inputs[1]: _lifted_keys(swap, product, scope)}
    for each in (*chain, softmax, node):
        inputs = [lifted.get(v) or _wider(v, each, scope) for v in each.inputs if v is not None]
        made = scope.make(each, each.op_type, inputs, {"axis": -1} if each is softmax else {})
        made.type, made.shape = each.outputs[0].type, _with_one_head(each.outputs[0])
        lifted[each.outputs[0]] = made
    weights, first = softmax.outputs[0], _first_reader(softmax, node, scope)
    scope.replace(node, _narrower(lifted[node.outputs[0]], node.outputs[0], node, scope))
    if weights.uses() or weights.is_graph_output():
        scope.replace(softmax, _narrower(lifted[weights], weights, first, scope))
    else:
        scope.remove([softmax])
    scope.remove(chain)
    return True


def _first_reader(softmax: ir.Node, product: ir.Node, scope: Scope) -> ir.Node:
    """Before which node weights are given out: if it can be, one after the product, so that one node makes both."""
    readers = [
        use.node for made in (softmax, product) for use in made.outputs[0].uses() if use.node is not product
    ]
    if any(each.graph is not scope.graph for each in readers):
        return softmax
    first = min(readers, key=scope.place, default=softmax)
    return first if scope.is_after(first, product) else softmax


def _other_rows(values: Sequence[ir.Value | None], product: ir.Value) -> str | None:
    """Why the values may not have the rows of a product, or None."""
    assert product.shape is not None
    for value in values:
        rank = rank_of(value)
        if rank is None or rank > 3 or value is None or value.shape is None:
            return f"{dims_text(value) if value else ''} should have 3 axes"
        if rank == 3 and value.shape[0] != 1 and not same_dim(value.shape[0], product.shape[0]):
            return f"{dims_text(value)} may have other rows than {dims_text(product)}"
    return None


def _lifted_keys(swap: ir.Node, product: ir.Node, scope: Scope) -> ir.Value:
    """Transposed keys [rows, 1, size, all] from keys [rows, 1, all, size]."""
    turned, source = product.inputs[1], swap.inputs[0]
    perm = permutation(swap)
    assert turned is not None and source is not None and perm is not None
    whole = scope.make(product, "Transpose", [source], {"perm": [perm[0], perm[2], perm[1]]}, version=13)
    whole.type = turned.type
    if source.shape is not None:
        whole.shape = ir.Shape([source.shape[perm[axis]] for axis in (0, 2, 1)])
    keys = _wider(whole, product, scope)
    made = scope.make(product, "Transpose", [keys], {"perm": [0, 1, 3, 2]}, version=13)
    made.type, made.shape = turned.type, _with_one_head(turned)
    return made


def _wider(value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
    """[rows, n, m] as [rows, 1, n, m]; what has fewer axes broadcasts as it is."""
    if rank_of(value) != 3:
        return value
    made = scope.make(before, "Unsqueeze", [value, _axis(scope)], version=13)
    made.type, made.shape = value.type, _with_one_head(value)
    return made


def _narrower(wide: ir.Value, like: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
    """[rows, 1, n, m] as [rows, n, m]."""
    return scope.make(before, "Squeeze", [wide, _axis(scope)], version=13, like=like)


def _axis(scope: Scope) -> ir.Value:
    if "axis 1" not in scope.memo:
        scope.memo["axis 1"] = scope.constant(np.array([1], np.int64), "one_head")
    return scope.memo["axis 1"]


def _with_one_head(value: ir.Value) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([value.shape[0], 1, value.shape[1], value.shape[2]])


RULES: tuple[Rule, ...] = (rows_as_batches,)
