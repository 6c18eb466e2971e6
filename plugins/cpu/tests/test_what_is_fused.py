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
