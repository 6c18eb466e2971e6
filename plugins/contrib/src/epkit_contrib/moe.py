"""Mixture of experts with weights in floating point."""

from __future__ import annotations

import math
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import quiet, wide

from ._experts import ATTRIBUTES, Gate, Projection, check_tokens, mixture, route
from ._infer import same
from .declare import contrib

REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")


def projection(xp: Any, name: str, weights: Any, bias: Any, outputs: int, inputs: int) -> Projection:
    """The products with (experts, outputs, inputs); files of old have the last two sizes by turns, not the data."""
    experts = weights.shape[0]
    if weights.ndim != 3 or weights.size != experts * outputs * inputs:
        raise ValueError(
            f"input {name}_experts_weights of shape {weights.shape} should have shape (E, {outputs}, {inputs})"
        )
    check_bias(name, bias, experts, outputs)
    whole = xp.reshape(weights, (experts, outputs, inputs))
    return Projection(lambda e: wide(xp, whole[e]), bias)


def check_bias(name: str, bias: Any, experts: int, outputs: int) -> None:
    """Refuse a bias that does not fit its projection."""
    if bias is not None and bias.shape != (experts, outputs):
        raise ValueError(
            f"input {name}_experts_bias of shape {bias.shape} should have shape {(experts, outputs)}"
        )


@contrib(
    "MoE",
    inputs=[
        ("input", "T"),
        ("router_probs", "T"),
        ("fc1_experts_weights", "T"),
        ("fc1_experts_bias", "T", "optional"),
        ("fc2_experts_weights", "T"),
        ("fc2_experts_bias", "T", "optional"),
        ("fc3_experts_weights", "T", "optional"),
        ("fc3_experts_bias", "T", "optional"),
    ],
    outputs=[("output", "T")],
    types={"T": REAL},
    attributes={**ATTRIBUTES, "swiglu_limit": (OpSchema.AttrType.FLOAT, None)},
    infer=same,
)
@quiet
def moe(
    xp: Any,
    x: Any,
    router_probs: Any,
    fc1_experts_weights: Any,
    fc1_experts_bias: Any,
    fc2_experts_weights: Any,
    fc2_experts_bias: Any = None,
    fc3_experts_weights: Any = None,
    fc3_experts_bias: Any = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    k: int = 1,
    normalize_routing_weights: int = 0,
    swiglu_fusion: int = 0,
    swiglu_limit: float = math.inf,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
) -> Any:
    """The sum over a token's k likeliest experts e of p[e] (activation(x W1[e]' + b1[e]) W2[e]' + b2[e]).

    With W3, or with its part fused into W1, the activation is multiplied by x W3[e]' + b3[e].
    """
    gate = Gate(
        activation_type,
        swiglu_fusion,
        activation_alpha,
        activation_beta,
        swiglu_limit,
        swiglu_limit_after_activation,
    )
    hidden, experts = x.shape[-1], fc2_experts_weights.shape[0]
    check_tokens(x, router_probs, experts)
    inner = fc2_experts_weights.size // max(experts * hidden, 1)
    fc3 = None
    if fc3_experts_weights is not None:
        fc3 = projection(xp, "fc3", fc3_experts_weights, fc3_experts_bias, inner, hidden)
    return mixture(
        xp,
        x,
        route(xp, router_probs, k, normalize_routing_weights, use_sparse_mixer),
        gate,
        projection(xp, "fc1", fc1_experts_weights, fc1_experts_bias, gate.parts * inner, hidden),
        projection(xp, "fc2", fc2_experts_weights, fc2_experts_bias, hidden, inner),
        fc3,
    )
