"""Calling a session: outputs wanted, what belongs to whom, closing."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import epkit
from epkit.backend import Notice, Program
from epkit.errors import InputError, RunError
from epkit.testing.awkward import awkward, everything
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import plugin_of, registry_of

X = np.array([-1.0, 0.5, 2.0], np.float32)
TWO = model("g (float[N] x) => (float[N] p, float[N] q) { p = Abs(x)  q = Neg(p) }")


def test_outputs_by_name_in_the_order_asked_for() -> None:
    with epkit.load(TWO) as session:
        assert list(session(x=X)) == ["p", "q"]
        assert list(session.run(["q", "p"], {"x": X})) == ["q", "p"]
        assert_same(session.run(["q"], {"x": X}), {"q": -np.abs(X)})
        assert session.run([], {"x": X}) == {}


def test_an_unknown_output_lists_those_there_are() -> None:
    with epkit.load(TWO) as session, pytest.raises(InputError, match="no output 'r'") as caught:
        session.run(["p", "r"], {"x": X})
    assert caught.value.remedy == "its outputs are: p, q"


def test_interface() -> None:
    with epkit.load(TWO) as session:
        assert [str(info) for info in session.inputs] == ["x: float32[N]"]
        assert [info.type for info in session.outputs] == ["tensor(float)", "tensor(float)"]
        assert "(x: float32[N]) -> (p: float32[N], q: float32[N]) on cpu" in repr(session)


def test_an_input_may_have_any_name() -> None:
    graph = model("g (float[N] self, float[N] outputs) => (float[N] y) { y = Sub(self, outputs) }")
    with epkit.load(graph) as session:
        assert_same(session(self=X, outputs=X)["y"], np.zeros(3, np.float32))


# ---- ownership ----

ALIASES = model("""
    g (float[N] x, seq(float[N]) s) => (
        float[N] x, float[N] same, float[1, N] view, float[2] weight, float[N] p, float[N] again, float[N] item,
        seq(float[N]) items
    ) <float[2] weight = {1, 2}, int64 zero = {0}, int64[1] axis = {0}> {
        same = Identity(x)  view = Unsqueeze(x, axis)  p = Neg(x)  again = Identity(p)
        item = SequenceAt(s, zero)  items = SequenceInsert(s, p)
    }""")


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("provider", ["host", "device"])
def test_outputs_belong_to_the_caller(level: str, provider: str) -> None:
    """Writing into every output changes no input, no weight, no other output and no later run."""
    device = FakeDevice()
    registry = registry_of(awkward("host", everything), device_provider("device", device))
    x, item = X.copy(), X.copy() + 1
    with epkit.load(ALIASES, [provider], registry=registry, optimise=level) as session:
        wanted = session(x=x, s=[item])
        kept = {name: np.copy(value) for name, value in wanted.items() if name != "items"}
        outputs = session(x=x, s=[item])
        for name, value in outputs.items():
            for array in value if name == "items" else [value]:
                array[...] = 99
                assert_same(x, X)
                assert_same(item, X + 1)
            others = {other for other in kept if other != name}
            outputs[name] = None
            for other in others:
                if outputs[other] is not None:
                    assert not np.any(np.asarray(outputs[other]) == 99), f"{name} shares memory with {other}"
        assert_same({name: value for name, value in wanted.items() if name != "items"}, kept)
        later = session(x=x, s=[item])
        assert_same({name: value for name, value in later.items() if name != "items"}, kept)


def test_inputs_are_never_written() -> None:
    x = X.copy()
    x.flags.writeable = False
    graph = model("""
        g (float[N] x) => (float[N] y) { a = Relu(x)  b = Add(x, a)  c = Sigmoid(b)  y = Add(c, x) }""")
    with epkit.load(graph) as session:
        for _ in range(2):
            session(x=x)
    assert_same(x, X)


def test_results_of_earlier_runs_stay() -> None:
    with epkit.load(TWO) as session:
        results = [session(x=X * scale) for scale in range(4)]
    for scale, result in enumerate(results):
        assert_same(result, {"p": np.abs(X * scale), "q": -np.abs(X * scale)})


# ---- closing ----


def test_a_closed_session_says_so() -> None:
    session = epkit.load(TWO)
    session.close()
    session.close()
    with pytest.raises(RunError, match="closed") as caught:
        session(x=X)
    assert caught.value.remedy == "load the model again"


def test_programs_and_providers_are_closed_once() -> None:
    closed: list[str] = []

    class Counting(awkward("counting", everything)):  # type: ignore[misc]
        def compile(self, subgraph: Any) -> Program:
            program = super().compile(subgraph)
            program.close = lambda: closed.append("program")
            return program

        def close(self) -> None:
            closed.append("provider")

    with epkit.load(TWO, ["counting"], registry=registry_of(Counting)) as session:
        session.close()
    assert closed == ["program", "provider"]


def test_a_run_under_way_ends_before_the_session_closes() -> None:
    inside, go_on, closed = threading.Event(), threading.Event(), []

    class Slow(awkward("slow", everything)):  # type: ignore[misc]
        def compile(self, subgraph: Any) -> Program:
            program = super().compile(subgraph)
            run = program.run

            def wait(context: Any, inputs: Any) -> Any:
                inside.set()
                assert go_on.wait(30)
                assert closed == []
                return run(context, inputs)

            program.run = wait
            return program

        def close(self) -> None:
            closed.append("provider")

    session = epkit.load(TWO, ["slow"], registry=registry_of(Slow))
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(session(x=X)))
    thread.start()
    assert inside.wait(30)
    session.close()
    with pytest.raises(RunError, match="closed"):
        session(x=X)
    go_on.set()
    thread.join(30)
    assert_same(results, [{"p": np.abs(X), "q": -np.abs(X)}])
    assert closed == ["provider"]


# ---- notices ----


def test_observers_hear_of_each_load_and_run() -> None:
    heard: list[Notice] = []
    registry = registry_of(
        extensions={"ear": lambda: plugin_of(epkit_notice=lambda notice: heard.append(notice))}
    )
    with epkit.load(TWO, registry=registry) as session:
        session.run(None, {"x": X}, epkit.RunOptions(tag="first"))
        with pytest.raises(InputError):
            session(x=X.astype(np.float64))
    assert [notice.kind for notice in heard] == ["partition", "load", "run"]
    assert heard[0].details == {"cpu": 2}
    assert heard[-1].details == {"tag": "first"}
    assert all(notice.model == session.name for notice in heard)


def test_observers_hear_of_errors() -> None:
    heard: list[Notice] = []
    registry = registry_of(
        extensions={"ear": lambda: plugin_of(epkit_notice=lambda notice: heard.append(notice))}
    )
    with pytest.raises(epkit.EpkitError):
        epkit.load(TWO, ["nobody"], registry=registry)
    graph = model("g (float[N] x, float[M] z) => (float[K] y) { y = Add(x, z) }")
    with epkit.load(graph, registry=registry) as session, pytest.raises(RunError):
        session(x=X, z=X[:2])
    assert [notice.kind for notice in heard] == ["error", "partition", "load", "error"]
    assert "nobody" in str(heard[0].details["error"])
