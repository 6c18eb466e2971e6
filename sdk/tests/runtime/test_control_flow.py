"""If, Loop and Scan against onnxruntime: by the CPU provider, by the runtime, and where providers own parts of the bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from runtime_peer import by_onnxruntime

import epkit
from epkit.errors import RunError
from epkit.testing.awkward import every_other
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import registry_of

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
TRUE, FALSE = np.array(True), np.array(False)


@dataclass(frozen=True)
class Case:
    """A model and the inputs to try it with."""

    model: onnx.ModelProto
    feeds: tuple[dict[str, Any], ...]


def trips(*counts: int, **more: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"x": X, "n": np.array(count), **more} for count in counts)


CASES = {
    "if": Case(
        model("""
            g (float[N, 3] x, bool c) => (float[M, 3] y, float[K] z) {
                h = Abs(x)
                y, z = If(c) <
                    then_branch = yes () => (float[a, 3] p, float[b] q) {
                        p = Neg(h)  k = Constant <value_floats = [1.0, 2.0]> ()  q = Tanh(k) },
                    else_branch = no () => (float[e, 3] r, float[f] s) {
                        r = Concat <axis = 0> (x, h)  s = Constant <value_floats = [5.0]> () }>
            }"""),
        ({"x": X, "c": TRUE}, {"x": X, "c": FALSE}),
    ),
    "if_in_if": Case(
        model("""
            g (float[N, 3] x, bool c, bool d) => (float[N, 3] y) {
                h = Abs(x)
                y = If(c) <
                    then_branch = outer () => (float[N, 3] p) {
                        a = Neg(h)
                        p = If(d) <
                            then_branch = inner () => (float[N, 3] q) { q = Add(a, x) },
                            else_branch = other () => (float[N, 3] r) { r = Sub(a, h) }> },
                    else_branch = plain () => (float[N, 3] s) { s = Neg(x) }>
            }"""),
        tuple({"x": X, "c": c, "d": d} for c in (TRUE, FALSE) for d in (TRUE, FALSE)),
    ),
    "loop": Case(
        model("""
            g (float[N, 3] x, int64 n, bool c) => (float[N, 3] y, int64 k, float[T, N, 3] all, int64[T] counts)
            <int64 start = {10}> {
                y, k, all, counts = Loop(n, c, x, start) <body = step
                    (int64 i, bool go, float[N, 3] s, int64 j) =>
                    (bool on, float[N, 3] t, int64 l, float[N, 3] u, int64 v) {
                        on = Identity(go)  a = Abs(x)  b = Neg(s)  t = Add(a, b)
                        l = Add(j, i)  u = Sub(t, s)  v = Identity(i) }>
            }"""),
        (*trips(0, 1, 4, c=TRUE), *trips(3, c=FALSE)),
    ),
    "loop_until": Case(
        model("""
            g (float x, int64 n) => (float y, float[T] all) <float limit = {20}, bool yes = {1}> {
                y, all = Loop("", yes, x) <body = step (int64 i, bool go, float s) => (bool on, float t, float u) {
                    t = Add(s, s)  on = Less(t, limit)  u = Neg(t) }>
            }"""),
        ({"x": np.array(1, np.float32), "n": np.array(0)}, {"x": np.array(50, np.float32), "n": np.array(0)}),
    ),
    "loop_without_condition": Case(
        model("""
            g (float[N, 3] x, int64 n) => (float[N, 3] y) {
                y = Loop(n, "", x) <body = step (int64 i, bool go, float[N, 3] s) => (bool on, float[N, 3] t) {
                    on = Identity(go)  t = Add(s, x) }>
            }"""),
        trips(0, 3),
    ),
    "loop_that_grows": Case(
        model("""
            g (float[N, 3] x, int64 n) => (float[M, 3] y) <bool yes = {1}> {
                y = Loop(n, yes, x) <body = step (int64 i, bool go, float[K, 3] s) => (bool on, float[L, 3] t) {
                    on = Identity(go)  a = Tanh(s)  t = Concat <axis = 0> (a, x) }>
            }"""),
        trips(0, 1, 5),
    ),
    "loop_in_loop": Case(
        model("""
            g (float[N, 3] x, int64 n) => (float[N, 3] y, float[T, S, N, 3] all) <bool yes = {1}, int64 two = {2}> {
                h = Abs(x)
                y, all = Loop(n, yes, x) <body = outer (int64 i, bool go, float[N, 3] s) =>
                    (bool on, float[N, 3] t, float[S, N, 3] u) {
                        on = Identity(go)  f = Cast <to = 1> (i)
                        t, u = Loop(two, go, s) <body = inner (int64 j, bool further, float[N, 3] p) =>
                            (bool again, float[N, 3] q, float[N, 3] r) {
                                again = Identity(further)  a = Add(p, f)  q = Sub(a, h)  r = Mul(q, x) }> }>
            }"""),
        trips(1, 3),
    ),
    "sequence_in_loop": Case(
        model("""
            g (float[N, 3] x, int64 n) => (float[M, 3] y, int64 count) <bool yes = {1}> {
                empty = SequenceConstruct(x)
                s = Loop(n, yes, empty) <body = step (int64 i, bool go, seq(float[N, 3]) p) =>
                    (bool on, seq(float[N, 3]) q) {
                        on = Identity(go)  f = Cast <to = 1> (i)  a = Add(x, f)  q = SequenceInsert(p, a) }>
                y = ConcatFromSequence <axis = 0> (s)  count = SequenceLength(s)
            }"""),
        trips(0, 1, 4),
    ),
    "scan": Case(
        model("""
            g (float[N, 3] x, float[3] start) => (float[3] last, float[N, 3] all, float[N] tops) {
                last, all, tops = Scan <num_scan_inputs = 1, body = step (float[3] s, float[3] row) =>
                    (float[3] t, float[3] u, float v) {
                        t = Add(s, row)  u = Mul(t, row)  v = ReduceMax <keepdims = 0> (u) }> (start, x)
            }"""),
        ({"x": X, "start": X[0]}, {"x": X[:1], "start": X[0]}),
    ),
    "scan_axes_and_directions": Case(
        model("""
            g (float[2, 3] x, float[3, 2] z) => (float[2] last, float[2, 3] all, float[3, 2] back) {
                start = Constant <value_floats = [0.5, -0.5]> ()
                last, all, back = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0],
                    scan_input_directions = [1, 0], scan_output_axes = [-1, 0], scan_output_directions = [0, 1],
                    body = step (float[2] s, float[2] a, float[2] b) => (float[2] t, float[2] u, float[2] v) {
                        c = Add(s, a)  t = Tanh(c)  u = Sub(t, b)  v = Add(t, b) }> (start, x, z)
            }"""),
        ({"x": X, "z": X.T.copy() * 2},),
    ),
    "scan_with_captured_values": Case(
        model("""
            g (float[N, 3] x, float[3] w) => (float[N, 3] all) {
                h = Tanh(w)
                all = Scan <num_scan_inputs = 1, body = step (float[3] row) => (float[3] u) { u = Mul(row, h) }> (x)
            }"""),
        ({"x": X, "w": X[1]},),
    ),
}


def scan_8(with_lengths: bool) -> Case:
    """Scan with a batch axis and sequence lengths, as opset 8 has it."""
    vector = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["s", "row"], ["t"]), helper.make_node("Neg", ["t"], ["u"])]
    body = helper.make_graph(
        nodes,
        "step",
        [vector(name, TensorProto.FLOAT, [3]) for name in ("s", "row")],
        [vector(name, TensorProto.FLOAT, [3]) for name in ("t", "u")],
    )
    lengths = ["lengths"] if with_lengths else [""]
    node = helper.make_node(
        "Scan", [*lengths, "start", "x"], ["last", "all"], body=body, num_scan_inputs=1, directions=[1]
    )
    inputs = [vector("start", TensorProto.FLOAT, [2, 3]), vector("x", TensorProto.FLOAT, [2, 4, 3])]
    inputs += [vector("lengths", TensorProto.INT64, [2])] if with_lengths else []
    outputs = [vector("last", TensorProto.FLOAT, [2, 3]), vector("all", TensorProto.FLOAT, [2, 4, 3])]
    graph = helper.make_graph([node], "g", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)
    feeds: dict[str, Any] = {"start": X, "x": np.arange(24, dtype=np.float32).reshape(2, 4, 3)}
    if with_lengths:
        feeds["lengths"] = np.array([4, 2])
    return Case(made, (feeds,))


CASES["scan_8"] = scan_8(False)
CASES["scan_8_with_lengths"] = scan_8(True)


RUNTIME = {f"op:{operator}": "runtime" for operator in ("If", "Loop", "Scan")}


WHO = pytest.mark.parametrize("placement", [{}, RUNTIME], ids=["whole", "runtime"])


@WHO
@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("name", CASES)
def test_like_onnxruntime(name: str, level: str, placement: dict[str, str]) -> None:
    case = CASES[name]
    with epkit.load(case.model, optimise=level, placement=placement) as session:
        by = {node.provider for node in session.placement.nodes if node.operator in ("If", "Loop", "Scan")}
        stays = bool(placement) or name.startswith(("scan_8", "sequence"))
        assert by == ({"runtime"} if stays else {"cpu"})
        for feeds in case.feeds:
            assert_same(session.run(None, feeds), by_onnxruntime(case.model, feeds))


@pytest.mark.parametrize("name", CASES)
def test_with_every_other_node_on_a_device(name: str) -> None:
    case, device = CASES[name], FakeDevice()
    registry = registry_of(device_provider("toy", device, every_other(1)))
    with epkit.load(case.model, ["toy"], registry=registry, optimise="none") as session:
        for feeds in case.feeds:
            assert_same(session.run(None, feeds), by_onnxruntime(case.model, feeds))
    device.assert_clean()


@WHO
def test_scan_over_nothing(placement: dict[str, str]) -> None:
    """onnxruntime refuses a sequence of no entries; the standard does not."""
    with epkit.load(CASES["scan"].model, placement=placement) as session:
        outputs = session(x=X[:0], start=X[0])
    assert_same(outputs, {"last": X[0], "all": X[:0], "tops": np.zeros(0, np.float32)})


@WHO
@pytest.mark.parametrize("level", ["none", "all"])
def test_no_trips_give_slices_of_the_shape_that_the_body_states(
    placement: dict[str, str], level: str
) -> None:
    graph = model("""
        g (float[6] x, int64[2] dims, int64 n) => (float[T, 2, 3] all) <bool yes = {1}> {
            all = Loop(n, yes) <body = step (int64 i, bool go) => (bool on, float[2, 3] u) {
                on = Identity(go)  v = Reshape(x, dims)  u = Identity(v) }>
        }""")
    feeds = {"x": np.arange(6, dtype=np.float32), "dims": np.array([2, 3]), "n": np.array(0)}
    with epkit.load(graph, optimise=level, placement=placement) as session:
        assert_same(session.run(None, feeds), by_onnxruntime(graph, feeds))


@WHO
def test_a_loop_of_one_named_input(placement: dict[str, str]) -> None:
    """The condition is left out, and nothing is carried."""
    graph = model("""
        g (float[2] x, int64 n) => (float[T, 2] all) {
            all = Loop(n, "") <body = step (int64 i, bool go) => (bool on, float[2] u) {
                on = Identity(go)  f = Cast <to = 1> (i)  u = Mul(x, f) }>
        }""")
    feeds = {"x": X[0, :2], "n": np.array(3)}
    with epkit.load(graph, placement=placement) as session:
        assert_same(session.run(None, feeds), by_onnxruntime(graph, feeds))


@WHO
def test_a_result_that_nobody_wants_may_be_left_out(placement: dict[str, str]) -> None:
    """onnxruntime 1.32 crashes here."""
    graph = model("""
        g (float[N, 3] x, int64 n) => (float[T, N, 3] all) <bool yes = {1}> {
            "", all = Loop(n, yes, x) <body = step (int64 i, bool go, float[N, 3] s) =>
                (bool on, float[N, 3] t, float[N, 3] u) { on = Identity(go)  t = Neg(s)  u = Identity(s) }>
        }""")
    with epkit.load(graph, optimise="none", placement=placement) as session:
        assert_same(session(x=X, n=np.array(3))["all"], np.stack([X, -X, X]))


# ---- wrong ----


@WHO
def test_a_condition_must_be_one_bool(placement: dict[str, str]) -> None:
    graph = model("""
        g (float[3] x, bool[K] c) => (float[3] y) {
            [if] y = If(c) <
                then_branch = yes () => (float[3] p) { p = Neg(x) },
                else_branch = no () => (float[3] q) { q = Abs(x) }>
        }""")
    with epkit.load(graph, placement=placement) as session:
        with pytest.raises(RunError, match="must be one bool") as caught:
            session(x=X[0], c=np.array([True, False]))
        assert (caught.value.where.node, caught.value.where.stage) == ("if", "run")
        assert_same(session(x=X[0], c=np.array([True]))["y"], -X[0])


@WHO
def test_trips_must_agree_on_the_shape_of_what_is_stacked(placement: dict[str, str]) -> None:
    graph = model("""
        g (float[N, 3] x, int64 n) => (float[T, M, 3] all) <bool yes = {1}> {
            [loop] last, all = Loop(n, yes, x) <body = step (int64 i, bool go, float[K, 3] s) =>
                (bool on, float[L, 3] t, float[L, 3] u) {
                    on = Identity(go)  t = Concat <axis = 0> (s, x)  u = Identity(t) }>
        }""")
    with (
        epkit.load(graph, placement=placement) as session,
        pytest.raises(RunError, match="different shapes") as caught,
    ):
        session(x=X, n=np.array(2))
    assert caught.value.where.node == "loop"


@WHO
def test_the_number_of_trips_must_be_one_number(placement: dict[str, str]) -> None:
    graph = model("""
        g (float[3] x, int64[K] n) => (float[3] y) <bool yes = {1}> {
            [loop] y = Loop(n, yes, x) <body = step (int64 i, bool go, float[3] s) => (bool on, float[3] t) {
                on = Identity(go)  t = Neg(s) }>
        }""")
    with epkit.load(graph, placement=placement) as session:
        with pytest.raises(RunError, match="Loop failed") as caught:
            session(x=X[0], n=np.array([1, 2]))
        assert caught.value.where.node == "loop"
        assert "int64[2], bool[], float32[3]" in caught.value.remedy
        assert_same(session(x=X[0], n=np.array([3]))["y"], -X[0])


@WHO
def test_scan_inputs_of_different_lengths(placement: dict[str, str]) -> None:
    graph = model("""
        g (float[N, 3] x, float[M, 3] z) => (float[N, 3] all) {
            [scan] all = Scan <num_scan_inputs = 2, body = step (float[3] a, float[3] b) => (float[3] u) {
                u = Add(a, b) }> (x, z)
        }""")
    with (
        epkit.load(graph, placement=placement) as session,
        pytest.raises(RunError, match=r"different lengths: \[1, 2\]") as caught,
    ):
        session(x=X, z=X[:1])
    assert caught.value.where.node == "scan"
