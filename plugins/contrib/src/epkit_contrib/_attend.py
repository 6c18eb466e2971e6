"""The heart of all attention operators, and what they share.

Queries, keys and values are (batch, heads, sequence, head size), in at least float32.
"""

from __future__ import annotations

import math
from typing import Any

from epkit.kernels._precision import cast, wide
from epkit.kernels.attention import scale_of, shared_product

MOST_SCORES = 1 << 24
"""Scores that are held at a time; more queries are taken in blocks."""


def attend(
    xp: Any,
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None = None,
    bias: Any = None,
    seen: Any = None,
    softcap: float = 0.0,
    sink: Any = None,
    stage: int = 0,
) -> tuple[Any, Any]:
    """softmax(softcap(Q K' scale) + bias, where seen) V.

    Then the scores (stage 1; 0 where not seen), the weights (2) or None.

    Args:
        scale: by default, and for 0, 1 / sqrt(head size).
        bias: added to the scores, broadcasts to (batch, heads, queries, keys).
        seen: bool, broadcasts likewise: which keys a query may see.
        sink: a score for each head that takes weight from all and has no value.
        stage: which scores to return as well.
    """
    scale, keys = scale_of(scale or None, q.shape[3]), xp.permute_dims(k, (0, 1, 3, 2))
    batch, heads, queries = q.shape[:3]
    step = max(1, MOST_SCORES // max(1, batch * heads * k.shape[2]))
    y = xp.empty((*q.shape[:3], v.shape[3]), dtype=q.dtype)
    qk = xp.empty((*q.shape[:3], k.shape[2]), dtype=q.dtype) if stage else None
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        scores = shared_product(xp, q[:, :, rows] * scale, keys)
        if softcap:
            scores = xp.tanh(scores / softcap) * softcap
        if bias is not None:
            scores = scores + (bias if bias.shape[-2] == 1 else bias[..., rows, :])
        before = scores
        if seen is not None:
            visible = seen if seen.shape[-2] == 1 else seen[..., rows, :]
            scores = xp.where(visible, scores, xp.asarray(-math.inf, dtype=scores.dtype))
        weights = softmax(xp, scores, sink)
        if qk is not None:
            qk[:, :, rows] = (
                weights if stage == 2 else before if seen is None else xp.where(visible, before, 0)
            )
        y[:, :, rows] = shared_product(xp, weights, v)
    return y, qk


def softmax(xp: Any, scores: Any, sink: Any = None) -> Any:
    """exp(s) / (sum of exp(s) + exp(sink)) over the last axis; zeros for a row that sees nothing."""
    if not scores.shape[-1]:
        return scores
    top = xp.max(scores, axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    if sink is not None:
        sink = xp.reshape(sink, (1, -1, 1, 1))
        top = xp.maximum(top, sink)
    exps = xp.exp(scores - top)
    total = xp.sum(exps, axis=-1, keepdims=True)
    if sink is not None:
        total = total + xp.exp(sink - top)
    exps /= xp.where(total == 0, xp.ones_like(total), total)
    return exps


def split(xp: Any, name: str, x: Any, heads: int) -> Any:
    """(batch, sequence, heads * size) as (batch, heads, sequence, size), in at least float32."""
    if x.ndim != 3 or heads < 1 or x.shape[2] % heads:
        raise ValueError(f"input {name} of shape {x.shape} cannot be split into {heads} heads")
    return wide(xp, xp.permute_dims(xp.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)), (0, 2, 1, 3)))


def bias_like(xp: Any, name: str, bias: Any, shape: tuple[int, ...]) -> Any:
    """An attention bias as float32, cut to the keys of (batch, heads, queries, keys) that there are."""
    if bias is None:
        return None
    fits = bias.ndim == 4 and all(n in (1, m) for n, m in zip(bias.shape[:3], shape[:3], strict=True))
    if not fits or bias.shape[3] < shape[3]:
        raise ValueError(f"input {name} of shape {bias.shape} does not broadcast to {shape}")
    return cast(xp, wide(xp, bias), xp.asarray(0, dtype=xp.float32).dtype)[..., : shape[3]]


def positions(xp: Any, count: int) -> Any:
    """0 .. count - 1."""
    return xp.arange(count, dtype=xp.int64)


def stored(xp: Any, cache: Any, new: Any, start: Any, count: Any) -> Any:
    """Write ``count[b]`` rows of ``new`` (batch, heads, sequence, size) to a cache of our own, from ``start[b]`` on."""
    length = new.shape[2]
    steps = positions(xp, length)
    valid = steps[None] < count[:, None]
    at = start[:, None] + steps[None]
    if at.size and xp.max(xp.where(valid, at, 0)) >= max(cache.shape[2], 1):
        raise ValueError(
            f"a cache of {cache.shape[2]} rows is too short for {length} new ones from {start.tolist()}"
        )
    entry, row = xp.nonzero(valid)
    cache[entry, :, at[entry, row]] = cast(xp, new[entry, :, row], cache.dtype)
    return cache


def padding_bias(
    xp: Any, name: str, mask: Any, shape: tuple[int, int, int, int], past: int, fill: float
) -> Any:
    """A mask in any of its forms as a bias: ``fill`` where a key of (batch, heads, queries, keys) is hidden.

    The forms: how many keys count for each entry; that and where they start; the cumulated lengths of queries
    and keys after those of the keys; or zeros and ones per key, per query and key, or in a square of all
    positions.
    """
    if mask is None:
        return None
    batch, _, queries, keys = shape
    if mask.ndim == 1 and mask.shape[0] in (batch, 2 * batch, 3 * batch + 2):
        key, end = positions(xp, keys)[None], mask[:batch, None]
        seen = key < end
        if mask.shape[0] == 2 * batch:
            seen = seen & (key >= mask[batch:, None])
        seen = seen[:, None, None]
    elif mask.ndim == 2 and mask.shape == (batch, keys):
        seen = mask[:, None, None] > 0
    elif mask.ndim == 3 and mask.shape == (batch, queries, keys):
        seen = mask[:, None] > 0
    elif mask.ndim == 4 and mask.shape[:2] == (batch, 1) and min(mask.shape[2:]) >= keys:
        seen = mask[:, :, past : past + queries, :keys] > 0
    else:
        raise ValueError(
            f"input {name} of shape {mask.shape} does not fit (batch, heads, queries, keys) {shape}"
        )
    return xp.where(seen, xp.asarray(0, dtype=xp.float32), xp.asarray(fill, dtype=xp.float32))


def summed(a: Any, b: Any) -> Any:
    """The sum of two biases of which either may be absent."""
    return b if a is None else a if b is None else a + b


def causal(xp: Any, queries: int, keys: int, past: int) -> Any:
    """Which keys each query may see: those of the past, and of the new ones no later than its own."""
    return (positions(xp, keys)[None] <= positions(xp, queries)[:, None] + past)[None, None]
