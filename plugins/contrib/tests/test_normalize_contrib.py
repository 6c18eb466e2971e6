"""Normalisations against onnxruntime; GroupNorm and SkipGroupNorm, which its CPU build lacks, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import BF16, check, rand, run

import epkit

X = rand(2, 3, 8)
TOLERANCE = {np.float16: 2e-3, BF16: 2e-2, np.float32: 1e-5, np.float64: 1e-6}


def as_type(inputs: dict[str, Any], dtype: Any) -> dict[str, Any]:
    return {k: None if v is None else v.astype(dtype) for k, v in inputs.items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_simplified_layer_normalization(dtype: Any) -> None:
    tolerance = TOLERANCE[dtype]
    inputs = as_type({"x": X, "scale": rand(8)}, dtype)
    if dtype == BF16:  # onnxruntime's Python door has no bfloat16
        (y,) = run("SimplifiedLayerNormalization", inputs, domain="")
        (z,) = run("SimplifiedLayerNormalization", as_type(inputs, np.float32), domain="")
        np.testing.assert_allclose(y.astype(np.float32), z, rtol=1e-2)
        return
    check("SimplifiedLayerNormalization", inputs, 2, domain="", epsilon=1e-3, rtol=tolerance, atol=tolerance)
    check("SimplifiedLayerNormalization", inputs, domain="", stash_type=1, rtol=tolerance, atol=tolerance)
    inputs["scale"] = rand(3, 8).astype(dtype)
    check("SimplifiedLayerNormalization", inputs, domain="", axis=1, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("skip", [(2, 3, 8), (1, 3, 8), (3, 8)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_skip_layer_normalization(skip: tuple[int, ...], dtype: Any) -> None:
    tolerance = 4 * TOLERANCE[dtype]
    inputs = {"x": X, "skip": rand(*skip, seed=1), "gamma": rand(8), "beta": rand(8, seed=2), "bias": None}
    for changed in (inputs, inputs | {"bias": rand(8, seed=3)}, inputs | {"beta": None}):
        outputs = ["y", "", "", "s"]
        check(
            "SkipLayerNormalization",
            as_type(changed, dtype),
            outputs,
            epsilon=1e-5,
            rtol=tolerance,
            atol=tolerance,
        )
    inputs = {"x": X, "skip": inputs["skip"], "gamma": rand(8), "bias": rand(8, seed=3)}
    check("SkipSimplifiedLayerNormalization", as_type(inputs, dtype), outputs, rtol=tolerance, atol=tolerance)


def test_skip_layer_normalization_gives_statistics() -> None:
    skip = rand(2, 3, 8, seed=1)
    inputs = {"x": X, "skip": skip, "gamma": rand(8)}
    _, mean, inverse, total = run("SkipLayerNormalization", inputs, 4, epsilon=0.1)
    np.testing.assert_allclose(total, X + skip, rtol=1e-6)
    np.testing.assert_allclose(mean[..., 0], total.mean(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inverse[..., 0], 1 / np.sqrt(total.var(-1) + 0.1), rtol=1e-5)
    inverse = run("SkipSimplifiedLayerNormalization", inputs, 4, epsilon=0.1)[2]
    np.testing.assert_allclose(inverse[..., 0], 1 / np.sqrt((total**2).mean(-1) + 0.1), rtol=1e-5)


def test_tokens_of_two_axes_are_accepted() -> None:
    check("SkipLayerNormalization", {"x": X[0], "skip": X[1], "gamma": rand(8), "beta": rand(8)})
    check("SkipSimplifiedLayerNormalization", {"x": X[0], "skip": X[1], "gamma": rand(8)})


def embedding(**changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    inputs = {
        "ids": generator.integers(0, 9, (2, 4)).astype(np.int32),
        "segments": generator.integers(0, 2, (2, 4)).astype(np.int32),
        "words": rand(9, 8),
        "positions": rand(6, 8),
        "kinds": rand(2, 8),
        "gamma": rand(8),
        "beta": rand(8, seed=1),
        "mask": None,
        "position_ids": None,
    }
    return inputs | changes


def test_embed_layer_normalization() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 1]], np.int32)
    check("EmbedLayerNormalization", embedding(), 3)
    check("EmbedLayerNormalization", embedding(mask=mask), 3, epsilon=1e-3)
    check("EmbedLayerNormalization", embedding(segments=None, kinds=None, mask=mask), 2)
    check("EmbedLayerNormalization", embedding(mask=mask), 2, mask_index_type=0)
    check("EmbedLayerNormalization", embedding(position_ids=np.array([[3, 1, 0, 5]], np.int32)), 2)
    half = {
        k: v.astype(np.float16) if v is not None and v.dtype == np.float32 else v
        for k, v in embedding().items()
    }
    y, z = run("EmbedLayerNormalization", half)[0], run("EmbedLayerNormalization", embedding())[0]
    np.testing.assert_allclose(y.astype(np.float32), z, atol=1e-2)
    with pytest.raises(epkit.EpkitError, match="outside the 9 rows of input word_embedding"):
        run("EmbedLayerNormalization", embedding(ids=np.full((2, 4), 9, np.int32)))


def closed_group_norm(x: Any, gamma: Any, beta: Any, groups: int, silu: int, epsilon: float) -> Any:
    """Channels last, group by group."""
    y = x.astype(float)
    width = x.shape[-1] // groups
    for n in range(x.shape[0]):
        for g in range(groups):
            part = y[n, :, :, g * width : (g + 1) * width]
            part[...] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    y = y * gamma + beta
    return y / (1 + np.exp(-y)) if silu else y


@pytest.mark.parametrize("channels_last", [0, 1])
@pytest.mark.parametrize("activation", [0, 1])
def test_group_norms(channels_last: int, activation: int) -> None:
    def laid(x: Any) -> Any:
        return x if channels_last else np.ascontiguousarray(np.moveaxis(x, -1, 1))

    x, gamma, beta, bias = rand(2, 3, 5, 8), rand(8), rand(8, seed=1), rand(8, seed=2)
    how = {"groups": 4, "activation": activation, "channels_last": channels_last, "epsilon": 1e-3}
    (y,) = run("GroupNorm", {"x": laid(x), "gamma": gamma, "beta": beta}, **how)
    expected = closed_group_norm(x, gamma, beta, 4, activation, 1e-3)
    np.testing.assert_allclose(y, laid(expected), rtol=1e-4, atol=1e-5)
    for skip in (rand(2, 3, 5, 8, seed=3), rand(2, 8, seed=3)):
        s = x + (skip if skip.ndim == 4 else skip[:, None, None]) + bias
        inputs = {"x": laid(x), "gamma": gamma, "beta": beta, "skip": laid(skip), "bias": bias}
        if skip.ndim == 2:
            inputs["skip"] = skip
        y, total = run("SkipGroupNorm", inputs, 2, **how)
        np.testing.assert_allclose(total, laid(s), rtol=1e-5, atol=1e-6)
        expected = closed_group_norm(s, gamma, beta, 4, activation, 1e-3)
        np.testing.assert_allclose(y, laid(expected), rtol=1e-4, atol=1e-5)
    half = as_type({"x": laid(x)}, np.float16) | {"gamma": gamma, "beta": beta}
    expected = closed_group_norm(x, gamma, beta, 4, activation, 1e-3)
    np.testing.assert_allclose(run("GroupNorm", half, **how)[0], laid(expected), rtol=5e-3, atol=5e-3)


def test_refusals() -> None:
    x, vector = rand(1, 2, 2, 8), rand(8)
    with pytest.raises(epkit.EpkitError, match="groups=3"):
        run("GroupNorm", {"x": x, "gamma": vector, "beta": vector}, groups=3, activation=0)
    with pytest.raises(epkit.EpkitError, match="input skip of shape"):
        run("SkipLayerNormalization", {"x": X, "skip": rand(2, 1, 8), "gamma": vector})
    with pytest.raises(epkit.EpkitError, match="input scale of shape"):
        run("SimplifiedLayerNormalization", {"x": X, "scale": rand(7)}, domain="")
