"""One-node models, run by epkit and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import epkit

Values = Sequence[Any]


def model_of(
    op: str, inputs: Values, outputs: int, constants: Sequence[int] = (), ai_onnx: int = 21, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; inputs numbered in ``constants`` are initializers, None is absent."""
    names = ["" if value is None else f"i{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(
        op, names, [f"o{i}" for i in range(outputs)], domain="com.microsoft", **attributes
    )
    given, fixed = [], []
    for i, value in enumerate(inputs):
        if value is not None and i in constants:
            fixed.append(numpy_helper.from_array(np.asarray(value), f"i{i}"))
        elif value is not None:
            given.append(helper.make_tensor_value_info(f"i{i}", code_of(value), np.shape(value)))
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", given, results, fixed)
    imports = [helper.make_opsetid("", ai_onnx), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def code_of(value: Any) -> int:
    """The ONNX element type of an array."""
    dtype = np.asarray(value).dtype
    return TensorProto.STRING if dtype.kind in "OU" else int(helper.np_dtype_to_tensor_dtype(dtype))


def fed(inputs: Values, constants: Sequence[int]) -> dict[str, Any]:
    return {f"i{i}": v for i, v in enumerate(inputs) if v is not None and i not in constants}


def run_epkit(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """The outputs; their inferred types and shapes are checked on the way."""
    session = epkit.load(model)
    before = {name: np.array(value, copy=True) for name, value in feeds.items()}
    results = session(**feeds)
    for name, value in feeds.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was written")
    for info in session.outputs:
        value = results[info.name]
        assert info.dtype is not None, f"{info.name}: no type was inferred"
        assert str(value.dtype) == info.dtype or value.dtype.kind in "OUT", (info, value.dtype)
        if info.shape is not None:
            assert len(info.shape) == value.ndim, (info, value.shape)
            for dim, size in zip(info.shape, value.shape, strict=True):
                assert not isinstance(dim, int) or dim == size, (info, value.shape)
    return [results[f"o{i}"] for i in range(len(session.outputs))]


@cache
def quiet_options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def run_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), quiet_options(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def ours(op: str, *inputs: Any, outputs: int = 1, constants: Sequence[int] = (), **attributes: Any) -> Any:
    """What epkit computes: one array, or a list."""
    found = run_epkit(model_of(op, inputs, outputs, constants, **attributes), fed(inputs, constants))
    return found[0] if outputs == 1 else found


def agree(
    op: str,
    *inputs: Any,
    outputs: int = 1,
    constants: Sequence[int] = (),
    atol: float = 0.0,
    rtol: float = 0.0,
    **attributes: Any,
) -> list[Any]:
    """Assert that epkit and onnxruntime compute the same; returns the outputs.

    ``atol`` holds for integers too: 1 allows for the other side of a rounding.
    """
    model = model_of(op, inputs, outputs, constants, **attributes)
    feeds = fed(inputs, constants)
    expected, found = run_onnxruntime(model, feeds), run_epkit(model, feeds)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype or b.dtype.kind in "OUT", (a.dtype, b.dtype)
        assert a.shape == b.shape, (a.shape, b.shape)
        if b.dtype.kind in "OUTb":
            assert a.tolist() == b.tolist()
        else:
            kind = np.complex128 if b.dtype.kind == "c" else np.float64
            np.testing.assert_allclose(a.astype(kind), b.astype(kind), rtol=rtol, atol=atol)
    return found
