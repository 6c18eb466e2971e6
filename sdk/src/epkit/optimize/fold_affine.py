"""Scales and shifts after a linear operator are a change of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import constant_of
from ._edit import bypass
from .rule import Scope, Verdict, input_of, only_use, rule
from .shapes import rank_of

Array = np.ndarray[Any, Any]

LARGE = 1 << 20
"""Shared weights of more bytes are not copied."""

_CHANNEL = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""The axis of the result along which each index has weights of its own."""


@dataclass(frozen=True)
class _Affine:
    """y = scale · x + shift, each a number or one for each channel, in float64."""

    scale: Array
    shift: Array


@rule("Mul", "Div", "Add", "Sub", "BatchNormalization")
def fold_affine(node: ir.Node, scope: Scope) -> Verdict:
    """s · L(x; W, b) + t = L(x; s W, s b + t) for L in Conv, ConvTranspose and Gemm, and MatMul where t = 0.

    BatchNormalization has s = gamma / √(var + ε) and t = beta - s mean.
    """
    for side in (0, 1) if node.op_type in ("Mul", "Add") else (0,):
        linear = _linear(node, side)
        if linear is None:
            continue
        if linear.op_type == "MatMul" and node.op_type in ("Add", "Sub"):
            if constant_of(node.inputs[1 - side]) is None:
                continue
            return "MatMul has no bias"
        affine = _affine_of(node, side, linear, scope)
        if affine is None:
            continue
        if isinstance(affine, str):
            return affine
        return _fold(node, linear, affine, scope)
    return False


def _linear(node: ir.Node, side: int) -> ir.Node | None:
    value = node.inputs[side] if side < len(node.inputs) else None
    linear = None if value is None else value.producer()
    if (
        linear is None
        or linear.domain != ""
        or linear.op_type not in _CHANNEL
        or linear.graph is not node.graph
    ):
        return None
    return linear


def _affine_of(node: ir.Node, side: int, linear: ir.Node, scope: Scope) -> _Affine | str | None:
    if node.op_type == "BatchNormalization":
        return _of_normalization(node, scope)
    other, result = node.inputs[1 - side], linear.outputs[0]
    array = constant_of(other)
    rank = rank_of(result)
    if other is None or array is None:
        return None
    if array.dtype.kind not in "fV" or rank is None:
        return f"{result.name} is of unknown rank, or no float"
    axis = _CHANNEL[linear.op_type] % rank
    if array.size != 1 and (array.ndim < rank - axis or array.size != array.shape[axis - rank]):
        return f"{other.name} of shape {list(array.shape)} varies along other axes than that of the channels"
    if array.ndim > rank:
        return f"{other.name} of shape {list(array.shape)} has more axes than {result.name}"
    flat = array.astype(np.float64).ravel()
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "Div" and not flat.all():
        return f"{other.name} has a zero"
    return {
        "Mul": lambda: _Affine(flat, zero),
        "Div": lambda: _Affine(1 / flat, zero),
        "Add": lambda: _Affine(one, flat),
        "Sub": lambda: _Affine(one, -flat),
    }[node.op_type]()


def _of_normalization(node: ir.Node, scope: Scope) -> _Affine | str:
    opset, statistics = scope.opset(node), [constant_of(value) for value in node.inputs[1:5]]
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "its statistics are used"
    if (opset < 7 and node.attributes.get_int("is_test", 0) != 1) or (
        opset >= 14 and node.attributes.get_int("training_mode", 0) != 0
    ):
        return "it is in training"
    if opset < 9 and node.attributes.get_int("spatial", 1) != 1:
        return "it normalises each place by itself"
    if len(statistics) != 4 or any(array is None for array in statistics):
        return "its statistics are no constants"
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in statistics)
    if not gamma.shape == beta.shape == mean.shape == variance.shape:
        return "its statistics differ in shape"
    with np.errstate(all="ignore"):  # a variance below 0 gives NaN, as it does in the node
        scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        return _Affine(scale, beta - scale * mean)


def _fold(node: ir.Node, linear: ir.Node, affine: _Affine, scope: Scope) -> Verdict:
    result = linear.outputs[0]
    if not only_use(result):
        return f"{result.name} is used elsewhere too"
    weight, bias = constant_of(linear.inputs[1]), input_of(linear, 2)
    old = np.zeros(1) if bias is None else constant_of(bias)
    shifts = bool(affine.shift.any()) or bias is not None
    if weight is None or old is None:
        return False if linear.op_type == "MatMul" else f"the weights of {linear.name} are no constants"
    scales, shared = bool((affine.scale != 1).any()), linear.inputs[1]
    if scales and shared is not None and len(shared.uses()) > 1 and weight.nbytes > LARGE:
        return f"the weights {shared.name} are used elsewhere too, and too large to be kept twice"
    if shifts and linear.op_type == "MatMul":
        return "MatMul has no bias"
    scaled = _scaled(linear, weight.astype(np.float64), affine.scale) if scales else weight
    if isinstance(scaled, str):
        return scaled
    shifted = _shifted(linear, old.astype(np.float64), affine, scaled)
    dtype = weight.dtype
    with np.errstate(over="ignore"):
        new_weight, new_bias = scaled.astype(dtype) if scales else weight, shifted.astype(dtype)
    if (scales and not np.isfinite(new_weight).all()) or not np.isfinite(new_bias).all():
        return f"the new weights are not finite in {dtype}"
    if not bypass(node, result):
        return f"{result.name} is a result of the graph"
    if scales:
        linear.replace_input_with(1, scope.constant(new_weight, f"{linear.name}/weight"))
    if shifts:
        linear.resize_inputs(3)
        linear.replace_input_with(2, scope.constant(new_bias, f"{linear.name}/bias"))
        linear.attributes.pop("beta", None)
    return True


def _scaled(linear: ir.Node, weight: Array, scale: Array) -> Array | str:
    """The weights times the scale of their channel."""
    if scale.size == 1:
        return weight * scale.reshape(())
    if linear.op_type == "Conv":
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if linear.op_type == "ConvTranspose":  # [inputs, outputs / group, ...]
        group = linear.attributes.get_int("group", 1)
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        factors = scale.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * factors).reshape(weight.shape)
    if weight.ndim != 2:
        return f"the weights of {linear.name} have {weight.ndim} axes"
    return weight * (scale[:, None] if linear.attributes.get_int("transB", 0) else scale)


def _shifted(linear: ir.Node, bias: Array, affine: _Affine, weight: Array) -> Array:
    """The new bias; for convolutions, one number for each channel."""
    beta = linear.attributes.get_float("beta", 1.0) if linear.op_type == "Gemm" else 1.0
    shifted = affine.scale * (beta * bias) + affine.shift
    if linear.op_type in ("Gemm", "MatMul"):
        return shifted
    group = linear.attributes.get_int("group", 1)
    channels = weight.shape[0] if linear.op_type == "Conv" else weight.shape[1] * group
    return np.broadcast_to(shifted, (channels,)).copy()


RULES = (fold_affine,)
