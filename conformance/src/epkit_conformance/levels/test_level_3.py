"""Level 3: partitions. Graphs that a provider runs in part agree with what one provider computes alone."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx.reference
import pytest

import epkit
from epkit_conformance.compare import difference

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
        agraph (float[N, 4] x, int64 trips) => (float[N, 4] y, float[T, N, 4] steps) {
            always = Equal(trips, trips)
            y, steps = Loop(trips, always, x) <
                body = step (int64 i, bool going, float[N, 4] s) => (bool on, float[N, 4] t, float[N, 4] u) {
                    on = Identity(going)  r = Relu(s)  n = Neg(r)  t = Add(n, x)  u = Mul(t, r)
                }
            >
        }""",
}


@pytest.mark.parametrize("rows", [1, 3, 0])
@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name: str, rows: int, provider: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>{GRAPHS[name]}')
    x = np.random.default_rng(7).standard_normal((rows, 4)).astype(np.float32)
    others = {"flag": [np.array(True), np.array(False)], "trips": [np.array(0), np.array(3)]}
    second = next((key for key in others if key in {i.name for i in model.graph.input}), None)
    feeds = [{"x": x}] if second is None else [{"x": x, second: value} for value in others[second]]
    with epkit.load(model, [provider], optimise="none") as session:
        for feed in feeds:
            profile = epkit.Profile()
            outputs = session.run(None, feed, epkit.RunOptions(profile=profile))
            if name == "inside_loop" and feed["trips"] == 0:  # no trip: the reference evaluator cannot say
                assert not difference(outputs["y"], x, 0, 0)
                assert len(outputs["steps"]) == 0
                continue
            wanted = onnx.reference.ReferenceEvaluator(model).run(None, feed)
            for info, want in zip(session.outputs, wanted, strict=True):
                assert not difference(outputs[info.name], want, 1e-5, 1e-6)
            placed = {node.node: node.provider for node in session.placement.nodes}
            for node, who in profile.dispatched().items():
                assert placed[node] == who
