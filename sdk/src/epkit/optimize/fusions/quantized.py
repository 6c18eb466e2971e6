"""Quantised operators: from groups around a float operator, and from dynamic quantisation.

A result that is quantised again may differ by one step where the float group rounds a tie the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ..fuse import Fused, fusion
from ..pattern import Match
from ..rule import Rule
from ..shapes import dims_text, rank_of, same_shape

_BYTES = frozenset({"INT8", "UINT8"})


def codes(name: str, short: str = "") -> str:
    """The formula of a dequantised value; its scale, zero point and axis are named after ``short``."""
    short = short or name
    return f"shared(DequantizeLinear({name}, {short}_scale, {short}_zero_point, axis={short}_axis))"


@fusion(
    "QLinearMatMul-10(a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point) -> y",
    f"y = QuantizeLinear(MatMul({codes('a')}, {codes('b')}), y_scale, y_zero_point, axis=y_axis)",
)
def qlinear_matmul(match: Match) -> dict[str, Any] | str:
    """Quantize(MatMul(Dequantize(a), Dequantize(b))) = QLinearMatMul(a, b), within one step of y.

    b may have a scale for each of its columns.
    """
    problem = not_bytes(match, "a", "b", "y") or not_one_scale(match, "a", "y")
    problem = problem or not_by_column(match, "b", "b", axis=1)
    return problem or {}


@fusion(
    "QLinearConv-10(x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B) -> y",
    f"""
    bias = Any(DequantizeLinear(B, B_scale, B_zero_point, axis=B_axis), DequantizeLinear(B, B_scale, axis=B_axis))
    c = Any(Conv({codes("x")}, {codes("w")}, bias, auto_pad=auto_pad, dilations=dilations, group=group,
                 kernel_shape=kernel_shape, pads=pads, strides=strides),
            Conv({codes("x")}, {codes("w")}, auto_pad=auto_pad, dilations=dilations, group=group,
                 kernel_shape=kernel_shape, pads=pads, strides=strides))
    y = QuantizeLinear(c, y_scale, y_zero_point, axis=y_axis)
    """,
)
def qlinear_conv(match: Match) -> dict[str, Any] | str:
    """Quantize(Conv(Dequantize(x), Dequantize(w), s b)) = QLinearConv(x, w, b), where s = x's scale times w's."""
    problem = (
        not_bytes(match, "x", "w", "y") or not_one_scale(match, "x", "y") or bias_fits(match, "B", "x", "w")
    )
    if problem:
        return problem
    scale = match.array("w_scale")
    if scale is None or (scale.size != 1 and match.attributes["w_axis"] != 0):
        return "the weights' scales are no constants, or not along the channels"
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return {name: match.attributes[name] for name in names if name in match.attributes}


def not_bytes(match: Match, *names: str) -> str | None:
    """Why the values are not all codes of 8 bits, or None."""
    for name in names:
        dtype = match[name].dtype
        if dtype is None or dtype.name not in _BYTES:
            return f"{match[name].name} is {dtype}, not of 8 bits"
    return None


def not_one_scale(match: Match, *names: str, of: Mapping[str, str] | None = None) -> str | None:
    """Why the values do not all have one scale and one zero point, or None; ``of``: the value, if named otherwise."""
    for name in names:
        value = match[(of or {}).get(name, name)]
        for part in ("scale", "zero_point"):
            if not _is_one(match[f"{name}_{part}"]):
                return f"the {part} of {value.name} is {dims_text(match[f'{name}_{part}'])}, not one number"
    return None


def not_by_column(match: Match, name: str, short: str, axis: int) -> str | None:
    """Why a matrix has neither one scale nor one for each column, or None."""
    value, scale = match[name], match[f"{short}_scale"]
    if _is_one(scale) and _is_one(match[f"{short}_zero_point"]):
        return None
    along = match.attributes.get(f"{short}_axis")
    if rank_of(value) != 2 or rank_of(scale) != 1 or along is None or along % 2 != axis:
        return f"the scales {dims_text(scale)} of {dims_text(value)} are not one for each column"
    if not same_shape(scale, match[f"{short}_zero_point"]):
        return f"the zero points of {dims_text(value)} are not one for each column"
    return None


def _is_one(value: ir.Value) -> bool:
    return value.shape is not None and list(value.shape) in ([], [1])


def bias_fits(match: Match, name: str, x: str, w: str) -> str | None:
    """Why a bias is not in steps of the product of the scales of x and w, or None."""
    bias = match.get(name)
    if bias is None:
        return None
    scales = [match.array(f"{each}_scale") for each in (name, x, w)]
    zero = match.array(f"{name}_zero_point")
    if bias.dtype != ir.DataType.INT32 or any(scale is None for scale in scales):
        return f"the bias {bias.name} is {bias.dtype}, or its scale no constant"
    if match.get(f"{name}_zero_point") is not None and (zero is None or zero.any()):
        return f"the bias {bias.name} has a zero point"
    own, left, right = (np.asarray(scale, np.float64).ravel() for scale in scales)
    if not np.allclose(own, left * right, rtol=1e-5, atol=0):
        return f"the scale of the bias {bias.name} is not the product of the two others"
    return None


@fusion(
    "ms.MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias) -> Y",
    """
    p = Any(MatMulInteger(A, B, a_zero_point, b_zero_point), MatMulInteger(A, B, a_zero_point))
    f = Cast(p, to=1) * (a_scale * b_scale)
    Y = Any(f + bias, f)
    """,
    """
    p = Any(MatMulInteger(A, B, a_zero_point, b_zero_point), MatMulInteger(A, B, a_zero_point))
    Y = Cast(p, to=1) * (a_scale * b_scale)
    """,
)
def matmul_integer_to_float(match: Match) -> dict[str, Any] | str:
    """MatMulIntegerToFloat(A, B) = float(MatMulInteger(A, B)) · (a's scale · b's scale) + bias."""
    if rank_of(match["a_scale"]) == 1 and rank_of(match["b_scale"]) == 0:
        match.names["a_scale"], match.names["b_scale"] = match["b_scale"], match["a_scale"]
    b = match["B"].shape
    if not _is_one(match["a_scale"]) or b is None or len(b) != 2:
        return f"{dims_text(match['a_scale'])} is not one number, or {dims_text(match['B'])} no matrix"
    for name in ("b_scale", "bias"):
        value = match.get(name)
        if value is not None and (value.shape is None or list(value.shape) not in ([], [1], [b[1]])):
            return f"{dims_text(value)} is not one number, or one for each column of {dims_text(match['B'])}"
    bias = match.get("bias")
    if bias is not None and bias.shape is not None and len(bias.shape) != 1:
        return f"the bias {dims_text(bias)} is not one number for each column"
    return {}


@fusion(
    "ms.DynamicQuantizeMatMul(A, B, b_scale, b_zero_point, bias) -> Y",
    """
    codes, a_scale, zero = DynamicQuantizeLinear(A)
    Y = Any(ms.MatMulIntegerToFloat(codes, B, a_scale, b_scale, zero, b_zero_point, bias),
            ms.MatMulIntegerToFloat(codes, B, a_scale, b_scale, zero, b_zero_point),
            ms.MatMulIntegerToFloat(codes, B, a_scale, b_scale, zero, None, bias),
            ms.MatMulIntegerToFloat(codes, B, a_scale, b_scale, zero))
    """,
)
def dynamic_quantize_matmul(match: Match) -> dict[str, Any]:
    """DynamicQuantizeMatMul(A, B) = MatMulIntegerToFloat(DynamicQuantizeLinear(A), B), for codes of one reader."""
    return {}


_WEIGHTS = """Any(DequantizeLinear(codes, steps, zeros, axis=axis, block_size=block_size),
                  DequantizeLinear(codes, steps, axis=axis, block_size=block_size))"""


@fusion(
    "ms.MatMulNBits(A, B, scales, zero_points) -> Y",
    f"Y = MatMul(A, {_WEIGHTS})",
    f"Y = MatMul(A, Transpose({_WEIGHTS}, perm=perm))",
)
def matmul_n_bits(match: Match) -> Fused | str:
    """MatMulNBits(A, pack(W), s, z) = MatMul(A, Dequantize(W, s, z)) for W of 4 or 8 bits in blocks of its rows."""
    codes, steps = match.array("codes"), match.array("steps")
    block, axis = int(match.attributes["block_size"] or 0), int(match.attributes["axis"] or 0)
    name = getattr(match["codes"].dtype, "name", "")
    if codes is None or steps is None or name not in ("INT4", "UINT4", "INT8", "UINT8") or codes.ndim != 2:
        return f"the weights {dims_text(match['codes'])} are no constant matrix of 4 or 8 bits"
    is_transposed = "perm" in match.attributes
    if not block:
        return f"the weights {dims_text(match['codes'])} are not in blocks"
    if axis % 2 != (1 if is_transposed else 0) or block < 16 or block & (block - 1):
        return f"blocks of {block} along the axis {axis}: MatMulNBits takes powers of 2 from 16 on, along the rows"
    if codes.shape[axis % 2] % block:
        return f"the last block of {dims_text(match['codes'])} is not full"
    zeros = match.array("zeros")
    if match.get("zeros") is not None and zeros is None:
        return "the zero points are computed"
    packed = _packed(codes, steps, zeros, name, block, is_transposed)
    n, k = codes.shape if is_transposed else codes.shape[::-1]
    bits = 4 if name.endswith("4") else 8
    return Fused({"K": int(k), "N": int(n), "bits": bits, "block_size": block}, inputs=packed)


Array = np.ndarray[Any, Any]


def _packed(
    codes: Array, steps: Array, zeros: Array | None, name: str, block: int, is_transposed: bool
) -> dict[str, Array]:
    """B [N, blocks, bytes], scales [N, blocks] and zero points [N, bytes], as MatMulNBits wants them."""
    bits = 4 if name.endswith("4") else 8
    middle = 1 << (bits - 1) if name.startswith("INT") else 0

    def unsigned(array: Array) -> Array:
        rows = array if is_transposed else array.T
        return (rows.astype(np.int16) + middle).astype(np.uint8)

    whole = unsigned(codes).reshape(steps.shape[0 if is_transposed else 1], -1, block)
    scales = np.ascontiguousarray(steps if is_transposed else steps.T)
    result = {"B": _halves(whole) if bits == 4 else whole, "scales": scales}
    if zeros is not None or not middle:
        given = unsigned(np.zeros(steps.shape, np.int8) if zeros is None else zeros)
        result["zero_points"] = _halves(given) if bits == 4 else given
    return result


def _halves(array: Array) -> Array:
    """Two codes a byte, the first in the lower half; an odd last one alone."""
    if array.shape[-1] % 2:
        array = np.concatenate([array, np.zeros((*array.shape[:-1], 1), np.uint8)], axis=-1)
    return np.asarray(array[..., 0::2] | (array[..., 1::2] << 4))


RULES: tuple[Rule, ...] = (
    qlinear_matmul,
    qlinear_conv,
    matmul_integer_to_float,
    dynamic_quantize_matmul,
    matmul_n_bits,
)
