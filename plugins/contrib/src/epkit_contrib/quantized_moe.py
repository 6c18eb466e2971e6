"""Mixture of experts with weights of 2, 3, 4 or 8 bits, or of float8."""

from __future__ import annotations

import math
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import quiet
from epkit.kernels.cast import converted

from ._bits import dequantized, unpack, unpack_zeros
from ._experts import ATTRIBUTES, Gate, Projection, check_tokens, mixture, route
from ._infer import same
from .declare import contrib
from .moe import check_bias

INT, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")


def integer_projection(
    xp: Any,
    name: str,
    packed: Any,
    scales: Any,
    bias: Any,
    zeros: Any,
    sizes: tuple[int, int],
    bits: int,
    block: int,
) -> Projection:
    """W[e] = (code - zero) scale, with a scale for each row or for each block of a row."""
    outputs, inputs = sizes
    experts, blocks = packed.shape[0], inputs // block if block else 1
    if bits not in (2, 3, 4, 8):
        raise ValueError(f"{name} of {bits} bits: should be of 2, 3, 4 or 8")
    if block and (block < 16 or block & (block - 1) or inputs % block):
        raise ValueError(
            f"attribute block_size={block} is not a power of 2 of at least 16 that divides {inputs}"
        )
    if packed.ndim != 3 or packed.size * 8 != experts * outputs * inputs * bits:
        wanted = (experts, outputs, f"{inputs} * {bits} / 8")
        raise ValueError(f"input {name}_experts_weights of shape {packed.shape} should have shape {wanted}")
    rows = (experts, outputs, *[blocks] * bool(block))
    if scales is None or scales.shape != rows:
        found = None if scales is None else scales.shape
        raise ValueError(f"input {name}_scales of shape {found} should have shape {rows}")
    packed_zeros = (*rows[:-1], -(-rows[-1] * bits // 8))
    if zeros is not None and zeros.shape != packed_zeros:
        raise ValueError(f"input {name}_zero_points of shape {zeros.shape} should have shape {packed_zeros}")
    check_bias(name, bias, experts, outputs)
    codes = xp.reshape(packed, (experts, outputs, -1))

    def weights(e: int) -> Any:
        zero: Any = float(1 << bits - 1)
        if zeros is not None:
            zero = xp.reshape(unpack_zeros(xp, zeros[e], bits, rows[-1]), (outputs, blocks))
        scale = xp.astype(xp.reshape(scales[e], (outputs, blocks)), xp.float32)
        return dequantized(xp, unpack(xp, codes[e], bits), scale, zero)

    return Projection(weights, bias)


def float_projection(
    xp: Any, name: str, stored: Any, scales: Any, bias: Any, factor: Any, sizes: tuple[int, int], block: int
) -> Projection:
    """W[e] = what is stored, times a scale for each square block, or times one for the expert."""
    outputs, inputs = sizes
    experts = stored.shape[0]
    if str(stored.dtype) != "float8_e4m3fn" or stored.shape != (experts, outputs, inputs):
        raise ValueError(
            f"input {name}_experts_weights ({stored.dtype} {stored.shape}) should be float8e4m3fn "
            f"{(experts, outputs, inputs)} for quant_type='fp8'"
        )
    wanted = (experts, -(-outputs // block), -(-inputs // block)) if block else (experts,)
    given, words = (scales, f"{name}_scales") if block else (factor, f"{name}_global_scale")
    if given is None or given.shape != wanted:
        raise ValueError(f"input {words} is needed with shape {wanted}")
    check_bias(name, bias, experts, outputs)

    def weights(e: int) -> Any:
        scale = xp.astype(given[e], xp.float32)
        if block:
            scale = xp.repeat(xp.repeat(scale, block, axis=0), block, axis=1)[:outputs, :inputs]
        return converted(xp, stored[e], xp.float32) * scale

    return Projection(weights, bias)


@contrib(
    "QMoE",
    inputs=[
        ("input", "T"),
        ("router_probs", "T"),
        ("fc1_experts_weights", "T1"),
        ("fc1_scales", "T2", "optional"),
        ("fc1_experts_bias", "T", "optional"),
        ("fc2_experts_weights", "T1"),
        ("fc2_scales", "T2", "optional"),
        ("fc2_experts_bias", "T", "optional"),
        ("fc3_experts_weights", "T1", "optional"),
        ("fc3_scales", "T2", "optional"),
        ("fc3_experts_bias", "T", "optional"),
        ("fc1_zero_points", "T1", "optional"),
        ("fc2_zero_points", "T1", "optional"),
        ("fc3_zero_points", "T1", "optional"),
        ("router_weights", "T", "optional"),
        ("fc1_global_scale", "T4", "optional"),
        ("fc2_global_scale", "T4", "optional"),
        ("fc1_act_scale", "T4", "optional"),
        ("fc2_act_scale", "T4", "optional"),
        ("fc1_act_block_scale", "T2", "optional"),
        ("fc2_act_block_scale", "T2", "optional"),
    ],
    outputs=[("output", "T")],
    types={
        "T": REAL,
        "T1": ("tensor(uint8)", "tensor(float8e4m3fn)"),
        "T2": (*REAL, "tensor(float8e8m0)", "tensor(float8e4m3fn)"),
        "T4": ("tensor(float)",),
    },
    attributes={
        **ATTRIBUTES,
        "accuracy_level": 0,
        "block_size": (INT, None),
        "expert_weight_bits": 4,
        "fc1_expert_weight_bits": (INT, None),
        "fc2_expert_weight_bits": (INT, None),
        "fc3_expert_weight_bits": (INT, None),
        "quant_type": "int",
        "swiglu_limit": (FLOAT, None),
        "weights_prepacked": -1,
    },
    infer=same,
)
@quiet
def quantized_moe(
    xp: Any,
    x: Any,
    router_probs: Any,
    fc1_experts_weights: Any,
    fc1_scales: Any,
    fc1_experts_bias: Any,
    fc2_experts_weights: Any,
    fc2_scales: Any = None,
    fc2_experts_bias: Any = None,
    fc3_experts_weights: Any = None,
    fc3_scales: Any = None,
    fc3_experts_bias: Any = None,
    fc1_zero_points: Any = None,
    fc2_zero_points: Any = None,
    fc3_zero_points: Any = None,
    router_weights: Any = None,
    fc1_global_scale: Any = None,
    fc2_global_scale: Any = None,
    fc1_act_scale: Any = None,
    fc2_act_scale: Any = None,
    fc1_act_block_scale: Any = None,
    fc2_act_block_scale: Any = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    block_size: int = 0,
    expert_weight_bits: int = 4,
    fc1_expert_weight_bits: int | None = None,
    fc2_expert_weight_bits: int | None = None,
    fc3_expert_weight_bits: int | None = None,
    k: int = 1,
    normalize_routing_weights: int = 0,
    quant_type: str = "int",
    swiglu_fusion: int = 0,
    swiglu_limit: float = math.inf,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
    weights_prepacked: int = -1,
) -> Any:
    """MoE, of weights that are dequantised expert by expert, as tokens come to them.

    Without ``router_weights`` the weights of the experts are the softmax of the k chosen logits: they add up to 1
    whatever ``normalize_routing_weights`` says, which the operator's text calls no more than "whether to normalize
    routing weights". So computes onnxruntime's CPU; a file of its default, 0, was made and tried with that. The
    attribute decides with ``router_weights``, and in MoE. Layouts that belong to one device (prepacked, float4)
    are refused.
    """
    if quant_type not in ("int", "fp8"):
        raise ValueError(
            f"attribute quant_type={quant_type!r} is a layout of one device; int and fp8 are portable"
        )
    if weights_prepacked == 1:
        raise ValueError("attribute weights_prepacked=1 is a layout of one device, 0 is portable")
    if fc1_act_scale is not None or fc2_act_scale is not None:
        raise ValueError("inputs fc1_act_scale and fc2_act_scale are of a mode of one device")
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
    if router_weights is not None and router_weights.shape != router_probs.shape:
        raise ValueError(
            f"input router_weights of shape {router_weights.shape} should have shape {router_probs.shape}"
        )

    def bits_of(own: int | None) -> int:
        return 8 if quant_type == "fp8" else expert_weight_bits if own is None else own

    def made(
        name: str, bits: int, sizes: tuple[int, int], w: Any, scales: Any, bias: Any, zeros: Any, factor: Any
    ) -> Projection:
        if quant_type == "fp8":
            return float_projection(xp, name, w, scales, bias, factor, sizes, max(block_size, 0))
        return integer_projection(xp, name, w, scales, bias, zeros, sizes, bits, max(block_size, 0))

    bits1, bits2, bits3 = (
        bits_of(b) for b in (fc1_expert_weight_bits, fc2_expert_weight_bits, fc3_expert_weight_bits)
    )
    inner = fc2_experts_weights.size * 8 // max(experts * hidden * bits2, 1)
    fc1 = made(
        "fc1",
        bits1,
        (gate.parts * inner, hidden),
        fc1_experts_weights,
        fc1_scales,
        fc1_experts_bias,
        fc1_zero_points,
        fc1_global_scale,
    )
    fc2 = made(
        "fc2",
        bits2,
        (hidden, inner),
        fc2_experts_weights,
        fc2_scales,
        fc2_experts_bias,
        fc2_zero_points,
        fc2_global_scale,
    )
    fc3 = None
    if fc3_experts_weights is not None:
        fc3 = made(
            "fc3",
            bits3,
            (inner, hidden),
            fc3_experts_weights,
            fc3_scales,
            fc3_experts_bias,
            fc3_zero_points,
            fc1_global_scale,
        )
    normalised = normalize_routing_weights if router_weights is not None else 1
    routes = route(xp, router_probs, k, normalised, use_sparse_mixer, router_weights)
    return mixture(xp, x, routes, gate, fc1, fc2, fc3)
