"""Rotary position embedding. Su et al., "RoFormer" (2021)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fuse import Fused, Inside, fusion
from ..pattern import Match
from ..rule import Rule, Scope, Verdict, producer, rule
from ..shapes import dims_text, same_dim


@rule("Cos", "Sin", serves=("rotary_embedding", "rotary_embedding_of_microsoft"))
def halve_angles(node: ir.Node, scope: Scope) -> Verdict:
    """cos([f, f]) = [cos f, cos f], and so for the sine: half the work, and both halves are known to be equal."""
    joined = producer(node.inputs[0], "Concat")
    if joined is None or len(joined.inputs) != 2 or joined.inputs[0] is not joined.inputs[1]:
        return False
    half = scope.make(node, node.op_type, [joined.inputs[0]], like=joined.inputs[0])
    both = scope.make(
        node,
        "Concat",
        [half, half],
        {"axis": joined.attributes["axis"].as_int()},
        joined.version,
        node.outputs[0],
    )
    return scope.replace(node, both)


_BOTH = "Concat({0}, {0}, axis=joined)"
_ANGLES = f"shared(Any(Unsqueeze({_BOTH}, [1]), Unsqueeze({_BOTH}, axes=[1])))"
_FORMULA = f"""
    low, high = Split(x, array(sizes), axis=split)
    y = x * {_ANGLES.format("cos")} + Concat(Neg(high), low, axis=turned) * {_ANGLES.format("sin")}
"""


@fusion("RotaryEmbedding-23(x, cos, sin, position_ids) -> y", _FORMULA)
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


@fusion("ms.RotaryEmbedding(x, position_ids, cos_cache, sin_cache) -> y", _FORMULA)
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


def _halves(match: Match) -> str | None:
    """Why the parts are not the halves of heads [batch, heads, length, size], or None."""
    x, given = match["x"], match.attributes
    for name in ("cos", "sin"):
        angles = match[name]
        if x.shape is None or len(x.shape) != 4 or angles.shape is None or len(angles.shape) != 3:
            return f"{dims_text(x)} should have 4 axes, and {dims_text(angles)} 3"
        size, half = x.shape[3], angles.shape[2]
        if not isinstance(size, int) or half != size // 2 or list(given["sizes"]) != [half, half]:
            return f"{dims_text(x)} is split into {list(given['sizes'])}, with {half} angles"
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


RULES: tuple[Rule, ...] = (halve_angles, rotary_embedding, rotary_embedding_of_microsoft)
