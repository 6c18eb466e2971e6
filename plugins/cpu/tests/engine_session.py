"""Graphs at the session's door: all native, and near what onnxruntime gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit_cpu.compile import NativeProgram

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(7)
BY_CHANCE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def make(
    nodes: list[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: list[str],
    weights: Mapping[str, Array],
    opset: int = 18,
    **others: int,
) -> onnx.ModelProto:
    """A model whose inputs have unknown dimensions of known rank; ``others`` are opset versions by domain."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{i}" for i in range(x.ndim)]
        )
        for name, x in feeds.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    for result in results:
        result.ClearField("type")
    graph = helper.make_graph(
        nodes, "g", inputs, results, [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in {"": opset, **others}.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def programs(session: epkit.Session) -> Iterator[NativeProgram]:
    for program in session._engine.compiled.programs.values():
        assert isinstance(program, NativeProgram)
        yield program


def all_native(session: epkit.Session) -> bool:
    return all(step.kernel for program in programs(session) for step in program.steps)


def check(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, Array],
    outputs: list[str],
    weights: dict[str, Array] | None = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    threads: int = 0,
) -> None:
    """All native, twice the same, and near what onnxruntime gives."""
    model = make(nodes, feeds, outputs, weights or {})
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = peer.run(outputs, feeds)
    with epkit.load(model, [("cpu", {"threads": threads})]) as session:
        assert all_native(session), "\n".join(map(str, programs(session)))
        for _ in range(2):
            found = session.run(None, feeds)
            for name, value in zip(outputs, wanted, strict=True):
                assert found[name].dtype == value.dtype
                np.testing.assert_allclose(found[name], value, rtol, atol, err_msg=name)


def chain(isa: str, dims: int = 64) -> tuple[onnx.ModelProto, dict[str, Array]]:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Tanh", ["a"], ["y"])]
    feeds = {"x": normal(dims, dims)}
    return make(nodes, feeds, ["y"], {"w": normal(dims, dims)}), feeds
