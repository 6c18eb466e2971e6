"""A float32 model as a float16 one: weights, constants, casts, inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def as_float16(model: bytes) -> bytes:
    """The same graph in float16; control flow bodies are not looked into."""
    made = onnx.load_from_string(model)
    graph = made.graph
    for tensor in graph.initializer:
        _narrow(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _narrow(attribute.t)
            elif node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return bytes(made.SerializeToString())


def _narrow(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        low, high = np.finfo(np.float16).min, np.finfo(np.float16).max
        array = numpy_helper.to_array(tensor).clip(low, high).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
