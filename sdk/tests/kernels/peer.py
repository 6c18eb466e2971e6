"""One node computed by our operators and by onnxruntime, an independent peer for what is not published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from epkit.kernels import table


def ours(
    name: str, inputs: Sequence[Any], opset: int, *, outputs: int = 1, domain: str = "", **attributes: Any
) -> Any:
    """The first outputs of our operator, one array if there is one."""
    operator = table().find(domain, name, opset)
    assert operator is not None, f"{name} is not declared for opset {opset}"
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in attributes.items()}
    results = operator(np, inputs, given, n_outputs=outputs, opset=opset)[:outputs]
    return results[0] if outputs == 1 else results


def peer(name: str, inputs: Sequence[Any], opset: int, *, outputs: int = 1, **attributes: Any) -> Any:
    """The first outputs of onnxruntime's operator, one array if there is one."""
    names = [f"i{n}" if x is not None else "" for n, x in enumerate(inputs)]
    feeds = {n: x for n, x in zip(names, inputs, strict=True) if n}
    node = onnx.helper.make_node(name, names, [f"o{n}" for n in range(outputs)], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in feeds.items()
        ],
        [onnx.ValueInfoProto(name=n) for n in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    results = session.run(None, feeds)
    return results[0] if outputs == 1 else results


def assert_like_peer(
    name: str, inputs: Sequence[Any], opset: int, *, outputs: int = 1, rtol: float = 1e-5, **attributes: Any
) -> None:
    """Both agree in shape, type and value."""
    mine = ours(name, inputs, opset, outputs=outputs, **attributes)
    theirs = peer(name, inputs, opset, outputs=outputs, **attributes)
    for got, want in zip([mine] if outputs == 1 else mine, [theirs] if outputs == 1 else theirs, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6)


def data(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
