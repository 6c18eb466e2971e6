"""Recipes for quantised numbers and conversions between types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from epkit.dtypes import CODE, numpy_dtype

from .trial import Array, Trial, draw, exactly, recipe, wide

TO = {"float32": "int32", "bool": "float32"}


def written(rng: np.random.Generator) -> Array:
    """Numbers as texts."""
    return np.array([["-12.5", "1e3", "7", "0.25", str(rng.integers(100))]], object)


@recipe("Cast")
def cast(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """To float32; from float32 to int32, which drops the fraction; texts as numbers are written."""
    x = draw(rng, (3, 17), dtype, -9, 9) if dtype != "string" else written(rng)
    to = TO.get(dtype, "float32")
    code: Any = CODE[to] if version >= 6 else to.upper().replace("FLOAT32", "FLOAT")
    want = np.trunc(wide(x)) if to == "int32" else x.astype(np.float64)
    return Trial([x], [want.astype(np.int32) if to == "int32" else want], {"to": code}, result=to)


@recipe("QuantizeLinear")
def quantize(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Halves go to the even neighbour, before the zero point is added; the ends saturate."""
    x = draw(rng, (3, 17), dtype, -200, 200)
    if x.dtype.kind == "f" or dtype == "bfloat16":
        x[0, :4] = np.array([0.5, 1.5, 2.5, -0.5]).astype(x.dtype)
    scale = np.array(1).astype(x.dtype if version in (19, 21) else np.float32)
    want = np.clip(np.rint(wide(x)) + 127, 0, 255).astype(np.uint8)
    return Trial([x, scale, np.array(127, np.uint8)], [want], fixed=frozenset({1, 2}), result="uint8")


@recipe("DequantizeLinear")
def dequantize(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """(x - zero point) times a scale that is no power of two."""
    x = draw(rng, (3, 17), dtype, -7, 7)
    scale = np.float32(0.3)
    zero = np.asarray(0 if dtype == "int32" or x.dtype.kind != "i" else 3).astype(x.dtype)
    want = (x.astype(np.float64) - float(zero)) * float(scale)
    return Trial([x, np.asarray(scale), zero], [want], fixed=frozenset({1, 2}), result="float32")


@recipe("MatMulInteger")
def matmul_integer(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """With zero points of both; results are int32, exact."""
    a, b = draw(rng, (5, 19), dtype, -100, 100), draw(rng, (19, 7), dtype, -100, 100)
    za, zb = np.asarray(a.dtype.type(3)), np.asarray(b.dtype.type(5))
    want = (a.astype(np.int32) - 3) @ (b.astype(np.int32) - 5)
    return Trial([a, b, za, zb], [want], fixed=frozenset({2, 3}), result="int32")


@recipe("QLinearMatMul")
def qlinear_matmul(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Scales are powers of two, so that there is one right answer; zero points even, for the reference's rounding."""
    a, b = draw(rng, (5, 9), dtype, -9, 9), draw(rng, (9, 4), dtype, -9, 9)
    scales = [np.asarray(np.float32(value)) for value in (0.5, 0.25, 2.0)]
    zero = np.asarray(2).astype(a.dtype)
    exact = (wide(a).astype(np.float64) - 2) @ (wide(b).astype(np.float64) - 2) / 16
    whole = np.rint(exact) if a.dtype.kind in "iu" else exact  # narrow floats have fractions
    want = _saturated(whole + 2, a.dtype)
    inputs = [a, scales[0], zero, b, scales[1], zero, scales[2], zero]
    return Trial(inputs, [want], fixed=frozenset({1, 2, 4, 5, 6, 7}), result=dtype)


@recipe("DynamicQuantizeLinear")
def dynamic_quantize(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A range whose step is a power of two: the scale, the zero point and every value are exact."""
    x = (rng.integers(-100, 128, (4, 9)) / 4).astype(np.float32)
    x[0, :2] = [-32.0, 31.75]
    want = np.clip(np.rint(x * 4) + 128, 0, 255).astype(np.uint8)
    scale, zero = np.asarray(np.float32(0.25)), np.asarray(np.uint8(128))
    return Trial([x], [want, scale.astype(np.float64), zero], result="uint8")


def _saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    info = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return np.clip(x, float(info.min), float(info.max)).astype(dtype)


def _convolved(x: Array, w: Array) -> Array:
    """Strides of two down, pads of one above and one on the right, in whole numbers."""
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 0), (0, 1)))
    windows = sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::2]
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, w.astype(np.int64)))


HOW = {"strides": [2, 1], "pads": [1, 0, 0, 1]}


@recipe("ConvInteger")
def conv_integer(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """With zero points of both, the first of which is in the pads too; results are int32, exact."""
    x, w = draw(rng, (2, 3, 6, 5), dtype, -100, 100), draw(rng, (4, 3, 2, 3), dtype, -100, 100)
    zeros = [np.asarray(x.dtype.type(3)), np.asarray(w.dtype.type(5))]
    want = _convolved(x.astype(np.int64) - 3, w.astype(np.int64) - 5).astype(np.int32)
    return Trial([x, w, *zeros], [want], HOW, frozenset({2, 3}), result="int32")


@recipe("QLinearConv")
def qlinear_conv(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Scales are powers of two, so that there is one right answer; zero points even, a bias in whole numbers."""
    x, w = draw(rng, (2, 3, 6, 5), dtype, -9, 9), draw(rng, (4, 3, 2, 3), dtype, -9, 9)
    b = draw(rng, (4,), "int32", -40, 40)
    scales = [np.asarray(np.float32(value)) for value in (0.5, 0.25, 2.0)]
    zero = np.asarray(2).astype(x.dtype)
    total = _convolved(x.astype(np.int64) - 2, w.astype(np.int64) - 2) + b[:, None, None]
    want = _saturated(np.rint(total / 16) + 2, x.dtype)
    inputs = [x, scales[0], zero, w, scales[1], zero, scales[2], zero, b]
    return Trial(inputs, [want], HOW, frozenset(range(1, 9)), result=dtype)


SAME_BITS = {
    "int32": "float32 uint32",
    "float32": "int32",
    "int64": "float64 complex64",
    "float64": "int64 uint64",
    "uint16": "float16",
    "float16": "uint16",
    "int16": "bfloat16",
    "bfloat16": "int16",
    "complex128": "complex128",
    "uint8": "bool int8 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz",
    "int8": "uint8 float8_e8m0fnu",
    "uint4": "float4_e2m1fn int4",
    "int4": "uint4",
    "uint2": "int2",
    "int2": "uint2",
}
"""A type -> those that are seen through it."""


@recipe("BitCast")
def bit_cast(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The same bits as another type; where that is a float, bits of ordinary numbers."""
    to = next(to for to, seen in SAME_BITS.items() if dtype in seen.split())
    kind, other = numpy_dtype(dtype), numpy_dtype(to)
    x = draw(rng, (3, 7), to).view(kind) if "float" in to else draw(rng, (3, 7), dtype, -100, 100)
    return Trial([x], exactly(x.view(other)), {"to": CODE[to]}, result=to)
