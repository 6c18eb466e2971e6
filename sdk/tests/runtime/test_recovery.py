"""on_failure and verify: a partition that fails, or computes wrong, moves to the fallback in sight of everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import epkit
from epkit.backend import Program, Subgraph
from epkit.errors import CompileError, DeviceMemoryError, InputError, OptionError, RunError
from epkit.testing.awkward import AwkwardProvider, everything, named
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.plugins import registry_of

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    chain (float[n,4] x) => (float[n,4] y) {
        [one] a = Relu (x)
        [two] b = Exp (a)
        [three] c = Tanh (b)
        [four] y = Relu (c)
    }
""")


def expected(x: Any = X) -> Any:
    return np.maximum(np.tanh(np.exp(np.maximum(x, 0))), 0)


def faulty(fault: Callable[[Subgraph, list[Any]], None], picker: Any = everything) -> Any:
    """A registry with a provider in whose partitions ``fault`` meddles; it counts its closed programs."""

    class FaultyProgram(Program):
        closed = 0

        def __init__(self, inner: Program, graph: Subgraph) -> None:
            self.inner, self.graph = inner, graph

        def run(self, context: Any, inputs: Any) -> Any:
            results = [np.array(value) for value in self.inner.run(context, inputs)]
            fault(self.graph, results)
            return results

        def close(self) -> None:
            FaultyProgram.closed += 1

    class Faulty(AwkwardProvider):
        name = "faulty"
        pick = staticmethod(picker)
        program = FaultyProgram

        def compile(self, subgraph: Subgraph) -> Program:
            return FaultyProgram(super().compile(subgraph), subgraph)

    return registry_of(Faulty), FaultyProgram


def raises_for_exp(graph: Subgraph, results: list[Any]) -> None:
    if "Exp" in [node.op_type for node in graph.nodes]:
        raise OSError("the bus is gone")


def wrong_for_exp(graph: Subgraph, results: list[Any]) -> None:
    if "Exp" in [node.op_type for node in graph.nodes]:
        results[-1] += 0.25


def right(graph: Subgraph, results: list[Any]) -> None:
    """Nothing is wrong."""


def test_by_default_a_failure_is_raised_every_time() -> None:
    registry, _ = faulty(raises_for_exp)
    with epkit.load(MODEL, ["faulty"], registry=registry) as session:
        for _ in range(2):
            with pytest.raises(RunError, match="bus"):
                session(x=X)
        assert session.placement.counts() == {"faulty": 4}


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"on_failure": "fallback"}, raises_for_exp), ({"verify": "first-run"}, wrong_for_exp)],
)
def test_a_faulty_partition_moves_and_says_so(options: Any, fault: Any) -> None:
    registry, program = faulty(fault, named("one", "two", "four"))
    with epkit.load(MODEL, ["faulty"], registry=registry, **options) as session:
        assert session.placement.counts() == {"faulty": 3, "cpu": 1}
        for x in (X, X[:2]):
            np.testing.assert_allclose(session(x=x)["y"], expected(x), rtol=1e-6)
        assert session.placement.counts() == {"faulty": 1, "cpu": 3}
        reasons = [node.refused[0] for node in session.placement.nodes if node.provider == "cpu"]
        assert [reason.code for reason in reasons] == ["quarantined", "quarantined", "cost"]
        assert "faulty:0" in reasons[0].reason
        assert any("faulty:0 was moved to cpu" in text for text in session.warnings)
        assert program.closed == 2
    assert program.closed == 3


def test_a_partition_that_does_not_compile_moves_and_says_so() -> None:
    class Unwilling(AwkwardProvider):
        name = "unwilling"
        pick = staticmethod(named("two", "four"))

        def compile(self, subgraph: Subgraph) -> Program:
            raise ValueError("no room")

    chosen: Any = {"providers": ["unwilling"], "registry": registry_of(Unwilling), "optimise": "none"}
    with pytest.raises(CompileError, match="no room"):
        epkit.load(MODEL, **chosen)
    with epkit.load(MODEL, **chosen, on_failure="fallback") as session:
        assert set(session.placement.counts()) == {"cpu"}
        assert ["no room" in text and "was moved to cpu" in text for text in session.warnings] == [True, True]
        assert np.allclose(session(x=X)["y"], expected())


def test_a_copy_that_fails_names_whom_it_was_for_and_moves_it() -> None:
    """Memory for an input runs out: the error had no partition, so that nothing could be moved."""
    far = device_provider("far", FakeDevice(limit=0), named("one"))
    chosen: Any = {"providers": ["far"], "registry": registry_of(far), "optimise": "none"}
    with epkit.load(MODEL, **chosen) as session, pytest.raises(DeviceMemoryError) as caught:
        session(x=X)
    assert (
        caught.value.where.partition and caught.value.where.node == "one" and caught.value.where.value == "x"
    )
    with epkit.load(MODEL, **chosen, on_failure="fallback") as session:
        assert np.allclose(session(x=X)["y"], expected())
        assert set(session.placement.counts()) == {"cpu"} and len(session.warnings) == 1


def test_what_is_right_stays() -> None:
    registry, _ = faulty(right)
    with epkit.load(
        MODEL, ["faulty"], registry=registry, verify="first-run", on_failure="fallback"
    ) as session:
        np.testing.assert_allclose(session(x=X)["y"], expected(), rtol=1e-6)
        assert session.placement.counts() == {"faulty": 4}
        assert not session.warnings


def test_only_the_first_run_is_verified() -> None:
    runs = []

    def late(graph: Subgraph, results: list[Any]) -> None:
        runs.append(1)
        if len(runs) > 1:
            results[-1] += 1

    registry, _ = faulty(late)
    with epkit.load(MODEL, ["faulty"], registry=registry, verify="first-run") as session:
        session(x=X)
        np.testing.assert_allclose(session(x=X)["y"], expected() + 1, rtol=1e-6)


def test_a_device_with_memory_of_its_own() -> None:
    device = FakeDevice()
    far = device_provider("far", device, named("one", "three", "four"))
    with epkit.load(MODEL, ["far"], registry=registry_of(far), verify="first-run") as session:
        for _ in range(2):
            np.testing.assert_allclose(session(x=X)["y"], expected(), rtol=1e-6)
        assert session.placement.counts() == {"far": 3, "cpu": 1}
    device.assert_clean()


def test_bad_input_moves_nothing() -> None:
    registry, _ = faulty(right)
    with epkit.load(MODEL, ["faulty"], registry=registry, on_failure="fallback") as session:
        with pytest.raises(InputError):
            session(x=X.astype(np.float64))
        assert session.placement.counts() == {"faulty": 4}


def test_runs_of_many_threads_move_it_once() -> None:
    registry, program = faulty(raises_for_exp)
    with epkit.load(MODEL, ["faulty"], registry=registry, on_failure="fallback") as session:
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(session(x=X)["y"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 8
        for result in results:
            np.testing.assert_allclose(result, expected(), rtol=1e-6)
        assert len([text for text in session.warnings if "was moved" in text]) == 1
        assert program.closed == 1


def test_a_fused_call_is_moved_with_what_is_inside() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        g (float[n,4] x) => (float[n,4] y) { [call] y = local.Twice (x) }
        <domain: "local", opset_import: ["" : 18]>
        Twice (a) => (c) { [inner] b = Exp (a)  [outer] c = Add (b, b) }
    """)
    registry, _ = faulty(raises_for_exp)
    with epkit.load(model, ["faulty"], registry=registry, on_failure="fallback") as session:
        np.testing.assert_allclose(session(x=X)["y"], 2 * np.exp(X), rtol=1e-6)
        assert session.placement.counts() == {"cpu": 2}


@pytest.mark.parametrize("options", [{"on_failure": "panic"}, {"verify": "always"}])
def test_unknown_choices_list_the_known(options: Any) -> None:
    with pytest.raises(OptionError) as caught:
        epkit.load(MODEL, ["cpu"], **options)
    assert "choose one of" in caught.value.remedy


def test_without_a_fallback_nothing_can_move() -> None:
    with pytest.raises(OptionError, match="fallback"):
        epkit.load(MODEL, ["cpu"], fallback="error", on_failure="fallback")
