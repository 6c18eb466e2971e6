"""Activations whose meaning changed, special arguments, softmax over every axis and opset."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import by_onnxruntime, run

X = np.random.default_rng(5).normal(0, 3, (2, 3, 4, 5)).astype(np.float32)


def reference(name: str, x: Any, axis: Any) -> Any:
    """In float64, along one axis or several."""
    x = x.astype(np.float64)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    p = e / e.sum(axis=axis, keepdims=True)
    return {"Softmax": p, "LogSoftmax": np.log(p), "Hardmax": (x == x.max(axis=axis, keepdims=True)) * 1.0}[
        name
    ]


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 3, -2])
@pytest.mark.parametrize("opset", [1, 11, 12, 13, 28])
def test_softmax(name: str, axis: int | None, opset: int) -> None:
    attributes = {} if axis is None else {"axis": axis}
    first = (-1 if opset >= 13 else 1) if axis is None else axis
    axes = first if opset >= 13 else tuple(range(first % 4, 4))
    np.testing.assert_allclose(
        run(name, X, opset=opset, **attributes), reference(name, X, axes), rtol=2e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_edges(name: str) -> None:
    assert run(name, X[:, :0], axis=1).shape == (2, 0, 4, 5)
    assert run(name, X[:0], opset=11).shape == (0, 3, 4, 5)
    assert not np.isnan(run(name, X * np.float32(1e30), axis=0)).any()
    with pytest.raises(ValueError, match="axis=4"):
        run(name, X, axis=4)


def test_hardmax_takes_the_first() -> None:
    assert run("Hardmax", np.float32([[1, 3, 3]])).tolist() == [[0, 1, 0]]


def test_softmax_of_bfloat16_is_summed_in_float32() -> None:
    x = np.zeros(4096, ml_dtypes.bfloat16)
    assert (run("Softmax", x).astype(np.float32) == 1 / 4096).all()


@pytest.mark.parametrize(
    "name", ["Elu", "Selu", "LeakyRelu", "HardSigmoid", "ThresholdedRelu", "Celu", "Relu"]
)
def test_defaults_like_onnxruntime(name: str) -> None:
    np.testing.assert_allclose(run(name, X), by_onnxruntime(name, X, opset=13), rtol=2e-6, atol=1e-7)


def test_selu_had_other_defaults() -> None:
    x = np.float32([-1.0, 2.0])
    assert run("Selu", x, opset=1)[1] == np.float32(2 * 1.0506999492645264)
    assert run("Selu", x, opset=6)[1] == np.float32(2 * 1.0507010221481323)


def test_prelu_by_channel_and_broadcast() -> None:
    slope = np.float32([0.1, 0.2, 0.3])
    want = np.where(X < 0, X * slope[:, None, None], X)
    np.testing.assert_array_equal(run("PRelu", X, slope, opset=6), want)
    np.testing.assert_array_equal(run("PRelu", X, slope[:, None, None], opset=7), want)
    assert run("PRelu", np.int32([-2, 3]), np.int32([4])).tolist() == [-8, 3]
    for opset, bad in ((6, slope[:2]), (7, np.ones((2, 2, 3, 4, 5), np.float32))):
        with pytest.raises(ValueError, match="slope"):
            run("PRelu", X, bad, opset=opset)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_like_onnxruntime(approximate: str) -> None:
    want = by_onnxruntime("Gelu", X, opset=20, approximate=approximate)
    np.testing.assert_allclose(run("Gelu", X, approximate=approximate), want, rtol=1e-5, atol=1e-6)


def test_tanh_gelu_keeps_its_digits_in_the_tail() -> None:
    x = np.linspace(-9, 9, 2001).astype(np.float32)
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)
    want = x / (1 + np.exp(-2 * u))
    assert (
        np.abs(run("Gelu", x, approximate="tanh") - want) <= 4 * np.spacing(np.abs(want).astype(np.float32))
    ).all()


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "ParametricSoftplus", "ThresholdedRelu"])
def test_experimental_operators_like_onnxruntime(name: str) -> None:
    attributes = {"alpha": 1.5} if name == "ThresholdedRelu" else {"alpha": 1.5, "beta": 0.7}
    want = by_onnxruntime(name, X, opset=7, **attributes)
    np.testing.assert_allclose(run(name, X, opset=7, **attributes), want, rtol=2e-6, atol=1e-7)


def test_shrink_of_integers() -> None:
    x = np.int8([-3, -1, 0, 1, 3])
    assert run("Shrink", x, lambd=1.5, bias=1.5).tolist() == [-1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "name, inputs, attributes",
    [("Gelu", [X], {"approximate": "erf"}), ("Celu", [X], {"alpha": 0.0}), ("SwiGLU", [X, X[:1]], {})],
)
def test_errors(name: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        run(name, *inputs, **attributes)
