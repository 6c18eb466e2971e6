"""What exporters write around attention, brought into the form of its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ...backend.subgraph import constant_of
from ..rule import Rule, Scope, Verdict, only_use, producer, rule
from ..schema import default_of
from ..shapes import rank_of
from ..simplify_transposes import permutation

SERVED = ("attention", "attention_where")


@rule("MatMul", serves=SERVED)
def expose_keys(node: ir.Node, scope: Scope) -> Verdict:
    """q · Transpose(x, 0231) = q · Transpose(Transpose(x, 0213), 0132): the keys as [batch, heads, length, size]."""
    keys = node.inputs[1]
    scaled = producer(keys, "Mul")
    if scaled is not None:
        keys = next((value for value in scaled.inputs if producer(value, "Transpose")), None)
    swap = producer(keys, "Transpose")
    if swap is None or keys is None or not _leads_to_softmax(node):
        return False
    if list(swap.attributes["perm"].as_ints() if "perm" in swap.attributes else ()) != [0, 2, 3, 1]:
        return False
    whole = scope.make(swap, "Transpose", [swap.inputs[0]], {"perm": [0, 2, 1, 3]})
    whole.type = keys.type
    if keys.shape is not None:
        whole.shape = ir.Shape([keys.shape[axis] for axis in (0, 1, 3, 2)])
    swap.replace_input_with(0, whole)
    swap.attributes["perm"] = ir.AttrInt64s("perm", [0, 1, 3, 2])
    return True


def _leads_to_softmax(node: ir.Node) -> bool:
    for _ in range(4):
        readers = [use.node for use in node.outputs[0].uses()]
        if len(readers) != 1 or readers[0].op_type not in ("Mul", "Div", "Add", "Where", "Softmax"):
            return False
        node = readers[0]
        if node.op_type == "Softmax":
            return True
    return False


@rule("Add", serves=SERVED)
def choose_by_product(node: ir.Node, scope: Scope) -> Verdict:
    """m x + (1 - m) c = Where(m, x, c) for m of 0 and 1, and scores or their softmax x.

    tf2onnx writes a choice so. Where x is not finite, and not chosen, the left side is NaN.
    """
    for chosen, rest in (node.inputs, node.inputs[::-1]):
        for mask, x in _factors(chosen):
            kept = _as_condition(mask)
            if (
                kept is None
                or x is None
                or constant_of(x) is not None
                or not (producer(x, "Softmax") or _leads_to_softmax(node))
            ):
                continue
            other = _where_not(kept, rest)
            if other is None:
                return f"what is chosen in the place of {x.name} is not known to be one number"
            if isinstance(kept, np.ndarray):
                kept = scope.constant(kept, f"{node.name}/chosen")
            fill = scope.constant(np.asarray(other[0], other.dtype), f"{node.name}/other")
            made = scope.make(node, "Where", [kept, x, fill], version=16, like=node.outputs[0])
            return scope.replace(node, made)
    return False


_Condition = ir.Value | np.ndarray[Any, Any]
"""A value of booleans, or known ones."""


def _factors(value: ir.Value | None) -> list[tuple[ir.Value | None, ir.Value | None]]:
    """The factors of a product, either way."""
    product = producer(value, "Mul")
    if product is None:
        return []
    first, second = product.inputs
    return [(first, second), (second, first)]


def _as_condition(mask: ir.Value | None) -> _Condition | None:
    """What 0 and 1 were made from."""
    known, cast = constant_of(mask), producer(mask, "Cast")
    if known is not None and known.size > 1:
        return known.astype(bool) if np.isin(known, (0, 1)).all() else None
    source = None if cast is None else cast.inputs[0]
    return source if source is not None and source.dtype == ir.DataType.BOOL else None


def _where_not(kept: _Condition, rest: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The one number [1] that ``rest`` is where something is not kept, if it is 0 everywhere else."""
    known = constant_of(rest)
    if isinstance(kept, np.ndarray):
        if known is None or known.shape != kept.shape or known[kept].any():
            return None
        others = np.unique(known[~kept])
        return others if others.size == 1 else None
    for factor, mask in _factors(rest):
        fill = constant_of(factor)
        if fill is not None and fill.size == 1 and np.isfinite(fill).all() and _is_not(mask, kept):
            return fill.ravel()
    return None


def _is_not(mask: ir.Value | None, kept: ir.Value) -> bool:
    """Whether ``mask`` is 1 - kept: as a difference, or cast from what is not."""
    difference, negated = producer(mask, "Sub"), producer(_as_value(mask), "Not")
    if difference is not None:
        one = constant_of(difference.inputs[0])
        return (
            one is not None
            and one.size == 1
            and bool((one == 1).all())
            and _as_value(difference.inputs[1]) is kept
        )
    return negated is not None and negated.inputs[0] is kept


def _as_value(mask: ir.Value | None) -> ir.Value | None:
    kept = _as_condition(mask)
    return kept if isinstance(kept, ir.Value) else None


@rule("Transpose", serves=SERVED)
def turn_scores(node: ir.Node, scope: Scope) -> Verdict:
    """Transpose(Softmax(K Qᵀ + m; axis -2)) = Softmax(Q Kᵀ + mᵀ; axis -1), and so where the softmax comes after it.

    tf2onnx makes that of the notation in which Keras writes its scores.
    """
    softmax = producer(node.inputs[0], "Softmax")
    if permutation(node) != [0, 1, 3, 2]:
        return False
    if softmax is None:
        leads = any(use.node.op_type == "Softmax" for use in node.outputs[0].uses())
        chain = scores_of(node.inputs[0], 4) if leads else []
    else:
        is_of_columns = (
            axis_of(softmax) in (-2, 2) and scope.opset(softmax) >= 13 and only_use(node.inputs[0])
        )
        chain = scores_of(softmax.inputs[0], 4) if is_of_columns else []
    if not chain:
        return False
    turned: dict[ir.Value, ir.Value] = {}
    for each in chain:
        inputs = [turned.get(v) or _turned(v, each, scope) for v in each.inputs if v is not None]
        swapped = inputs[::-1] if each.op_type == "MatMul" else inputs
        made = scope.make(each, each.op_type, swapped)
        made.type, made.shape = each.outputs[0].type, _swapped(each.outputs[0])
        turned[each.outputs[0]] = made
    result = turned[chain[-1].outputs[0]]
    if softmax is not None:
        result = scope.make(softmax, "Softmax", [result], {"axis": -1}, like=node.outputs[0])
    scope.replace(node, result)
    scope.remove([*chain, *([softmax] if softmax is not None else [])])
    return True


def _turned(value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
    """A value with its last two axes exchanged, as it stands beside a matrix."""
    rank, swap, known = rank_of(value) or 0, producer(value, "Transpose"), constant_of(value)
    if rank == 0 or _is_one(value):
        return value
    if known is not None:
        rows = known if rank > 1 else known[None]
        return scope.constant(np.ascontiguousarray(rows.swapaxes(-1, -2)), f"{value.name}/turned")
    if rank == 1:
        return _turned(_as_row(value, before, scope), before, scope)
    perm = None if swap is None else permutation(swap)
    source = value if swap is None or perm is None else swap.inputs[0]
    perm = perm or list(range(rank))
    assert source is not None
    both = [*perm[:-2], perm[-1], perm[-2]]
    if both == list(range(rank)):
        return source
    made = scope.make(before, "Transpose", [source], {"perm": both}, version=13)
    made.type, made.shape = value.type, _swapped(value)
    return made


def _as_row(value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
    """[n] as [1, n]: what it is beside a matrix."""
    axes = scope.constant(np.array([0], np.int64), "row")
    made = scope.make(before, "Unsqueeze", [value, axes], version=13)
    made.type = value.type
    made.shape = None if value.shape is None else ir.Shape([1, *value.shape])
    return made


def _is_one(value: ir.Value) -> bool:
    return value.shape is not None and all(dim == 1 for dim in value.shape)


def _swapped(value: ir.Value) -> ir.Shape | None:
    if value.shape is None or len(value.shape) < 2:
        return value.shape
    *rest, rows, columns = value.shape
    return ir.Shape([*rest, columns, rows])


def scores_of(value: ir.Value | None, rank: int) -> list[ir.Node]:
    """The nodes that make scores of so many axes, the product first, if nothing else reads what they make."""
    node = producer(value, "Add", "Where", "Mul", "Div", "MatMul")
    if node is None or not only_use(value) or rank_of(value) != rank:
        return []
    if node.op_type == "MatMul":
        return [node] if [rank_of(each) for each in node.inputs] == [rank, rank] else []
    if node.op_type in ("Mul", "Div") and not is_scaling(node):
        return []
    return next(([*found, node] for found in (scores_of(each, rank) for each in node.inputs) if found), [])


def axis_of(softmax: ir.Node) -> int:
    """The axis of a Softmax, given or by default."""
    given = softmax.attributes.get("axis")
    return int(default_of(softmax, "axis")) if given is None else given.as_int()


def is_scaling(node: ir.Node) -> bool:
    """Whether a product or quotient is one with a number."""
    known = [constant_of(value) for value in node.inputs]
    return any(each is not None and each.size == 1 for each in known)


RULES: tuple[Rule, ...] = (turn_scores, expose_keys, choose_by_product)
