"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: elementwise, with scales that are spread over axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import RunContext, element_type, kernel
from epkit.dtypes import numpy_dtype
from epkit.kernels.attributes import attribute_values

from ..launch import c_type, empty, launch, pragma
from ..memory import Tensor
from .formulas import FLOATS
from .gemm import temporary
from .indexing import rows

NARROW = frozenset({"int8", "uint8", "int16", "uint16"})
PARTS = 256
"""Work-items that look for the range of a tensor."""


def place_of(x: Tensor, scale: Tensor, axis: int, block: int) -> tuple[str, list[int]]:
    """Where the scale of element i is, in C over ``inner``, ``size``, ``block`` and ``blocks``; and these numbers.

    Raises:
        ValueError: if the scale does not fit.
    """
    if scale.size == 1 and not block:
        return "0", [1, 1, 1, 1]
    at = axis + x.ndim if axis < 0 else axis
    if not 0 <= at < x.ndim:
        raise ValueError(f"axis {axis} does not fit shape {x.shape}")
    inner, size = max(1, math.prod(x.shape[at + 1 :])), max(1, x.shape[at])
    if not block:
        if scale.shape != (x.shape[at],):
            raise ValueError(f"scales of shape {scale.shape} do not fit axis {axis} of {x.shape}")
        return "i / inner % size", [inner, size, 1, 1]
    blocks = -(-x.shape[at] // block)
    if scale.shape != (*x.shape[:at], blocks, *x.shape[at + 1 :]):
        raise ValueError(f"scales of shape {scale.shape} do not fit {x.shape} in blocks of {block}")
    return "(i / inner / size * blocks + i / inner % size / block) * inner + i % inner", [
        inner, size, block, blocks,
    ]  # fmt: skip


def spread(
    context: RunContext,
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    out: Tensor,
    where: tuple[int, int],
    expression: str,
) -> None:
    """out = expression of x, s (the scale) and z (the zero point, or 0)."""
    if zero is not None and zero.shape != scale.shape and not zero.size == scale.size == 1:
        raise ValueError(f"zero points of shape {zero.shape} do not fit scales of shape {scale.shape}")
    index, numbers = place_of(x, scale, *where)
    t, s, y = (c_type(tensor.dtype) for tensor in (x, scale, out))
    z = None if zero is None else c_type(zero.dtype)
    more = "" if z is None else f", __global const {z}* zp, const long oz"
    source = f"""{pragma([t, s, y])}
__kernel void spread(const int n, const int inner, const int size, const int block, const int blocks,
                     __global const {t}* p, const long op, __global const {s}* sp, const long os,
                     __global {y}* q, const long oq{more}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int at = {index};
  const {t} x = p[op + i];
  const {s} s = sp[os + at];
  const {z or "int"} z = {"0" if z is None else "zp[oz + at]"};
  q[oq + i] = {expression};
}}
"""
    extent, group = rows(out.size)
    arguments = [out.size, *numbers, x, scale, out, *([] if zero is None else [zero])]
    launch(context, source, "spread", extent if out.size else [0], arguments, group=group)


def rounded(target: str, number: str) -> str:
    """The nearest number of an integer type, half to even; kept in its range."""
    return f"convert_{target}_sat(rint({number}) + z)"


def known(node: Any) -> bool | str:
    """Integers of 8 and 16 bits from and to floats; the scale's type is that of the arithmetic."""
    quantises = node.op_type == "QuantizeLinear"
    real = element_type(node.inputs[0] if quantises else node.outputs[0])
    narrow = element_type(node.outputs[0] if quantises else node.inputs[0])
    scale = element_type(node.inputs[1])
    if real not in FLOATS or scale != real:
        return f"{node.op_type} has kernels for float32 and float64 with scales of the same type"
    if narrow not in NARROW and (quantises or narrow != "int32"):
        return f"{node.op_type} has no kernel for {narrow}"
    if attribute_values(node).get("precision"):
        return "QuantizeLinear with a precision of its own has no kernel"
    return True


@kernel("QuantizeLinear", since=10, when=known)
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """saturate(round(x / scale) + zero point)."""
    dtype = numpy_dtype(element_type(node.outputs[0]))
    out: Tensor = empty(context, node.outputs[0], x.shape, dtype)
    spread(context, x, scale, zero, out, (axis, block_size), rounded(c_type(dtype), "x / s"))
    return out


@kernel("DequantizeLinear", since=10, when=known)
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """(x - zero point) scale."""
    out: Tensor = empty(context, node.outputs[0], x.shape, scale.dtype)
    difference = "x" if zero is None else "((long)x - z)" if x.dtype.itemsize == 4 else "(x - z)"
    expression = f"({c_type(scale.dtype)}){difference} * s"
    spread(context, x, scale, zero, out, (axis, block_size), expression)
    return out


RANGE = f"""
__kernel void part(const int n, __global const float* p, const long op, __global float* q, const long oq) {{
  const int i = get_global_id(0);
  float low = 0, high = 0;
  for (int j = i; j < n; j += {PARTS}) {{ low = fmin(low, p[op + j]); high = fmax(high, p[op + j]); }}
  q[oq + i] = low;
  q[oq + {PARTS} + i] = high;
}}
__kernel void whole(__global const float* p, const long op, __global float* s, const long os,
                    __global uchar* z, const long oz) {{
  float low = 0, high = 0;
  for (int j = 0; j < {PARTS}; j++) {{ low = fmin(low, p[op + j]); high = fmax(high, p[op + {PARTS} + j]); }}
  const float scale = (high - low) / 255;
  s[os] = scale > 0 ? scale : 1;
  z[oz] = convert_uchar_sat(rint(clamp(-low / s[os], 0.0f, 255.0f)));
}}
"""


@kernel("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(x: Tensor, *, context: RunContext, node: Any) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8 over its own range, with 0 in it; scale and zero point. The scale of zeros is 1."""
    out, zero = (
        empty(context, node.outputs[index], shape, np.dtype(np.uint8))
        for index, shape in ((0, x.shape), (2, ()))
    )
    scale = empty(context, node.outputs[1], (), x.dtype)
    parts = temporary(context, "range", (2 * PARTS,), x, keep=False)
    launch(context, RANGE, "part", [PARTS], [x.size, x, parts], group=[1])
    launch(context, RANGE, "whole", [1], [parts, scale, zero], group=[1])
    spread(context, x, scale, zero, out, (1, 0), rounded("uchar", "x / s"))
    return out, scale, zero


KERNELS = (quantize_linear, dequantize_linear, dynamic_quantize_linear)
