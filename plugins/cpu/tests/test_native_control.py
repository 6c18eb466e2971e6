"""If, Loop and Scan within the native engine: against onnxruntime, without Python between trips."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from control_models import DTYPES, SHAPE, Maker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_node import instruction_set, peer

import epkit
from epkit.errors import RunError
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit_cpu.native import engine, isas

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


@contextmanager
def loaded(graph: onnx.ModelProto, isa: str = "", **more: Any) -> Iterator[epkit.Session]:
    """A session in which everything is the engine's: one program, and no step of Python's."""
    with instruction_set(isa), epkit.load(graph, **more) as session:
        assert session.placement.counts() == {"cpu": len(session.placement.nodes)}, session.placement
        programs = list(session._engine.compiled.programs.values())
        assert len(programs) == 1 and "python" not in str(programs[0]), programs[0]
        yield session


def program_of(session: epkit.Session) -> Any:
    (program,) = session._engine.compiled.programs.values()
    return program


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_control_flow(data: st.DataObject) -> None:
    maker = Maker(lambda n: data.draw(st.integers(0, n - 1)), data.draw(st.sampled_from(DTYPES)))
    graph = maker.model(data.draw(st.integers(1, 2)))
    isa, level = data.draw(st.sampled_from(isas())), data.draw(st.sampled_from(["none", "all"]))
    a = np.arange(6).reshape(SHAPE) % 4 - 1
    with loaded(graph, isa, optimise=level) as session:
        for n, c, d in data.draw(
            st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=4)
        ):
            feeds: dict[str, Array] = {
                "a": a.astype(maker.dtype),
                "b": (a.T.reshape(SHAPE) + n).astype(maker.dtype),
            }
            feeds |= {"n": np.array(n), "c": np.array(c), "d": np.array(d)}
            assert_same(session.run(None, dict(feeds)), peer(graph, feeds))


FIBONACCI = model("""
    g (int64 n, int64[K] a, int64[K] b) => (int64[K] x, int64[K] y, int64[T, K] all) <bool yes = {1}> {
        [loop] x, y, all = Loop(n, yes, a, b) <body = step (int64 i, bool go, int64[K] p, int64[K] q) =>
            (bool on, int64[K] r, int64[K] s, int64[K] t) {
                on = Identity(go)  [swap] r = Identity(q)  [sum] s = Add(p, q)  t = Identity(p) }>
    }""")


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_values_that_change_places(isa: str, size: int) -> None:
    """Carried values are swapped, and one is stacked that the next trip overwrites."""
    with loaded(FIBONACCI, isa) as session:
        for n in (0, 1, 2, 60):
            a, b = np.zeros(size, np.int64), np.ones(size, np.int64)
            rows = []
            for _ in range(n):
                rows.append(a)
                a, b = b, a + b
            found = session(n=np.array(n), a=np.zeros(size, np.int64), b=np.ones(size, np.int64))
            assert_same(found, {"x": a, "y": b, "all": np.array(rows, np.int64).reshape(n, size if n else 0)})


def test_memory_does_not_grow_with_trips() -> None:
    """What a trip no longer needs, the next one takes."""
    graph = model("""
        g (float[4096] x, int64 n) => (float[4096] y) <bool yes = {1}> {
            y = Loop(n, yes, x) <body = step (int64 i, bool go, float[4096] s) => (bool on, float[4096] t) {
                on = Identity(go)  a = Softmax(s)  b = Softmax(a)  t = Add(a, b) }>
        }""")
    with loaded(graph) as session:
        held = []
        for n in (3, 3, 5000, 20000, 3):
            session(x=np.ones(4096, np.float32), n=np.array(n))
            held.append(program_of(session).memory().peak)
    assert max(held) <= 8 * 4096 * 4, held


def test_the_parts_of_a_concat_that_is_carried() -> None:
    """Parts are written into the Concat's result in advance, while the last trip's result is still read."""
    graph = model("""
        g (float[2, 16] x, int64 n) => (float[2, 16] y, float[T, 2, 16] all) <bool yes = {1}> {
            y, all = Loop(n, yes, x) <body = step (int64 i, bool go, float[2, 16] s) =>
                (bool on, float[2, 16] t, float[2, 16] u) {
                    on = Identity(go)  p, q = Split <axis = 0, num_outputs = 2> (s)
                    a = Softmax(q)  b = Add(p, q)  t = Concat <axis = 0> (a, b)  u = Identity(s) }>
        }""")
    x = np.arange(32, dtype=np.float32).reshape(2, 16) / 16
    with loaded(graph) as session:
        for n in (1, 5, 5, 0, 9):
            feeds = {"x": x, "n": np.array(n)}
            assert_same(session.run(None, feeds), peer(graph, feeds))


def test_a_concat_with_what_was_made_before_the_loop() -> None:
    graph = model("""
        g (float[1, 16] x, int64 n) => (float[1, 16] y) <bool yes = {1}, int64[1] zero = {0}, int64[1] ends = {1}> {
            h = Softmax(x)
            y = Loop(n, yes, x) <body = step (int64 i, bool go, float[1, 16] s) => (bool on, float[1, 16] t) {
                on = Identity(go)  a = Softmax(s)  c = Concat <axis = 0> (h, a)  t = ReduceSum <keepdims = 1> (c, zero) }>
        }""")
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16)
    with loaded(graph) as session:
        for n in (1, 4, 4, 7):
            feeds = {"x": x, "n": np.array(n)}
            assert_same(session.run(None, feeds), peer(graph, feeds))


def test_weights_in_bodies_are_packed_and_convolutions_fuse() -> None:
    rng = np.random.default_rng(0)
    graph = model("""
        g (float[1, 16, 8, 8] x, int64 n, bool c) => (float[1, 16, 8, 8] y, float[M] z) <bool yes = {1}> {
            [before] h = Conv <pads = [1, 1, 1, 1]> (x, w)
            y = Loop(n, yes, x) <body = step (int64 i, bool go, float[1, 16, 8, 8] s) =>
                (bool on, float[1, 16, 8, 8] t) {
                    on = Identity(go)  [conv] a = Conv <pads = [1, 1, 1, 1]> (s, w)  r = Relu(a)  t = Add(r, h) }>
            z = If(c) <then_branch = yes () => (float[b] p) { k = Constant <value_ints = [-1]> ()  p = Reshape(h, k) },
                else_branch = no () => (float[e] q) { m = GlobalAveragePool(h)  l = Constant <value_ints = [-1]> ()
                    q = Reshape(m, l) }>
        }""")
    weights = (rng.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    x = rng.standard_normal((1, 16, 8, 8)).astype(np.float32)
    with loaded(graph) as session:
        assert str(program_of(session)).count("conv: ") == 2, program_of(session)
        for n, c in ((0, True), (3, False), (3, True)):
            feeds = {"x": x, "n": np.array(n), "c": np.array(c)}
            assert_same(session.run(None, feeds), peer(graph, feeds))


def test_a_step_of_pythons_within_a_loop() -> None:
    """What has no native form is a call of Python's; the loop goes on after it."""
    graph = model("""
        g (float[2, 2] x, int64 n) => (float[2, 2] y, float[T] all) <bool yes = {1}> {
            y, all = Loop(n, yes, x) <body = step (int64 i, bool go, float[2, 2] s) =>
                (bool on, float[2, 2] t, float u) {
                    on = Identity(go)  u = Det(s)  a = Add(s, x)  t = Sub(a, u) }>
        }""")
    with epkit.load(graph) as session:
        assert session.placement.counts() == {"cpu": len(session.placement.nodes)}
        assert "python: " in str(program_of(session))
        for n in (0, 1, 6):
            feeds = {"x": np.array([[1, 0.5], [0.25, 2]], np.float32), "n": np.array(n)}
            assert_same(session.run(None, feeds), peer(graph, feeds))


def test_what_is_no_tensor_of_numbers_stays_with_the_runtime() -> None:
    graph = model("""
        g (string[K] x, bool c) => (string[K] y) {
            [if] y = If(c) <then_branch = yes () => (string[K] p) { p = Identity(x) },
                else_branch = no () => (string[K] q) { q = Identity(x) }>
        }""")
    with epkit.load(graph, optimise="none") as session:
        (node,) = [node for node in session.placement.nodes if node.node == "if"]
        assert (node.provider, node.refused[0].code) == ("runtime", "dtype")
        assert "tensors of one type of numbers" in node.refused[0].reason
        assert session(x=np.array(["a"], object), c=np.array(True))["y"].tolist() == ["a"]


def test_an_error_in_a_trip_names_the_node_and_the_next_run_is_sound() -> None:
    graph = model("""
        g (float[K] x, int64[N] sizes) => (float[K] y, float[T, K] all) {
            [scan] y, all = Scan <num_scan_inputs = 1, body = step (float[K] s, int64 size) => (float[K] t, float[K] u) {
                at = Constant <value_ints = [-1]> ()  k = Reshape(size, at)
                [cut] p = Reshape(s, k)  t = Add(p, x)  u = Identity(s) }> (x, sizes)
        }""")
    x = np.ones(3, np.float32)
    with loaded(graph, optimise="none") as session:
        for sizes in ([3, 3, 4], [3, 4]):
            with pytest.raises(RunError, match="Reshape failed") as caught:
                session(x=x, sizes=np.array(sizes))
            assert caught.value.where.node == "cut"
            feeds = {"x": x, "sizes": np.array([3, 3])}
            assert_same(session.run(None, feeds), peer(graph, feeds))


def test_a_profile_counts_the_nodes_of_each_trip() -> None:
    with loaded(FIBONACCI, optimise="none") as session:
        profile = epkit.Profile()
        feeds = {"n": np.array(3), "a": np.zeros(1, np.int64), "b": np.ones(1, np.int64)}
        session.run(None, feeds, epkit.RunOptions(profile=profile))
    names = [event.name for event in profile.recorder.events if event.category == "node"]
    assert (names.count("loop"), names.count("sum"), names.count("swap")) == (1, 3, 3)
    assert profile.dispatched() == dict.fromkeys([n.node for n in session.placement.nodes], "cpu")


def test_an_endless_loop_ends_by_an_interrupt() -> None:
    graph = model("""
        g (float[4] x) => (float[4] y) <bool yes = {1}> {
            y = Loop("", yes, x) <body = step (int64 i, bool go, float[4] s) => (bool on, float[4] t) {
                on = Identity(go)  t = Tanh(s) }>
        }""")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with loaded(graph) as session:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                session(x=np.ones(4, np.float32))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("step", "loops"),
    [
        (("move", b"", [0], [], []), []),
        (("branch", (9).to_bytes(8, "little"), [0], [], []), []),
        (("begin", bytes(8) + bytes(8), [0, 0], [], []), []),
        (("next", bytes(16), [0], [], []), [(False, 1, [], [])]),
        (("trip", bytes(16), [], [0, 7], []), [(False, 0, [], [])]),
        (("nonsense", b"", [], [], []), []),
    ],
)
def test_the_engine_takes_no_steps_that_do_not_fit(step: tuple[Any, ...], loops: list[Any]) -> None:
    module: Any = engine()
    slots = [(0, 64, np.dtype(np.int64), True)]
    with pytest.raises(ValueError):
        module.Program(slots, [("x", 0, None)], [], [step], [("x", 0)], 1, loops)
