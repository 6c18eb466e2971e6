"""Models of one node: run by epkit, run by onnxruntime, and inferred, each from the same NumPy inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper

import epkit
from epkit.model.custom_schemas import register_schemas
from epkit_contrib import epkit_operators

Inputs = Mapping[str, Any]
BF16 = np.dtype(ml_dtypes.bfloat16)


def model_of(
    op: str,
    inputs: Inputs,
    n_outputs: int | Sequence[str] = 1,
    *,
    domain: str = "com.microsoft",
    opset: int = 21,
    shapes: Mapping[str, Sequence[Any]] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model with this one node; an input that is None is left out, and so is an output named ""."""
    names = [name if value is not None else "" for name, value in inputs.items()]
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{i}" for i in range(n_outputs)] if isinstance(n_outputs, int) else list(n_outputs)
    node = helper.make_node(op, names, outputs, name="it", domain=domain, **attributes)
    given = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), (shapes or {}).get(name, value.shape)
        )
        for name, value in inputs.items()
        if value is not None
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs if name]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph([node], "one", given, results), opset_imports=opsets, ir_version=10
    )


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types and shapes of its outputs, as the schemas' rules give them."""
    register_schemas(item.schema for item in epkit_operators() if item.schema is not None)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def inferred(model: onnx.ModelProto) -> list[tuple[int, list[Any] | None]]:
    """What the schema's shape rule says of each output."""
    result = with_types(model)
    return [
        (
            value.type.tensor_type.elem_type,
            [getattr(d, d.WhichOneof("value") or "", None) for d in value.type.tensor_type.shape.dim]
            if value.type.tensor_type.HasField("shape")
            else None,
        )
        for value in result.graph.output
    ]


def run(op: str, inputs: Inputs, n_outputs: int | Sequence[str] = 1, **settings: Any) -> list[Any]:
    """The outputs by epkit, after checking that they have the types and shapes that were inferred."""
    model = model_of(op, inputs, n_outputs, **settings)
    session = epkit.load(model)
    given = {name: value for name, value in inputs.items() if value is not None}
    before = {name: value.copy() for name, value in given.items()}
    found = session(**given)
    for name, value in given.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"input {name} was written")
    outputs = [np.asarray(found[value.name]) for value in model.graph.output]
    for y, (element, shape) in zip(outputs, inferred(model), strict=True):
        assert helper.np_dtype_to_tensor_dtype(y.dtype) == element
        assert shape is not None
        assert len(shape) == y.ndim
        assert all(not isinstance(d, int) or d == n for d, n in zip(shape, y.shape, strict=True)), (
            shape,
            y.shape,
        )
    return outputs


def run_ort(
    op: str,
    inputs: Inputs,
    n_outputs: int | Sequence[str] = 1,
    *,
    shared: Mapping[str, str] | None = None,
    **settings: Any,
) -> list[Any]:
    """The outputs by onnxruntime on the CPU, without its optimiser.

    ``shared`` says which outputs are to be written into the memory of which inputs.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = with_types(model_of(op, inputs, n_outputs, **settings))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    copies = {name: value.copy() for name, value in inputs.items() if value is not None}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in copies.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        if shared and output.name in shared:
            binding.bind_ortvalue_output(output.name, values[shared[output.name]])
        else:
            binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())


def check(
    op: str,
    inputs: Inputs,
    n_outputs: int | Sequence[str] = 1,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **settings: Any,
) -> list[Any]:
    """Run by both, compare, and return what epkit made."""
    ours, theirs = run(op, inputs, n_outputs, **settings), run_ort(op, inputs, n_outputs, **settings)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(
            a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol, err_msg=f"output {index}"
        )
    return ours


def rand(*shape: int, seed: int = 0, dtype: Any = np.float32, scale: float = 1.0) -> Any:
    """Normal numbers, the same each time."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(dtype)
