"""One operator between DequantizeLinear and QuantizeLinear, or one that quantises itself, run on npu_sim alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import epkit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Q:
    """A quantised tensor of a test: integers (or only their shape, for results), scale, zero point."""

    data: Any
    scale: Any
    zero: Any = 0
    dtype: str = "int8"
    constant: bool = False
    axis: int = 0

    @property
    def array(self) -> Array:
        return np.asarray(self.data).astype(self.dtype)


def code(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def qdq(
    op: str, inputs: Sequence[Q | Array | None], output: Q, *, opset: int = 21, **attributes: Any
) -> onnx.ModelProto:
    """x0, x1, ... -> DequantizeLinear -> op -> QuantizeLinear -> y; arrays are constants as they are."""
    nodes, values, initializers, names = [], [], [], []
    for index, item in enumerate(inputs):
        name = f"x{index}"
        if item is None:
            names.append("")
        elif isinstance(item, Q):
            initializers += _scales(name, item)
            if item.constant:
                initializers.append(numpy_helper.from_array(item.array, name))
            else:
                values.append(helper.make_tensor_value_info(name, code(item.dtype), item.array.shape))
            given = [name, f"{name}_scale", f"{name}_zero"]
            nodes.append(helper.make_node("DequantizeLinear", given, [f"{name}_real"], axis=item.axis))
            names.append(f"{name}_real")
        else:
            initializers.append(numpy_helper.from_array(np.asarray(item), name))
            names.append(name)
    nodes.append(helper.make_node(op, names, ["y_real"], op, **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["y_real", "y_scale", "y_zero"], ["y"]))
    initializers += _scales("y", output)
    result = helper.make_tensor_value_info("y", code(output.dtype), output.data)
    graph = helper.make_graph(nodes, "g", values, [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _scales(name: str, q: Q) -> list[TensorProto]:
    return [
        numpy_helper.from_array(np.asarray(q.scale, np.float32), f"{name}_scale"),
        numpy_helper.from_array(np.asarray(q.zero).astype(q.dtype), f"{name}_zero"),
    ]


def qoperator(
    op: str, inputs: Sequence[Q], output: Q, bias: Array | None = None, *, domain: str = "", **attributes: Any
) -> onnx.ModelProto:
    """An operator of the form (x, scale, zero, ..., y_scale, y_zero, bias)."""
    names, values, initializers = [], [], []
    for index, item in enumerate(inputs):
        name = f"x{index}"
        names += [name, f"{name}_scale", f"{name}_zero"]
        initializers += _scales(name, item)
        if item.constant:
            initializers.append(numpy_helper.from_array(item.array, name))
        else:
            values.append(helper.make_tensor_value_info(name, code(item.dtype), item.array.shape))
    initializers += _scales("y", output)
    names += ["y_scale", "y_zero"]
    if bias is not None:
        names.append("bias")
        initializers.append(numpy_helper.from_array(bias.astype(np.int32), "bias"))
    node = helper.make_node(op, names, ["y"], op, domain=domain, **attributes)
    result = helper.make_tensor_value_info("y", code(output.dtype), output.data)
    graph = helper.make_graph([node], "g", values, [result], initializers)
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def feeds_of(inputs: Sequence[Q | Array | None]) -> dict[str, Array]:
    """The inputs that are no constants."""
    return {f"x{i}": q.array for i, q in enumerate(inputs) if isinstance(q, Q) and not q.constant}


def on_npu(model: onnx.ModelProto, feeds: Mapping[str, Array], **options: Any) -> Array:
    """The only output, all nodes on npu_sim; in both orders of execution, which must agree in every byte."""
    results = []
    for mode in ("functional", "cycles"):
        chosen = [("npu_sim", {**options, "mode": mode})]
        with epkit.load(model, chosen, fallback="error", optimise="none") as session:
            results.append(np.asarray(session.run(None, feeds)["y"]))
    assert results[0].tobytes() == results[1].tobytes(), "the order of execution changes the result"
    return results[0]


def on_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Array], *, optimise: bool = True) -> Array:
    """The same by onnxruntime; optimised, it uses its integer kernels."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, dict(feeds))[0])


def integers(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    """Any values of an integer type."""
    info = np.iinfo(dtype)
    return rng.integers(int(info.min), int(info.max) + 1, shape).astype(dtype)
