"""The real thing: these need a GPU, and say so where there is none."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx.parser
import pytest

import epkit
from epkit_cuda.device import Options, find_devices

FOUND = find_devices(Options())
EXPECTED = "EPKIT_EXPECT_CUDA"
"""Set to 1 where a GPU must be there."""

if os.environ.get(EXPECTED) == "1" and not FOUND.found:
    raise RuntimeError(f"{EXPECTED}=1, and there is no GPU: {FOUND.reason}")

pytestmark = pytest.mark.skipif(not FOUND.found, reason=f"no GPU: {FOUND.reason} ({FOUND.remedy})")

MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N, 64] x, float[64, 32] w, float[32] g, float[32] b) => (float[N, 32] y, float[A, B] t) {
        p = MatMul(x, w)  r = Relu(p)  n = LayerNormalization(r, g, b)  s = Softmax(n)  y = Mul(s, n)
        t = Transpose(y)
    }
""")


def feeds(rows: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = {"x": (rows, 64), "w": (64, 32), "g": (32,), "b": (32,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 2e-2), ("fp16", 2e-2), ("bf16", 2e-1)]
)
def test_a_model_agrees_with_the_cpu(capture: bool, precision: str, tolerance: float) -> None:
    options = {"precision": precision}
    with (
        epkit.load(MODEL, [("cuda", options)], fallback="error", capture=capture) as session,
        epkit.load(MODEL, ["cpu"]) as reference,
    ):
        for run in range(6):
            given = feeds(3 + 5 * (run % 2), run)
            for name, want in reference.run(None, given).items():
                found = session.run(None, given)[name]
                np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance)


def test_convolution_agrees_with_the_cpu() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[2, 8, 17, 19] x, float[16, 4, 3, 3] w) => (float[2, 16, A, B] y) {
            y = Conv<group = 2, pads = [1, 0, 2, 1], strides = [2, 1]>(x, w)
        }
    """)
    random = np.random.default_rng(0)
    given = {
        "x": random.standard_normal((2, 8, 17, 19)).astype(np.float32),
        "w": random.standard_normal((16, 4, 3, 3)).astype(np.float32),
    }
    with epkit.load(model, ["cuda"], fallback="error") as session, epkit.load(model, ["cpu"]) as reference:
        np.testing.assert_allclose(
            session.run(None, given)["y"], reference.run(None, given)["y"], rtol=1e-4, atol=1e-4
        )
