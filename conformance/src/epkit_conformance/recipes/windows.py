"""Recipes for operators that look at windows of a tensor, put windows together, or cut one out."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .trial import Array, Trial, draw, exactly, recipe, wide


@recipe("LpPool")
def lp_pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The root of the sum of squares, with pads; dilated where the version has that."""
    x = draw(rng, (2, 3, 7, 8), dtype)
    exact = np.pad(wide(x), ((0, 0), (0, 0), (1, 1), (0, 1)))
    how = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "p": 2 if version >= 2 else 2.0}
    windows = sliding_window_view(exact, (3, 2), axis=(2, 3))[:, :, ::2]
    if version >= 18:
        how["dilations"] = [1, 2]
        windows = sliding_window_view(exact, (3, 3), axis=(2, 3))[:, :, ::2, :, :, ::2]
    return Trial([x], [np.sqrt((windows**2).sum(axis=(4, 5)))], how, terms=6)


@recipe("MaxUnpool")
def max_unpool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Each value goes back to the place that it was found in; indices count through both channels."""
    x = draw(rng, (1, 2, 2, 3), dtype)
    places = np.zeros(x.shape, np.int64)
    want = np.zeros((1, 2, 4, 6), x.dtype)
    for c, i, j in np.ndindex(2, 2, 3):
        row, column = 2 * i + int(rng.integers(2)), 2 * j + int(rng.integers(2))
        places[0, c, i, j] = (c * 4 + row) * 6 + column
        want[0, c, row, column] = x[0, c, i, j]
    return Trial([x, places], [want], {"kernel_shape": [2, 2], "strides": [2, 2]})


@recipe("Col2Im")
def col2im(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Blocks that overlap add up; what falls into the pads is gone."""
    x = draw(rng, (2, 12, 12), dtype)  # 3 channels of blocks of 2 x 2, at 3 x 4 places

    def exact(x: Array) -> Array:
        full = np.zeros((2, 3, 4, 5), x.dtype)
        blocks = x.reshape(2, 3, 2, 2, 3, 4)
        for i, j in np.ndindex(3, 4):
            full[:, :, i : i + 2, j : j + 2] += blocks[:, :, :, :, i, j]
        return full[:, :, :, 1:4]

    inputs = [x, np.array([4, 3]), np.array([2, 2])]
    scale = exact(np.abs(wide(x))) if x.dtype.kind not in "iu" else None
    how = {"pads": [0, 1, 0, 1]}
    return Trial(inputs, [exact(wide(x))], how, frozenset({1, 2}), scale, terms=4)


@recipe("CenterCropPad")
def center_crop_pad(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """One axis is cut, another filled up, both by odd numbers; a third stays."""
    x = draw(rng, (6, 2, 3), dtype)
    want = np.zeros((3, 2, 6), x.dtype)
    want[:, :, 1:4] = x[1:4]
    return Trial([x, np.array([3, 6])], exactly(want), {"axes": [0, -1]}, frozenset({1}))


@recipe("CausalConvWithState")
def causal_conv_with_state(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Four taps a channel behind a state, then x times its sigmoid."""
    x, w = draw(rng, (2, 3, 6), dtype), draw(rng, (3, 1, 4), dtype)
    b, past = draw(rng, (3,), dtype), draw(rng, (2, 3, 3), dtype)

    def exact(x: Array, w: Array, b: Array, past: Array) -> Array:
        windows = sliding_window_view(np.concatenate([past, x], 2), 4, axis=2)
        return np.asarray(np.einsum("nctk,ck->nct", windows, w[:, 0]) + b[:, None])

    arrays = [wide(value) for value in (x, w, b, past)]
    total, scale = exact(*arrays), exact(*map(np.abs, arrays))
    want = [total / (1 + np.exp(-total)), wide(x)[:, :, -3:]]
    return Trial([x, w, b, past], want, {"activation": "silu"}, scale=(scale, None), terms=5)
