"""Attention: Attention, FlexAttention, LinearAttention, and the RotaryEmbedding of its inputs.

Inside this file queries, keys and values are (batch, heads, sequence, head size).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._precision import cast, element_type, is_narrow, quiet, wide
from .operator import op


def split_heads(xp: Any, name: str, x: Any, heads: int | None) -> Any:
    """(batch, sequence, heads * size) or (batch, heads, sequence, size), as the latter."""
    if x.ndim == 4:
        return x
    if x.ndim != 3 or not heads or heads < 1 or x.shape[2] % heads:
        raise ValueError(f"input {name} of shape {x.shape} cannot be split into {heads} heads")
    return xp.permute_dims(xp.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)), (0, 2, 1, 3))


def join_heads(xp: Any, x: Any) -> Any:
    """(batch, heads, sequence, size) as (batch, sequence, heads * size)."""
    batch, heads, sequence, size = x.shape
    return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (batch, sequence, heads * size))


def check_heads(q: Any, k: Any, v: Any) -> None:
    """Refuse queries, keys and values that do not fit together."""
    fits = q.ndim == k.ndim == v.ndim == 4 and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]
    if not fits or k.shape[:3] != v.shape[:3]:
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit together")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key and value heads evenly")


def shared_product(xp: Any, x: Any, y: Any) -> Any:
    """x y per head, where each head of ``y`` serves a run of consecutive heads of ``x``."""
    batch, heads, rows, inner = x.shape
    shared = y.shape[1]
    if heads == shared:
        return xp.matmul(x, y)
    product = xp.matmul(xp.reshape(x, (batch, shared, heads // shared * rows, inner)), y)
    return xp.reshape(product, (batch, heads, rows, y.shape[3]))


def softmax(xp: Any, scores: Any) -> Any:
    """exp(s) / sum(exp(s)) over the last axis; zeros for a row in which everything is masked (-inf)."""
    if not scores.shape[-1]:
        return scores
    top = xp.max(scores, axis=-1, keepdims=True)
    exps = xp.exp(scores - xp.where(xp.isfinite(top), top, xp.zeros_like(top)))
    total = xp.sum(exps, axis=-1, keepdims=True)
    exps /= xp.where(total == 0, xp.ones_like(total), total)
    return exps


def scale_of(scale: float | None, head_size: int) -> float:
    """The factor of the scores, by default 1 / sqrt(head size)."""
    return 1 / math.sqrt(max(head_size, 1)) if scale is None else scale


@op("Attention", since=23)
@quiet
def attention(
    xp: Any,
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    nonpad_kv_seqlen: Any = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    n_outputs: int,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:
    """softmax(softcap(Q K' scale) + mask) V; then the present keys and values, and the scores of one stage.

    ``nonpad_kv_seqlen`` comes with opset 24, the two window sizes with opset 25.
    """
    if qk_matmul_output_mode not in (0, 1, 2, 3):
        raise ValueError(f"attribute qk_matmul_output_mode={qk_matmul_output_mode} is not 0, 1, 2 or 3")
    if (past_key is None) != (past_value is None):
        raise ValueError("inputs past_key and past_value should be given together")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise ValueError("input nonpad_kv_seqlen does not go together with past_key and past_value")
    packed, dtype = q.ndim == 3, q.dtype
    q = split_heads(xp, "Q", q, q_num_heads)
    k, v = split_heads(xp, "K", k, kv_num_heads), split_heads(xp, "V", v, kv_num_heads)
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None:
        k, v = xp.concat([past_key, k], axis=2), xp.concat([past_value, v], axis=2)
    check_heads(q, k, v)

    stages = []
    scores = shared_product(
        xp, wide(xp, q) * scale_of(scale, q.shape[3]), xp.permute_dims(wide(xp, k), (0, 1, 3, 2))
    )
    stages.append(scores)
    if softcap:
        scores = xp.tanh(scores / softcap) * softcap
    stages.append(scores)
    seen = visible(
        xp, q.shape, k.shape, past, nonpad_kv_seqlen, is_causal, left_window_size, right_window_size
    )
    scores = masked(xp, scores, attn_mask, seen)
    stages.append(scores)
    if softmax_precision is not None:
        precision = element_type(softmax_precision, "softmax_precision")
        scores = scores if is_narrow(precision) else cast(xp, scores, precision)
    weights = softmax(xp, scores)
    stages.append(weights)
    y = cast(xp, shared_product(xp, cast(xp, weights, wide(xp, q).dtype), wide(xp, v)), dtype)
    outputs = (join_heads(xp, y) if packed else y, k, v)
    return outputs if n_outputs < 4 else (*outputs, cast(xp, stages[qk_matmul_output_mode], dtype))


def visible(
    xp: Any, q_shape: Any, k_shape: Any, past: int, nonpad: Any, is_causal: int, left: int, right: int
) -> Any:
    """Which keys each query may see by its position, (batch or 1, 1, queries, keys), or None for all."""
    queries, keys = q_shape[2], k_shape[2]
    offset = xp.full((1, 1, 1, 1), past, dtype=xp.int64)
    key = xp.reshape(xp.arange(keys, dtype=xp.int64), (1, 1, 1, keys))
    limits = []
    if min(left, right) < -1:
        raise ValueError(
            f"attributes left_window_size={left} and right_window_size={right} should be -1 or more"
        )
    if nonpad is not None:
        if tuple(nonpad.shape) != (q_shape[0],) or (
            nonpad.size and (xp.min(nonpad) < 0 or xp.max(nonpad) > keys)
        ):
            raise ValueError(
                f"input nonpad_kv_seqlen={nonpad.tolist()} should have {q_shape[0]} values from 0 to {keys}"
            )
        valid = xp.reshape(xp.astype(nonpad, xp.int64), (-1, 1, 1, 1))
        offset = valid - queries
        limits.append(key < valid)
    place = offset + xp.reshape(xp.arange(queries, dtype=xp.int64), (1, 1, queries, 1))
    if is_causal:
        limits.append(key <= place)
    if left >= 0:
        limits.append(key >= place - left)
    if right >= 0:
        limits.append(key <= place + right)
    if not limits:
        return None
    seen = limits[0]
    for limit in limits[1:]:
        seen = seen & limit
    return seen


def masked(xp: Any, scores: Any, mask: Any, seen: Any) -> Any:
    """Scores plus the mask (a boolean one is -inf where False), and -inf where a key is not seen.

    A mask that is shorter than the keys hides the rest of them.
    """
    if mask is not None:
        short = scores.shape[3] - mask.shape[-1]
        if short > 0 and mask.shape[-1] != 1:
            filler = xp.full(
                (*mask.shape[:-1], short), False if mask.dtype == xp.bool else -math.inf, dtype=mask.dtype
            )
            mask = xp.concat([mask, filler], axis=-1)
        try:
            mask = xp.broadcast_to(mask, scores.shape)
        except ValueError:
            raise ValueError(
                f"input attn_mask {mask.shape} does not fit scores of shape {scores.shape}"
            ) from None
        if mask.dtype == xp.bool:
            seen = mask if seen is None else seen & mask
        else:
            scores = scores + cast(xp, wide(xp, mask), scores.dtype)
    if seen is None:
        return scores
    return xp.where(seen, scores, xp.asarray(-math.inf, dtype=scores.dtype))


Modifier = Callable[[Any], Any]


@op("FlexAttention", domain="ai.onnx.preview")
@quiet
def flex_attention(
    xp: Any,
    q: Any,
    k: Any,
    v: Any,
    *,
    prob_mod: Modifier | None = None,
    scale: float | None = None,
    score_mod: Modifier | None = None,
    softmax_precision: int | None = None,
) -> Any:
    """prob_mod(softmax(score_mod(Q K' scale))) V; the modifiers are functions of one array, not subgraphs."""
    for name, modifier in (("score_mod", score_mod), ("prob_mod", prob_mod)):
        if modifier is not None and not callable(modifier):
            raise ValueError(f"attribute {name} is a subgraph; this operator takes it as a Python function")
    check_heads(q, k, v)
    keys = xp.permute_dims(wide(xp, k), (0, 1, 3, 2))
    scores = shared_product(xp, wide(xp, q) * scale_of(scale, q.shape[3]), keys)
    precision = (
        scores.dtype if softmax_precision is None else element_type(softmax_precision, "softmax_precision")
    )
    scores = modified(xp, "score_mod", score_mod, cast(xp, scores, precision))
    weights = cast(xp, softmax(xp, wide(xp, scores)), precision)
    weights = wide(xp, modified(xp, "prob_mod", prob_mod, weights))
    return cast(xp, shared_product(xp, cast(xp, weights, wide(xp, q).dtype), wide(xp, v)), q.dtype)


def modified(xp: Any, name: str, modifier: Modifier | None, x: Any) -> Any:
    """What a modifier makes of ``x``, in the same shape."""
    if modifier is None:
        return x
    y = modifier(x)
    if y.shape != x.shape:
        raise ValueError(f"{name} turned shape {x.shape} into {y.shape}")
    return y


@op("RotaryEmbedding", since=23)
@quiet
def rotary_embedding(
    xp: Any,
    x: Any,
    cos_cache: Any,
    sin_cache: Any,
    position_ids: Any = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Any:
    """Turn each pair of features (a, b) by its position's angle: (a cos - b sin, a sin + b cos).

    Pairs are neighbours if ``interleaved``, else one of each half; features past the rotary ones stay.
    """
    heads = split_heads(xp, "X", x, num_heads)
    turned = rotary_embedding_dim or heads.shape[3]
    if turned % 2 or not 0 < turned <= heads.shape[3]:
        raise ValueError(f"{turned} of {heads.shape[3]} features cannot be turned in pairs")
    cos, sin = (
        angles(xp, name, cache, position_ids, (heads.shape[0], heads.shape[2], turned // 2))
        for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache))
    )
    wider = wide(xp, heads)
    if interleaved:
        a, b = wider[..., 0:turned:2], wider[..., 1:turned:2]
    else:
        a, b = wider[..., : turned // 2], wider[..., turned // 2 : turned]
    pair = [a * cos - b * sin, a * sin + b * cos]
    if interleaved:
        first = xp.reshape(xp.stack(pair, axis=-1), (*heads.shape[:3], turned))
    else:
        first = xp.concat(pair, axis=-1)
    y = cast(xp, xp.concat([first, wider[..., turned:]], axis=-1), x.dtype)
    return join_heads(xp, y) if x.ndim == 3 else y


def angles(xp: Any, name: str, cache: Any, position_ids: Any, shape: tuple[int, int, int]) -> Any:
    """The cosines or sines of each (batch, position, pair), for all heads."""
    if position_ids is not None:
        if cache.ndim != 2 or tuple(position_ids.shape) != shape[:2]:
            raise ValueError(
                f"{name} {cache.shape} and position_ids {position_ids.shape} do not fit (batch, length) "
                f"{shape[:2]}"
            )
        if position_ids.size and (xp.min(position_ids) < 0 or xp.max(position_ids) >= cache.shape[0]):
            raise ValueError(f"input position_ids reaches outside the {cache.shape[0]} positions of {name}")
        cache = xp.reshape(
            xp.take(cache, xp.reshape(position_ids, (-1,)), axis=0), (*shape[:2], cache.shape[1])
        )
    if tuple(cache.shape) != shape:
        raise ValueError(f"input {name} of shape {cache.shape} should give (batch, length, pairs) {shape}")
    return wide(xp, cache)[:, None]


@op("LinearAttention", since=27)
@quiet
def linear_attention(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    past_state: Any = None,
    decay: Any = None,
    beta: Any = None,
    *,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> Any:
    """S[t] = exp(decay) S[t-1] + beta k (v - k' exp(decay) S[t-1]); y[t] = scale q' S[t]; then the last S.

    Rules without "gated" have no decay; those without "delta" have beta 1 and subtract nothing.
    """
    if update_rule not in ("linear", "gated", "delta", "gated_delta"):
        raise ValueError(f"attribute update_rule={update_rule!r} is not linear, gated, delta or gated_delta")
    gated, delta = "gated" in update_rule, "delta" in update_rule
    for name, given, needed in (("decay", decay, gated), ("beta", beta, delta)):
        if needed and given is None:
            raise ValueError(f"input {name} is missing (update_rule={update_rule!r})")
    q = split_heads(xp, "query", wide(xp, query), q_num_heads)
    k, v = (split_heads(xp, n, wide(xp, x), kv_num_heads) for n, x in (("key", key), ("value", value)))
    check_heads(q, k, v)
    batch, heads, steps, size = k.shape
    state = wide(xp, past_state)
    if state is None:
        state = xp.zeros((batch, heads, size, v.shape[3]), dtype=q.dtype)
    if tuple(state.shape) != (batch, heads, size, v.shape[3]):
        raise ValueError(
            f"input past_state of shape {state.shape} does not fit keys {k.shape}, values {v.shape}"
        )
    # Per step: (batch, heads, 1 or size, 1) and (batch, heads or 1, 1, 1).
    keep = xp.exp(split_heads(xp, "decay", wide(xp, decay), heads)) if gated else None
    rate = split_heads(xp, "beta", wide(xp, beta), min(heads, beta.shape[2])) if delta else None
    q = xp.reshape(q * (scale or scale_of(None, size)), (batch, heads, q.shape[1] // heads, steps, size))
    outputs = []
    for t in range(steps):
        row = k[:, :, t : t + 1]
        if keep is not None:
            state = state * keep[:, :, t][..., None]
        change = v[:, :, t : t + 1]
        if rate is not None:
            change = (change - row @ state) * rate[:, :, t : t + 1]
        state = state + xp.permute_dims(row, (0, 1, 3, 2)) * change
        outputs.append(q[:, :, :, t] @ state)
    y = xp.stack(outputs, axis=3) if outputs else xp.zeros((*q.shape[:4], v.shape[3]), dtype=q.dtype)
    y = join_heads(xp, xp.reshape(y, (batch, q_num_heads, steps, v.shape[3])))
    state_type = query.dtype if past_state is None else past_state.dtype
    return cast(xp, y, query.dtype), cast(xp, state, state_type)
