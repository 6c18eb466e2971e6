"""The provider asks only for fusions that its engine has: a portable function is slower than the engine's parts."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import epkit
from epkit.testing.models import model
from epkit_cpu.native import chosen_isa

SCALES = "float s = {0.02}, uint8 z = {128}, float r = {0.03}"
X = np.random.default_rng(0).integers(0, 256, (1, 8, 5, 5)).astype(np.uint8)


@pytest.mark.skipif(not chosen_isa(), reason="the package was built without a compiler")
@pytest.mark.parametrize(
    ("operator", "size", "fused"),
    [("GlobalAveragePool", 1, False), ("Sigmoid", 5, True), ("LeakyRelu", 5, True)],
)
def test_what_would_be_slower_as_one_stays_in_parts(operator: str, size: int, fused: bool) -> None:
    graph = model(
        f"""g (uint8[1, 8, 5, 5] x) => (uint8[1, 8, {size}, {size}] y) <{SCALES}>
        {{ a = DequantizeLinear(x, s, z)  b = {operator}(a)  y = QuantizeLinear(b, r, z) }}"""
    )
    with epkit.load(graph, ["cpu"], optimise="extended") as session:
        assert len(session.placement.nodes) == (1 if fused else 3)
        found = session(x=X)["y"]
    oracle = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = oracle.run(None, {"x": X})
    assert np.abs(found.astype(int) - wanted).max() <= 1  # a tie may be rounded the other way


@pytest.mark.skipif(not chosen_isa(), reason="the package was built without a compiler")
@pytest.mark.parametrize("weights", [False, True])
def test_attention_whose_weights_are_a_result_stays_in_parts(weights: bool) -> None:
    results = "float[1, 2, 3, 4] y" + ", float[1, 2, 3, 3] w" * weights
    graph = model(
        f"""g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] k, float[1, 2, 3, 4] v) => ({results}) {{
        t = Transpose <perm = [0, 1, 3, 2]> (k)  p = MatMul(q, t)  w = Softmax <axis = -1> (p)  y = MatMul(w, v) }}"""
    )
    feeds = {name: np.random.default_rng(ord(name)).random((1, 2, 3, 4), np.float32) for name in "qkv"}
    with epkit.load(graph, ["cpu"], optimise="extended") as session:
        assert ("Attention" in {node.operator for node in session.placement.nodes}) is not weights
        found = session.run(None, feeds)
    oracle = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for one, other in zip(found.values(), oracle.run(None, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
