"""Attention of one new token, to its past or to an encoder's keys."""

from __future__ import annotations

from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.attention import join_heads

from ._attend import attend, bias_like, padding_bias, split, summed
from ._heads import biased, check_parts, from_beams, projections, turned_in_place, with_past
from ._infer import Dim, attr, dims, elem, over, plus, put
from .declare import contrib

INT, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT
SINGLE_AND_HALF = ("tensor(float)", "tensor(float16)")
INT32 = ("tensor(int32)",)
ATTRIBUTES = {
    "mask_filter_value": (FLOAT, None),
    "num_heads": INT,
    "past_present_share_buffer": (INT, None),
    "scale": (FLOAT, None),
}


def infer_decoder(ctx: Any) -> None:
    """Output, caches (of self attention) and scores."""
    query, value, past_key, past_value = (dims(ctx, i) for i in (0, 2, 5, 6))
    heads, width = attr(ctx, "num_heads"), None
    if value is not None:
        width = value[2] if len(value) == 3 else value[3] * heads if isinstance(value[3], int) else None
    elif query is not None and not ctx.has_input(1):
        width = over(query[2], 3)
    put(ctx, 0, elem(ctx, 0), query and [*query[:2], width])
    keys: Dim = value[2] if value is not None and len(value) == 4 else None
    if width is not None and not ctx.has_input(5) and not (value is not None and len(value) == 4):
        past_key = past_value = query and [query[0], heads, 0, over(width, heads)]  # the first token
    for output, past in ((1, past_key), (2, past_value)):
        present = past
        if past is not None and not attr(ctx, "past_present_share_buffer", 0):
            present = [*past[:2], plus(past[2], 1), past[3]]
            keys = present[2]
        put(ctx, output, elem(ctx, 0), present)
    put(ctx, 3, elem(ctx, 0), query and [query[0], heads, query[1], keys])


@contrib(
    "DecoderMaskedMultiHeadAttention",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("mask_index", "M", "optional"),
        ("attention_bias", "T", "optional"),
        ("past_key", "T", "optional"),
        ("past_value", "T", "optional"),
        ("past_sequence_length", "M", "optional"),
        ("beam_width", "M", "optional"),
        ("cache_indirection", "M", "optional"),
        ("bias", "T", "optional"),
    ],
    outputs=[
        ("output", "T"),
        ("present_key", "T", "optional"),
        ("present_value", "T", "optional"),
        ("qk", "QK", "optional"),
    ],
    types={"T": SINGLE_AND_HALF, "QK": SINGLE_AND_HALF, "M": INT32},
    attributes={**ATTRIBUTES, "output_qk": (INT, None)},
    infer=infer_decoder,
)
@quiet
def decoder_masked_multi_head_attention(
    xp: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    mask_index: Any = None,
    attention_bias: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    past_sequence_length: Any = None,
    beam_width: Any = None,
    cache_indirection: Any = None,
    bias: Any = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    output_qk: int = 0,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
) -> Any:
    """softmax(Q K' scale + attention_bias + mask) V of one token; then the caches, and the scores or weights."""
    if query.ndim != 3 or query.shape[1] != 1:
        raise ValueError(f"input query of shape {query.shape} should have one token, (batch, 1, hidden)")
    crossed = key is not None and key.ndim == 4
    if key is None:
        every = split(xp, "query", query, 3 * num_heads)
        q, k, v = every[:, :num_heads], every[:, num_heads : 2 * num_heads], every[:, 2 * num_heads :]
    elif value is None:
        raise ValueError("input value is missing")
    elif crossed:
        q, k, v = split(xp, "query", query, num_heads), wide(xp, key), wide(xp, value)
    else:
        q, k, v = (split(xp, n, x, num_heads) for n, x in (("query", query), ("key", key), ("value", value)))
    if bias is not None:
        q, k, v = (
            (*biased(xp, bias[: q.shape[1] * q.shape[3]], [q]), k, v)
            if crossed
            else biased(xp, bias, [q, k, v])
        )
    check_parts(q, k, v)
    del beam_width  # the shape of cache_indirection says it
    caches: list[Any] = []
    if crossed:
        keys, values = k, v
    else:
        before = past_sequence_length if past_present_share_buffer else None
        caches, used = with_past(xp, query.dtype, (past_key, past_value), (k, v), before)
        keys, values = from_beams(xp, caches, used, cache_indirection, 1)
    shape = (q.shape[0], num_heads, 1, keys.shape[2])
    y, qk = attend(
        xp,
        q,
        wide(xp, keys),
        wide(xp, values),
        scale=scale,
        bias=summed(
            padding_bias(xp, "mask_index", mask_index, shape, keys.shape[2] - 1, mask_filter_value),
            bias_like(xp, "attention_bias", attention_bias, shape),
        ),
        stage=1 if output_qk else 0,
    )
    presents = caches or [past_key, past_value]
    return (
        cast(xp, join_heads(xp, y), query.dtype),
        *presents,
        None if qk is None else cast(xp, qk, query.dtype),
    )


def infer_decoder_self(ctx: Any) -> None:
    """Output and the present state of DecoderMaskedSelfAttention."""
    x, weights, past = dims(ctx, 0, 3), dims(ctx, 1, 2), dims(ctx, 4)
    put(ctx, 0, elem(ctx, 0), x and [*x[:2], over(weights[1], 3) if weights else None])
    if past is not None and not attr(ctx, "past_present_share_buffer", 0):
        past = [*past[:3], plus(past[3], 1), past[4]]
    put(ctx, 1, elem(ctx, 0), past)


def key_rows(xp: Any, cache: Any) -> Any:
    """Keys (batch, heads, rows, size) of a buffer that holds them as (batch, heads, size / x, rows, x),
    16 bytes each x.
    """
    batch, heads, rows, size = cache.shape
    x = 16 // cache.dtype.itemsize
    if size % x:
        raise ValueError(f"a head size of {size} is no multiple of {x}")
    return xp.reshape(
        xp.permute_dims(xp.reshape(cache, (batch, heads, size // x, rows, x)), (0, 1, 3, 2, 4)), cache.shape
    )


def key_buffer(xp: Any, keys: Any) -> Any:
    """The buffer of ``key_rows``."""
    batch, heads, rows, size = keys.shape
    x = 16 // keys.dtype.itemsize
    return xp.reshape(
        xp.permute_dims(xp.reshape(keys, (batch, heads, rows, size // x, x)), (0, 1, 3, 2, 4)), keys.shape
    )


@contrib(
    "DecoderMaskedSelfAttention",
    inputs=[
        ("input", "T"),
        ("weights", "T"),
        ("bias", "T"),
        ("mask_index", "M", "optional"),
        ("past", "T"),
        ("attention_bias", "T", "optional"),
        ("past_sequence_length", "M"),
        ("beam_width", "M", "optional"),
        ("cache_indirection", "M", "optional"),
    ],
    outputs=[("output", "T"), ("present", "T")],
    types={"T": SINGLE_AND_HALF, "M": INT32},
    attributes={**ATTRIBUTES, "do_rotary": (INT, None)},
    infer=infer_decoder_self,
)
@quiet
def decoder_masked_self_attention(
    xp: Any,
    x: Any,
    weights: Any,
    bias: Any,
    mask_index: Any,
    past: Any,
    attention_bias: Any,
    past_sequence_length: Any,
    beam_width: Any = None,
    cache_indirection: Any = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
) -> Any:
    """Q, K, V = x W + bias of one token; softmax(Q K' scale + attention_bias + mask) V; then the caches.

    In a shared buffer the keys are in the order of ``key_rows``.
    """
    if x.ndim != 3 or x.shape[1] != 1 or past.ndim != 5 or past.shape[0] != 2:
        raise ValueError(
            f"inputs input {x.shape} and past {past.shape} should be of one token and of keys and values"
        )
    del beam_width  # the shape of cache_indirection says it
    q, k, v = projections(xp, x, weights, bias, num_heads, None)
    before = past_sequence_length if past_present_share_buffer else None
    pasts = (past[0] if before is None else key_rows(xp, past[0]), past[1])
    if do_rotary:
        start = past.shape[3] if before is None else int(xp.reshape(before, (-1,))[0])
        q, k = (turned_in_place(xp, part, start, 0) for part in (q, k))
    caches, used = with_past(xp, x.dtype, pasts, (k, v), before)
    keys, values = from_beams(xp, caches, used, cache_indirection, 1)
    shape = (q.shape[0], num_heads, 1, used)
    y, _ = attend(
        xp,
        q,
        wide(xp, keys),
        wide(xp, values),
        scale=scale,
        bias=summed(
            padding_bias(xp, "mask_index", mask_index, shape, used - 1, mask_filter_value),
            bias_like(xp, "attention_bias", attention_bias, shape),
        ),
    )
    if before is not None:
        caches[0] = key_buffer(xp, caches[0])
    return cast(xp, join_heads(xp, y), x.dtype), xp.stack(caches)
