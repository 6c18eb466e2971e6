"""Conv, MatMul and Gemm: equal in every bit to the integer reference; onnxruntime's differences are explained."""

from __future__ import annotations

from typing import Any

import npu_reference as reference
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, feeds_of, integers, on_npu, on_onnxruntime, qdq, qoperator

BYTES = st.sampled_from(["int8", "uint8"])
SMALL = settings(max_examples=15, deadline=None)


def zero_of(rng: np.random.Generator, dtype: str, *shape: int) -> Any:
    return integers(rng, shape, dtype) if shape else int(integers(rng, (), dtype))


@SMALL
@given(
    st.integers(0, 10**6), BYTES, BYTES, st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 3),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_convolutions_equal_the_reference(
    seed: int, x_type: str, w_type: str, group: int, kernel: int, stride: int, per_channel: bool, biased: bool
) -> None:
    rng = np.random.default_rng(seed)
    channels, outs = 4, 8
    x = Q(integers(rng, (2, channels, 7, 6), x_type), 0.03, zero_of(rng, x_type), x_type)
    counts = (outs,) if per_channel else ()
    w = Q(
        integers(rng, (outs, channels // group, kernel, kernel), w_type),
        rng.uniform(0.001, 0.01, counts).astype(np.float32),
        zero_of(rng, w_type, *counts),
        w_type,
        constant=True,
    )
    geometry: dict[str, Any] = {
        "strides": [stride, 1],
        "pads": [1, 0, 2, 1],
        "dilations": [1, 2],
        "group": group,
    }
    wide = (6 + 1 - 2 * (kernel - 1) - 1) // 1 + 1
    high = (7 + 3 - (kernel - 1) - 1) // stride + 1
    y = Q((2, outs, high, wide), 0.05, zero_of(rng, x_type), x_type)
    bias = rng.integers(-5000, 5000, outs).astype(np.int32) if biased else None
    want = reference.conv(x, w, y, bias, **geometry)
    assert np.array_equal(
        on_npu(qoperator("QLinearConv", [x, w], y, bias, **geometry), feeds_of([x, w])), want
    )
    scale = np.broadcast_to(np.float32(x.scale) * np.asarray(w.scale, np.float32), outs).copy()
    extra = [] if bias is None else [Q(bias, scale, np.zeros(outs), "int32", constant=True)]
    assert np.array_equal(on_npu(qdq("Conv", [x, w, *extra], y, **geometry), feeds_of([x, w])), want)


@SMALL
@given(st.integers(0, 10**6), BYTES, st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_products_equal_the_reference(seed: int, dtype: str, m: int, k: int, n: int, constant: bool) -> None:
    rng = np.random.default_rng(seed)
    a = Q(integers(rng, (2, m, k), dtype), 0.02, zero_of(rng, dtype), dtype)
    b = Q(integers(rng, (k, n), "int8"), 0.01, zero_of(rng, "int8"), "int8", constant=constant)
    y = Q((2, m, n), 0.1, zero_of(rng, dtype), dtype)
    want = reference.matmul(a, b, y)
    assert np.array_equal(on_npu(qdq("MatMul", [a, b], y), feeds_of([a, b])), want)
    if a.dtype == y.dtype:
        assert np.array_equal(on_npu(qoperator("QLinearMatMul", [a, b], y), feeds_of([a, b])), want)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_reads_transposed_operands_where_they_lie(trans_a: int, trans_b: int) -> None:
    rng = np.random.default_rng(1)
    a = Q(integers(rng, (9, 5), "uint8"), 0.02, 7, "uint8")
    b = Q(
        integers(rng, (5, 33), "int8"),
        rng.uniform(0.01, 0.02, 33),
        np.zeros(33),
        "int8",
        constant=True,
        axis=1,
    )
    y = Q((9, 33), 0.3, 128, "uint8")
    want = reference.matmul(a, b, y)
    turned_a = Q(a.array.T, a.scale, a.zero, a.dtype) if trans_a else a
    turned_b = Q(b.array.T, b.scale, b.zero, b.dtype, constant=True, axis=0) if trans_b else b
    model = qdq("Gemm", [turned_a, turned_b], y, transA=trans_a, transB=trans_b)
    assert np.array_equal(on_npu(model, feeds_of([turned_a, turned_b])), want)


@pytest.mark.parametrize(
    "options", [{"scratchpad_kib": 16}, {"array": 4}, {"compress_weights": True}, {"dma_bytes": 1}]
)
def test_other_chips_give_the_same_numbers(options: dict[str, Any]) -> None:
    """Tiles of channels, rows and depth, with sums carried over; compressed weights."""
    rng = np.random.default_rng(2)
    x = Q(integers(rng, (1, 96, 12, 12), "uint8"), 0.02, 100, "uint8")
    sparse = integers(rng, (72, 96, 3, 3), "int8") * (rng.random((72, 96, 3, 3)) < 0.3)
    w = Q(sparse, rng.uniform(0.001, 0.002, 72), np.zeros(72), "int8", constant=True)
    y = Q((1, 72, 12, 12), 0.2, 120, "uint8")
    model = qdq("Conv", [x, w], y, pads=[1, 1, 1, 1])
    plain = on_npu(model, feeds_of([x, w]))
    assert np.array_equal(on_npu(model, feeds_of([x, w]), **options), plain)
    close = np.abs(plain.astype(int) - on_onnxruntime(model, feeds_of([x, w])).astype(int))
    assert close.max() <= 1


def test_one_dimensional_convolutions() -> None:
    rng = np.random.default_rng(3)
    x = Q(integers(rng, (1, 5, 41), "int8"), 0.02, 3, "int8")
    w = Q(integers(rng, (6, 5, 3), "int8"), 0.004, 0, "int8", constant=True)
    y = Q((1, 6, 21), 0.05, -4, "int8")
    deep = Q(w.array[..., None], w.scale, w.zero, w.dtype)
    want = reference.conv(
        Q(x.array[..., None], x.scale, x.zero),
        deep,
        Q((), y.scale, y.zero),
        strides=(2, 1),
        pads=(1, 0, 1, 0),
    )
    model = qdq("Conv", [x, w], y, strides=[2], pads=[1, 1])
    assert np.array_equal(on_npu(model, feeds_of([x, w])), want[..., 0])


def test_where_onnxruntime_differs_it_has_rounded_twice() -> None:
    """It multiplies in float32, so that a product may be rounded to a tie before it is rounded to an integer.

    Wherever the bytes differ, the exact product is no tie, and its float32 neighbour is.
    """
    rng = np.random.default_rng(4)
    a = Q(integers(rng, (512, 64), "uint8"), 0.0234, 128, "uint8")
    b = Q(integers(rng, (64, 256), "int8"), 0.0173, 0, "int8", constant=True)
    y = Q((512, 256), 0.31, 128, "uint8")
    model = qoperator("QLinearMatMul", [a, b], y)
    got, theirs = on_npu(model, feeds_of([a, b])), on_onnxruntime(model, feeds_of([a, b]))
    acc = (a.array.astype(np.int64) - 128) @ b.array.astype(np.int64)
    factor = np.float32(a.scale) * np.float32(b.scale) / np.float32(y.scale)
    twice = np.clip(np.rint(acc.astype(np.float32) * factor) + 128, 0, 255).astype(np.uint8)
    assert np.array_equal(theirs, twice)
    different = got != theirs
    assert different.mean() < 1e-4
    single = acc.astype(np.float32) * factor
    assert np.all(np.abs(single[different] - np.trunc(single[different])) == 0.5)


def test_an_activation_is_a_limit_of_the_product() -> None:
    """Relu between Conv and QuantizeLinear costs nothing: the rounding step keeps the range."""
    rng = np.random.default_rng(5)
    x = Q(integers(rng, (1, 4, 6, 6), "int8"), 0.05, 1, "int8")
    w = Q(integers(rng, (8, 4, 1, 1), "int8"), 0.02, 0, "int8", constant=True)
    y = Q((1, 8, 6, 6), 0.1, -20, "int8")
    model = qdq("Conv", [x, w], y)
    quantise = model.graph.node[-1]
    relu = onnx.helper.make_node("Relu", ["y_real"], ["y_positive"])
    quantise.input[0] = "y_positive"
    model.graph.node.insert(len(model.graph.node) - 1, relu)
    want = np.maximum(reference.conv(x, w, y), np.int8(-20))
    assert want.min() == -20
    assert np.array_equal(on_npu(model, feeds_of([x, w])), want)
