"""MultiHeadAttention of com.microsoft: separate queries, keys and values, a bias, padding, a past."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel

from ..launch import dense, stream_of
from ..memory import Tensor
from .attention import TYPES, Scores, attend_rounded, check, result, split
from .caches import appended


def takes(node: Any) -> bool | str:
    """Three inputs that are not packed, padding by key, caches that grow."""
    given = [value is not None and bool(value.name) for value in node.inputs]
    given += [False] * (10 - len(given))
    if not given[1] or not given[2]:
        return "the kernel takes queries, keys and values that are not packed"
    if any(given[8:]):
        return "the kernel takes no past_sequence_length and no cache_indirection"
    ranks = [None if v is None or v.shape is None else len(v.shape) for v in (*node.inputs[:3],)]
    if ranks[0] != 3 or not set(ranks[1:]) <= {3, 4}:
        return f"the kernel takes queries of 3 axes, keys and values of 3 or 4, found {ranks}"
    if given[4] and (node.inputs[4].shape is None or len(node.inputs[4].shape) != 2):
        return "the kernel takes a key_padding_mask for each key: two axes"
    if len(node.outputs) > 3 and node.outputs[3].name:
        return "the kernel does not give the scores"
    real = (0, 1, 2, 3, 5, 6, 7)
    kinds = {element_type(node.inputs[index]) for index in real if given[index]}
    return (
        len(kinds) == 1 and kinds <= TYPES
    ) or f"the kernel takes one of {sorted(TYPES)}, found {sorted(kinds)}"


def added(xp: Any, x: Any, y: Any) -> Any:
    """x + y in float32, in x's type."""
    return xp.astype(xp.astype(x, np.float32) + xp.astype(y, np.float32), x.dtype)


def mask_of(xp: Any, padding: Any, bias: Any, filler: float, dtype: Any) -> Any:
    """What is added to the scores, or None: a bias, and ``filler`` for each key that is padding."""
    if padding is None:
        return bias
    hidden = xp.where(padding == 0, xp.asarray(np.float32(filler)), xp.asarray(np.float32(0)))[
        :, None, None, :
    ]
    total = hidden if bias is None else xp.astype(bias, np.float32) + hidden
    return xp.astype(total, dtype)


def multi_head_kernels(precision: str) -> list[Kernel]:
    """MultiHeadAttention in a precision."""

    @kernel("MultiHeadAttention", domain="com.microsoft", when=takes)
    def multi_head_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None = None,
        padding: Tensor | None = None,
        attention_bias: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        *rest: Tensor | None,
        mask_filter_value: float = -10000.0,
        num_heads: int,
        scale: float = 0.0,
        unidirectional: int = 0,
        context: RunContext,
        node: Any,
    ) -> tuple[Tensor, ...]:
        """Queries [B, L, H D]; keys and values joined likewise, or by head [B, H, S, D], which take no bias."""
        xp = stream_of(context).machine.xp
        parts = [dense(context, item) for item in (query, key, value)]
        if bias is not None:
            ends = np.cumsum([part.shape[2] if part.ndim == 3 else 0 for part in parts])
            pieces = [bias.array[end - part.shape[2] : end] if part.ndim == 3 else None
                      for end, part in zip(ends, parts, strict=True)]  # fmt: skip
            parts = [
                part if piece is None else added(xp, part, piece)
                for part, piece in zip(parts, pieces, strict=True)
            ]
        names = ("query", "key", "value")
        q, *fresh = (split(part, num_heads, name) for part, name in zip(parts, names, strict=True))
        keys, values = appended(context, node, (past_key, past_value), fresh)
        check(q, keys.array, values.array)
        past = 0 if past_key is None else past_key.shape[2]
        shape = (*q.shape[:3], values.shape[3])
        out, view = result(context, node, query, shape)
        hidden, extra = (None if item is None else dense(context, item) for item in (padding, attention_bias))
        if hidden is not None and hidden.shape != (q.shape[0], keys.shape[2]):
            raise ValueError(
                f"key_padding_mask of shape {hidden.shape} should be {(q.shape[0], keys.shape[2])}"
            )
        mask = mask_of(xp, hidden, extra, mask_filter_value, query.dtype)
        how = Scores(scale or 1 / math.sqrt(q.shape[3]), 0.0, past if unidirectional else None, precision)
        attend_rounded(context, [q, keys.array, values.array], mask, view, how)
        return out, keys, values

    return [multi_head_attention]
