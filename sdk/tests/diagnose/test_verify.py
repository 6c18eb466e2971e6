"""verify and bisect: a provider that is wrong in one place is caught there, one that is right is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import epkit
from epkit.backend import Program, Subgraph
from epkit.diagnose.bisect import bisect
from epkit.diagnose.verify import Verification, verify
from epkit.errors import RunError
from epkit.testing.awkward import AwkwardProvider, everything
from epkit.testing.plugins import registry_of

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    chain (float[3,4] x) => (float[3,4] y, float[3,4] z)
    <float[4] b = {1, 2, 3, 4}> {
        a = Add (x, b)
        r = Relu (a)
        e = Exp (x)
        s = Add (r, e)
        t = Tanh (s)
        y = Mul (t, a)
        z = Sub (t, b)
    }
""")

Fault = Callable[[Subgraph, list[Any]], None]


def faulty(fault: Fault) -> Any:
    """A registry with such a provider."""
    return registry_of(provider_with(fault))


def provider_with(fault: Fault) -> type[AwkwardProvider]:
    """A provider whose programs compute right, and then ``fault`` changes the outputs of a partition."""

    class FaultyProgram(Program):
        def __init__(self, inner: Program, graph: Subgraph) -> None:
            self.inner, self.graph = inner, graph

        def run(self, context: Any, inputs: Any) -> Any:
            results = [np.array(value) for value in self.inner.run(context, inputs)]
            fault(self.graph, results)
            return results

    class Faulty(AwkwardProvider):
        name = "faulty"
        pick = staticmethod(everything)

        def compile(self, subgraph: Subgraph) -> Program:
            return FaultyProgram(super().compile(subgraph), subgraph)

    return Faulty


def settings() -> Any:
    from epkit.api import make_settings

    return make_settings(["faulty"], "cpu", "basic", None, (), None, None)


def names(graph: Subgraph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def wrong_tanh(graph: Subgraph, results: list[Any]) -> None:
    """Wrong wherever Tanh's own output or what follows from it comes out."""
    if "Tanh" in names(graph):
        for value, result in zip(graph.outputs, results, strict=True):
            if value.producer().op_type in ("Tanh", "Mul", "Sub"):
                result += 0.5


def wrong_pair(graph: Subgraph, results: list[Any]) -> None:
    """Wrong only where Exp and Tanh are compiled together, and no other value in between is asked for."""
    if {"Exp", "Tanh"} <= set(names(graph)) and len(graph.outputs) < 4:
        results[-1] *= 2


def right(graph: Subgraph, results: list[Any]) -> None:
    """Nothing is changed."""


def test_a_right_provider_passes() -> None:
    found = verify(MODEL, settings(), {"x": X}, registry=faulty(right))
    assert found.passed
    assert len(found.nodes) == 7
    assert {check.provider for check in found.nodes} == {"faulty"}


def test_the_first_wrong_node_is_named() -> None:
    found = verify(MODEL, settings(), {"x": X}, registry=faulty(wrong_tanh))
    assert not found.passed
    assert found.first is not None
    assert found.first.operator == "Tanh"
    assert found.first.difference.absolute == pytest.approx(0.5, rel=1e-5)
    assert [check.operator for check in found.nodes if not check.agrees] == ["Tanh", "Mul", "Sub"]
    assert "Tanh" in str(found)


def test_bisect_writes_the_one_node_that_fails(tmp_path: Path) -> None:
    registry = faulty(wrong_tanh)
    failure = bisect(MODEL, settings(), {"x": X}, registry=registry).failure
    assert failure is not None
    assert [node.op_type for node in failure.model.graph.node] == ["Tanh"]
    path = failure.write(tmp_path)
    with epkit.load(path, ["faulty"], registry=registry) as session:
        again = session(**failure.feeds)
    np.testing.assert_array_equal(again["t"], failure.found["t"])
    np.testing.assert_allclose(failure.expected["t"], np.tanh(failure.feeds["s"]), rtol=1e-6)


def test_bisect_finds_nodes_that_fail_only_together() -> None:
    result = bisect(MODEL, settings(), {"x": X}, registry=faulty(wrong_pair))
    assert isinstance(result.verification, Verification)
    assert result.verification.first is None
    assert result.verification.failed
    assert result.failure is not None
    assert [node.op_type for node in result.failure.model.graph.node] == ["Exp", "Tanh"]


def test_a_provider_that_raises_is_bisected_too() -> None:
    def raises(graph: Subgraph, results: list[Any]) -> None:
        if "Relu" in names(graph):
            raise ArithmeticError("the relu unit is broken")

    with pytest.raises(RunError, match="relu unit"):
        verify(MODEL, settings(), {"x": X}, registry=faulty(raises))
    failure = bisect(MODEL, settings(), {"x": X}, registry=faulty(raises)).failure
    assert failure is not None
    assert [node.op_type for node in failure.model.graph.node] == ["Relu"]
    assert "relu unit" in failure.error


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from epkit.backend.registry import default
    from epkit.cli.app import app

    path = tmp_path / "model.onnx"
    onnx.save(MODEL, path)
    # not another registry: a command's module, first imported here, would keep it for good
    monkeypatch.setitem(default._types, "faulty", provider_with(wrong_tanh))
    told = CliRunner().invoke(app, ["verify", str(path), "-p", "faulty"])
    assert told.exit_code == 1
    assert "begins here" in told.output
    out = tmp_path / "small"
    told = CliRunner().invoke(app, ["bisect", str(path), "-p", "faulty", "-o", str(out)])
    assert told.exit_code == 1
    assert [node.op_type for node in onnx.load(out / "model.onnx").graph.node] == ["Tanh"]
    told = CliRunner().invoke(app, ["verify", str(path), "-p", "cpu"])
    assert told.exit_code == 0, told.output
