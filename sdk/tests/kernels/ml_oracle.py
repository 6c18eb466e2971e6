"""One-node models of the domain ai.onnx.ml, in epkit's kernels and in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from epkit.kernels import table

DOMAIN = "ai.onnx.ml"
TYPES = {np.dtype(n): TensorProto.DataType.Value(t) for n, t in (
    ("f4", "FLOAT"), ("f8", "DOUBLE"), ("i4", "INT32"), ("i8", "INT64"), ("O", "STRING"), ("f2", "FLOAT16"),
)}  # fmt: skip


def epkit(name: str, *inputs: Any, opset: int = 3, outputs: int = 1, **attributes: Any) -> tuple[Any, ...]:
    """The outputs of epkit's kernel; lists become the tuples that the runtime would pass."""
    operator = table().find(DOMAIN, name, opset)
    assert operator is not None
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in attributes.items()}
    return operator(np, inputs, given, n_outputs=outputs, opset=opset)


def ort(name: str, *inputs: Any, opset: int = 3, outputs: int = 1, **attributes: Any) -> list[Any]:
    """The outputs of onnxruntime."""
    given = {
        key: helper.make_tensor(key, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape, v.ravel().tolist())
        if isinstance(v, np.ndarray)
        else v
        for key, v in attributes.items()
        if not (isinstance(v, list | tuple) and not v)
    }
    names = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(name, *names, domain=DOMAIN, **given)],
        "g",
        [
            helper.make_tensor_value_info(n, TYPES[x.dtype], x.shape)
            for n, x in zip(names[0], inputs, strict=True)
        ],
        [helper.make_empty_tensor_value_info(n) for n in names[1]],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, opset)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, dict(zip(names[0], inputs, strict=True)))


def agree(name: str, *inputs: Any, rtol: float = 1e-5, atol: float = 1e-6, **keywords: Any) -> None:
    """Both give the same values, shapes and types."""
    got, want = epkit(name, *inputs, **keywords), ort(name, *inputs, **keywords)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        w = np.asarray(w)
        assert g.shape == w.shape
        assert g.dtype == (np.dtype(object) if w.dtype.kind in "OU" else w.dtype)
        if g.dtype.kind in "Oi":
            assert g.tolist() == w.tolist()
        else:
            np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)
