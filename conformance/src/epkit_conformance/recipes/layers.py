"""Recipes for the layers of networks that have formulas of several steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..meanings import sigmoid
from .trial import Array, Trial, draw, recipe, wide


@recipe("ConvTranspose")
def conv_transpose(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Strides and pads: each input is spread over a window of the output."""
    x, w, b = draw(rng, (2, 2, 4, 3), dtype), draw(rng, (2, 3, 3, 2), dtype), draw(rng, (3,), dtype)

    def exact(x: Array, w: Array, b: Array) -> Array:
        full = np.zeros((2, 3, 2 * 3 + 3, 1 * 2 + 2), x.dtype)
        for i in range(4):
            for j in range(3):
                full[:, :, 2 * i : 2 * i + 3, j : j + 2] += np.einsum("nc,cohw->nohw", x[:, :, i, j], w)
        return full[:, :, 1:-1] + b[:, None, None]

    arrays = [wide(value) for value in (x, w, b)]
    how = {"strides": [2, 1], "pads": [1, 0, 1, 0]}
    return Trial([x, w, b], [exact(*arrays)], how, scale=exact(*map(np.abs, arrays)), terms=9)


@recipe("RMSNormalization")
def rms_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over the last axis."""
    x, s = draw(rng, (3, 4, 7), dtype), draw(rng, (7,), dtype)
    root = np.sqrt((wide(x) ** 2).mean(axis=-1, keepdims=True) + np.float32(1e-3))
    return Trial([x, s], [wide(x) / root * wide(s)], {"axis": -1, "epsilon": 1e-3}, terms=7)


@recipe("GroupNormalization")
def group_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two groups of channels; scale and bias for each group at first, for each channel later."""
    count = 2 if version < 21 else 4
    x, s, b = draw(rng, (2, 4, 5), dtype), draw(rng, (count,), dtype), draw(rng, (count,), dtype)
    parts = wide(x).reshape(2, 2, 10)
    mean, root = parts.mean(2, keepdims=True), np.sqrt(parts.var(2, keepdims=True) + np.float32(1e-3))
    es, eb = (np.repeat(wide(value), 4 // count)[:, None] for value in (s, b))
    size = ((np.abs(parts) + np.abs(parts).mean(2, keepdims=True)) / root).reshape(x.shape)
    want = ((parts - mean) / root).reshape(x.shape) * es + eb
    scale = size * np.abs(es) + np.abs(eb)
    return Trial([x, s, b], [want], {"num_groups": 2, "epsilon": 1e-3}, scale=scale, terms=10)


@recipe("LpNormalization")
def lp_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """To length one, along axis 1."""
    x = draw(rng, (3, 7), dtype)
    want = wide(x) / np.sqrt((wide(x) ** 2).sum(axis=1, keepdims=True))
    return Trial([x], [want], {"axis": 1, "p": 2}, terms=7)


@recipe("LRN")
def lrn(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over three neighbouring channels."""
    x = draw(rng, (2, 5, 3, 2), dtype)
    squares = np.pad(wide(x) ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    want = wide(x) / (1 + 0.5 / 3 * total) ** 0.75
    return Trial([x], [want], {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 1.0}, terms=3)


@recipe("GlobalLpPool")
def global_lp_pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The root of the sum of squares over all of the plane."""
    x = draw(rng, (2, 3, 4, 5), dtype)
    want = np.sqrt((wide(x) ** 2).sum(axis=(2, 3), keepdims=True))
    return Trial([x], [want], {"p": 2 if version >= 2 else 2.0}, terms=20)


@recipe("MeanVarianceNormalization")
def mean_variance_normalization(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Over batch and plane, for each channel; the schema's text has no epsilon, and its function has one."""
    x = draw(rng, (2, 3, 4, 5), dtype)
    e, axes = wide(x), (0, 2, 3)
    mean, deviation = e.mean(axes, keepdims=True), e.std(axes, keepdims=True)
    scale = (np.abs(e) + np.abs(e).mean(axes, keepdims=True)) / deviation
    want, plain = (e - mean) / (deviation + 1e-9), (e - mean) / deviation
    return Trial([x], [want], {"axes": list(axes)}, scale=scale, terms=40, also=[plain])


@recipe("Einsum")
def einsum(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A contraction with a batch and a transposed result."""
    a, b = draw(rng, (2, 3, 5), dtype), draw(rng, (2, 5, 4), dtype)
    spec = "bij,bjk->kbi"
    scale = None if a.dtype.kind in "iu" else np.einsum(spec, np.abs(wide(a)), np.abs(wide(b)))
    want = np.einsum(spec, wide(a), wide(b)).astype(wide(a).dtype)
    return Trial([a, b], [want], {"equation": spec}, scale=scale, terms=5)


@recipe("Det")
def det(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Of two matrices, by the rule for three rows."""
    x = draw(rng, (2, 3, 3), dtype)
    e = wide(x)

    def rule(m: Array, minus: float) -> Array:
        plus = m[:, 0, 0] * m[:, 1, 1] * m[:, 2, 2] + m[:, 0, 1] * m[:, 1, 2] * m[:, 2, 0]
        plus = plus + m[:, 0, 2] * m[:, 1, 0] * m[:, 2, 1]
        less = m[:, 0, 2] * m[:, 1, 1] * m[:, 2, 0] + m[:, 0, 0] * m[:, 1, 2] * m[:, 2, 1]
        return np.asarray(plus + minus * (less + m[:, 0, 1] * m[:, 1, 0] * m[:, 2, 2]))

    return Trial([x], [rule(e, -1)], scale=rule(np.abs(e), 1), terms=6)


# ---- recurrent layers ----


def _weights(rng: np.random.Generator, dtype: str, gates: int) -> list[Any]:
    """x, W, R, B for 4 steps, a batch of 2, 3 features, 5 units."""
    shapes = [(4, 2, 3), (1, gates * 5, 3), (1, gates * 5, 5), (1, 2 * gates * 5)]
    return [draw(rng, shape, dtype, -1, 1) for shape in shapes]


@recipe("RNN GRU LSTM")
def recurrent(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Forwards from zero; all steps and the last state."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    given = _weights(rng, dtype, gates)
    x, w, r, b = (wide(value) for value in given)
    steps, h, c = [], np.zeros((2, 5), x.dtype), np.zeros((2, 5), x.dtype)
    for step in x:
        inward, again = step @ w[0].T + b[0, : gates * 5], h @ r[0].T + b[0, gates * 5 :]
        if op == "RNN":
            h = np.tanh(inward + again)
        elif op == "GRU":
            z, reset = (sigmoid((inward + again)[:, k * 5 : k * 5 + 5]) for k in (0, 1))
            carried = (reset * h) @ r[0, 10:].T + b[0, 25:]
            h = (1 - z) * np.tanh(inward[:, 10:] + carried) + z * h
        else:
            total = inward + again
            i, o, f = (sigmoid(total[:, k * 5 : k * 5 + 5]) for k in (0, 1, 2))
            c = f * c + i * np.tanh(total[:, 15:])
            h = o * np.tanh(c)
        steps.append(h)
    want = [np.stack(steps)[:, None], h[None]]
    return Trial(given, want, {"hidden_size": 5}, scale=np.ones(1), terms=8)
