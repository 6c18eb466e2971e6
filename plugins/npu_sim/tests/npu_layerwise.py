"""Whole models checked layer by layer: each quantised tensor again from the ones before it, by another way.

Sums by torch in float64 (exact), rounding in long double, which holds an int32 times a float32 factor exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import npu_reference as reference
import numpy as np
import onnx
import onnx.numpy_helper
import torch
from npu_node import Q

Array = np.ndarray[Any, Any]


def with_all_integers_shown(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every quantised tensor among its outputs."""
    shown = onnx.ModelProto.FromString(model.SerializeToString())
    types = {t.name: t.data_type for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            info = onnx.helper.make_tensor_value_info(node.output[0], types[node.input[2]], None)
            shown.graph.output.append(info)
    return shown


class Layers:
    """A model, and the integers that a run gave."""

    def __init__(self, model: onnx.ModelProto, values: Mapping[str, Array]) -> None:
        self.constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self.made_by = {name: node for node in model.graph.node for name in node.output}
        self.values = values
        self.quantisers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]

    def operand(self, name: str) -> Q:
        """The integers behind a real value."""
        node = self.made_by[name]
        assert node.op_type == "DequantizeLinear"
        data = (
            self.constants[node.input[0]] if node.input[0] in self.constants else self.values[node.input[0]]
        )
        return Q(data, self.constants[node.input[1]], self.constants[node.input[2]], str(data.dtype))

    def expected(self, quantiser: onnx.NodeProto) -> tuple[str, Array | None]:
        """The operator whose result is quantised here, and what must come out; None: the host's input."""
        node = self.made_by.get(quantiser.input[0])
        if node is None:
            return "", None
        zero = self.constants[quantiser.input[2]]
        output = Q((), self.constants[quantiser.input[1]], zero, str(zero.dtype))
        if node.op_type == "DequantizeLinear":
            return "QuantizeLinear", None
        inputs = [self.operand(name) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return node.op_type, OPERATORS[node.op_type](inputs, output, attributes)


def centred(q: Q) -> Any:
    zero = np.asarray(q.zero, np.float64)
    if zero.ndim:
        zero = zero.reshape(-1, *(1,) * (q.array.ndim - 1))
    return torch.from_numpy(q.array.astype(np.float64) - zero)


def rounded(exact: Array, output: Q) -> Array:
    info = np.iinfo(output.dtype)
    return np.clip(np.rint(exact) + int(output.zero), info.min, info.max).astype(output.dtype)


def product(acc: Any, inputs: list[Q], output: Q, axis: int) -> Array:
    total = acc.numpy()
    shape = [1] * total.ndim
    shape[axis] = total.shape[axis]
    if len(inputs) > 2:
        total = total + inputs[2].array.astype(np.float64).reshape(shape)
    factors = reference.channel_factors(inputs[0], inputs[1], output, total.shape[axis]).reshape(shape)
    return rounded(total.astype(np.longdouble) * factors.astype(np.longdouble), output)


def conv(inputs: list[Q], output: Q, attributes: dict[str, Any]) -> Array:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    x = torch.nn.functional.pad(centred(inputs[0]), (left, right, top, bottom))
    options = {
        "stride": attributes["strides"],
        "dilation": attributes["dilations"],
        "groups": attributes["group"],
    }
    return product(torch.nn.functional.conv2d(x, centred(inputs[1]), **options), inputs, output, 1)


def gemm(inputs: list[Q], output: Q, attributes: dict[str, Any]) -> Array:
    b = centred(inputs[1])
    return product(centred(inputs[0]) @ (b.T if attributes.get("transB") else b), inputs, output, 1)


def add(inputs: list[Q], output: Q, attributes: dict[str, Any]) -> Array:
    ratios = [float(np.float32(q.scale)) / float(np.float32(output.scale)) for q in inputs]
    ma, mb, shift = reference.fixed(*ratios)
    total = centred(inputs[0]).numpy() * ma + centred(inputs[1]).numpy() * mb
    return rounded(total.astype(np.longdouble) / np.longdouble(2) ** shift, output)


def max_pool(inputs: list[Q], output: Q, attributes: dict[str, Any]) -> Array:
    (top, left, bottom, right), x = attributes["pads"], inputs[0].array
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=np.iinfo(x.dtype).min)
    pool = torch.nn.functional.max_pool2d
    result = pool(
        torch.from_numpy(padded.astype(np.float64)), attributes["kernel_shape"], attributes["strides"]
    )
    return result.numpy().astype(x.dtype)


def mean(inputs: list[Q], output: Q, attributes: dict[str, Any]) -> Array:
    total = centred(inputs[0]).sum(dim=(2, 3), keepdim=True).numpy()
    count = inputs[0].array.shape[2] * inputs[0].array.shape[3]
    factor = float(np.float32(inputs[0].scale)) / float(np.float32(output.scale)) / count
    mantissa, exponent = np.frexp(factor)
    short = np.longdouble(round(float(mantissa) * 2**24)) * np.longdouble(2) ** int(exponent - 24)
    return rounded(total.astype(np.longdouble) * short, output)


OPERATORS = {"Conv": conv, "Gemm": gemm, "Add": add, "MaxPool": max_pool, "GlobalAveragePool": mean,
             "Flatten": lambda inputs, output, _: inputs[0].array.reshape(inputs[0].array.shape[0], -1)}  # fmt: skip
