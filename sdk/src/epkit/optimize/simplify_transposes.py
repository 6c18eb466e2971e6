"""Chains of transpositions."""

from __future__ import annotations

import onnx_ir as ir

from ._edit import bypass
from .rule import Scope, Verdict, producer, rule


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


RULES = (merge_transposes,)
