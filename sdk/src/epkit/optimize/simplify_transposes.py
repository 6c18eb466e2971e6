"""Chains of transpositions."""

from __future__ import annotations

import onnx_ir as ir

from ._edit import bypass
from .rule import Scope, Verdict, producer, rule
from .shapes import dims_text, same_dims


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


RULES = (merge_transposes, transpose_in_batches)
