"""Run one operator: from the table of portable operators, and in onnxruntime as an independent witness."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from epkit.kernels import table


def run(
    name: str, *inputs: Any, opset: int = 28, domain: str = "", n_outputs: int = 1, **attributes: Any
) -> Any:
    """The outputs of one operator of the table; the only one by itself."""
    operator = table().find(domain, name, opset)
    assert operator is not None, f"{name} is not declared for opset {opset}"
    outputs = operator(np, inputs, attributes, n_outputs=n_outputs, opset=opset)
    return outputs[0] if len(outputs) == 1 else outputs


def by_onnxruntime(name: str, *inputs: Any, opset: int, n_outputs: int = 1, **attributes: Any) -> Any:
    """The outputs of a one-node model in onnxruntime's CPU provider."""
    feeds = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if x is not None}
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    code = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(name, names, outputs, **attributes)],
        "one_node",
        [helper.make_tensor_value_info(k, code(v.dtype), v.shape) for k, v in feeds.items()],
        [onnx.ValueInfoProto(name=y) for y in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results = session.run(None, feeds)
    return results[0] if n_outputs == 1 else tuple(results)
