"""Recipes for quantised numbers and conversions between types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from epkit.dtypes import CODE

from .recipes import Array, Trial, draw, recipe, wide

TO = {"float32": "int32", "bool": "float32"}


@recipe("Cast")
def cast(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """To float32; from float32 to int32, which drops the fraction."""
    x = draw(rng, (3, 17), dtype, -9, 9)
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
    want = _saturated(np.rint(exact) + 2, a.dtype)
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
