"""Level 3: whole models, small and complete, made here so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..case import REFERENCE, Case
from ..probes import feeds_for, is_valid, native_type, retyped
from ..result import Result, State
from .graphs import run_graph

OPSET = 20
Dims = Sequence[int | str]


class Network:
    """A model in the making: nodes one after the other, weights from a fixed seed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(sum(map(ord, name)))

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Random values that keep activations near one."""
        scale = (shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))) ** -0.5 if scale is None else scale
        return self.constant((self._rng.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, value: Any) -> str:
        """An initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def __call__(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; returns its first output."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, names, name, **attributes))
        return name

    def model(self, inputs: dict[str, tuple[int, Dims]], output: str, dims: Dims) -> onnx.ModelProto:
        """The whole, checked."""
        given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, dims)
        graph = helper.make_graph(self.nodes, self.name, given, [result], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def perceptron() -> onnx.ModelProto:
    """Three dense layers and a softmax."""
    net, x = Network("perceptron"), "x"
    for width, following in ((16, 32), (32, 32), (32, 10)):
        x = net("Gemm", x, net.weight(width, following), net.weight(following, scale=0.1))
        x = net("Relu", x) if following != 10 else net("Softmax", x, axis=-1)
    return net.model({"x": (TensorProto.FLOAT, ["N", 16])}, x, ["N", 10])


def residual_network() -> onnx.ModelProto:
    """Convolutions with batch normalisation, a residual block, pooling, a classifier."""
    net = Network("residual_network")

    def block(x: str, inward: int, outward: int, stride: int = 1) -> str:
        x = net("Conv", x, net.weight(outward, inward, 3, 3), pads=[1, 1, 1, 1], strides=[stride, stride])
        scale, mean = net.weight(outward), net.weight(outward, scale=0.1)
        ones = net.constant(np.ones(outward, np.float32))
        return net("BatchNormalization", x, scale, mean, mean, ones)

    x = net("Relu", block("x", 3, 8))
    x = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    inner = block(net("Relu", block(x, 8, 16, 2)), 16, 16)
    shortcut = net("Conv", x, net.weight(16, 8, 1, 1), strides=[2, 2])
    x = net("Relu", net("Add", inner, shortcut))
    x = net("Flatten", net("GlobalAveragePool", x))
    x = net("Gemm", x, net.weight(10, 16), net.weight(10, scale=0.1), transB=1)
    return net.model({"x": (TensorProto.FLOAT, ["N", 3, 16, 16])}, x, ["N", 10])


def transformer_block() -> onnx.ModelProto:
    """Embeddings, multi-head attention with shapes computed from the input, a feed-forward layer."""
    net = Network("transformer_block")
    width, heads, each = 16, 4, 4

    def dense(x: str, inward: int, outward: int) -> str:
        return net("Add", net("MatMul", x, net.weight(inward, outward)), net.weight(outward, scale=0.1))

    def norm(x: str) -> str:
        ones = net.constant(np.ones(width, np.float32))
        return net("LayerNormalization", x, ones, net.weight(width, scale=0.1), axis=-1)

    x = net("Gather", net.weight(50, width, scale=1), "tokens")
    shape = net("Shape", "tokens")
    split = net("Concat", shape, net.constant(np.array([heads, each])), axis=0)
    merged = net("Concat", shape, net.constant(np.array([width])), axis=0)
    normed = norm(x)
    q, k, v = (net("Reshape", dense(normed, width, width), split) for _ in range(3))
    q = net("Transpose", q, perm=[0, 2, 1, 3])
    k = net("Transpose", k, perm=[0, 2, 3, 1])
    v = net("Transpose", v, perm=[0, 2, 1, 3])
    scores = net("Mul", net("MatMul", q, k), net.constant(np.float32(each**-0.5)))
    mixed = net("Transpose", net("MatMul", net("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = net("Add", x, dense(net("Reshape", mixed, merged), width, width))
    hidden = net("Gelu", dense(norm(x), width, 4 * width), approximate="none")
    x = net("Add", x, dense(hidden, 4 * width, width))
    return net.model({"tokens": (TensorProto.INT64, ["N", "T"])}, x, ["N", "T", width])


def recurrent_network() -> onnx.ModelProto:
    """A bidirectional LSTM over a sequence, and a classifier of its last state."""
    net = Network("recurrent_network")
    hidden, width = 6, 5
    weights = [net.weight(2, 4 * hidden, size, scale=0.4) for size in (width, hidden)]
    bias = net.weight(2, 8 * hidden, scale=0.2)
    lstm = net("LSTM", "x", *weights, bias, outputs=3, hidden_size=hidden, direction="bidirectional")
    last = net(
        "Reshape", net("Transpose", f"{lstm}_1", perm=[1, 0, 2]), net.constant(np.array([-1, 2 * hidden]))
    )
    x = net("Gemm", last, net.weight(2 * hidden, 3))
    return net.model({"x": (TensorProto.FLOAT, ["T", "N", width])}, x, ["B", 3])


def quantised_network() -> onnx.ModelProto:
    """Dense layers between quantise and dequantise nodes, as exporters write them."""
    net, x = Network("quantised_network"), "x"
    for width, following in ((16, 24), (24, 8)):
        scale, zero = net.constant(np.float32(0.05)), net.constant(np.uint8(120))
        x = net("DequantizeLinear", net("QuantizeLinear", x, scale, zero), scale, zero)
        levels = (np.arange(width * following).reshape(width, following) * 37 % 255 - 127).astype(np.int8)
        narrow, symmetric = net.constant(np.float32(0.004)), net.constant(np.int8(0))
        weight = net("DequantizeLinear", net.constant(levels), narrow, symmetric)
        x = net("Relu", net("MatMul", x, weight))
    return net.model({"x": (TensorProto.FLOAT, ["N", 16])}, x, ["N", 8])


MODELS: tuple[Callable[[], onnx.ModelProto], ...] = (
    perceptron,
    residual_network,
    transformer_block,
    recurrent_network,
    quantised_network,
)
SIZES = {"one": {"N": 1, "T": 7}, "many": {"N": 5, "T": 12}}


def cases() -> Iterator[Case]:
    """Each model alone and in a batch."""
    for make in MODELS:
        for size in SIZES:
            name, run = f"models/{make.__name__}/{size}", _runner(make, size)
            yield Case(name, 3, "models", run, seconds=120, oracle=REFERENCE)


def _runner(make: Callable[[], onnx.ModelProto], size: str) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        dtype = native_type(provider)
        model = retyped(make(), dtype)
        if not is_valid(model):
            return Result(State.UNSUPPORTED, f"the model has no meaning in {dtype}, the provider's type")
        feeds = [feeds_for(model, SIZES[size], seed) for seed in (0, 1)]
        return run_graph(model, feeds, provider, sizes=SIZES[size], rtol=1e-3, atol=1e-4)

    return run
