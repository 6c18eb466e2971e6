"""Chains of casts."""

from __future__ import annotations

import onnx_ir as ir

from .clean_casts import is_exact
from .rule import Scope, Verdict, producer, rule


@rule("Cast")
def merge_casts(node: ir.Node, scope: Scope) -> Verdict:
    """Cast<C>(Cast<B>(x: A)) = Cast<C>(x), where B holds every value of A."""
    before = producer(node.inputs[0], "Cast")
    if before is None or before.inputs[0] is None:
        return False
    origin, middle = before.inputs[0], before.outputs[0]
    if not is_exact(origin, middle):
        return f"{middle.dtype} does not hold every value of {origin.dtype}"
    node.replace_input_with(0, origin)
    return True


RULES = (merge_casts,)
