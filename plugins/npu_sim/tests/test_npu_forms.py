"""Every operator of com.microsoft that quantises itself, and forms that no other test has, against onnxruntime."""

from __future__ import annotations

from typing import Any

import npu_reference as reference
import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest
from npu_node import Q, code, feeds_of, integers, on_npu, on_onnxruntime, qdq, qoperator
from onnx import helper, numpy_helper

SHAPE = (2, 6, 8, 8)


def operand(shape: Any, dtype: str = "uint8", scale: float = 0.05, zero: int = 9, **more: Any) -> Q:
    return Q(integers(np.random.default_rng(len(shape)), shape, dtype), scale, zero, dtype, **more)


def assert_one_step(model: onnx.ModelProto, inputs: list[Q]) -> None:
    """Equal, but for the one step that a second rounding may make."""
    got, want = on_npu(model, feeds_of(inputs)), on_onnxruntime(model, feeds_of(inputs))
    different = np.abs(got.astype(int) - want.astype(int))
    assert different.max() <= 1 and (different > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("op", "result", "attributes"),
    [
        ("QLinearSigmoid", SHAPE, {}),
        ("QLinearLeakyRelu", SHAPE, {"alpha": 0.1}),
        ("QLinearSoftmax", SHAPE, {"axis": -1, "opset": 13}),
        ("QLinearGlobalAveragePool", (2, 6, 1, 1), {"channels_last": 0}),
        (
            "QLinearAveragePool",
            (2, 6, 4, 4),
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        ),
        ("QLinearAveragePool", (2, 6, 7, 7), {"kernel_shape": [2, 2], "count_include_pad": 1}),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_functions_and_pools_that_quantise_themselves(
    op: str, result: Any, attributes: Any, dtype: str
) -> None:
    x = operand(SHAPE, dtype)
    y = (
        Q(result, 1 / 256, 0 if dtype == "uint8" else -128, dtype)
        if "Soft" in op
        else Q(result, 0.0617, 3, dtype)
    )
    assert_one_step(qoperator(op, [x], y, domain="com.microsoft", **attributes), [x])


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
def test_qgemm(trans_b: int, per_column: bool) -> None:
    """Its bias comes before the result's scale, and the scales are those of columns."""
    rng = np.random.default_rng(0)
    a = operand((7, 40))
    scale = rng.uniform(0.01, 0.02, 24) if per_column else 0.02
    b = Q(integers(rng, (24, 40) if trans_b else (40, 24), "int8"), scale, np.zeros(np.shape(scale)), "int8")
    b = Q(b.data, scale, b.zero, "int8", constant=True)
    y, bias = Q((7, 24), 0.9, 120, "uint8"), rng.integers(-3000, 3000, 24).astype(np.int32)
    model = qoperator("QGemm", [a, b], y, bias, domain="com.microsoft", transB=trans_b)
    names = list(model.graph.node[0].input)
    del model.graph.node[0].input[:]
    model.graph.node[0].input.extend([*names[:6], "bias", "y_scale", "y_zero"])
    weights = b.array.T if trans_b else b.array
    acc = (a.array.astype(int) - 9) @ weights.astype(int) + bias
    factors = reference.channel_factors(a, b, y, 24)
    want = reference.requantised(acc, lambda index: factors[index[1]], y)
    assert np.array_equal(on_npu(model, feeds_of([a])), want)
    assert_one_step(model, [a])


def test_qlinear_concat_brings_scales_together() -> None:
    parts = [operand((2, 3, n), scale=0.05 * n, zero=n) for n in (1, 4, 2)]
    values = [
        helper.make_tensor_value_info(f"x{i}", code("uint8"), q.array.shape) for i, q in enumerate(parts)
    ]
    numbers = {"ys": np.float32(0.12), "yz": np.uint8(5)}
    for i, q in enumerate(parts):
        numbers |= {f"s{i}": np.float32(q.scale), f"z{i}": np.uint8(q.zero)}
    names = ["ys", "yz", *(f"{part}{i}" for i in range(3) for part in ("x", "s", "z"))]
    node = helper.make_node("QLinearConcat", names, ["y"], domain="com.microsoft", axis=2)
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in numbers.items()]
    result = helper.make_tensor_value_info("y", code("uint8"), (2, 3, 7))
    graph = helper.make_graph([node], "g", values, [result], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    assert_one_step(helper.make_model(graph, opset_imports=opsets, ir_version=10), parts)


@pytest.mark.parametrize(
    ("op", "place", "rounding"),
    [("asymmetric", "asymmetric", "floor"), ("half", "half_pixel", "round_prefer_floor"),
     ("half", "half_pixel", "round_prefer_ceil")],
)  # fmt: skip
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 3, 1), (2, 1, 1, 4)])
def test_resize_by_nearest_neighbours(op: str, place: str, rounding: str, scales: Any) -> None:
    x = operand((1, 2, 3, 4), "int8")
    y = Q(tuple(n * f for n, f in zip((1, 2, 3, 4), scales, strict=True)), 0.05, 9)
    how = {"mode": "nearest", "coordinate_transformation_mode": place, "nearest_mode": rounding}
    model = qdq("Resize", [x, np.array([], np.float32), np.array(scales, np.float32)], y, **how)
    want = onnx.reference.ReferenceEvaluator(model).run(None, feeds_of([x]))[0]
    assert np.array_equal(on_npu(model, feeds_of([x])), want)


def test_split_in_quantised_form() -> None:
    """Two parts of a dequantised value, each quantised in its own way."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (int8[2, 7, 3] x) => (int8[2, 9, 3] y) <float s = {0.05}, float t = {0.2}, int8 z = {3}, int8 o = {-9}, int64[2] n = {2, 5}> {
        xr = DequantizeLinear(x, s, z)  a, b = Split <axis = 1> (xr, n)
        aq = QuantizeLinear(a, t, o)  bq = QuantizeLinear(b, s, z)
        ar = DequantizeLinear(aq, t, o)  br = DequantizeLinear(bq, s, z)
        c = Concat <axis = 1> (br, ar, ar)  y = QuantizeLinear(c, s, o)
    }""")
    feeds = {"x": integers(np.random.default_rng(0), (2, 7, 3), "int8")}
    want = onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
    assert np.array_equal(on_npu(model, feeds), want)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_depthwise_convolutions_equal_the_reference(form: str, per_channel: bool, asymmetric: bool) -> None:
    """One filter a channel, on the vector unit."""
    rng = np.random.default_rng(1)
    x = operand((1, 5, 9, 8), zero=100)
    counts = (5,) if per_channel else ()
    zero = integers(rng, counts, "uint8") if asymmetric else np.full(counts, 128, np.uint8)
    w = Q(
        integers(rng, (5, 1, 3, 3), "uint8"), rng.uniform(0.002, 0.01, counts), zero, "uint8", constant=True
    )
    y = Q((1, 5, 5, 6), 0.06, 30, "uint8")
    how = {"strides": [2, 1], "pads": [1, 0, 1, 0], "group": 5}
    model = (qdq if form == "qdq" else qoperator)(
        "Conv" if form == "qdq" else "QLinearConv", [x, w], y, **how
    )
    assert np.array_equal(on_npu(model, feeds_of([x])), reference.conv(x, w, y, **how))
