"""Recipes for softmax and normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .trial import Array, Trial, draw, recipe, wide


@recipe("Softmax LogSoftmax Hardmax")
def softmax(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the last axis of a matrix, where all versions mean the same; one row is far from zero."""
    x = draw(rng, (5, 11), dtype)
    x[2] += x.dtype.type(50)
    axis = {"axis": 1 if version < 11 else -1}
    if op == "Hardmax":
        return Trial([x], [np.eye(11)[np.argmax(wide(x), axis=1)].astype(wide(x).dtype)], axis)
    shifted = wide(x) - wide(x).max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    if op == "Softmax":
        return Trial([x], [np.exp(shifted) / total], axis, terms=11)
    return Trial([x], [shifted - np.log(total)], axis, scale=np.abs(shifted) + np.log(total), terms=11)


@recipe("LayerNormalization")
def layer_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the last two axes."""
    x, s, b = draw(rng, (4, 3, 5), dtype), draw(rng, (3, 5), dtype), draw(rng, (3, 5), dtype)
    want, scale = _normalised(wide(x), (1, 2), wide(s), wide(b))
    return Trial([x, s, b], [want], {"axis": -2, "epsilon": 1e-3}, scale=scale, terms=15)


@recipe("InstanceNormalization")
def instance_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the spatial axes."""
    x, s, b = draw(rng, (2, 3, 4, 5), dtype), draw(rng, (3,), dtype), draw(rng, (3,), dtype)
    want, scale = _normalised(wide(x), (2, 3), wide(s)[:, None, None], wide(b)[:, None, None])
    return Trial([x, s, b], [want], {"epsilon": 1e-3}, scale=scale, terms=20)


def _normalised(x: Array, axes: tuple[int, ...], scale: Array, bias: Array) -> tuple[Array, Array]:
    """The result, and the magnitude of its terms."""
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    root = np.sqrt(variance + np.float32(1e-3))
    size = (np.abs(x) + np.abs(x).mean(axis=axes, keepdims=True)) / root
    return (x - mean) / root * scale + bias, size * np.abs(scale) + np.abs(bias)


@recipe("BatchNormalization")
def batch_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """At inference."""
    x = draw(rng, (2, 3, 5), dtype)
    s, b, m = (draw(rng, (3,), dtype) for _ in range(3))
    v = draw(rng, (3,), dtype, 0.5, 2)
    attributes: dict[str, Any] = {"epsilon": 1e-3}
    if version < 7:
        attributes["is_test"] = 1
    if version < 6:
        attributes["consumed_inputs"] = [0, 0, 0, 1, 1]
    es, eb, em, ev = (wide(value)[:, None] for value in (s, b, m, v))
    root = np.sqrt(ev + np.float32(1e-3))
    scale = (np.abs(wide(x)) + np.abs(em)) / root * np.abs(es) + np.abs(eb)
    return Trial([x, s, b, m, v], [(wide(x) - em) / root * es + eb], attributes, scale=scale)
