"""Quantised models at the session's door, on every instruction set: against closed forms and onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import OptionError
from epkit_cpu.compile import NativeProgram
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(11)
BY_CHANCE = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@pytest.fixture(params=isas() or ("none",))
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)
    return str(request.param)


def codes(shape: tuple[int, ...], kind: Any) -> Array:
    limits = np.iinfo(kind)
    return RANDOM.integers(limits.min, limits.max + 1, shape).astype(kind)


class Model:
    """Nodes, constants and inputs, put together one by one."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.feeds: dict[str, Array] = {}

    def constant(self, name: str, value: Any) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def input(self, name: str, value: Array) -> str:
        self.feeds[name] = value
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def dequantised(self, name: str, scale: Any, zero: Any, **attributes: Any) -> str:
        given = [self.constant(f"{name}_s", scale), self.constant(f"{name}_z", zero)]
        return self.node("DequantizeLinear", [name, *given], f"{name}_d", **attributes)

    def quantised(self, name: str, scale: float, zero: Any, kind: Any = np.uint8) -> str:
        given = [self.constant(f"{name}_qs", np.float32(scale)), self.constant(f"{name}_qz", kind(zero))]
        return self.node("QuantizeLinear", [name, *given], f"{name}_q")

    def made(self, output: str) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{n}{i}" for i in range(x.ndim)]
            )
            for n, x in self.feeds.items()
        ]
        result = helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)
        result.ClearField("type")
        weights = [numpy_helper.from_array(w, n) for n, w in self.weights.items()]
        graph = helper.make_graph(self.nodes, "g", inputs, [result], weights)
        domains = {str(node.domain) for node in self.nodes} - {""}
        opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def run(
        self, output: str, *, steps: set[str] | None = None, threads: int = 2, optimise: str = "basic"
    ) -> Array:
        """The output; every step is native, and ``steps`` are among them."""
        with epkit.load(self.made(output), [("cpu", {"threads": threads})], optimise=optimise) as session:
            kernels = {
                step.kernel
                for program in session._engine.compiled.programs.values()
                if isinstance(program, NativeProgram)
                for step in program.steps
            }
            assert "" not in kernels, kernels
            assert steps is None or kernels == steps
            session.run(None, self.feeds)
            found: Array = session.run(None, self.feeds)[output]
            return found

    def peer(self, output: str) -> Array:
        """What onnxruntime makes of the nodes as they are."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = self.made(output).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found: Array = session.run([output], self.feeds)[0]
        return found


def assert_codes(found: Array, real: Array, zero: int) -> None:
    """Codes are ``real`` rounded with halves to even; next to a half, either neighbour."""
    limits = np.iinfo(found.dtype)
    wanted = np.clip(np.rint(real) + zero, limits.min, limits.max)
    near = np.abs(real - np.floor(real) - 0.5) < 1e-3
    assert found.shape == wanted.shape
    off = np.abs(found.astype(np.int64) - wanted)
    assert (off[~near] == 0).all() and (off <= 1).all(), f"{(off[~near] != 0).mean():.1%} differ"


@BY_CHANCE
@given(data=st.data())
def test_products_between_quantisation(isa: str, data: st.DataObject) -> None:
    batch = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    m, k, n = (data.draw(st.sampled_from([1, 2, 5, 33, 70])) for _ in range(3))
    a_kind, b_kind, y_kind = (data.draw(st.sampled_from([np.uint8, np.int8])) for _ in range(3))
    constant, quantised = data.draw(st.booleans()), data.draw(st.booleans())
    bias, relu = data.draw(st.booleans()), data.draw(st.booleans())
    one = not constant or data.draw(st.booleans())
    model = Model()
    a = codes((*batch, m, k), a_kind)
    b = codes((k, n) if constant else (*batch, k, n), b_kind)
    model.input("a", a)
    model.constant("b", b) if constant else model.input("b", b)
    a_scale, a_zero = np.float32(0.02), a_kind(3)
    b_scale = np.float32(0.01) if one else RANDOM.uniform(0.005, 0.02, n).astype(np.float32)
    b_zero = b_kind(5) if one else codes((n,), b_kind)
    left = model.dequantised("a", a_scale, a_zero)
    right = model.dequantised("b", b_scale, b_zero, axis=1)
    y = model.node("MatMul", [left, right], "y")
    real = (a.astype(np.float64) - a_zero) @ (b.astype(np.float64) - b_zero) * a_scale * b_scale
    if bias:
        c = RANDOM.standard_normal(n).astype(np.float32)
        y = model.node("Add", [y, model.constant("c", c)], "yc")
        real = real + c
    if relu:
        y = model.node("Relu", [y], "yr")
        real = np.maximum(real, 0)
    if not quantised:
        np.testing.assert_allclose(model.run(y), real, 1e-5, 1e-5 * float(np.abs(real).max() + 1))
        return
    zero = 100 if y_kind is np.uint8 else -7
    y = model.quantised(y, 0.05, zero, y_kind)
    absorbed = constant or not bias  # a bias is taken where its size is known
    found = model.run(y, steps={"gemm_int8"} if absorbed else None)
    assert_codes(found, real / np.float64(np.float32(0.05)), zero)


@BY_CHANCE
@given(data=st.data())
def test_convolutions_between_quantisation(isa: str, data: st.DataObject) -> None:
    group = data.draw(st.sampled_from([1, 1, 2]))
    channels, filters = (group * data.draw(st.sampled_from([4, 16, 19])) for _ in range(2))
    kinds = [np.uint8, np.int8]
    x_kind, y_kind = data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(kinds))
    size, pad, stride = (data.draw(st.integers(*r)) for r in ((5, 12), (0, 1), (1, 2)))
    quantised, bias = data.draw(st.booleans()), data.draw(st.booleans())
    model = Model()
    x, w = codes((2, channels, size, size + 3), x_kind), codes((filters, channels // group, 3, 3), np.int8)
    model.input("x", x)
    model.constant("w", w)
    w_scale = RANDOM.uniform(0.005, 0.02, filters).astype(np.float32)
    given = [
        model.dequantised("x", np.float32(0.02), x_kind(3)),
        model.dequantised("w", w_scale, np.zeros(filters, np.int8), axis=0),
    ]
    plain = [model.constant("xf", ((x.astype(np.float64) - 3) * np.float32(0.02)).astype(np.float64))]
    plain.append(model.constant("wf", w * w_scale.astype(np.float64)[:, None, None, None]))
    if bias:
        b = RANDOM.integers(-3000, 3000, filters).astype(np.int32)
        scale = np.float32(0.02) * w_scale
        model.constant("b", b)
        given.append(model.dequantised("b", scale, np.zeros(filters, np.int32), axis=0))
        plain.append(model.constant("bf", b * scale.astype(np.float64)))
    attributes: dict[str, Any] = {"pads": [pad] * 4, "strides": [stride] * 2, "group": group}
    oracle = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", plain, ["y"], **attributes)],
            "g",
            [],
            [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
            [numpy_helper.from_array(model.weights.pop(name), name) for name in plain],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    evaluator: Any = onnx.reference.ReferenceEvaluator(oracle)
    real = evaluator.run(None, {})[0]
    y = model.node("Conv", given, "y", **attributes)
    for optimise in ("basic", "extended"):  # as three nodes, and as QLinearConv where that is made
        if quantised:
            name = f"y_q{optimise}"
            node = helper.make_node("QuantizeLinear", [y, "s", "z"], [name])
            model.weights |= {"s": np.asarray(np.float32(0.1)), "z": np.asarray(y_kind(20))}
            model.nodes.append(node)
            assert_codes(model.run(name, optimise=optimise), real / np.float64(np.float32(0.1)), 20)
            model.nodes.pop()
        else:
            np.testing.assert_allclose(model.run(y, optimise=optimise), real, 1e-4, 1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_chains_over_codes_have_the_bits_of_onnxruntime(isa: str, kind: Any) -> None:
    model = Model()
    x = model.input("x", codes((3, 7, 65), kind))
    y = model.input("y", codes((7, 65), kind))
    total = model.node(
        "Add",
        [model.dequantised(x, np.float32(0.1), kind(9)), model.dequantised(y, np.float32(0.3), kind(1))],
        "t",
    )
    result = model.quantised(model.node("Relu", [total], "r"), 0.15, kind(4), kind)
    assert np.array_equal(model.run(result, steps={"pointwise"}), model.peer(result))


def test_rounding_saturation_and_what_is_no_number(isa: str) -> None:
    model = Model()
    halves = np.arange(-300, 300, dtype=np.float32) / 2
    x = model.input("x", np.concatenate([halves, np.array([1e30, -1e30, np.inf, -np.inf], np.float32)]))
    for kind in (np.uint8, np.int8):
        result = model.quantised(x, 1.0, 2, kind)
        found = model.run(result)
        limits = np.iinfo(kind)
        wanted = np.clip(np.rint(np.float64(model.feeds["x"])) + 2, limits.min, limits.max)
        assert found.dtype == kind and np.array_equal(found, wanted)
        model.nodes.clear()


@pytest.mark.parametrize("spread", [1.0, 0.0, -1.0])
def test_dynamic_quantisation(isa: str, spread: float) -> None:
    model = Model()
    x = RANDOM.standard_normal((5, 37)).astype(np.float32) * spread
    model.input("x", np.abs(x) if spread < 0 else x)
    model.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    for name in ("q", "s", "z"):
        found, wanted = model.run(name, steps={"dynamic_quantise"}), model.peer(name)
        if spread or name != "s":  # the scale of zeros is left open
            assert np.array_equal(found, wanted), name


@BY_CHANCE
@given(data=st.data())
def test_dynamically_quantised_products(isa: str, data: st.DataObject) -> None:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: as they are, and fused."""
    m, k, n = (data.draw(st.sampled_from([1, 3, 17, 40])) for _ in range(3))
    kind = data.draw(st.sampled_from([np.uint8, np.int8]))
    model = Model()
    model.input("x", RANDOM.standard_normal((2, m, k)).astype(np.float32))
    model.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
    model.constant("b", codes((k, n), kind))
    given = ["q", "b", "z", model.constant("bz", codes((n,), kind) if data.draw(st.booleans()) else kind(3))]
    model.node("MatMulInteger", given, "p")
    model.node("Cast", ["p"], "f", to=1)
    scale = RANDOM.uniform(0.01, 0.02, n).astype(np.float32)
    model.node("Mul", ["s", model.constant("bs", scale)], "sb")
    y = model.node("Mul", ["f", "sb"], "y")
    wanted = model.peer(y)
    for optimise in ("basic", "extended"):
        found = model.run(y, optimise=optimise)
        np.testing.assert_allclose(found, wanted, 1e-5, 1e-5 * float(np.abs(wanted).max()))


def test_a_residual_block_stays_in_codes_and_in_blocks(isa: str) -> None:
    """Convolutions, a sum, pooling: 8-bit images keep the blocked layout; a difference is one step, and rare."""
    model = Model()
    x = model.quantised(
        model.input("x", RANDOM.standard_normal((1, 3, 33, 31)).astype(np.float32)), 0.05, 120
    )
    images: list[str] = []
    for index, (inner, outer, stride) in enumerate([(3, 32, 2), (32, 32, 1), (32, 32, 1)]):
        w = model.constant(f"w{index}", codes((outer, inner, 3, 3), np.int8))
        given = [model.node("DequantizeLinear", [x, f"{x}s", f"{x}z"], f"{x}_d")]
        model.weights |= {f"{x}s": np.asarray(np.float32(0.05)), f"{x}z": np.asarray(np.uint8(120))}
        scale = RANDOM.uniform(0.0015, 0.0025, outer).astype(np.float32)  # exact halves are rare
        given.append(model.dequantised(w, scale, np.zeros(outer, np.int8), axis=0))
        y = model.node("Conv", given, f"c{index}", strides=[stride] * 2, pads=[1] * 4)
        if index == 2:
            y = model.node("Relu", [model.node("Add", [y, images[0]], "sum")], "relu")
        x = model.quantised(y, 0.05, 120)
        images.append(f"{x}_d")
    model.weights |= {f"{x}s": np.asarray(np.float32(0.05)), f"{x}z": np.asarray(np.uint8(120))}
    last = model.node("DequantizeLinear", [x, f"{x}s", f"{x}z"], f"{x}_d")
    pooled = model.quantised(
        model.node("MaxPool", [last], "pool", kernel_shape=[3, 3], strides=[2, 2]), 0.05, 120
    )
    found, wanted = model.run(pooled, optimise="all"), model.peer(pooled)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1 and (found != wanted).mean() < 0.01


def test_quantised_weights_alone_are_constants(isa: str) -> None:
    """Where only the weights are quantised, they are numbers before the first run."""
    model = Model()
    model.input("x", RANDOM.standard_normal((4, 20)).astype(np.float32))
    model.constant("w", codes((20, 30), np.int8))
    w = model.dequantised(
        "w", RANDOM.uniform(0.01, 0.02, 30).astype(np.float32), np.zeros(30, np.int8), axis=1
    )
    y = model.node("MatMul", ["x", w], "y")
    np.testing.assert_allclose(model.run(y, steps={"gemm"}), model.peer(y), 1e-4, 1e-4)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("rows", [1, 9])
def test_weights_in_blocks(isa: str, bits: int, zeros: bool, rows: int) -> None:
    k, n, block = 96, 40, 32
    model = Model()
    model.input("x", RANDOM.standard_normal((2, rows, k)).astype(np.float32))
    given = ["x", model.constant("b", codes((n, k // block, block * bits // 8), np.uint8))]
    given.append(model.constant("s", RANDOM.uniform(0.01, 0.02, (n, k // block)).astype(np.float32)))
    given.append(model.constant("z", codes((n, -(-k // block * bits // 8)), np.uint8)) if zeros else "")
    given += ["", model.constant("c", RANDOM.standard_normal(n).astype(np.float32))]
    y = model.node("MatMulNBits", given, "y", domain="com.microsoft", K=k, N=n, bits=bits, block_size=block)
    found, wanted = model.run(y, steps={"matmul_nbits"}), model.peer(y)
    np.testing.assert_allclose(found, wanted, 1e-4, 1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("way", ["dot", "wide"])
def test_products_in_bfloat16(isa: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both factors are rounded to bfloat16; nothing else is."""
    monkeypatch.setenv("EPKIT_CPU_BF16", way)
    model = Model()
    x, w = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((2, 33, 170), (170, 100)))
    y = model.node("MatMul", [model.input("x", x), model.constant("w", w)], "y")
    y = model.node("Relu", [y], "z")
    with epkit.load(model.made(y), [("cpu", {"precision": "bf16"})]) as session:
        found = session.run(None, {"x": x})[y]
    short = [v.astype(ml_dtypes.bfloat16).astype(np.float64) for v in (x, w)]
    np.testing.assert_allclose(found, np.maximum(short[0] @ short[1], 0), 1e-5, 1e-5)
    with pytest.raises(OptionError, match="fp32, bf16"):
        epkit.load(model.made(y), [("cpu", {"precision": "half"})])


def test_products_of_halves_are_asked_for_where_they_are(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    x, w = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((33, 170), (170, 100)))
    y = model.node("MatMul", [model.input("x", x), model.constant("w", w)], "y")
    monkeypatch.setenv("EPKIT_CPU_BF16", "half")
    if isa != "avx512fp16":
        with pytest.raises(OptionError, match="choose one of dot, wide"):
            epkit.load(model.made(y), [("cpu", {"precision": "bf16"})])
        return
    with epkit.load(model.made(y), [("cpu", {"precision": "bf16"})]) as session:
        found = session.run(None, {"x": x})[y]
    short = [v.astype(ml_dtypes.bfloat16).astype(np.float64) for v in (x, w)]
    assert (np.abs(found - short[0] @ short[1]) <= 6 * 2.0**-11 * (np.abs(short[0]) @ np.abs(short[1]))).all()


def test_small_products_stay_in_float32(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CPU_BF16", "dot")
    model = Model()
    x, w = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((33, 70), (70, 50)))
    y = model.node("MatMul", [model.input("x", x), model.constant("w", w)], "y")
    with epkit.load(model.made(y), [("cpu", {"precision": "bf16"})]) as session:
        np.testing.assert_allclose(session.run(None, {"x": x})[y], x.astype(np.float64) @ w, 1e-5, 1e-5)
