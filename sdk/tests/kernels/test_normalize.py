"""Normalisations against onnxruntime and closed forms in double precision."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours


def standard(x: Any, axes: Any) -> Any:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def vectors(*shape: int) -> list[Any]:
    return [data(*shape, seed=1), data(*shape, seed=2), data(*shape, seed=3), np.abs(data(*shape, seed=4))]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_batch_normalization(shape: Any, opset: int) -> None:
    assert_like_peer("BatchNormalization", [data(*shape), *vectors(3)], opset, epsilon=1e-3)


def test_batch_normalization_of_a_vector_has_one_channel() -> None:
    x, (scale, b, mean, var) = data(4), vectors(1)
    y = ours("BatchNormalization", [x, scale, b, mean, var], 15)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + b, rtol=1e-5)


@pytest.mark.parametrize(("opset", "extra"), [(1, {}), (6, {}), (7, {}), (9, {}), (14, {"training_mode": 1})])
def test_batch_normalization_training(opset: int, extra: Any) -> None:
    x, (scale, b, mean, var) = data(2, 3, 4), vectors(3)
    outputs = 5 if opset < 14 else 3
    y, *state = ours(
        "BatchNormalization", [x, scale, b, mean, var], opset, outputs=outputs, momentum=0.8, **extra
    )
    now, spread = x.mean((0, 2), np.float64), x.var((0, 2), np.float64)
    want = standard(x, (0, 2)) * scale[:, None] + b[:, None]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    running = [mean * 0.8 + now * 0.2, var * 0.8 + spread * 0.2, now, spread]
    for got, wanted in zip(state, running[: outputs - 1], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [1, 6, 7])
def test_batch_normalization_per_element(opset: int) -> None:
    x, (scale, b, mean, var) = data(5, 3, 4), vectors(3, 4)
    y = ours("BatchNormalization", [x, scale, b, mean, var], opset, spatial=0)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + b, rtol=1e-4, atol=1e-5)
    y = ours("BatchNormalization", [x, scale, b, mean, var], opset, spatial=0, outputs=5)[0]
    np.testing.assert_allclose(y, standard(x, 0) * scale + b, rtol=1e-4, atol=1e-5)


def test_batch_normalization_of_mixed_types() -> None:
    x = data(2, 3, 4).astype(np.float16)
    y, mean, var = ours("BatchNormalization", [x, *vectors(3)], 15, outputs=3, training_mode=1)
    assert (y.dtype, mean.dtype, var.dtype) == (np.float16, np.float32, np.float32)


def test_batch_normalization_refuses() -> None:
    with pytest.raises(ValueError, match="input scale"):
        ours("BatchNormalization", [data(2, 3, 4), *vectors(4)], 15)
    with pytest.raises(ValueError, match="spatial=0"):
        ours("BatchNormalization", [data(2, 3, 4), *vectors(3)], 7, spatial=0)


@pytest.mark.parametrize("opset", [1, 6, 22])
def test_instance_normalization(opset: int) -> None:
    x, (scale, b, *_) = data(2, 3, 4, 5), vectors(3)
    y = ours("InstanceNormalization", [x, scale, b], opset)
    want = standard(x, (2, 3)) * scale[:, None, None] + b[:, None, None]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("opset", "size"), [(18, 2), (21, 6)])
def test_group_normalization(opset: int, size: int) -> None:
    x, (scale, b, *_) = data(2, 6, 5), vectors(size)
    y = ours("GroupNormalization", [x, scale, b], opset, num_groups=2)
    wide = [np.repeat(v, 6 // size)[:, None] for v in (scale, b)]
    want = standard(x.reshape(2, 2, 15), 2).reshape(2, 6, 5) * wide[0] + wide[1]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="num_groups=4"):
        ours("GroupNormalization", [x, scale, b], opset, num_groups=4)


@pytest.mark.parametrize("axis", [-1, 1, 0, -3])
def test_layer_normalization(axis: int) -> None:
    x = data(2, 3, 4)
    scale, b = data(*x.shape[axis:], seed=1), data(*x.shape[axis:], seed=2)
    assert_like_peer("LayerNormalization", [x, scale, b], 17, outputs=3, axis=axis)
    assert_like_peer("LayerNormalization", [x, scale], 17, axis=axis)


@pytest.mark.parametrize("name", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_types(name: str, dtype: Any) -> None:
    x = np.full((1, 4096), 300, dtype)
    y = ours(name, [x, np.ones(4096, dtype)], 23)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float64), 0 if name[0] == "L" else 1, atol=1e-6)


def test_layer_normalization_statistics_have_the_stash_type() -> None:
    x = data(2, 4).astype(np.float16)
    y, mean, inverse = ours("LayerNormalization", [x, x[0]], 17, outputs=3, stash_type=1)
    assert (y.dtype, mean.dtype, inverse.dtype) == (np.float16, np.float32, np.float32)
    with pytest.raises(ValueError, match="stash_type=8"):
        ours("LayerNormalization", [x, x[0]], 17, stash_type=8)
    with pytest.raises(ValueError, match="axis=2"):
        ours("LayerNormalization", [x, x[0]], 17, axis=2)


def test_rms_normalization() -> None:
    x, scale = data(2, 3, 4), data(4, seed=1)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(ours("RMSNormalization", [x, scale], 23), want, rtol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, -1])
def test_lp_normalization(p: int, axis: int) -> None:
    assert_like_peer("LpNormalization", [data(3, 4)], 1, p=p, axis=axis)
    assert not ours("LpNormalization", [np.zeros((2, 2), np.float32)], 22, p=p, axis=axis).any()


def test_mean_variance_normalization() -> None:
    x = data(2, 3, 4, 5)
    want = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(ours("MeanVarianceNormalization", [x], 9), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 10**12])
def test_lrn(size: int) -> None:
    x = data(2, 4, 3)
    y = ours("LRN", [x], 13, size=size, alpha=0.5, beta=0.5, bias=2.0)
    before, after = (size - 1) // 2, size // 2
    for c in range(4):
        total = (x[:, max(0, c - before) : c + after + 1].astype(np.float64) ** 2).sum(1)
        np.testing.assert_allclose(y[:, c], x[:, c] / np.sqrt(2 + 0.5 / size * total), rtol=1e-5)
