"""A small BERT as exporters to opset 14 write it: normalisation, GELU and attention in their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 20


class Builder:
    """A graph that grows node by node; values are names."""

    def __init__(self, opset: int = 14, seed: int = 0) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.rng = np.random.default_rng(seed)

    def input(self, name: str, kind: int, shape: list[Any]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        made = name or f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [made], name=f"n_{made}", **attributes))
        return made

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        return self.constant(scale * self.rng.standard_normal(shape))

    def linear(self, x: str, inner: int, outer: int) -> str:
        return self.op("Add", self.weight(outer), self.op("MatMul", x, self.weight(inner, outer)))

    def layer_normalization(self, x: str, width: int) -> str:
        d = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", d, self.constant(2.0)), axes=[-1])
        root = self.op("Sqrt", self.op("Add", variance, self.constant(1e-12)))
        scaled = self.op("Mul", self.op("Div", d, root), self.weight(width))
        return self.op("Add", scaled, self.weight(width))

    def gelu(self, x: str) -> str:
        e = self.op("Erf", self.op("Div", x, self.constant(np.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", e, self.constant(1.0))), self.constant(0.5))

    def model(self, *outputs: str) -> onnx.ModelProto:
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, results, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def bert(layers: int = 2, hidden: int = 8, heads: int = 2, opset: int = 14) -> onnx.ModelProto:
    """``ids`` and ``segments`` (int64) and ``mask`` (int64, 1 to attend), all [batch, length], in; states out."""
    b = Builder(opset)
    ids, segments, mask = (
        b.input(n, TensorProto.INT64, ["batch", "length"]) for n in ("ids", "segments", "mask")
    )
    words, kinds = (
        b.op("Gather", b.weight(size, hidden), i) for size, i in ((VOCABULARY, ids), (2, segments))
    )
    length = b.op("Gather", b.op("Shape", ids), b.constant([1], np.int64))
    places = b.op(
        "Slice",
        b.constant([range(16)], np.int64),
        b.constant([0], np.int64),
        length,
        b.constant([1], np.int64),
    )
    total = b.op("Add", b.op("Add", words, kinds), b.op("Gather", b.weight(16, hidden), places))
    x = b.layer_normalization(total, hidden)
    wide = b.op("Unsqueeze", mask, b.constant([1, 2], np.int64))
    kept = b.op("Sub", b.constant(1.0), b.op("Cast", wide, to=TensorProto.FLOAT))
    bias = b.op("Mul", kept, b.constant(-10000.0))
    for _ in range(layers):
        attended = b.linear(_attention(b, x, bias, hidden, heads), hidden, hidden)
        x = b.layer_normalization(b.op("Add", attended, x), hidden)
        inner = b.gelu(b.linear(x, hidden, 2 * hidden))
        x = b.layer_normalization(b.op("Add", b.linear(inner, 2 * hidden, hidden), x), hidden)
    return b.model(b.op("Identity", x, name="states"))


def _attention(b: Builder, x: str, bias: str, hidden: int, heads: int) -> str:
    size = hidden // heads
    split = b.constant([0, 0, heads, size], np.int64)
    q, k, v = (b.op("Reshape", b.linear(x, hidden, hidden), split) for _ in range(3))
    q, v = (b.op("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
    k = b.op("Transpose", k, perm=[0, 2, 3, 1])
    scores = b.op("Div", b.op("MatMul", q, k), b.constant(np.sqrt(size)))
    weights = b.op("Softmax", b.op("Add", scores, bias), axis=-1)
    merged = b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return b.op("Reshape", merged, b.constant([0, 0, hidden], np.int64))


def bert_feeds(batch: int = 2, length: int = 5) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(length)
    mask = np.ones((batch, length), np.int64)
    mask[-1, length // 2 :] = 0
    return {
        "ids": rng.integers(0, VOCABULARY, (batch, length)),
        "segments": rng.integers(0, 2, (batch, length)),
        "mask": mask,
    }
