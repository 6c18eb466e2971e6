"""A BERT-base encoder with random weights, written with onnx.helper: the shapes are real, the weights are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, HEADS, INNER = 768, 12, 3072


def save_bert(path: Path, layers: int = 12, *, external: bool = False) -> None:
    """Write the encoder (about 340 MB with 12 layers): input ``x`` [batch, sequence, 768], output ``y``."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = random.standard_normal(shape, np.float32) * np.float32(0.02)
        weights.append(numpy_helper.from_array(values, name))
        return name

    def node(op_type: str, *inputs: str, name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def linear(x: str, name: str, width: int, out: int) -> str:
        product = node("MatMul", x, weight(f"{name}.weight", width, out), name=f"{name}.product")
        return node("Add", product, weight(f"{name}.bias", out), name=name)

    def norm(x: str, name: str) -> str:
        scale, bias = weight(f"{name}.scale", HIDDEN), weight(f"{name}.bias", HIDDEN)
        return node("LayerNormalization", x, scale, bias, name=name, epsilon=1e-12)

    def heads(x: str, name: str, perm: list[int]) -> str:
        split = node("Reshape", x, "heads_shape", name=f"{name}.split")
        return node("Transpose", split, name=name, perm=perm)

    def attention(x: str, name: str) -> str:
        query, key, value = (linear(x, f"{name}.{part}", HIDDEN, HIDDEN) for part in ("q", "k", "v"))
        scores = node(
            "MatMul",
            heads(query, f"{name}.qh", [0, 2, 1, 3]),
            heads(key, f"{name}.kh", [0, 2, 3, 1]),
            name=f"{name}.scores",
        )
        scaled = node("Mul", scores, "scale", name=f"{name}.scaled")
        share = node("Softmax", scaled, name=f"{name}.share", axis=-1)
        mixed = node("MatMul", share, heads(value, f"{name}.vh", [0, 2, 1, 3]), name=f"{name}.mixed")
        back = node("Transpose", mixed, name=f"{name}.back", perm=[0, 2, 1, 3])
        return linear(node("Reshape", back, "flat_shape", name=f"{name}.flat"), f"{name}.out", HIDDEN, HIDDEN)

    def gelu(x: str, name: str) -> str:
        inside = node("Erf", node("Div", x, "sqrt2", name=f"{name}.div"), name=f"{name}.erf")
        return node(
            "Mul",
            node("Mul", x, node("Add", inside, "one", name=f"{name}.add"), name=f"{name}.mul"),
            "half",
            name=name,
        )

    x = "x"
    for layer in range(layers):
        name = f"layer{layer}"
        summed = node("Add", attention(x, f"{name}.attention"), x, name=f"{name}.sum1")
        middle = norm(summed, f"{name}.norm1")
        wide = gelu(linear(middle, f"{name}.wide", HIDDEN, INNER), f"{name}.gelu")
        narrow = linear(wide, f"{name}.narrow", INNER, HIDDEN)
        x = norm(node("Add", narrow, middle, name=f"{name}.sum2"), f"{name}.norm2")
    node("Identity", x, name="y")
    weights.extend(_constants())
    shape: list[str | int | None] = ["batch", "sequence", HIDDEN]
    graph = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data")


def _constants() -> Iterator[onnx.TensorProto]:
    yield numpy_helper.from_array(np.array([0, 0, HEADS, HIDDEN // HEADS]), "heads_shape")
    yield numpy_helper.from_array(np.array([0, 0, HIDDEN]), "flat_shape")
    scalars = {"scale": (HIDDEN // HEADS) ** -0.5, "sqrt2": 2**0.5, "one": 1.0, "half": 0.5}
    for name, value in scalars.items():
        yield numpy_helper.from_array(np.array(value, np.float32), name)
