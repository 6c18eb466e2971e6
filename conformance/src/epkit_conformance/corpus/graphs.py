"""Level 3: graphs that a provider runs in part agree with what the reference computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference

import epkit

from ..case import Case
from ..compare import difference
from ..evidence import ran_elsewhere, reasons, recorded_run
from ..result import Result, State

GRAPHS = {
    "diamond": """
        agraph (float[N, 4] x) => (float[N, 4] y) {
            a = Relu(x)  b = Sigmoid(a)  c = Neg(a)  d = Mul(b, c)  y = Add(d, a)
        }""",
    "long_chain": """
        agraph (float[N, 4] x) => (float[N, 4] y) {
            a = Relu(x)  b = Neg(a)  c = Abs(b)  d = Sigmoid(c)  e = Add(d, x)  f = Mul(e, d)
            g = Sub(f, a)  h = Tanh(g)  i = Relu(h)  y = Add(i, i)
        }""",
    "inside_if": """
        agraph (float[N, 4] x, bool flag) => (float[N, 4] y) {
            a = Relu(x)
            y = If(flag) <
                then_branch = yes () => (float[N, 4] p) { q = Neg(a)  p = Add(q, x) },
                else_branch = no () => (float[N, 4] r) { s = Sigmoid(a)  r = Mul(s, a) }
            >
        }""",
    "inside_loop": """
        agraph (float[N, 4] x, int64 trips) => (float[N, 4] y) {
            always = Equal(trips, trips)
            y = Loop(trips, always, x) <
                body = step (int64 i, bool going, float[N, 4] s) => (bool on, float[N, 4] t) {
                    on = Identity(going)  r = Relu(s)  n = Neg(r)  t = Add(n, x)
                }
            >
        }""",
}
OTHERS = {"flag": (np.array(True), np.array(False)), "trips": (np.array(3), np.array(1))}


def cases() -> Iterator[Case]:
    """Each graph with one, several and no rows."""
    for name, text in GRAPHS.items():
        for rows in (1, 3, 0):
            yield Case(f"graphs/{name}/{rows}_rows", 3, "graphs", _runner(text, rows))


def _runner(text: str, rows: int) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>{text}')
        with epkit.load(model, [provider], optimise="none") as session:
            if provider not in session.placement.counts():
                return Result(State.REFUSED, reasons(session, provider))
            elsewhere: dict[str, str] = {}
            for feeds in _feeds(model, rows):
                outputs, profile = recorded_run(session, feeds)
                elsewhere.update(ran_elsewhere(profile, provider))
                _agrees_with_placement(session, profile)
                for info, want in zip(
                    session.outputs, onnx.reference.ReferenceEvaluator(model).run(None, feeds), strict=True
                ):
                    problem = difference(outputs[info.name], want, 1e-5, 1e-6)
                    assert not problem, f"output {info.name} {problem}"
        if elsewhere:
            return Result(State.FALLBACK, f"{len(elsewhere)} nodes ran elsewhere, as placed")
        return Result(State.PASSED)

    return run


def _feeds(model: onnx.ModelProto, rows: int) -> Iterator[dict[str, Any]]:
    x = np.random.default_rng(7).standard_normal((rows, 4)).astype(np.float32)
    second = next((i.name for i in model.graph.input if i.name in OTHERS), None)
    if second is None:
        yield {"x": x}
    else:
        yield from ({"x": x, second: value} for value in OTHERS[second])


def _agrees_with_placement(session: epkit.Session, profile: epkit.Profile) -> None:
    placed = {node.node: node.provider for node in session.placement.nodes}
    for node, who in profile.dispatched().items():
        assert placed[node] == who, f"{node} was placed on {placed[node]} and ran on {who}"
