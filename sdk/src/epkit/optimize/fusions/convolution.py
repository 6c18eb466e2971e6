"""Convolutions and matrix products with what follows them."""

from __future__ import annotations

from typing import Any

from ..fuse import fusion
from ..pattern import Match
from ..rule import Rule
from ..shapes import dims_text, rank_of, same_shape

_CONV = (
    "Conv({0}, auto_pad=auto_pad, dilations=dilations, group=group, kernel_shape=kernel_shape, pads=pads, "
    "strides=strides)"
)
_PLAIN = f"Any({_CONV.format('X, W, B')}, {_CONV.format('X, W')})"
_ACTIVATIONS = {
    "Relu": "Relu({0})",
    "Sigmoid": "Sigmoid({0})",
    "Tanh": "Tanh({0})",
    "LeakyRelu": "LeakyRelu({0}, alpha=alpha)",
    "HardSigmoid": "HardSigmoid({0}, alpha=alpha, beta=beta)",
    "Clip": "Any(Clip({0}, scalar(low), scalar(high)), Clip({0}, min=low, max=high))",
}
_PARAMETERS = ("alpha", "beta", "low", "high")


def _activated(inner: str) -> list[str]:
    return [f"c = {inner}\nY = {text.format('c')}" for text in _ACTIVATIONS.values()]


def _attributes(match: Match) -> dict[str, Any]:
    """The convolution's attributes, the activation's name, and its parameters."""
    kept = {name: value for name, value in match.attributes.items() if name not in _PARAMETERS}
    kept["activation"] = match.root.op_type
    parameters = [
        float(match.attributes[name]) for name in _PARAMETERS if match.attributes.get(name) is not None
    ]
    return {**kept, "activation_params": parameters} if parameters else kept


@fusion("ms.FusedConv(X, W, B, Z) -> Y", *_activated(f"{_PLAIN} + Z"))
def conv_add_activation(match: Match) -> dict[str, Any] | str:
    """FusedConv(x, W, b, z; f) = f(Conv(x, W, b) + z) for a residual z of the same shape."""
    if not same_shape(match["Z"], match["c"]):
        return f"{dims_text(match['Z'])} may not have the shape of {dims_text(match['c'])}"
    conv = next(node for node in match.nodes.values() if node.op_type == "Conv")
    if not same_shape(conv.outputs[0], match["c"]):
        return f"{dims_text(conv.outputs[0])} may be widened by {dims_text(match['Z'])}"
    return _attributes(match)


@fusion("ms.FusedConv(X, W, B, Z) -> Y", *_activated(_PLAIN))
def conv_activation(match: Match) -> dict[str, Any]:
    """FusedConv(x, W, b; f) = f(Conv(x, W, b))."""
    return _attributes(match)


_GEMM = "Gemm({0}, alpha=gemm_alpha, beta=gemm_beta, transA=transA, transB=transB)"
_PRODUCT = f"Any({_GEMM.format('A, B, C')}, {_GEMM.format('A, B')})"


@fusion(
    "ms.FusedGemm(A, B, C) -> Y",
    *(
        f"Y = {_ACTIVATIONS[name].format(_PRODUCT)}"
        for name in ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid")
    ),
)
def gemm_activation(match: Match) -> dict[str, Any]:
    """FusedGemm(A, B, C; f) = f(Gemm(A, B, C))."""
    given = match.attributes
    kept = {
        "activation": match.root.op_type,
        "alpha": float(given["gemm_alpha"]),
        "beta": float(given["gemm_beta"]),
    }
    kept |= {name: given[name] for name in ("transA", "transB")}
    return kept | {
        f"activation_{name}": float(given[name]) for name in ("alpha", "beta") if given.get(name) is not None
    }


@fusion(
    "ms.FusedMatMul(A, B) -> Y",
    """
    p = MatMul(Any(Transpose(A, perm=perm_a), A), Any(Transpose(B, perm=perm_b), B))
    Y = Any(p * scalar(factor), p / scalar(divisor))
    """,
    "Y = MatMul(Any(Transpose(A, perm=perm_a), A), Transpose(B, perm=perm_b))",
    "Y = MatMul(Transpose(A, perm=perm_a), B)",
)
def scaled_matmul(match: Match) -> dict[str, Any] | str:
    """FusedMatMul(A, B; α) = α A B, or with the last two axes of A or B exchanged."""
    given = match.attributes
    result: dict[str, Any] = {"alpha": float(given.get("factor", 1.0)) / float(given.get("divisor", 1.0))}
    for name in ("a", "b"):
        value = match[name.upper()]
        if f"perm_{name}" not in given:
            continue
        rank = rank_of(value)
        perm = given[f"perm_{name}"] or range(rank or 0)[::-1]
        if rank is None or rank < 2 or list(perm) != [*range(rank - 2), rank - 1, rank - 2]:
            return f"{dims_text(value)} is transposed by {list(perm)}, not in its last two axes"
        result[f"trans{name.upper()}"] = 1
    return result


RULES: tuple[Rule, ...] = (conv_add_activation, conv_activation, gemm_activation, scaled_matmul)
