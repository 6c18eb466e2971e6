"""Random networks: the same bytes on every chip, in every order of execution, fused or not; less common forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, feeds_of, integers, on_npu, on_onnxruntime, qdq
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 8, 10, 9)
KINDS = (
    *("Conv", "Depthwise", "Add", "Mul", "Sigmoid", "HardSwish", "MaxPool", "Concat", "Transpose"),
    *("Gather", "Pad", "Where"),
)


class Builder:
    """Tensors of one shape and one scale, by name; each operator between DequantizeLinear and QuantizeLinear."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.names = ["x"]
        for name, value in (
            ("s", np.float32(0.05)),
            ("z", np.int8(3)),
            ("w_s", np.float32(0.01)),
            ("w_z", np.int8(0)),
        ):
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))

    def add(self, kind: str) -> None:
        first, second = (self.real(self.names[int(self.rng.integers(len(self.names)))]) for _ in range(2))
        name = f"t{len(self.names)}"
        if kind in ("Conv", "Depthwise"):
            group = 8 if kind == "Depthwise" else 1
            inputs = [first, self.weights((8, 8 // group, 3, 3))]
            self.node("Conv", inputs, name, pads=[1, 1, 1, 1], group=group)
        elif kind == "MaxPool":
            self.node("MaxPool", [first], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "Concat":  # two halves of channels
            halves = [f"{name}_a", f"{name}_b"]
            for half, source, start in zip(halves, (first, second), (0, 4), strict=True):
                bounds = [self.constant(v) for v in ([start], [start + 4], [1])]
                self.nodes.append(helper.make_node("Slice", [source, *bounds], [half]))
            self.node("Concat", halves, name, axis=1)
        elif kind == "Transpose":  # and back
            self.nodes.append(helper.make_node("Transpose", [first], [f"{name}_t"], perm=[2, 3, 1, 0]))
            self.node("Transpose", [f"{name}_t"], name, perm=[3, 2, 0, 1])
        elif kind == "Gather":  # channels in another order
            self.node("Gather", [first, self.constant(self.rng.permutation(8) - 4)], name, axis=1)
        elif kind == "Pad":  # and off again, on the other side
            bounds = [self.constant([0, 0, 1, 0, 0, 0, 0, 2]), "", self.constant(np.arange(4))]
            self.nodes.append(helper.make_node("Pad", [first, *bounds], [f"{name}_p"]))
            self.node("Slice", [f"{name}_p", *map(self.constant, ([0, 2], [10, 11], [2, 3]))], name)
        elif kind == "Where":
            self.node("Where", [self.constant(self.rng.random(SHAPE[2:]) < 0.5), first, second], name)
        else:
            self.node(kind, [first, second] if kind in ("Add", "Mul") else [first], name)
        self.names.append(name)

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_real"], **attributes))
        self.nodes.append(helper.make_node("QuantizeLinear", [f"{name}_real", "s", "z"], [name]))

    def real(self, name: str) -> str:
        real = f"{name}_r{len(self.nodes)}"
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "s", "z"], [real]))
        return real

    def weights(self, shape: tuple[int, ...]) -> str:
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(integers(self.rng, shape, "int8"), name))
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "w_s", "w_z"], [f"{name}_r"]))
        return f"{name}_r"

    def constant(self, values: Any) -> str:
        name = f"l{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values), name))
        return name

    def model(self, shown: list[str]) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        outputs = [value(name, TensorProto.INT8, SHAPE) for name in shown]
        used = [n for n in self.nodes if n.op_type != "DequantizeLinear" or self.is_read(n.output[0])]
        graph = helper.make_graph(used, "g", [value("x", TensorProto.INT8, SHAPE)], outputs, self.constants)
        last = helper.make_node("Identity", [self.names[-1]], ["y"])
        graph.node.append(last)
        graph.output.append(value("y", TensorProto.INT8, SHAPE))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def is_read(self, name: str) -> bool:
        return any(name in node.input for node in self.nodes)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(KINDS), min_size=2, max_size=8))
def test_every_chip_computes_the_same(seed: int, kinds: list[str]) -> None:
    builder = Builder(np.random.default_rng(seed))
    for kind in kinds:
        builder.add(kind)
    model = builder.model([])
    feeds = {"x": integers(builder.rng, SHAPE, "int8")}
    want = on_npu(model, feeds)
    assert np.array_equal(on_npu(model, feeds, scratchpad_kib=8, array=4, dma_bytes=3, lanes=5), want)
    assert np.array_equal(on_npu(builder.model(builder.names[1:-1]), feeds), want)
    off = np.abs(want.astype(int) - on_onnxruntime(model, feeds, optimise=False).astype(int))
    assert np.median(off) <= 1  # a step may grow on its way through the layers


def operand(shape: tuple[int, ...], dtype: str = "int8", **more: Any) -> Q:
    return Q(
        integers(np.random.default_rng(len(shape)), shape, dtype), 0.02, 5 if not more else 0, dtype, **more
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_automatic_padding(mode: str, stride: int) -> None:
    x, w = operand((1, 4, 7, 6)), operand((6, 4, 3, 2), constant=True)
    sizes = [-(-n // stride) if mode != "VALID" else (n - k) // stride + 1 for n, k in ((7, 3), (6, 2))]
    model = qdq("Conv", [x, w], Q((1, 6, *sizes), 0.3, 4), auto_pad=mode, strides=[stride, stride])
    assert_close(model, [x, w])


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4, 5), (5, 6)), ((4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (1, 3, 5, 6))]
)
def test_batches_of_matrices_broadcast(shapes: Any) -> None:
    a, b = (operand(shape) for shape in shapes)
    out = np.matmul(np.zeros(shapes[0]), np.zeros(shapes[1])).shape
    assert_close(qdq("MatMul", [a, b], Q(out, 0.05, 0)), [a, b])


@pytest.mark.parametrize("shape", [(1,), (8,), (1, 8), ()])
def test_a_real_bias_of_gemm_is_quantised_at_compile_time(shape: tuple[int, ...]) -> None:
    a, b = operand((5, 12)), operand((12, 8), constant=True)
    bias = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_close(qdq("Gemm", [a, b, bias], Q((5, 8), 0.2, 0)), [a, b])


def assert_close(model: onnx.ModelProto, inputs: list[Q]) -> None:
    """Within the step that two roundings may differ by."""
    feeds = feeds_of(inputs)
    want = on_onnxruntime(model, feeds, optimise=False)
    assert np.abs(on_npu(model, feeds).astype(int) - want.astype(int)).max() <= 1
