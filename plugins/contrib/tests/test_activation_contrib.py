"""Activations: Gelu, BiasGelu, FastGelu and QuickGelu against onnxruntime; what its CPU build lacks in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from contrib_node import BF16, check, rand, run

import epkit

X = rand(2, 3, 8, scale=2.0)


def exact_gelu(x: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(float).flat]).reshape(
        x.shape
    )


def test_gelu_and_its_relatives_match_onnxruntime() -> None:
    check("Gelu", {"x": X})
    check("BiasGelu", {"x": X, "b": rand(8)})
    check("FastGelu", {"x": X})
    check("FastGelu", {"x": X, "b": rand(8)})
    check("QuickGelu", {"x": X})
    check("QuickGelu", {"x": X}, alpha=-0.7)


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
def test_other_types_round_once(dtype: np.dtype) -> None:
    x, b = X.astype(dtype), rand(8).astype(dtype)
    (y,) = run("BiasGelu", {"x": x, "b": b})
    expected = exact_gelu(x.astype(float) + b.astype(float))
    if dtype == np.float64:
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
    else:
        np.testing.assert_array_equal(y, expected.astype(dtype))
    assert run("QuickGelu", {"x": x})[0].dtype == run("FastGelu", {"x": x})[0].dtype == dtype


def test_bias_split_gelu_multiplies_the_halves() -> None:
    b = rand(8)
    (y,) = run("BiasSplitGelu", {"x": X, "b": b})
    s = X.astype(float) + b
    np.testing.assert_allclose(y, s[..., :4] * exact_gelu(s[..., 4:]), rtol=1e-5, atol=1e-6)


def test_bias_add() -> None:
    (y,) = run("BiasAdd", {"x": X, "b": rand(8), "skip": rand(2, 3, 8, seed=1)})
    np.testing.assert_allclose(y, X + rand(8) + rand(2, 3, 8, seed=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("bias", "axis", "inner"),
    [((2, 1, 1, 5), 3, 1), ((1, 1, 4, 5), 3, 0), ((4, 5), 2, 0), ((2, 1, 4, 5), 2, 1)],
)
def test_bias_softmax_adds_a_broadcast_mask(bias: tuple[int, ...], axis: int, inner: int) -> None:
    x, b = rand(2, 3, 4, 5), rand(*bias, seed=1)
    (y,) = run("BiasSoftmax", {"x": x, "b": b}, axis=axis, is_inner_broadcast=inner)
    scores = x.astype(float) + b
    e = np.exp(scores)
    np.testing.assert_allclose(y, e / e.sum(axis=tuple(range(axis, 4)), keepdims=True), rtol=1e-5)


def test_bias_dropout_is_a_sum_in_inference_and_drops_in_training() -> None:
    b, r = rand(8), rand(2, 3, 8, seed=1)
    y, mask = run("BiasDropout", {"x": X, "b": b, "r": r}, 2)
    np.testing.assert_allclose(y, X + b + r, rtol=1e-5, atol=1e-6)
    assert mask.all()
    train = {"x": X, "b": b, "r": r, "ratio": np.float32(0.5), "training": np.array(True)}
    train["ratio"] = np.asarray(train["ratio"])
    y, mask = run("BiasDropout", train, 2, seed=3)
    np.testing.assert_allclose(y, np.where(mask, (X + b) * 2, 0) + r, rtol=1e-5, atol=1e-6)
    assert 0 < mask.sum() < mask.size


def test_a_bias_of_another_length_is_refused() -> None:
    with pytest.raises(epkit.EpkitError, match=r"\(7,\)|\[7\]"):
        run("BiasGelu", {"x": X, "b": rand(7)})
    with pytest.raises(epkit.EpkitError, match="bias of shape"):
        run("BiasSoftmax", {"x": X, "b": rand(7)}, is_inner_broadcast=0)
