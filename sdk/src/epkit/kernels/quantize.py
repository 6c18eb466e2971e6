"""Quantisation, and the products and convolutions of quantised tensors.

Integer products are computed exactly in floating point, where they are matrix products of the array
library: in float32 while every partial sum is below 2^24, else in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._dtypes import dtype_of, is_float, is_integer, is_narrow_float, name_of
from ._pointwise import checked_axis, scalar
from .cast import converted, limits_of_integer
from .conv import conv
from .operator import op

Ints = Sequence[int]


@op("QuantizeLinear", since=10)
def quantize_linear(
    xp: Any,
    x: Any,
    scale: Any,
    zero_point: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Any:
    """y = saturate(round(x / scale) + zero_point), halves to even; for float8 and narrower without round.

    Scale and zero point are scalars, vectors along ``axis`` (opset 13), or hold one number for each block of
    ``block_size`` along ``axis`` (opset 21). ``precision`` (opset 23) is the type to divide in, by default
    that of the scale.
    """
    dtype = output_type(xp, zero_point, output_dtype)
    scale, zero_point = spread(xp, x, scale, zero_point, axis, block_size)
    with np.errstate(all="ignore"):
        return quantized(xp, ratio(xp, x, scale, precision), zero_point, dtype, saturate=bool(saturate))


def output_type(xp: Any, zero_point: Any, code: int) -> Any:
    """The type that the zero point or the attribute output_dtype names; uint8 if neither does."""
    if zero_point is None:
        return dtype_of(xp, code, "output_dtype") if code else xp.asarray(0, dtype=xp.uint8).dtype
    if code and dtype_of(xp, code, "output_dtype") != zero_point.dtype:
        raise ValueError(
            f"attribute output_dtype={code} is not the type of the zero point, {zero_point.dtype}"
        )
    return zero_point.dtype


def spread(xp: Any, x: Any, scale: Any, zero: Any, axis: int, block_size: int) -> tuple[Any, Any]:
    """Scale and zero point in shapes that broadcast over ``x``."""
    if zero is not None and zero.shape != scale.shape and not zero.size == scale.size == 1:
        raise ValueError(
            f"the zero point of shape {zero.shape} must have the shape {scale.shape} of the scale"
        )
    if scale.size == 1 and not block_size:
        return xp.reshape(scale, ()), None if zero is None else xp.reshape(zero, ())
    axis = checked_axis(axis, x.ndim)
    if not block_size:
        if scale.shape != (x.shape[axis],):
            raise ValueError(
                f"the scale of shape {scale.shape} must be a scalar or have shape ({x.shape[axis]},)"
            )
        shape = (-1,) + (1,) * (x.ndim - 1 - axis)
        return xp.reshape(scale, shape), None if zero is None else xp.reshape(zero, shape)
    blocks = -(-x.shape[axis] // block_size) if block_size > 0 else -1
    if scale.shape != (*x.shape[:axis], blocks, *x.shape[axis + 1 :]):
        raise ValueError(
            f"the scale of shape {scale.shape} does not fit x of shape {x.shape} "
            f"in blocks of {block_size} on axis {axis}"
        )
    index = xp.arange(x.shape[axis]) // block_size
    return xp.take(scale, index, axis=axis), None if zero is None else xp.take(zero, index, axis=axis)


def ratio(xp: Any, x: Any, scale: Any, precision: int) -> Any:
    """x / scale, rounded to the type of the division; at least a float32."""
    if precision:
        dtype = dtype_of(xp, precision, "precision")
    elif name_of(scale.dtype) == "float8_e8m0fnu":  # this has no fractions
        dtype = x.dtype if is_float(x.dtype) else xp.float32
    else:
        dtype = scale.dtype
    if not is_float(dtype):
        dtype = xp.float64
    x, scale = (converted(xp, converted(xp, v, dtype), wider(xp, dtype)) for v in (x, scale))
    result = x / scale
    return converted(xp, converted(xp, result, dtype), wider(xp, dtype)) if is_narrow_float(dtype) else result


def wider(xp: Any, dtype: Any) -> Any:
    return xp.float32 if is_narrow_float(dtype) else dtype


def quantized(xp: Any, real: Any, zero: Any, dtype: Any, *, saturate: bool = True) -> Any:
    """The numbers ``real + zero`` in ``dtype``, integers rounded first and kept in range."""
    if is_integer(dtype):
        real = xp.round(real)
    if zero is not None:
        real = real + converted(xp, zero, xp.float32)
    if is_integer(dtype):
        limits = limits_of_integer(dtype)
        real = xp.minimum(xp.maximum(real, int(limits.min)), int(limits.max))
    return converted(xp, real, dtype, saturate=saturate)


@op("DequantizeLinear", since=10)
def dequantize_linear(
    xp: Any,
    x: Any,
    scale: Any,
    zero_point: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Any:
    """y = (x - zero_point) scale, in the type of the scale or ``output_dtype`` (opset 23).

    Shapes are as for QuantizeLinear. Narrow floats are computed in float32.
    """
    dtype = dtype_of(xp, output_dtype, "output_dtype") if output_dtype else scale.dtype
    if not is_float(dtype) or name_of(dtype) == "float8_e8m0fnu":
        raise ValueError(f"the result cannot have type {dtype}: output_dtype must name a floating-point type")
    scale, zero_point = spread(xp, x, scale, zero_point, axis, block_size)
    with np.errstate(all="ignore"):
        difference = shifted(xp, x, zero_point, xp.int64 if name_of(x.dtype) == "int32" else xp.float32)
        real = converted(xp, difference, wider(xp, dtype)) * converted(xp, scale, wider(xp, dtype))
        return converted(xp, real, dtype)


def shifted(xp: Any, x: Any, zero: Any, dtype: Any) -> Any:
    """x - zero, computed in ``dtype``."""
    x = converted(xp, x, dtype)
    return x if zero is None else x - converted(xp, zero, dtype)


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(xp: Any, x: Any) -> tuple[Any, Any, Any]:
    """x as uint8, the scale (max(x, 0) - min(x, 0)) / 255, and the zero point round(-min(x, 0) / scale).

    The scale of a tensor of zeros, which the standard leaves open, is 1.
    """
    low, high = (xp.asarray(f(x, initial=0)) for f in (xp.min, xp.max))
    with np.errstate(all="ignore"):
        scale = (high - low) / xp.asarray(255, dtype=x.dtype)
    if not xp.isfinite(scale):
        raise ValueError(f"input x has the range [{float(low)}, {float(high)}], which gives no scale")
    scale = xp.asarray(xp.where(scale > 0, scale, xp.ones_like(scale)))
    zero = converted(xp, xp.round(xp.clip(-low / scale, 0, 255)), xp.uint8)
    return quantized(xp, x / scale, zero, zero.dtype), scale, zero


@op("MatMulInteger", since=10)
def mat_mul_integer(xp: Any, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    """y = (a - a_zero) @ (b - b_zero) as int32.

    Zero points are scalars, or one number per row of a or column of b.
    """
    return wrapped(xp, product(xp, a, b, a_zero, b_zero))


@op("QLinearMatMul", since=10)
def q_linear_mat_mul(
    xp: Any,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    y_scale: Any,
    y_zero: Any,
) -> Any:
    """y = saturate(round((a - a_zero) @ (b - b_zero) a_scale b_scale / y_scale) + y_zero)."""
    with np.errstate(all="ignore"):
        factor = (
            converted(xp, by_row(xp, a_scale, a, "a_scale"), xp.float64)
            * converted(xp, by_column(xp, b_scale, b, "b_scale"), xp.float64)
            / converted(xp, by_row(xp, y_scale, a, "y_scale"), xp.float64)
        )
        real = product(xp, a, b, a_zero, b_zero) * factor
        return quantized(xp, real, by_row(xp, y_zero, a, "y_zero_point"), y_zero.dtype)


def product(xp: Any, a: Any, b: Any, a_zero: Any, b_zero: Any) -> Any:
    """(a - a_zero) @ (b - b_zero), exact for integers."""
    dtype = exact_type(xp, a.shape[-1] if a.ndim else 1)
    a = shifted(xp, a, by_row(xp, a_zero, a, "a_zero_point"), dtype)
    return xp.asarray(xp.matmul(a, shifted(xp, b, by_column(xp, b_zero, b, "b_zero_point"), dtype)))


def by_row(xp: Any, v: Any, a: Any, name: str) -> Any:
    """A scalar, or one number for each row of the matrices ``a`` in a shape that broadcasts."""
    if v is None or v.size == 1:
        return v if v is None else xp.reshape(v, ())
    if v.ndim == 1 and a.ndim > 1 and v.shape[0] == a.shape[-2]:
        return xp.reshape(v, (-1, 1))
    if v.shape == (*a.shape[:-1], 1):
        return v
    raise ValueError(
        f"input {name} of shape {v.shape} is neither a scalar nor one number per row of {a.shape}"
    )


def by_column(xp: Any, v: Any, b: Any, name: str) -> Any:
    """A scalar, or one number for each column of the matrices ``b`` in a shape that broadcasts."""
    if v is None or v.size == 1:
        return v if v is None else xp.reshape(v, ())
    if b.ndim > 1 and v.shape in ((b.shape[-1],), (*b.shape[:-2], 1, b.shape[-1])):
        return v
    raise ValueError(
        f"input {name} of shape {v.shape} is neither a scalar nor one number per column of {b.shape}"
    )


def exact_type(xp: Any, depth: int) -> Any:
    """The type in which sums of ``depth`` products of differences of bytes are exact."""
    return xp.float32 if depth * 255 * 255 < 2**24 else xp.float64


def wrapped(xp: Any, whole: Any) -> Any:
    """Whole numbers as int32, which they may overflow."""
    return xp.astype(xp.astype(whole, xp.int64), xp.int32)


@op("ConvInteger", since=10)
def conv_integer(
    xp: Any,
    x: Any,
    w: Any,
    x_zero: Any = None,
    w_zero: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """y = conv(x - x_zero, w - w_zero) as int32; w_zero is a scalar or one number per filter."""
    dtype = exact_type(xp, math.prod(w.shape[1:]))
    return wrapped(
        xp,
        conv(
            xp,
            shifted(xp, x, None if x_zero is None else scalar(xp, x_zero, "x_zero_point"), dtype),
            shifted(xp, w, None if w_zero is None else by_filter(xp, w_zero, w, "w_zero_point", 0), dtype),
            auto_pad=auto_pad,
            dilations=dilations,
            group=group,
            kernel_shape=kernel_shape,
            pads=pads,
            strides=strides,
        ),
    )


def by_filter(xp: Any, v: Any, w: Any, name: str, axis: int) -> Any:
    """A scalar, or one number for each filter of ``w``, along ``axis`` of a tensor of the same rank."""
    if v.size == 1:
        return xp.reshape(v, ())
    if v.shape != w.shape[:1]:
        raise ValueError(f"input {name} of shape {v.shape} is neither a scalar nor one number per filter")
    return xp.reshape(v, (1,) * axis + (-1,) + (1,) * (w.ndim - 1 - axis))


@op("QLinearConv", since=10)
def q_linear_conv(
    xp: Any,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    w: Any,
    w_scale: Any,
    w_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """y = saturate(round((conv(x - x_zero, w - w_zero) + bias) x_scale w_scale / y_scale) + y_zero)."""
    total = conv_integer(
        xp,
        x,
        w,
        x_zero,
        w_zero,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if bias is not None:
        if bias.shape != w.shape[:1]:
            raise ValueError(f"input B of shape {bias.shape} must have shape ({w.shape[0]},)")
        total = total + by_filter(xp, bias, w, "B", 1)
    with np.errstate(all="ignore"):
        factor = (
            converted(xp, scalar(xp, x_scale, "x_scale"), xp.float64)
            * converted(xp, by_filter(xp, w_scale, w, "w_scale", 1), xp.float64)
            / converted(xp, scalar(xp, y_scale, "y_scale"), xp.float64)
        )
        return quantized(xp, total * factor, scalar(xp, y_zero, "y_zero_point"), y_zero.dtype)
