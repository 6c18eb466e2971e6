"""Optimiser steps beyond the published cases: first step, float64, wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import run

DOMAIN = "ai.onnx.preview.training"
X, G, V = (np.random.default_rng(k).uniform(0.1, 1, 4).astype(np.float32) for k in range(3))
MOMENTUM = {"alpha": 0.9, "beta": 0.5, "norm_coefficient": 0.0}


@pytest.mark.parametrize("step, beta", [(0, 1.0), (2, 0.5)])
@pytest.mark.parametrize("mode", ["standard", "nesterov"])
def test_momentum(step: int, beta: float, mode: str) -> None:
    x, v = run(
        "Momentum", np.float64(0.1), np.int64(step), X, G, V, opset=1, domain=DOMAIN, mode=mode, **MOMENTUM
    )
    new = 0.9 * V + beta * G
    assert x.dtype == v.dtype == np.float32
    np.testing.assert_allclose(v, new, rtol=1e-6)
    np.testing.assert_allclose(x, X - 0.1 * (new if mode == "standard" else G + 0.9 * new), rtol=1e-6)


def test_adam_without_steps_uses_the_rate_itself() -> None:
    zero = np.zeros(4, np.float32)
    x, v, h = run("Adam", np.float32(0.1), np.int64(0), X, G, zero, zero, opset=1, domain=DOMAIN)
    np.testing.assert_allclose(v, 0.1 * G, rtol=1e-5)
    np.testing.assert_allclose(h, 0.001 * G * G, rtol=1e-4)
    np.testing.assert_allclose(x, X - 0.1 * v / (np.sqrt(h) + 1e-6), rtol=1e-5)


@pytest.mark.parametrize("name, tensors", [("Adagrad", [X, G]), ("Adam", [X, G, V]), ("Adagrad", [])])
def test_wrong_number_of_tensors(name: str, tensors: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="multiple"):
        run(name, np.float32(0.1), np.int64(1), *tensors, opset=1, domain=DOMAIN)


def test_wrong_mode() -> None:
    with pytest.raises(ValueError, match="mode"):
        run("Momentum", np.float32(1), np.int64(1), X, G, V, opset=1, domain=DOMAIN, mode="fast", **MOMENTUM)
