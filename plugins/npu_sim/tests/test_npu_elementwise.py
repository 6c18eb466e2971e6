"""Add, Sub, Mul, functions of one tensor, fused chains, and what moves."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import npu_reference as reference
import numpy as np
import onnx.parser
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, feeds_of, integers, on_npu, on_onnxruntime, qdq, qoperator
from onnx import helper

import epkit

SHAPES = st.sampled_from([((2, 3, 5), (2, 3, 5)), ((4, 1, 6), (3, 6)), ((2, 7), (1, 1)), ((3, 1), (3, 8))])
FEW = settings(max_examples=15, deadline=None)


def standard(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    """DequantizeLinear, the operator and QuantizeLinear in float32, one after the other."""
    return onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]


@FEW
@given(
    st.integers(0, 10**6),
    SHAPES,
    st.sampled_from(["int8", "uint8", "int16"]),
    st.sampled_from(["Add", "Sub"]),
)
def test_sums_equal_the_reference(seed: int, shapes: Any, dtype: str, op: str) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.001, 0.2, 3)
    zeros = [0, 0, 0] if dtype == "int16" else [int(integers(rng, (), dtype)) for _ in range(3)]
    a, b = (Q(integers(rng, shape, dtype), scales[i], zeros[i], dtype) for i, shape in enumerate(shapes))
    y = Q(np.broadcast_shapes(*shapes), scales[2], zeros[2], dtype)
    model = qdq(op, [a, b], y)
    got = on_npu(model, feeds_of([a, b]))
    assert np.array_equal(got, reference.add(a, b, y, 1 if op == "Add" else -1))
    if dtype != "int16":  # there, float32 itself is too coarse for the standard's path to be exact
        assert np.abs(got.astype(int) - standard(model, feeds_of([a, b])).astype(int)).max() <= 1


@FEW
@given(st.integers(0, 10**6), SHAPES, st.sampled_from(["int8", "uint8"]))
def test_products_of_elements_equal_the_reference(seed: int, shapes: Any, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    a = Q(integers(rng, shapes[0], dtype), 0.02, 5, dtype)
    b = Q(integers(rng, shapes[1], dtype), 0.03, 11, dtype, constant=seed % 2 == 0)
    y = Q(np.broadcast_shapes(*shapes), 0.05, 3, dtype)
    factor = float(np.float32(a.scale) * np.float32(b.scale)) / float(np.float32(y.scale))
    mantissa, exponent = math.frexp(factor)
    rounded = Fraction(round(mantissa * 2**24)) * Fraction(2) ** (exponent - 24)
    left, right = np.broadcast_arrays(a.array.astype(int) - 5, b.array.astype(int) - 11)
    want = np.empty(left.shape, dtype)
    for index in np.ndindex(*left.shape):
        want[index] = reference.finish(int(left[index]) * int(right[index]) * rounded, y)
    assert np.array_equal(on_npu(qdq("Mul", [a, b], y), feeds_of([a, b])), want)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("HardSwish", {}), ("LeakyRelu", {"alpha": 0.2}), ("Gelu", {}),
     ("Erf", {}), ("Elu", {}), ("Softplus", {}), ("Abs", {}), ("HardSigmoid", {})],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_functions_by_table_are_the_standard(op: str, attributes: dict[str, Any], dtype: str) -> None:
    """All 256 numbers. float32 functions of two libraries may differ in the last place, so in one step at a tie."""
    x = Q(np.arange(256, dtype=np.uint8).view(dtype), 0.05, 10, dtype)
    y = Q((256,), 0.04, 20, dtype)
    model = qdq(op, [x], y, **attributes)
    got, want = on_npu(model, feeds_of([x])), standard(model, feeds_of([x]))
    different = np.abs(got.astype(int) - want.astype(int))
    assert different.max() <= 1 and (different > 0).mean() < 0.02


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Gelu"])
def test_functions_of_16_bits_by_polynomial(op: str) -> None:
    """All 65,536 numbers, within two steps of the real function (a step is 2^-15 of the range)."""
    x = Q(np.arange(-32768, 32768), 8 / 32768, 0, "int16")
    y = Q((65536,), 8 / 32768 if op == "Gelu" else 1 / 32768, 0, "int16")
    got = on_npu(qdq(op, [x], y), feeds_of([x])).astype(np.float64)
    real = x.array.astype(np.float64) * np.float32(x.scale)
    exact = {
        "Sigmoid": 1 / (1 + np.exp(-real)),
        "Tanh": np.tanh(real),
        "Gelu": real * 0.5 * (1 + np.vectorize(math.erf)(real / math.sqrt(2))),
    }[op]
    assert np.abs(got - np.clip(exact / np.float32(y.scale), -32768, 32767)).max() <= 2


def test_clip_limits_are_constants() -> None:
    x = Q(np.arange(-128, 128), 0.1, 0)
    y = Q((256,), 0.1, 0)
    got = on_npu(qdq("Clip", [x, np.float32(-1), np.float32(6)], y), feeds_of([x]))
    assert (got.min(), got.max()) == (-10, 60)


# ---- chains in one pass ----


def test_a_chain_is_one_layer_and_gives_what_its_parts_give() -> None:
    """MatMul, HardSwish and a residual Add: one pass over tiles, the same bytes as three passes."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (int8[40, 64] x, int8[40, 48] r) => (int8[40, 48] y)
    <float s = {0.05}, float t = {0.4}, float u = {0.2}, int8 z = {3}, int8 o = {0}> {
        xr = DequantizeLinear(x, s, z)  wr = DequantizeLinear(w, s, o)
        m = MatMul(xr, wr)  q = QuantizeLinear(m, t, z)  d = DequantizeLinear(q, t, z)
        h = HardSwish(d)  p = QuantizeLinear(h, u, o)  e = DequantizeLinear(p, u, o)
        rr = DequantizeLinear(r, s, o)  a = Add(e, rr)  y = QuantizeLinear(a, t, o)
    }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(integers(rng, (64, 48), "int8"), "w"))
    feeds = {"x": integers(rng, (40, 64), "int8"), "r": integers(rng, (40, 48), "int8")}
    with epkit.load(model, ["npu_sim"], fallback="error", optimise="basic") as session:
        profile = epkit.Profile()
        session.run(None, feeds, epkit.RunOptions(profile=profile))
    assert [row.operator for row in profile.rows() if row.provider == "npu_sim" and row.counters] == [
        "MatMul"
    ]
    whole = on_npu(model, feeds)
    for middle in ("q", "p"):
        model.graph.output.append(helper.make_tensor_value_info(middle, onnx.TensorProto.INT8, [40, 48]))
    assert np.array_equal(on_npu(model, feeds), whole)
    small = on_npu(model, feeds, scratchpad_kib=16)
    assert np.array_equal(small, whole)


def test_a_chain_through_wider_numbers() -> None:
    """int8, int16, int8 in one pass over full tiles: the middle one has room for 16 bits.

    (It is the second layer, whose slots lie upwards: there, what is too long runs into the next operand.)
    """
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (int8[200, 256] w, int8[200, 256] r) => (int8[200, 256] y, int8[200, 256] x)
    <float s = {0.03}, float t = {0.00003051758}, int8 z = {1}, int16 o = {0}> {
        x = Relu(w)  a = DequantizeLinear(x, s, z)  b = Tanh(a)  q = QuantizeLinear(b, t, o)  c = DequantizeLinear(q, t, o)
        d = DequantizeLinear(r, s, z)  e = Add(c, d)  y = QuantizeLinear(e, s, z)
    }""")
    rng = np.random.default_rng(0)
    feeds = {name: integers(rng, (200, 256), "int8") for name in ("w", "r")}
    fused = on_npu(model, feeds)
    assert np.abs(fused.astype(int) - standard(model, feeds).astype(int)).max() <= 1
    model.graph.output.append(helper.make_tensor_value_info("q", onnx.TensorProto.INT16, [200, 256]))
    assert np.array_equal(on_npu(model, feeds), fused)


# ---- moves ----

MOVES: list[tuple[str, tuple[int, ...], tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Transpose", (2, 3, 4, 5), (5, 3, 2, 4), [], {"perm": [3, 1, 0, 2]}),
    ("Reshape", (2, 3, 4), (6, 4), [np.array([6, 4])], {}),
    ("Flatten", (2, 3, 4), (2, 12), [], {}),
    ("Slice", (5, 9), (2, 4), [np.array([1, 1]), np.array([5, 9]), np.array([0, 1]), np.array([2, 2])], {}),
    ("Expand", (3, 1), (3, 7), [np.array([3, 7])], {}),
    ("DepthToSpace", (1, 8, 2, 3), (1, 2, 4, 6), [], {"blocksize": 2}),
    ("DepthToSpace", (1, 8, 2, 3), (1, 2, 4, 6), [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (1, 2, 4, 6), (1, 8, 2, 3), [], {"blocksize": 2}),
    ("Resize", (1, 2, 3, 4), (1, 2, 6, 12), [np.array([], np.float32), np.array([1, 1, 2, 3], np.float32)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
]  # fmt: skip


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("case", MOVES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MOVES)])
def test_moves_are_the_standard(case: Any, rescaled: bool) -> None:
    op, before, after, rest, attributes = case
    x = Q(integers(np.random.default_rng(0), before, "int8"), 0.1, 4)
    y = Q(after, 0.13 if rescaled else 0.1, -7 if rescaled else 4)
    model = qdq(op, [x, *rest], y, **attributes)
    assert np.array_equal(on_npu(model, feeds_of([x])), standard(model, feeds_of([x])))


@pytest.mark.parametrize("rescaled", [False, True])
def test_concat_brings_scales_together(rescaled: bool) -> None:
    rng = np.random.default_rng(0)
    parts = [
        Q(integers(rng, (2, n, 3), "uint8"), 0.1 + 0.05 * n * rescaled, n * rescaled, "uint8")
        for n in (1, 4, 2)
    ]
    y = Q((2, 7, 3), 0.1, 0, "uint8")
    model = qdq("Concat", parts, y, axis=1)
    assert np.array_equal(on_npu(model, feeds_of(parts)), standard(model, feeds_of(parts)))


def test_operators_on_integers_need_no_scale() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
    g (int8[2, 6] x) => (int8[4, 2] y, int8[2, 2] z)
    <int64[2] parts = {2, 4}, int64[1] one = {0}, int64[1] two = {2}> {
        a, b = Split <axis = 1> (x, parts)  t = Transpose(a)
        c, z = Split <axis = 1, num_outputs = 2> (b)  r = Relu(c)  s = Slice(r, one, two)  q = Identity(s)
        y = Concat <axis = 0> (t, q)
    }""")
    x = integers(np.random.default_rng(0), (2, 6), "int8")
    assert np.array_equal(on_npu(model, {"x": x}), standard(model, {"x": x}))


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_operators_of_com_microsoft(op: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (Q(integers(rng, (4, 33), "uint8"), s, z, "uint8") for s, z in ((0.02, 9), (0.03, 130)))
    y = Q((4, 33), 0.05, 100, "uint8")
    model = qoperator(op, [a, b], y, domain="com.microsoft")
    got, want = on_npu(model, feeds_of([a, b])), on_onnxruntime(model, feeds_of([a, b]))
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1
