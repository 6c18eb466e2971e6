"""Quantised operators against onnxruntime; what its CPU build lacks, against closed forms in NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from versus import agree, ours

import epkit

F = np.float32
BYTES = [np.int8, np.uint8]
INT4, UINT4 = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4)
R = np.random.default_rng(7)


def f(value: float) -> Any:
    return np.array(value, F)


def codes(dtype: Any, *shape: int) -> Any:
    info = np.iinfo(dtype)
    return np.random.default_rng(len(shape)).integers(info.min, info.max + 1, shape).astype(dtype)


def numbers(*shape: int, dtype: Any = F) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def scales(*shape: int, dtype: Any = F) -> Any:
    return (np.random.default_rng(shape).random(shape) * 0.01 + 0.001).astype(dtype)


def quantised(y: Any, scale: float, zero: int, dtype: Any) -> Any:
    info = ml_dtypes.iinfo(dtype)
    return np.clip(np.round(y / scale) + zero, int(info.min), int(info.max)).astype(dtype)


# ---- conversions


@pytest.mark.parametrize("real", [F, np.float16])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_and_dequantize(dtype: Any, real: Any) -> None:
    x = numbers(3, 4, dtype=real) * 3
    agree("QuantizeLinear", x, np.array(0.02, real), np.array(3, dtype))
    agree("QuantizeLinear", x, scales(3, dtype=real), np.array([3, 4, 5], dtype), axis=0)
    agree("QuantizeLinear", x, scales(4, dtype=real), np.array([3, 4, 5, 6], dtype))
    q = codes(dtype, 3, 4)
    agree("DequantizeLinear", q, np.array(0.02, real), np.array(3, dtype))
    agree("DequantizeLinear", q, scales(3, dtype=real), np.array([3, 4, 5], dtype), axis=-2)
    agree("DequantizeLinear", q, np.array(0.02, real))


def test_the_default_is_uint8_and_int32_has_no_zero_point() -> None:
    assert agree("QuantizeLinear", numbers(9), f(0.1))[0].dtype == np.uint8
    agree("DequantizeLinear", np.arange(-3, 4, dtype=np.int32) * 10**8, f(0.1))


@pytest.mark.parametrize("dtype", [INT4, UINT4])
def test_four_bits(dtype: Any) -> None:
    x, zero = numbers(3, 5) * 4, np.array(3, dtype)
    np.testing.assert_array_equal(
        ours("QuantizeLinear", x, f(0.7), zero).astype(int), quantised(x, F(0.7), 3, dtype).astype(int)
    )
    q = np.arange(8).reshape(2, 4).astype(dtype)
    agree("DequantizeLinear", q, f(0.7), zero, constants=(0, 2))
    agree("DequantizeLinear", q, scales(2), np.array([1, 2], dtype), constants=(0, 2), axis=0)


# ---- gather


@pytest.mark.parametrize("real", [F, np.float16])
@pytest.mark.parametrize("dtype", [INT4, UINT4])
@pytest.mark.parametrize("gather, quantize", [(0, 2), (1, -1), (0, 1), (2, 2), (1, 1), (-1, 0)])
def test_gather_blocks_of_four_bits(dtype: Any, real: Any, gather: int, quantize: int) -> None:
    data = R.integers(0 if dtype == UINT4 else -8, 8, (5, 6, 32)).astype(dtype)
    shape = list(data.shape)
    shape[quantize] = -(-shape[quantize] // 16)
    size = data.shape[gather]
    indices = R.integers(-size, size, (2, 3)).astype(np.int32)
    zeros = R.integers(0, 4, shape).astype(dtype)
    for zero in (zeros, None):
        agree(
            "GatherBlockQuantized", data, indices, scales(*shape, dtype=real), zero,
            constants=(0, 2, 3), block_size=16, gather_axis=gather, quantize_axis=quantize, rtol=1e-6,
        )  # fmt: skip


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape, block", [((5, 64), 16), ((7, 96), 32), ((5, 3, 32), 16)])
def test_gather_packed_bytes(bits: int, shape: tuple[int, ...], block: int) -> None:
    per_byte, last = 8 // bits, len(shape) - 1
    data = codes(np.uint8, *shape[:-1], shape[-1] // per_byte)
    blocks = shape[-1] // block
    zeros = codes(np.uint8, *shape[:-1], -(-blocks // per_byte))
    for zero in (zeros, None):
        agree(
            "GatherBlockQuantized", data, np.array([[0, 1], [-1, 2]]), scales(*shape[:-1], blocks), zero,
            constants=(0, 2, 3), bits=bits, block_size=block, quantize_axis=last, rtol=1e-6,
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn"]
)
def test_gather_small_floats_with_shared_scales(name: str) -> None:
    data = numbers(5, 32).astype(getattr(ml_dtypes, name))
    for block, shape in ((16, (5, 2)), (0, (5, 1)), (0, (1, 1)), (16, (1, 2))):
        args = (data, np.array([0, -1]), scales(*shape), None)
        agree("GatherBlockQuantized", *args, constants=(0, 2), block_size=block, rtol=1e-6)


def test_gather_out_of_range_gives_zeros() -> None:
    args = (np.ones((5, 16), INT4), np.array([7, -9, 0]), scales(5, 1))
    y = agree("GatherBlockQuantized", *args, constants=(0, 2), block_size=16)[0]
    assert not y[:2].any() and y[2].all()


@pytest.mark.parametrize(
    "data, scale, zero, attributes, message",
    [
        (np.ones((5, 16), UINT4), (5, 1), None, {"block_size": 24}, "block_size=24"),
        (np.ones((5, 16), UINT4), (5, 2), None, {"block_size": 16}, r"\(5, 1\)"),
        (np.ones((5, 16), np.uint8), (5, 2), None, {"block_size": 16, "bits": 3}, "bits=3"),
        (np.ones((5, 16), np.uint8), (5, 2), None, {"block_size": 16, "quantize_axis": 0}, "quantize_axis=0"),
        (np.ones((5, 16), UINT4), (5, 1), np.ones((5, 2), UINT4), {"block_size": 16}, "zero_points"),
    ],
)
def test_gather_refuses_what_does_not_fit(
    data: Any, scale: Any, zero: Any, attributes: dict[str, int], message: str
) -> None:
    with pytest.raises(epkit.EpkitError, match=message):
        ours("GatherBlockQuantized", data, np.array([0]), scales(*scale), zero, **attributes)


# ---- products


@pytest.mark.parametrize("dtype", BYTES)
def test_dynamic_quantize_mat_mul(dtype: Any) -> None:
    a, b, close = numbers(2, 3, 8), codes(dtype, 8, 5), {"rtol": 1e-6, "atol": 1e-6}
    agree("DynamicQuantizeMatMul", a, b, f(0.01), np.array(5, dtype), numbers(5), **close)
    agree("DynamicQuantizeMatMul", a, b, scales(5), codes(dtype, 5), **close)
    agree("DynamicQuantizeMatMul", a * 0, b, f(0.01), **close)


@pytest.mark.parametrize("left, right", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
def test_mat_mul_integer_to_float(left: Any, right: Any) -> None:
    a, b = codes(left, 2, 3, 8), codes(right, 8, 5)
    zeros = np.array(7, left), np.array(5, right)
    agree("MatMulIntegerToFloat", a, b, f(0.02), f(0.01), *zeros, numbers(5), rtol=1e-5, atol=1e-6)
    agree("MatMulIntegerToFloat", a, b, f(0.02), scales(5), None, codes(right, 5), rtol=1e-5)
    half = ours("MatMulIntegerToFloat", a, b, np.float16(0.02), scales(5, dtype=np.float16), *zeros[:1])
    assert half.dtype == np.float16


@pytest.mark.parametrize("left, right", [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)])
@pytest.mark.parametrize("trans_a, trans_b", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_q_gemm(left: Any, right: Any, trans_a: int, trans_b: int) -> None:
    a, b = codes(left, *(8, 3) if trans_a else (3, 8)), codes(right, *(5, 8) if trans_b else (8, 5))
    c, t = R.integers(-1000, 1000, (3, 5)).astype(np.int32), {"transA": trans_a, "transB": trans_b}
    args = a, f(0.02), np.array(7, left), b, f(0.013), np.array(5, right)
    agree("QGemm", *args, c, alpha=1.5, rtol=1e-5, atol=1e-6, **t)
    args = *args[:4], scales(5), codes(right, 5)
    agree("QGemm", *args, c[0], f(0.037), np.array(3, left), alpha=0.5, **t)
    agree("QGemm", *args, None, f(0.037), np.array(3, left), **t)


def test_whole_numbers_only() -> None:
    a, b = (
        R.integers(-30000, 30000, (2, 3, 8)).astype(np.int16),
        R.integers(-30000, 30000, (8, 4)).astype(np.int16),
    )
    agree("MatMulInteger16", a, b)
    wide = ours("MatMulInteger16", a.view(np.uint16), b)
    expected = np.matmul(a.view(np.uint16).astype(np.int64), b.astype(np.int64))
    np.testing.assert_array_equal(wide, expected.astype(np.int32))
    x, y = codes(np.int8, 2, 3, 4), codes(np.int8, 3, 1)
    product = ours("MulInteger", x, np.int8(3), y, np.int8(-4))
    np.testing.assert_array_equal(product, (x.astype(int) - 3) * (y.astype(int) + 4))


# ---- element by element


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_sums_and_products(op: str, dtype: Any) -> None:
    a, b, z = codes(dtype, 2, 3, 4), codes(dtype, 3, 1), lambda v: np.array(v, dtype)
    agree(op, a, f(0.0213), z(3), b, f(0.0511), z(100), f(0.1009), z(50), constants=(1, 2, 4, 5, 6, 7))
    y = ours(op, a, f(0.0213), None, b, f(0.0511), None, f(0.1009))  # onnxruntime infers no type for these
    x = a.astype(float) * 0.0213, b.astype(float) * 0.0511
    np.testing.assert_array_equal(
        y, quantised(x[0] + x[1] if op == "QLinearAdd" else x[0] * x[1], 0.1009, 0, dtype)
    )


@pytest.mark.parametrize("dtype", BYTES)
def test_functions_of_one_code(dtype: Any) -> None:
    x, zero = np.arange(256, dtype=np.uint8).view(dtype).reshape(2, 4, 32), np.array(100, dtype)
    agree("QLinearSigmoid", x, f(0.05), zero, f(1 / 256), np.array(0, dtype))
    y = ours("QLinearSigmoid", x, f(0.05), None, f(1 / 256))  # onnxruntime crashes without zero points
    np.testing.assert_array_equal(y, quantised(1 / (1 + np.exp(-x.astype(float) * 0.05)), 1 / 256, 0, dtype))
    agree("QLinearLeakyRelu", x, f(0.0517), zero, f(0.0413), np.array(10, dtype), alpha=0.2)
    y = ours("QLinearLeakyRelu", x, f(0.0517), None, f(0.0413))
    np.testing.assert_array_equal(
        y, quantised(np.where(x < 0, 0.01, 1) * x.astype(float) * 0.0517, 0.0413, 0, dtype)
    )


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize(
    "opset, axis",
    [(12, 0), (12, 1), (12, -1), (13, -1), (13, 0)],
)
def test_softmax(dtype: Any, opset: int, axis: int) -> None:
    x, zero = codes(dtype, 2, 4, 5), np.array(100, dtype)
    args = x, f(0.05), zero, f(1 / 256), np.array(0, dtype)
    agree("QLinearSoftmax", *args, opset=opset, axis=axis, constants=(1, 2, 3, 4), atol=1)


@pytest.mark.parametrize("dtype", BYTES)
def test_concat_and_where(dtype: Any) -> None:
    a, b, z = codes(dtype, 2, 3, 4), codes(dtype, 3, 1), lambda v: np.array(v, dtype)
    parts = a, f(0.0517), z(9), a, f(0.0913), z(5), a[:1], f(0.3), z(100)
    agree("QLinearConcat", f(0.0913), z(5), *parts, axis=0)
    agree("QLinearConcat", f(0.0913), z(5), *parts[:6], axis=-1)
    agree("QLinearWhere", numbers(3, 4) > 0, a, f(0.0517), z(9), b, f(0.0913), z(5), f(0.3), z(100))


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"pads": [1, 1, 0, 1]},
        {"pads": [1, 1, 0, 1], "count_include_pad": 1},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"ceil_mode": 1, "strides": [2, 2]},
        {"ceil_mode": 1, "strides": [3, 3], "pads": [1, 1, 1, 1]},
    ],
)
def test_average_pool(dtype: Any, last: int, attributes: dict[str, Any]) -> None:
    args = codes(dtype, 2, 7, 6, 3), f(0.0517), np.array(9, dtype), f(0.0413), np.array(20, dtype)
    agree("QLinearAveragePool", *args, kernel_shape=[3, 2], channels_last=last, **attributes)


@pytest.mark.parametrize("dtype", BYTES)
def test_means(dtype: Any) -> None:
    x, zero, out = codes(dtype, 2, 7, 6, 3), np.array(9, dtype), np.array(20, dtype)
    for last in (0, 1):
        args = x, f(0.0517), zero, f(0.0413), out
        agree("QLinearGlobalAveragePool", *args, channels_last=last, constants=(1, 2, 3, 4))
    y = ours("QLinearReduceMean", x, f(0.0517), zero, f(0.0413), out, axes=[1, -1], keepdims=0)
    expected = ((x.astype(float) - 9) * 0.0517).mean(axis=(1, 3))
    np.testing.assert_array_equal(y, quantised(expected, 0.0413, 20, dtype))


def test_scales_of_many_are_refused() -> None:
    with pytest.raises(epkit.EpkitError, match="A_scale"):
        ours("QLinearAdd", codes(np.int8, 4), scales(4), None, codes(np.int8, 4), f(1), None, f(1))
    with pytest.raises(epkit.EpkitError, match="inner size"):
        ours("MatMulIntegerToFloat", codes(np.int8, 2, 3), codes(np.int8, 4, 2), f(1), f(1))
