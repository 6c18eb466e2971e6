"""A quantised model cut at its codes: each part is given the codes that onnxruntime computes, so nothing amplifies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
from onnx import helper

from .inputs import Feeds
from .signals import Array

GIVEN = "given:"


def cut_at_codes(path: Path) -> onnx.ModelProto:
    """The model with the result of each QuantizeLinear as an output, and read from an input in its place."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in codes:
                node.input[index] = GIVEN + name
    for name in codes:
        model.graph.input.append(helper.make_tensor_value_info(GIVEN + name, types[name], None))
        model.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    return model


def codes_of(path: Path, feeds: Feeds) -> dict[str, Array]:
    """What onnxruntime computes for each QuantizeLinear, by name."""
    model = onnx.load(path)
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in codes)
    return dict(zip(codes, _run(model, codes, feeds), strict=True))


def expected_of(model: onnx.ModelProto, feeds: Feeds) -> dict[str, Array]:
    """What onnxruntime makes of the model that was cut."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, _run(model, names, feeds), strict=True))


def _run(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(names, dict(feeds))]
