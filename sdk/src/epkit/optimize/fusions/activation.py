"""Gated activations, and softmax after a bias."""

from __future__ import annotations

from typing import Any

from ..fuse import fusion
from ..pattern import Match
from ..rule import Rule
from ..shapes import Dim, dims_text, same_dim, same_shape


@fusion("Swish-24(x) -> y", "y = x * Sigmoid(x * scalar(alpha))", "y = x * Sigmoid(x)")
def swish(match: Match) -> dict[str, Any]:
    """Swish(x; α) = x σ(α x); with α = 1 it is called SiLU."""
    return {"alpha": float(match.attributes.get("alpha", 1.0))}


@fusion("ms.QuickGelu(x) -> y", "y = Swish(x, alpha=alpha)")
def quick_gelu(match: Match) -> dict[str, Any]:
    """QuickGelu(x; α) = Swish(x; α): another name, for providers that know only that."""
    return {"alpha": float(match.attributes["alpha"])}


@fusion("epkit.SwiGLU(gate, up) -> y", "y = up * Swish(gate, alpha=1.0)")
def swiglu(match: Match) -> dict[str, Any] | str:
    """SwiGLU(g, u) = Swish(g) u. Shazeer, "GLU Variants Improve Transformer" (2020)."""
    gate, up = match["gate"], match["up"]
    if not same_shape(gate, up):
        return f"{dims_text(gate)} and {dims_text(up)} may have different shapes"
    return {}


@fusion("ms.BiasSoftmax(data, bias) -> y", "y = Softmax(data + bias, axis=axis)")
def bias_softmax(match: Match) -> dict[str, Any] | str:
    """BiasSoftmax(x, b) = Softmax(x + b) over the last axis; b lacks some of the axes before it."""
    for data, bias in (("data", "bias"), ("bias", "data")):
        x, b = match[data].shape, match[bias].shape
        if x is None or b is None or not len(x) or match.attributes["axis"] not in (-1, len(x) - 1):
            continue
        padded = [1] * (len(x) - len(b)) + list(b)
        inner = _lacks(padded, list(x))
        if inner is not None and len(padded) == len(x):
            match.names["data"], match.names["bias"] = match[data], match[bias]
            return {"axis": len(x) - 1, "is_inner_broadcast": inner}
    return f"{dims_text(match['bias'])} does not lack axes of {dims_text(match['data'])} on one side only"


def _lacks(bias: list[Dim], data: list[Dim]) -> int | None:
    """1 if the bias lacks the axes before the last, 0 if it lacks the first ones; None if neither is certain."""
    if not same_dim(bias[-1], data[-1]):
        return None
    for inner, where in ((1, range(len(data) - 1)), (0, range(len(data) - 2, -1, -1))):
        axes = list(where)
        equal = 0
        while equal < len(axes) and same_dim(bias[axes[equal]], data[axes[equal]]):
            equal += 1
        if all(bias[axis] == 1 for axis in axes[equal:]):
            return inner
    return None


RULES: tuple[Rule, ...] = (swish, swiglu, quick_gelu, bias_softmax)
