"""The node cases that ONNX publishes, reduced to those of a single node without subgraphs."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from epkit.kernels.attributes import attribute_values

RANDOM = {
    "Bernoulli",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
}


@cache
def single_node_cases() -> list[Any]:
    """Published cases (onnx.backend.test TestCase objects) whose model is one node without a subgraph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return [c for c in cases if len(c.model.graph.node) == 1 and not has_graph(c.model.graph.node[0])]


def has_graph(node: onnx.NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def run_case(case: Any, table: Any, xp: Any = np) -> None:
    """Compute the case's node from the table and compare with the published outputs."""
    node = ir.from_proto(case.model).graph.node(0)
    opsets = {o.domain: o.version for o in case.model.opset_import}
    operator = table.find(node.domain, node.op_type, opsets[node.domain])
    assert operator is not None
    for inputs, expected in case.data_sets:
        feeds = dict(zip([i.name for i in case.model.graph.input], map(to_numpy, inputs), strict=False))
        arguments = [feeds[v.name] if v is not None else None for v in node.inputs]
        outputs = operator(
            xp, arguments, attribute_values(node), n_outputs=len(node.outputs), opset=opsets[node.domain]
        )
        named = {v.name: out for v, out in zip(node.outputs, outputs, strict=False)}
        for declared, want in zip(case.model.graph.output, expected, strict=True):
            compare(named[declared.name], to_numpy(want), case, node.op_type in RANDOM)


def to_numpy(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return onnx.numpy_helper.to_optional(value)
    return value


def compare(got: Any, want: Any, case: Any, random: bool) -> None:
    if isinstance(want, list | tuple):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            compare(g, w, case, random)
        return
    if want is None or isinstance(want, dict):
        assert got == want
        return
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"shape {got.shape}, published {want.shape}"
    if want.dtype.kind in "OSU":
        as_text = lambda v: v.decode() if isinstance(v, bytes) else str(v)  # noqa: E731
        assert [as_text(v) for v in got.ravel()] == [as_text(v) for v in want.ravel()]
        return
    assert got.dtype == want.dtype, f"dtype {got.dtype}, published {want.dtype}"
    if random:
        return
    # As ONNX's own runner: two units in the last place of bfloat16.
    rtol = max(case.rtol, 2**-6) if want.dtype.name == "bfloat16" else case.rtol
    if want.dtype.kind not in "biufc":
        got, want = got.astype(np.float32), want.astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=case.atol)
