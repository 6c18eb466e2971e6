"""Matrix products and quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from ..case import Case, cases_for
from ..data import Array, floats, whole


@cases_for("MatMul")
def matmul(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4), floats(4, 5)])
    yield Case([floats(2, 1, 3, 4), floats(5, 4, 2)])
    yield Case([floats(4), floats(2, 4, 3)])
    yield Case([floats(2, 3, 4), floats(4)])


@cases_for("Gemm")
def gemm(op: str, version: int) -> Iterator[Case]:
    a, b, c = floats(3, 4), floats(4, 5), floats(3, 5)
    spread = {"broadcast": 1} if version < 7 else {}
    yield Case([a, b, c])
    yield Case([a.T.copy(), b.T.copy(), c], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0})
    yield Case([a, b, c[0]], spread)
    if version >= 11:
        yield Case([a, b])


@cases_for("Einsum")
def einsum(op: str, version: int) -> Iterator[Case]:
    a, b = floats(2, 3, 4), floats(2, 4, 5)
    for equation in ("bij,bjk->bik", "...ij,...jk", "bij, bjk -> ki"):
        yield Case([a, b], {"equation": equation})
    yield Case([floats(4, 4)], {"equation": "ii->i"})
    yield Case([a], {"equation": "bij->j"})


@cases_for("Det")
def determinant(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 3)])
    yield Case([floats(2, 1, 4, 4)])


def u8(*shape: int, seed: int = 0) -> Array:
    """Any bytes."""
    return whole(*shape, high=256, seed=seed, dtype=np.uint8)


def one(value: float, dtype: Any = np.float32) -> Array:
    """A scalar."""
    return np.array(value, dtype)


@cases_for("MatMulInteger")
def matmul_integer(op: str, version: int) -> Iterator[Case]:
    yield Case([u8(3, 4), u8(4, 5)])
    yield Case(
        [u8(2, 3, 4), whole(4, 5, low=-128, high=128, dtype=np.int8), one(9, np.uint8), one(-3, np.int8)]
    )


@cases_for("QLinearMatMul")
def qlinear_matmul(op: str, version: int) -> Iterator[Case]:
    a, b = u8(3, 4), u8(4, 5, seed=1)
    points = [one(n, np.uint8) for n in (100, 120, 130)]
    yield Case([a, one(0.02), points[0], b, one(0.03), points[1], one(0.1), points[2]])
    if version >= 21:
        for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"):
            zero = one(0, getattr(ml_dtypes, name))
            given = [
                floats(3, 4).astype(zero.dtype),
                one(0.5),
                zero,
                floats(4, 5).astype(zero.dtype),
                one(2.0),
                zero,
            ]
            yield Case([*given, one(0.25), zero], expect=_times_four)


def _times_four(*inputs: Array) -> list[Array]:
    """Scales of 1/2 and 2 cancel out, and that of the result is 1/4."""
    a, b = inputs[0].astype(np.float32), inputs[3].astype(np.float32)
    return [(a @ b * 4).astype(inputs[7].dtype)]


@cases_for("QLinearConv")
def qlinear_conv(op: str, version: int) -> Iterator[Case]:
    x, w, points = u8(1, 2, 5, 5), u8(3, 2, 3, 3, seed=1), [one(n, np.uint8) for n in (100, 120, 130)]
    head, tail = [x, one(0.02), points[0], w], [one(0.1), points[2]]
    yield Case([*head, one(0.03), points[1], *tail])
    bias = whole(3, low=-500, high=500, dtype=np.int32)
    each = [np.array([0.03, 0.01, 0.02], np.float32), np.array([120, 120, 120], np.uint8)]
    yield Case([*head, *each, *tail, bias], {"pads": (1, 1, 1, 1), "strides": (2, 2)})


@cases_for("DynamicQuantizeLinear")
def dynamic(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4)], outputs=3)
    yield Case([floats(3, 4, low=1, high=3)], outputs=3)


@cases_for("QuantizeLinear")
def quantize(op: str, version: int) -> Iterator[Case]:
    x, scales = floats(3, 4, low=-300, high=300), np.array([1.0, 2.5, 0.5, 4.0], np.float32)
    yield Case([floats(3, 4, low=-9, high=9), one(2.0), one(0, np.uint8)])
    yield Case([x, one(2.0), one(128, np.uint8)], retype=False)
    yield Case([x, one(2.0)], retype=False)
    points = np.array([0, 1, -5, 9], np.int8)
    if version >= 13:
        yield Case([x, scales, points], retype=False)
        yield Case([x, scales[:3], points[:3]], {"axis": 0}, retype=False)
    if version >= 19:
        for name in ("float8_e4m3fn", "float8_e5m2"):
            yield Case([x, one(2.0), one(0, getattr(ml_dtypes, name))], {"saturate": 0}, retype=False)
    if version >= 21:
        blocks = floats(3, 2, low=0.5, high=2)
        yield Case([x, blocks, np.zeros((3, 2), np.int16)], {"block_size": 2}, retype=False)
        yield Case([x, one(50.0), one(0, ml_dtypes.int4)], retype=False)
        yield Case([x, one(2.0)], {"output_dtype": TensorProto.UINT16}, retype=False)
    if version >= 23:
        yield Case(
            [x, one(2.0), one(0, ml_dtypes.float4_e2m1fn)], {"precision": TensorProto.FLOAT}, retype=False
        )
    if version >= 25:
        yield Case([x, one(100.0), one(1, ml_dtypes.uint2)], retype=False)


@cases_for("DequantizeLinear")
def dequantize(op: str, version: int) -> Iterator[Case]:
    x, scales = u8(3, 4), np.array([1.0, 2.5, 0.5, 4.0], np.float32)
    yield Case([x, one(2.0), one(0, np.uint8)])
    yield Case([x, one(2.0), one(128, np.uint8)], retype=False)
    yield Case([x, one(2.0)])
    if version >= 13:
        yield Case([x, scales, u8(4, seed=1)])
        yield Case([x, scales[:3], u8(3, seed=1)], {"axis": 0})
    if version >= 21:
        yield Case([x, floats(3, 2, low=0.5, high=2), u8(3, 2, seed=1)], {"block_size": 2})
    if version >= 23:
        yield Case([x, one(2.0)], {"output_dtype": TensorProto.FLOAT16}, retype=False)
    if version >= 24:  # a scale that only knows powers of two says nothing of the result
        power = one(0.5, ml_dtypes.float8_e8m0fnu)
        yield Case(
            [x, power], {"output_dtype": TensorProto.FLOAT}, expect=lambda x, s: [x.astype(np.float32) * 0.5]
        )
