"""QuantizeLinear and DequantizeLinear in blocks, along any axis, and with four bits: one thread an element.

What has one scale, or one for each channel, is a formula where it can be (see ``codes``); this is the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.dtypes import numpy_dtype
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch
from ..memory import Tensor
from ..source import FLOAT8, NARROW, PRELUDE, stored
from .codes import RANGES, REALS
from .rows import axis_of

BLOCK, GRID = 256, 1 << 16
LIMITS = {**RANGES, "int4": (-8, 7), "uint4": (0, 15)}
"""The least and the greatest code, by element type."""

DIVISIONS = {1: "float32", 10: "float16", 16: "bfloat16"}
"""Element types by the numbers that the attribute ``precision`` says."""


@dataclass(frozen=True)
class Kinds:
    """Element types of one source.

    Attributes:
        x, scale, y: of data, scales and result.
        zero: True with zero points, which have the type of the codes.
    """

    x: str
    scale: str
    y: str
    zero: bool


def coded_source(kinds: Kinds, value: str, codes: str) -> str:
    """y = ``value`` of x, its scale s and its zero point z; codes have the C++ type ``codes``."""
    zero = "(float)widen(zeros[at])" if kinds.zero else "0.0f"
    return f"""{PRELUDE}
typedef {stored(kinds.x)} X; typedef {stored(kinds.scale)} S; typedef {stored(kinds.y)} Y; typedef {codes} Z;
extern "C" __global__ void coded(long long n, long long inner, int size, int block, long long by_outer,
    long long by_block, long long by_inner, const X* __restrict__ xs, const S* __restrict__ scales,
    const Z* __restrict__ zeros, Y* __restrict__ ys) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const long long row = i / inner, at = row / size * by_outer + row % size / block * by_block + i % inner * by_inner;
    const float s = widen(scales[at]), z = {zero};
    {value}
  }}
}}
"""


def quantized_source(kinds: Kinds, division: str) -> str:
    """saturate(round(x / s) + z), halves to even, divided in the element type ``division``."""
    rounded = f"widen(stored_as<{stored(division)}>({{}}))" if stored(division) in NARROW else "{}"
    ratio = rounded.format(f"{rounded.format('(float)widen(xs[i])')} / {rounded.format('s')}")
    if kinds.y in FLOAT8:
        value = f"narrow({ratio} + z, ys[i]);"
    else:
        low, high = LIMITS[kinds.y]
        value = f"narrow(fmin(fmax(rint({ratio}) + z, {low}.0f), {high}.0f), ys[i]);"
    return coded_source(kinds, value, stored(kinds.y))


def dequantized_source(kinds: Kinds) -> str:
    """(x - z) s."""
    return coded_source(kinds, "narrow(((float)widen(xs[i]) - z) * s, ys[i]);", stored(kinds.x))


def takes(node: Any) -> bool | str:
    """Known reals on one side, known codes on the other."""
    attributes = attribute_values(node)
    forward = node.op_type == "QuantizeLinear"
    real, code = (node.inputs[0], node.outputs[0]) if forward else (node.outputs[0], node.inputs[0])
    kinds = {element_type(real), element_type(node.inputs[1])}
    if not kinds <= REALS:
        return f"the kernel takes one of {sorted(REALS)}, found {sorted(kinds)}"
    if element_type(code) not in set(LIMITS) | FLOAT8:
        return f"the kernel knows the codes {sorted(set(LIMITS) | FLOAT8)}, found {element_type(code)}"
    if forward and attributes.get("precision", 0) not in (0, *DIVISIONS):
        return f"precision is {attributes['precision']}, the kernel divides in one of {list(DIVISIONS)}"
    saturates = not forward or bool(attributes.get("saturate", 1))
    return saturates or element_type(code) not in FLOAT8 or "the kernel saturates"


def steps_of(x: Sequence[int], scales: Sequence[int], axis: int, block: int) -> tuple[int, ...]:
    """Elements after the axis, its size, elements of a block, steps of scales by outer place, block, inner place.

    Raises:
        ValueError: if the scales do not fit.
    """
    if math.prod(scales) == 1 and not block:
        return 1, 1, 1, 0, 0, 0
    at = axis_of(axis, len(x))
    inner, size = math.prod(x[at + 1 :]), x[at]
    if not block:
        if tuple(scales) != (size,):
            raise ValueError(f"scales of shape {tuple(scales)} do not fit axis {at} of shape {tuple(x)}")
        return inner, size, 1, 0, 1, 0
    blocks = -(-size // block) if block > 0 else -1
    if tuple(scales) != (*x[:at], blocks, *x[at + 1 :]):
        raise ValueError(
            f"scales of shape {tuple(scales)} do not fit blocks of {block} along axis {at} of shape {tuple(x)}"
        )
    return inner, size, block, blocks * inner, inner, 1


def coded(
    context: RunContext,
    node: Any,
    tensors: Sequence[Tensor | None],
    axis: int,
    block: int,
    precision: int = 0,
) -> Tensor:
    """Launch either operator."""
    x, scale, zero = tensors
    assert x is not None and scale is not None
    if zero is not None and zero.shape != scale.shape and not zero.size == scale.size == 1:
        raise ValueError(f"zero points of shape {zero.shape} do not fit scales of shape {scale.shape}")
    inner, size, each, *steps = steps_of(x.shape, scale.shape, axis, block)
    out: Tensor = context.empty(node.outputs[0], x.shape, numpy_dtype(element_type(node.outputs[0])))
    kinds = Kinds(x.dtype.name, scale.dtype.name, out.dtype.name, zero is not None)
    source = (
        quantized_source(kinds, DIVISIONS.get(precision, kinds.scale))
        if node.op_type == "QuantizeLinear"
        else dequantized_source(kinds)
    )
    numbers = [np.int64(x.size), np.int64(inner), np.int32(size), np.int32(each), *map(np.int64, steps)]
    given = [dense(context, item) for item in (x, scale, scale if zero is None else zero)]
    launch(context, source, "coded", min(GRID, -(-x.size // BLOCK)), BLOCK, [*numbers, *given, out.array])
    return out


@kernel("QuantizeLinear", since=10, when=takes)
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    precision: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Codes of x."""
    return coded(context, node, (x, scale, zero), axis, block_size, precision)


@kernel("DequantizeLinear", since=10, when=takes)
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """What codes stand for."""
    return coded(context, node, (x, scale, zero), axis, block_size)


KERNELS: tuple[Kernel, ...] = (quantize_linear, dequantize_linear)


def sources() -> list[str]:
    """Every source that these kernels launch, for results of the scale's type."""
    codes = sorted(set(LIMITS) | FLOAT8)
    pairs = [(real, code, zero) for real in sorted(REALS) for code in codes for zero in (False, True)]
    back = [dequantized_source(Kinds(code, real, real, zero)) for real, code, zero in pairs]
    return [*back, *(quantized_source(Kinds(real, real, code, zero), real) for real, code, zero in pairs)]
