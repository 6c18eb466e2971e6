"""Attention of sequences without their padding: all tokens in a row, and where each sequence starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide

from ._attend import attend, bias_like, positions
from ._heads import biased, projections
from ._infer import attr, dims, elem, over, put, times
from .declare import contrib

INT, INTS, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.INTS, OpSchema.AttrType.FLOAT
SINGLE_AND_HALF = ("tensor(float)", "tensor(float16)")
TYPES = {"T": SINGLE_AND_HALF, "M": ("tensor(int32)",)}


def attend_packed(
    xp: Any, parts: Sequence[Any], token_offset: Any, cumulated: Any, attention_bias: Any, scale: float | None
) -> Any:
    """Attention within each sequence, of queries, keys and values (1, heads, tokens, size); (tokens, hidden)."""
    tokens = parts[0].shape[2]
    if token_offset.ndim != 2 or cumulated.shape != (token_offset.shape[0] + 1,):
        raise ValueError(
            f"inputs token_offset {token_offset.shape} and cumulative_sequence_length {cumulated.shape} "
            "should be (batch, length) and (batch + 1,)"
        )
    batch, length = token_offset.shape
    at = xp.reshape(token_offset, (-1,))[:tokens]
    counts = cumulated[1:] - cumulated[:-1]
    if cumulated[0] != 0 or cumulated[-1] != tokens or xp.any(counts < 0) or xp.any(counts > length):
        raise ValueError(
            f"input cumulative_sequence_length={cumulated.tolist()} does not fit {tokens} tokens"
        )
    if at.shape[0] != tokens or (tokens and (xp.min(at) < 0 or xp.max(at) >= batch * length)):
        raise ValueError(f"input token_offset reaches outside {batch} sequences of {length}")
    padded = []
    for x in parts:
        rows = xp.zeros((batch * length, x.shape[1], x.shape[3]), dtype=x.dtype)
        rows[at] = xp.permute_dims(x[0], (1, 0, 2))
        padded.append(xp.permute_dims(xp.reshape(rows, (batch, length, *rows.shape[1:])), (0, 2, 1, 3)))
    shape = (batch, parts[0].shape[1], length, length)
    seen = positions(xp, length)[None, None, None] < counts[:, None, None, None]
    y, _ = attend(
        xp, *padded, scale=scale, bias=bias_like(xp, "attention_bias", attention_bias, shape), seen=seen
    )
    return xp.reshape(xp.permute_dims(y, (0, 2, 1, 3)), (batch * length, -1))[at]


def infer_packed(ctx: Any) -> None:
    """(tokens, the width of the values)."""
    x, weights, sizes = dims(ctx, 0, 2), dims(ctx, 1, 2), attr(ctx, "qkv_hidden_sizes")
    put(ctx, 0, elem(ctx, 0), x and [x[0], sizes[2] if sizes else over(weights[1], 3) if weights else None])


@contrib(
    "PackedAttention",
    inputs=[
        ("input", "T"),
        ("weights", "T"),
        ("bias", "T"),
        ("token_offset", "M"),
        ("cumulative_sequence_length", "M"),
        ("attention_bias", "T", "optional"),
    ],
    outputs=[("output", "T")],
    types=TYPES,
    attributes={"num_heads": INT, "qkv_hidden_sizes": (INTS, None), "scale": (FLOAT, None)},
    infer=infer_packed,
)
@quiet
def packed_attention(
    xp: Any,
    x: Any,
    weights: Any,
    bias: Any,
    token_offset: Any,
    cumulative_sequence_length: Any,
    attention_bias: Any = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float | None = None,
) -> Any:
    """Q, K, V = x W + bias; softmax(Q K' scale + attention_bias) V within each sequence."""
    parts = projections(xp, x[None], weights, bias, num_heads, qkv_hidden_sizes)
    y = attend_packed(xp, parts, token_offset, cumulative_sequence_length, attention_bias, scale)
    return cast(xp, y, x.dtype)


def infer_packed_multi_head(ctx: Any) -> None:
    """(tokens, the width of the values)."""
    query, value = dims(ctx, 0), dims(ctx, 2)
    width = (
        value[1] if value else times(attr(ctx, "num_heads"), query[3]) if query and len(query) == 4 else None
    )
    put(ctx, 0, elem(ctx, 0), query and [query[0], width])


@contrib(
    "PackedMultiHeadAttention",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("bias", "T", "optional"),
        ("token_offset", "M"),
        ("cumulative_sequence_length", "M"),
        ("attention_bias", "T", "optional"),
    ],
    outputs=[("output", "T")],
    types=TYPES,
    attributes={"mask_filter_value": (FLOAT, None), "num_heads": INT, "scale": (FLOAT, None)},
    infer=infer_packed_multi_head,
)
@quiet
def packed_multi_head_attention(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    token_offset: Any,
    cumulative_sequence_length: Any,
    attention_bias: Any = None,
    *,
    num_heads: int,
    scale: float | None = None,
) -> Any:
    """softmax(Q K' scale + attention_bias) V within each sequence, of separate or packed (tokens, heads, 3, size)."""
    if key is None and value is None and query.ndim == 4 and query.shape[1:3] == (num_heads, 3):
        given = [query[:, :, i] for i in range(3)]
    elif (
        key is None
        or value is None
        or any(x.ndim != 2 or x.shape[1] % num_heads for x in (query, key, value))
    ):
        raise ValueError(f"inputs query {query.shape}, key and value are not tokens of {num_heads} heads")
    else:
        given = [xp.reshape(x, (x.shape[0], num_heads, x.shape[1] // num_heads)) for x in (query, key, value)]
    if len({x.shape[0] for x in given}) > 1 or given[0].shape[2] != given[1].shape[2]:
        raise ValueError("inputs query, key and value do not fit together")
    parts = [wide(xp, xp.permute_dims(x, (1, 0, 2))[None]) for x in given]
    if bias is not None:
        parts = biased(xp, bias, parts)
    y = attend_packed(xp, parts, token_offset, cumulative_sequence_length, attention_bias, scale)
    return cast(xp, y, query.dtype)
