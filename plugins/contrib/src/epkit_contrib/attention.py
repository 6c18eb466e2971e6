"""Attention with its projection (Attention), without (MultiHeadAttention), and one token at a time (Decoder...)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.attention import join_heads

from . import decoder_attention as decoder_attention
from . import group_query as group_query
from . import packed_attention as packed_attention
from ._attend import attend, bias_like, causal, padding_bias, summed
from ._heads import biased, check_parts, from_beams, projected, projections, turned_in_place, with_past
from ._infer import Dim, Dims, attr, dims, elem, over, plus, put, times
from .declare import contrib

INT, INTS, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.INTS, OpSchema.AttrType.FLOAT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
INT32 = ("tensor(int32)",)


# ---- MultiHeadAttention


def infer_multi_head(ctx: Any) -> None:
    """Output, present keys and values, scores."""
    query, key, value, past = dims(ctx, 0), dims(ctx, 1), dims(ctx, 2), dims(ctx, 6)
    heads = attr(ctx, "num_heads")
    shape, present = None, None
    scores: list[Dim] | None = None
    if query is not None and (key is not None or not ctx.has_input(1)):
        hidden: Dim
        new: Dim
        if len(query) == 5:
            hidden, size, new = times(heads, query[4]), query[4], query[1]
        elif key is not None and len(key) == 5:
            hidden, size, new = query[2], key[4], key[1]
        elif value is not None and len(value) == 4:
            hidden, size, new = times(heads, value[3]), value[3], value[2]
        elif value is not None:
            hidden, size, new = value[2], over(value[2], heads), value[1]
        else:
            hidden = size = new = None
        shape = [query[0], query[1], hidden]
        if ctx.has_input(8):
            present = past
        else:
            before: Dim = 0 if not ctx.has_input(6) else None if past is None else past[2]
            present = [query[0], heads, plus(before, new), size]
        scores = [query[0], heads, query[1], present[2] if present else None]
        if present and key is not None and len(key) != 5 and not ctx.has_input(8):
            own = key[3] if len(key) == 4 else over(key[2], heads)
            put(ctx, 1, elem(ctx, 0), [*present[:3], own])
    put(ctx, 0, elem(ctx, 0), shape)
    if (
        not ctx.has_output(1)
        or ctx.get_output_type(1) is None
        or not ctx.get_output_type(1).tensor_type.elem_type
    ):
        put(ctx, 1, elem(ctx, 0), present)
    put(ctx, 2, elem(ctx, 0), present)
    put(ctx, 3, elem(ctx, 0), scores)


MULTI_HEAD_OUTPUTS = [
    ("output", "T"),
    ("present_key", "T", "optional"),
    ("present_value", "T", "optional"),
    ("qk", "QK", "optional"),
]


@contrib(
    "MultiHeadAttention",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("bias", "T", "optional"),
        ("key_padding_mask", "M", "optional"),
        ("attention_bias", "T", "optional"),
        ("past_key", "T", "optional"),
        ("past_value", "T", "optional"),
        ("past_sequence_length", "M", "optional"),
        ("cache_indirection", "M", "optional"),
    ],
    outputs=MULTI_HEAD_OUTPUTS,
    types={"T": REAL, "QK": REAL, "M": INT32},
    attributes={
        "mask_filter_value": (FLOAT, None),
        "num_heads": INT,
        "scale": (FLOAT, None),
        "unidirectional": 0,
    },
    infer=infer_multi_head,
)
@quiet
def multi_head_attention(
    xp: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    bias: Any = None,
    key_padding_mask: Any = None,
    attention_bias: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    past_sequence_length: Any = None,
    cache_indirection: Any = None,
    *,
    mask_filter_value: float = -10000.0,
    n_outputs: int,
    num_heads: int,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Any:
    """softmax(Q K' scale + attention_bias + mask) V; then the keys and values with those of the past, and the scores.

    A key that the padding mask hides has ``mask_filter_value`` added to its score; one after its query has the
    lowest of all scores.
    """
    (q, k, v), cached = projected(xp, query, key, value, num_heads)
    if bias is not None:
        q, k, v = (
            [*biased(xp, bias[: q.shape[1] * q.shape[3]], [q]), k, v]
            if cached
            else biased(xp, bias, [q, k, v])
        )
    check_parts(q, k, v)
    fresh = k.shape[2]
    caches, used = with_past(xp, query.dtype, (past_key, past_value), (k, v), past_sequence_length)
    keys, values = from_beams(xp, caches, used, cache_indirection, fresh)
    shape = (q.shape[0], num_heads, q.shape[2], used)
    mask = padding_bias(xp, "key_padding_mask", key_padding_mask, shape, used - fresh, mask_filter_value)
    seen = causal(xp, q.shape[2], used, used - fresh) if unidirectional else None
    y, scores = attend(
        xp,
        q,
        wide(xp, keys),
        wide(xp, values),
        scale=scale,
        bias=summed(mask, bias_like(xp, "attention_bias", attention_bias, shape)),
        seen=seen,
        stage=1 if n_outputs > 3 else 0,
    )
    y = cast(xp, join_heads(xp, y), query.dtype)
    if scores is None:
        return y, *caches
    if seen is not None:
        scores = xp.where(seen, scores, xp.finfo(xp.float32).min)
    return y, *caches, cast(xp, scores, query.dtype)


# ---- Attention


def infer_attention(ctx: Any) -> None:
    """Output and the present state."""
    x, weights, past = dims(ctx, 0, 3), dims(ctx, 1, 2), dims(ctx, 4)
    sizes, heads = attr(ctx, "qkv_hidden_sizes"), attr(ctx, "num_heads")
    width = sizes[2] if sizes else over(weights[1], 3) if weights else None
    put(ctx, 0, elem(ctx, 0), x and [*x[:2], width])
    present: Dims = past
    if not attr(ctx, "past_present_share_buffer", 0) and x is not None:
        before: Dim = 0 if not ctx.has_input(4) else past[3] if past else None
        present = [2, x[0], heads, plus(before, x[1]), over(sizes[0] if sizes else width, heads)]
    put(ctx, 1, elem(ctx, 0), present)


ATTENTION_ATTRIBUTES = {
    "do_rotary": (INT, None),
    "mask_filter_value": (FLOAT, None),
    "num_heads": INT,
    "past_present_share_buffer": (INT, None),
    "scale": (FLOAT, None),
}


@contrib(
    "Attention",
    inputs=[
        ("input", "T"),
        ("weights", "T"),
        ("bias", "T", "optional"),
        ("mask_index", "M", "optional"),
        ("past", "T", "optional"),
        ("attention_bias", "T", "optional"),
        ("past_sequence_length", "M", "optional"),
    ],
    outputs=[("output", "T"), ("present", "T", "optional")],
    types={"T": REAL, "M": INT32},
    attributes={
        **ATTENTION_ATTRIBUTES,
        "qkv_hidden_sizes": (INTS, None),
        "rotary_embedding_dim": (INT, None),
        "unidirectional": 0,
    },
    infer=infer_attention,
)
@quiet
def attention(
    xp: Any,
    x: Any,
    weights: Any,
    bias: Any = None,
    mask_index: Any = None,
    past: Any = None,
    attention_bias: Any = None,
    past_sequence_length: Any = None,
    *,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    n_outputs: int,
    num_heads: int,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Any:
    """Q, K, V = x W + bias; softmax(Q K' scale + attention_bias + mask) V; then keys and values with the past."""
    q, k, v = projections(xp, x, weights, bias, num_heads, qkv_hidden_sizes)
    if k.shape[3] != q.shape[3]:
        raise ValueError(f"attribute qkv_hidden_sizes={qkv_hidden_sizes}: queries and keys differ in size")
    if past is not None and (past.ndim != 5 or past.shape[0] != 2):
        raise ValueError(f"input past of shape {past.shape} should have shape (2, batch, heads, past, size)")
    pasts = (None, None) if past is None else (past[0], past[1])
    before = past_sequence_length if past_present_share_buffer else None
    start = 0 if past is None else past.shape[3] if before is None else int(xp.reshape(before, (-1,))[0])
    if do_rotary:
        q, k = (turned_in_place(xp, part, start, rotary_embedding_dim) for part in (q, k))
    fresh = k.shape[2]
    caches, used = with_past(xp, x.dtype, pasts, (k, v), before)
    shape = (q.shape[0], num_heads, q.shape[2], used)
    mask = padding_bias(xp, "mask_index", mask_index, shape, used - fresh, mask_filter_value)
    y, _ = attend(
        xp,
        q,
        *(wide(xp, c[:, :, :used]) for c in caches),
        scale=scale,
        bias=summed(mask, bias_like(xp, "attention_bias", attention_bias, shape)),
        seen=causal(xp, q.shape[2], used, used - fresh) if unidirectional else None,
    )
    y = cast(xp, join_heads(xp, y), x.dtype)
    if n_outputs < 2:
        return y
    if caches[0].shape != caches[1].shape:
        raise ValueError(
            f"keys {caches[0].shape} and values {caches[1].shape} do not fit in one output present"
        )
    return y, xp.stack(caches)
