"""Models of a few nodes that read the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

import epkit
from epkit.dtypes import CODE, name_of

Array = np.ndarray[Any, Any]
OPSET = onnx.defs.onnx_opset_version()


def compute_all(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, Array], opset: int = OPSET, optimise: str = "none"
) -> dict[str, Array]:
    """The outputs of all nodes by name."""
    infos = [
        helper.make_tensor_value_info(name, CODE[name_of(x.dtype)], x.shape) for name, x in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for node in nodes for name in node.output]
    graph = helper.make_graph(nodes, "nodes", infos, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    with epkit.load(model, ["cpu"], optimise=optimise) as session:
        results = session.run(None, dict(feeds))
    return {name: np.asarray(array) for name, array in results.items()}


def compute(op: str, *inputs: Array, opset: int = 24, outputs: int = 1, **attributes: Any) -> Array:
    """The first output of a one-node model."""
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    node = helper.make_node(op, list(feeds), [f"y{i}" for i in range(outputs)], **attributes)
    return compute_all([node], feeds, opset)["y0"]
