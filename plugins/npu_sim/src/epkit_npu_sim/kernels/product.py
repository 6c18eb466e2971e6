"""What Conv, MatMul and Gemm have in common: operands, and the parameters of the rounding step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..quant import Array, QTensor, multiplier
from ..schedule import Stream
from ..tiles import Buffers
from ..unit import Unit, bytes_only, one_scale, require


def check_operands(unit: Unit, x: QTensor, w: QTensor) -> None:
    """The array takes bytes; activations have one scale."""
    bytes_only(x, w)
    one_scale(x, unit.output)


def parameters(unit: Unit, x: QTensor, w: QTensor, channels: int) -> Array:
    """int32[3, channels] bias, mult, shift; with a fourth row if the weights' zero points differ.

    The factor of a channel is (x_scale w_scale) / y_scale, each step rounded to float32 as onnxruntime does.
    """
    scales = np.broadcast_to(w.scale.reshape(-1), channels).astype(np.float32)
    factors = (x.s * scales) / unit.output.s
    pairs = np.array([multiplier(float(f)) for f in factors], np.int64).reshape(channels, 2)
    bias = unit.inputs[2] if len(unit.inputs) > 2 else None
    rows = [integer_bias(bias, x.s * scales, channels), *pairs.T]
    if w.zero.size > 1 and np.ptp(w.zero):
        rows.append(np.broadcast_to(w.zero.reshape(-1), channels))
    return np.stack(rows).astype(np.int32)


def integer_bias(bias: Any, scale: Array, channels: int) -> Array:
    """The bias in units of the accumulator."""
    if bias is None:
        return np.zeros(channels, np.int64)
    if isinstance(bias, QTensor):
        require(bias.constant is not None, "constant", "the bias must be known at compile time")
        bias_scale = np.broadcast_to(bias.scale.reshape(-1), channels)
        whole = np.asarray(bias.constant, np.int64).reshape(-1) - bias.zero.reshape(-1)
        if np.array_equal(bias_scale, scale):
            return np.broadcast_to(whole, channels)
        bias = whole * bias_scale.astype(np.float64)
    elif np.asarray(bias).dtype.kind in "iu":  # QLinearConv: already in these units
        return np.broadcast_to(np.asarray(bias, np.int64).reshape(-1), channels)
    exact = np.rint(np.asarray(bias, np.float64).reshape(-1) / scale.astype(np.float64))
    require(np.all(np.abs(exact) < 2**31), "constant", "the bias does not fit into the int32 accumulator")
    return np.broadcast_to(exact.astype(np.int64), channels)


def bring_parameters(
    stream: Stream, buffers: Buffers, params: Array, first: int, count: int
) -> tuple[int, int]:
    """The addresses of the parameters of some channels, and of their zero points (-1: all have one)."""
    address, there = buffers.params.get(first)
    if not there:
        stream.constant(params[:, first : first + count], address)
    return address, address + 12 * count if len(params) == 4 else -1
