"""Models made on the spot by torch's exporters compute what onnxruntime computes."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.optimise import optimise

from .checkered import registry
from .compare import largest_error

pytest.importorskip("torch", reason="an optional environment: see [testenv:slow] in tox.ini")
pytest.importorskip("transformers")

from .exported import CASES, export

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("exporter", ["dynamo", "tracing"])
@pytest.mark.parametrize("name", CASES)
def test_torch_model(name: str, exporter: str) -> None:
    model = export(CASES[name], dynamo=exporter == "dynamo")
    oracle = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    for providers, level in (
        (["cpu"], "none"),
        (["cpu"], "basic"),
        (["null", "checkered", "cpu"], "basic"),
    ):
        with epkit.load(model, providers, optimise=level, registry=registry()) as session:
            for feeds in CASES[name].feeds():
                expected = dict(zip(names, oracle.run(None, dict(feeds)), strict=True))
                assert largest_error(session.run(None, feeds), expected) <= 1e-4


@pytest.mark.parametrize("exporter", ["dynamo", "tracing"])
@pytest.mark.parametrize(("name", "shared"), [("llama", 2), ("llama-cache", 2), ("qwen-cache", 1)])
def test_heads_that_several_queries_share_are_not_repeated(name: str, shared: int, exporter: str) -> None:
    """Repeated keys and values, rotation and past become operators; the values stay."""
    proto = onnx.load_from_string(export(CASES[name], dynamo=exporter == "dynamo"))
    graph = optimise(check(read(proto)).model, "extended").model.graph
    attention = [node for node in graph if node.op_type == "Attention"]
    assert len(attention) == 2 and not [node for node in graph if node.op_type == "Softmax"]
    assert sum(node.op_type == "RotaryEmbedding" for node in graph) == 4
    for node in attention:
        query, key, value, _, *past = node.inputs
        assert [str(each.shape).split(",")[1] for each in (query, key, value) if each] == [
            "4",
            f"{shared}",
            f"{shared}",
        ]
        assert len(past) == (2 if name.endswith("cache") else 0)
    oracle = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    with epkit.load(proto, optimise="all") as session:
        assert sum(node.operator == "Attention" for node in session.placement.nodes) == 2
        for feeds in CASES[name].feeds():
            expected = dict(zip(names, oracle.run(None, dict(feeds)), strict=True))
            assert largest_error(session.run(None, feeds), expected) <= 1e-4
