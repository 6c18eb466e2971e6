"""Recipes for the parts of language models."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..meanings import sigmoid
from .trial import Array, Trial, draw, exactly, recipe, wide


@recipe("Attention")
def attention(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Four heads of queries on two of keys, causal, with a mask to add; from version 25 a window too."""
    q, k = draw(rng, (2, 4, 5, 8), dtype, -1, 1), draw(rng, (2, 2, 5, 8), dtype, -1, 1)
    v, mask = draw(rng, (2, 2, 5, 3), dtype), draw(rng, (5, 5), dtype, -1, 1)
    how: dict[str, Any] = {"is_causal": 1, "scale": 0.25}
    seen = np.tril(np.ones((5, 5), bool))
    if version >= 25:
        how["left_window_size"] = 2
        seen &= ~np.tril(np.ones((5, 5), bool), -3)
    keys, values = (np.repeat(wide(x), 2, axis=1) for x in (k, v))
    scores = wide(q) @ np.swapaxes(keys, 2, 3) / 4 + wide(mask)
    weights = np.exp(np.where(seen, scores, -np.inf))
    weights = weights / weights.sum(-1, keepdims=True)
    return Trial([q, k, v, mask], [weights @ values], how, scale=weights @ np.abs(values), terms=13)


@recipe("LinearAttention")
def linear_attention(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The gated delta rule, step by step: two heads of queries on one of keys, and a state before."""
    q, k, v = (draw(rng, (2, 3, size), dtype, -0.5, 0.5) for size in (8, 4, 3))
    past, decay = draw(rng, (2, 1, 4, 3), dtype, -1, 1), draw(rng, (2, 3, 1), dtype, -1, 0)
    beta = draw(rng, (2, 3, 1), dtype, 0, 1)
    state, steps = wide(past)[:, 0], []
    queries, keys, values = wide(q).reshape(2, 3, 2, 4), wide(k), wide(v)
    for t in range(3):
        state = state * np.exp(wide(decay))[:, t, :, None]
        found = np.einsum("nkv,nk->nv", state, keys[:, t])
        state = state + np.einsum("nk,nv->nkv", keys[:, t], wide(beta)[:, t] * (values[:, t] - found))
        steps.append(0.5 * np.einsum("nhk,nkv->nhv", queries[:, t], state).reshape(2, 6))
    how = {"q_num_heads": 2, "kv_num_heads": 1, "update_rule": "gated_delta", "scale": 0.5}
    want = [np.stack(steps, 1), state[:, None]]
    return Trial([q, k, v, past, decay, beta], want, how, scale=np.ones(1), terms=12)


@recipe("RotaryEmbedding")
def rotary_embedding(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The first four of six numbers of each head are turned, by the angles of their positions."""
    x = draw(rng, (2, 3, 4, 6), dtype)
    cosines, sines = draw(rng, (7, 2), dtype, -1, 1), draw(rng, (7, 2), dtype, -1, 1)
    positions = rng.integers(0, 7, (2, 4))

    def exact(sign: int, x: Array, cosines: Array, sines: Array) -> Array:
        c, s = cosines[positions][:, None], sines[positions][:, None]
        a, b = x[..., :2], x[..., 2:4]
        return np.concatenate([a * c - sign * b * s, b * c + a * s, x[..., 4:]], -1)

    arrays = [wide(value) for value in (x, cosines, sines)]
    scale = exact(-1, *map(np.abs, arrays))
    how = {"rotary_embedding_dim": 4}
    return Trial([x, cosines, sines, positions], [exact(1, *arrays)], how, scale=scale, terms=2)


@recipe("SwiGLU")
def swiglu(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A gate with a factor of its own, times the other half."""
    a, b = draw(rng, (3, 17), dtype), draw(rng, (3, 17), dtype)
    return Trial([a, b], [wide(a) * sigmoid(1.5 * wide(a)) * wide(b)], {"alpha": 1.5})


@recipe("TensorScatter")
def tensor_scatter(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two steps into a ring of five, which one of the two goes around."""
    cache, update = draw(rng, (2, 5, 3), dtype), draw(rng, (2, 2, 3), dtype)
    want = cache.copy()
    for item, first in enumerate((1, 4)):
        for step in range(2):
            want[item, (first + step) % 5] = update[item, step]
    return Trial([cache, update, np.array([1, 4])], exactly(want), {"mode": "circular", "axis": 1})
