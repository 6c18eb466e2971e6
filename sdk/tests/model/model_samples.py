"""Models for the tests, written in ONNX's textual syntax or built with onnx.helper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser


def parse(text: str) -> onnx.ModelProto:
    """A model from the textual syntax; the header may be left out."""
    if not text.lstrip().startswith("<"):
        text = '<ir_version: 8, opset_import: ["": 17]>\n' + text
    return onnx.parser.parse_model(text)


def with_weights(arrays: dict[str, np.ndarray], *, raw: bool = True) -> onnx.ModelProto:
    """A model that returns each of its weights through an Identity."""
    graph = onnx.GraphProto(name="weights")
    for name, array in arrays.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if not raw:
            kind = graph.initializer[-1].data_type
            graph.initializer[-1].CopyFrom(
                onnx.helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist())
            )
        kind = graph.initializer[-1].data_type
        graph.node.append(onnx.helper.make_node("Identity", [name], [f"{name}_out"]))
        graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_out", kind, array.shape))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 25)], ir_version=13)


def save_external(model: onnx.ModelProto, folder: Path, location: str = "weights.bin") -> Path:
    """Save a model with all its weights in one file."""
    path = folder / "model.onnx"
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def point_to(path: Path, **entries: str) -> None:
    """Change entries of the external data of every weight of a saved model; an empty text removes one."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        known = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in known.items():
            if value or key == "location":
                tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


SMALL = parse("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")

CONTROL_FLOW = parse(
    """
    g (float[N,3] x, bool c) => (float[N,3] y) {
        h = Neg(x)
        y = If(c) <
            then_branch = yes () => (float[N,3] a) { a = Abs(h) },
            else_branch = no () => (float[N,3] b) { t = Add(h, x) b = Relu(t) }
        >
    }
    """
)
