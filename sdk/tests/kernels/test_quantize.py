"""Quantisation: granularity, precision, saturation, integer products that are exact, errors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from one_node import by_onnxruntime, run

T = onnx.TensorProto
RNG = np.random.default_rng(11)
X = RNG.normal(0, 40, (3, 5, 4)).astype(np.float32)


def bytes_of(dtype: Any, *shape: int) -> Any:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize(
    "opset, shape, axis", [(10, (), None), (13, (), None), (13, (5,), 1), (13, (4,), -1), (19, (3,), 0)]
)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantize_and_back_like_onnxruntime(opset: int, shape: Any, axis: int | None, dtype: Any) -> None:
    scale = RNG.uniform(0.1, 1, shape).astype(np.float32)
    zero = np.asarray(bytes_of(dtype, *shape))
    attributes = {} if axis is None else {"axis": axis}
    y = run("QuantizeLinear", X, scale, zero, opset=opset, **attributes)
    np.testing.assert_array_equal(
        y, by_onnxruntime("QuantizeLinear", X, scale, zero, opset=opset, **attributes)
    )
    back = run("DequantizeLinear", y, scale, zero, opset=opset, **attributes)
    np.testing.assert_array_equal(
        back, by_onnxruntime("DequantizeLinear", y, scale, zero, opset=opset, **attributes)
    )


@pytest.mark.parametrize("block, blocks", [(2, 3), (3, 2), (5, 1)])
def test_blocks(block: int, blocks: int) -> None:
    scale = RNG.uniform(0.1, 1, (3, blocks, 4)).astype(np.float32)
    y = run("QuantizeLinear", X, scale, axis=1, block_size=block, output_dtype=T.INT16)
    wide = np.repeat(scale, block, axis=1)[:, :5]
    np.testing.assert_array_equal(y, np.rint(X / wide).astype(np.int16))
    back = run("DequantizeLinear", y, scale, axis=-2, block_size=block)
    np.testing.assert_array_equal(back, y.astype(np.float32) * wide)


def test_type_of_the_result() -> None:
    scale = np.float32(0.5)
    assert run("QuantizeLinear", X, scale).dtype == np.uint8
    assert run("QuantizeLinear", X, scale, output_dtype=T.INT4).dtype == ml_dtypes.int4
    assert run("DequantizeLinear", np.int8([1]), scale.astype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16
    assert run("DequantizeLinear", np.int8([1]), scale, output_dtype=T.FLOAT16).dtype == np.float16
    with pytest.raises(ValueError, match="output_dtype"):
        run("QuantizeLinear", X, scale, np.int8(0), output_dtype=T.UINT8)


def test_precision_of_the_division() -> None:
    x, scale, zero = np.float32([1025.4]), np.float16(0.5), np.int16(0)  # 1025 in float16
    assert run("QuantizeLinear", x, scale, zero).tolist() == [2050]
    assert run("QuantizeLinear", x, scale, zero, precision=T.FLOAT).tolist() == [2051]
    two = np.uint8([128]).view(ml_dtypes.float8_e8m0fnu)
    assert run("QuantizeLinear", np.float32([5, 7]), two).tolist() == [2, 4]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "float6_e2m3fn"])
def test_narrow_floats(dtype: str) -> None:
    dtype = np.dtype(dtype)
    x = np.float32([0.4, 1.2, -3.0, 1e9])
    y = run("QuantizeLinear", x, np.float32(2), np.zeros((), dtype))
    largest = ml_dtypes.finfo(dtype).max
    np.testing.assert_array_equal(y, np.array([0.2, 0.6, -1.5, largest], np.float32).astype(dtype))
    np.testing.assert_array_equal(run("DequantizeLinear", y, np.float32(2)), y.astype(np.float32) * 2)


def test_int32_is_dequantised_exactly() -> None:
    y = run("DequantizeLinear", np.int32([2**24 + 1, -(2**31)]), np.float32(1), np.int32(1))
    assert y.tolist() == [2.0**24, -(2.0**31)]


@pytest.mark.parametrize(
    "scale, zero, attributes",
    [
        (np.ones(3, np.float32), np.zeros(2, np.uint8), {"axis": 0}),
        (np.ones(3, np.float32), None, {"axis": 1}),
        (np.ones(3, np.float32), None, {"axis": 3}),
        (np.ones((3, 2, 4), np.float32), None, {"axis": 1, "block_size": 2}),
        (np.ones((3, 5, 4), np.float32), None, {"axis": 1}),
    ],
)
@pytest.mark.parametrize("name", ["QuantizeLinear", "DequantizeLinear"])
def test_shapes_that_do_not_fit(name: str, scale: Any, zero: Any, attributes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"shape|axis"):
        run(name, X if name == "QuantizeLinear" else bytes_of(np.uint8, *X.shape), scale, zero, **attributes)


@pytest.mark.parametrize("x", [[0.5, -1.5, 3.0], [1.0, 2.0], [-3.0, -1.0], [0.0, 0.0]])
def test_dynamic_quantisation_like_onnxruntime(x: list[float]) -> None:
    got = run("DynamicQuantizeLinear", np.float32(x), n_outputs=3)
    for g, w in zip(
        got, by_onnxruntime("DynamicQuantizeLinear", np.float32(x), opset=11, n_outputs=3), strict=True
    ):
        np.testing.assert_array_equal(g, w)


def test_dynamic_quantisation_edges() -> None:
    assert run("DynamicQuantizeLinear", np.zeros((0, 2), np.float32))[0].shape == (0, 2)
    with pytest.raises(ValueError, match="scale"):
        run("DynamicQuantizeLinear", np.float32([np.nan, 1]))


@pytest.mark.parametrize("depth", [4, 258, 259, 5000])
@pytest.mark.parametrize("a_type, b_type", [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)])
def test_integer_product_is_exact(depth: int, a_type: Any, b_type: Any) -> None:
    a, b = bytes_of(a_type, 2, 3, depth), bytes_of(b_type, depth, 4)
    rows, columns = bytes_of(a_type, 3), bytes_of(b_type, 4)
    want = (a.astype(np.int64) - rows[:, None]) @ (b.astype(np.int64) - columns)
    got = run("MatMulInteger", a, b, rows, columns)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(run("MatMulInteger", a, b), a.astype(np.int64) @ b.astype(np.int64))


def test_quantised_product_by_row_and_column() -> None:
    a, b = bytes_of(np.uint8, 3, 6), bytes_of(np.int8, 6, 4)
    a_scale, b_scale = (RNG.uniform(0.01, 0.1, n).astype(np.float32) for n in (3, 4))
    a_zero, b_zero = bytes_of(np.uint8, 3), bytes_of(np.int8, 4)
    y = run("QLinearMatMul", a, a_scale, a_zero, b, b_scale, b_zero, np.float32(0.3), np.uint8(7))
    real = (a - a_zero[:, None] * 1.0) * a_scale[:, None] @ ((b - b_zero * 1.0) * b_scale)
    np.testing.assert_allclose(y, np.clip(np.rint(real / np.float32(0.3)) + 7, 0, 255), atol=1)
    with pytest.raises(ValueError, match="a_zero_point"):
        run(
            "QLinearMatMul",
            a,
            np.float32(1),
            a_zero[:2],
            b,
            np.float32(1),
            b_zero,
            np.float32(1),
            np.uint8(7),
        )


CONV = {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2]}


@pytest.mark.parametrize("group", [1, 2])
def test_integer_convolution_like_onnxruntime(group: int) -> None:
    x, w = bytes_of(np.uint8, 2, 4, 7, 6), bytes_of(np.uint8, 4, 4 // group, 3, 2)
    arguments = (x, w, np.uint8(120), np.uint8(3))
    want = by_onnxruntime("ConvInteger", *arguments, opset=10, group=group, **CONV)
    np.testing.assert_array_equal(run("ConvInteger", *arguments, group=group, **CONV), want)


@pytest.mark.parametrize("per_filter", [False, True])
def test_quantised_convolution_like_onnxruntime(per_filter: bool) -> None:
    x, w, bias = bytes_of(np.uint8, 1, 2, 6, 6), bytes_of(np.int8, 3, 2, 3, 2), np.int32([100, -200, 300])
    w_scale = RNG.uniform(0.01, 0.05, 3).astype(np.float32) if per_filter else np.float32(0.02)
    w_zero = np.zeros(3, np.int8) if per_filter else np.int8(0)
    arguments = (x, np.float32(0.05), np.uint8(128), w, w_scale, w_zero, np.float32(0.3), np.uint8(90), bias)
    want = by_onnxruntime("QLinearConv", *arguments, opset=10, **CONV)
    np.testing.assert_allclose(run("QLinearConv", *arguments, **CONV).astype(int), want.astype(int), atol=1)
    with pytest.raises(ValueError, match="filter"):
        run("QLinearConv", *arguments[:4], np.ones(2, np.float32), w_zero, *arguments[6:], **CONV)
