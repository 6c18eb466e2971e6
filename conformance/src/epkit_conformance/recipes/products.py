"""Recipes for products of matrices, convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .trial import Array, Trial, draw, recipe, wide


@recipe("MatMul")
def matmul(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Batches that broadcast, odd sizes."""
    a, b = draw(rng, (2, 1, 5, 19), dtype), draw(rng, (3, 19, 7), dtype)
    scale = np.matmul(np.abs(wide(a)), np.abs(wide(b))) if a.dtype.kind not in "iu" else None
    return Trial([a, b], [np.matmul(wide(a), wide(b)).astype(wide(a).dtype)], scale=scale, terms=19)


@recipe("Gemm")
def gemm(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Both transposed, with factors and a row to add."""
    a, b = draw(rng, (19, 5), dtype), draw(rng, (7, 19), dtype)
    c = draw(rng, (5, 7) if version < 7 else (7,), dtype)
    attributes: dict[str, Any] = {"transA": 1, "transB": 1}
    if a.dtype.kind not in "iu":
        attributes |= {"alpha": 0.5, "beta": 2.0}
    alpha, beta = attributes.get("alpha", 1), attributes.get("beta", 1)
    exact = [wide(x) for x in (a, b, c)]
    want = (alpha * (exact[0].T @ exact[1].T) + beta * exact[2]).astype(exact[0].dtype)
    scale = alpha * (np.abs(exact[0]).T @ np.abs(exact[1]).T) + beta * np.abs(exact[2])
    return Trial([a, b, c], [want], attributes, scale=None if a.dtype.kind in "iu" else scale, terms=22)


@recipe("Conv")
def conv(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Groups, strides, dilations, and pads that differ on each side."""
    x, w, b = draw(rng, (2, 4, 9, 8), dtype), draw(rng, (6, 2, 3, 2), dtype), draw(rng, (6,), dtype)

    def exact(x: Array, w: Array, b: Array) -> Array:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::1, :, ::2]
        halves = [
            np.einsum("nchwij,ocij->nohw", windows[:, 2 * g : 2 * g + 2], w[3 * g : 3 * g + 3])
            for g in (0, 1)
        ]
        return np.concatenate(halves, 1) + b[:, None, None]

    arrays = [wide(value) for value in (x, w, b)]
    attributes = {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}
    return Trial([x, w, b], [exact(*arrays)], attributes, scale=exact(*map(np.abs, arrays)), terms=13)


@recipe("AveragePool MaxPool")
def pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Windows that overlap, and do not reach the edge; pads for the maximum."""
    x = draw(rng, (2, 3, 7, 8), dtype)
    attributes: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1]}
    exact = wide(x)
    if op == "MaxPool":
        attributes["pads"] = [1, 0, 1, 1]
        lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
        exact = np.pad(exact, ((0, 0), (0, 0), (1, 1), (0, 1)), constant_values=lowest)
    windows = sliding_window_view(exact, (3, 2), axis=(2, 3))[:, :, ::2]
    if op == "MaxPool":
        return Trial([x], [windows.max(axis=(4, 5))], attributes)
    return Trial(
        [x], [windows.mean(axis=(4, 5))], attributes, scale=np.abs(windows).mean(axis=(4, 5)), terms=6
    )


@recipe("GlobalAveragePool GlobalMaxPool")
def global_pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over two spatial axes."""
    x = draw(rng, (2, 3, 5, 7), dtype)
    if op == "GlobalMaxPool":
        return Trial([x], [wide(x).max(axis=(2, 3), keepdims=True)])
    scale = np.abs(wide(x)).mean(axis=(2, 3), keepdims=True)
    return Trial([x], [wide(x).mean(axis=(2, 3), keepdims=True)], scale=scale, terms=35)
