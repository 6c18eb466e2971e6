"""Attention: by cuDNN in 16 bits, by kernels for a few queries, else by two products with a softmax between.

Scores, sums and the softmax are in float32. A query that sees no key gives zeros, as the standard says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from .attention_sources import CHUNK, THREADS, WIDEST, few_source, joined_source, softmax_source
from .caches import appended
from .products import ROUNDED, multiply

FEW = 8
"""Queries of a head up to which each has a block of its own."""

LEAST_KEYS = 128
"""Keys of a block at least, where several blocks share those of a query."""

BLOCKS = 256
"""Blocks up to which keys are shared out: there is room for as many at once on large GPUs. It is the same number on all
of them, and so are the results."""

TYPES = frozenset({"float32", "float16", "bfloat16"})


@dataclass(frozen=True)
class Scores:
    """How queries and keys become scores.

    Attributes:
        scale: factor of the products.
        softcap: c tanh(s / c) bounds them; 0: not.
        offset: query i sees the keys up to i + offset; None: all.
        precision: ``tf32`` rounds the operands of float32 products to it.
    """

    scale: float
    softcap: float = 0.0
    offset: int | None = None
    precision: str = "fp32"


def attend(context: RunContext, q: Any, k: Any, v: Any, mask: Any, out: Any, how: Scores) -> None:
    """out = softmax(scores + mask) v.

    Args:
        q, k, v: [B, H, L, D], [B, G, S, D] and [B, G, S, E], the last axis dense.
        mask: None, or what is added (of q's type), or says (bool) which keys are seen; it broadcasts to
            [B, H, L, S], and hides the keys behind its end.
        out: [B, H, L, E], in any order of memory.
    """
    if not out.size:
        return
    if not k.shape[2]:
        out[...] = 0
        return
    stream = stream_of(context)
    plain = mask is None and not how.softcap and how.offset in (None, 0)
    causal = how.offset is not None
    if plain and q.shape[2] > 1:
        options: dict[str, Any] = {"scale": how.scale, "causal": causal, "stream": stream.raw}
        if stream.machine.attend(q, k, v, None, out, **options):
            return
    if q.shape[2] <= FEW and max(q.shape[3], v.shape[3]) <= WIDEST:
        _few(context, q, k, v, mask, out, how)
    else:
        _many(context, q, k, v, mask, out, how)


def mask_numbers(mask: Any, shape: Sequence[int]) -> list[Any]:
    """How far the mask reaches, and its steps (in elements) along the four axes of the scores."""
    if mask is None:
        return [np.int32(0), *[np.int64(0)] * 4]
    full = mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))
    for size, wanted in zip(full.shape[:3], shape[:3], strict=True):
        if size not in (1, wanted):
            raise ValueError(f"a mask of shape {mask.shape} does not fit scores of shape {tuple(shape)}")
    reach = shape[3] if full.shape[3] == 1 else full.shape[3]
    each = full.dtype.itemsize
    steps = [0 if size == 1 else step // each for size, step in zip(full.shape, full.strides, strict=True)]
    return [np.int32(reach), *map(np.int64, steps)]


def mask_kind(mask: Any) -> str:
    """Of the sources: no mask, ``seen`` (bool) or ``added``."""
    return "" if mask is None else "seen" if mask.dtype == np.bool_ else "added"


def _steps(array: Any) -> list[np.int64]:
    """Elements from one to the next along the first three axes."""
    return [np.int64(step // array.dtype.itemsize) for step in array.strides[:3]]


def _limits(how: Scores, keys: int) -> list[Any]:
    offset = keys if how.offset is None else how.offset
    return [np.int32(offset), np.float32(how.scale), np.float32(how.softcap)]


def _few(context: RunContext, q: Any, k: Any, v: Any, mask: Any, out: Any, how: Scores) -> None:
    """A block for each query of each head, or several, each with its share of the keys."""
    batch, heads, queries, size = q.shape
    keys, width = k.shape[2], v.shape[3]
    pack = 16 // q.dtype.itemsize
    wide = all(
        array.shape[3] % pack == 0
        and array.data.ptr % 16 == 0
        and all(step % 16 == 0 for step in array.strides[:3])
        for array in (q, k, v)
    )
    jobs = batch * heads * queries
    parts = shares(jobs, keys)
    source = few_source(q.dtype, mask_kind(mask), pack if wide else 1, shared=parts > 1)
    counts = map(np.int32, (heads, heads // k.shape[1], queries, keys, size, width))
    places = [step for array in (q, k, v, out) for step in _steps(array)]
    numbers = mask_numbers(mask, (batch, heads, queries, keys))
    arguments = [*counts, *_limits(how, keys), *places, *numbers, q, k, v, q if mask is None else mask, out]
    if parts == 1:
        launch(context, source, "few", jobs, THREADS, arguments)
        return
    partial = stream_of(context).machine.xp.empty((jobs, parts, width + 2), np.float32)
    arguments += [np.int32(parts), np.int32(-(-keys // parts)), partial]
    launch(context, source, "few", jobs * parts, THREADS, arguments)
    sizes = [*map(np.int32, (heads, queries, width, parts)), *_steps(out)]
    launch(context, joined_source(q.dtype), "joined", jobs, THREADS, [*sizes, partial, out])


def shares(jobs: int, keys: int) -> int:
    """Blocks that share the keys of a query, for so many queries of all heads."""
    return max(1, min(BLOCKS // max(1, jobs), keys // LEAST_KEYS))


def _many(context: RunContext, q: Any, k: Any, v: Any, mask: Any, out: Any, how: Scores) -> None:
    """Products for each head of keys, with all the queries that share it."""
    stream = stream_of(context)
    xp = stream.machine.xp
    batch, heads, queries, size = q.shape
    groups, keys, width = k.shape[1], k.shape[2], v.shape[3]
    rows = heads // groups * queries
    count = batch * groups
    left = stream.dense(q).reshape(count, rows, size)
    scores = xp.empty((count, rows, keys), np.float32)
    multiply(context, left, k.reshape(count, keys, size).transpose(0, 2, 1), scores, how.precision)
    shares = scores if q.dtype == np.float32 else xp.empty(scores.shape, q.dtype)
    numbers = mask_numbers(mask, (batch, heads, queries, keys))
    sizes = map(np.int32, (heads, queries, keys))
    arguments = [*sizes, *_limits(how, keys), *numbers, scores, scores if mask is None else mask, shares]
    source = softmax_source(q.dtype, mask_kind(mask))
    launch(context, source, "shares", batch * heads * queries, THREADS, arguments)
    straight = bool(out.flags.c_contiguous)
    target = out if straight else xp.empty(out.shape, out.dtype)
    values = v.reshape(count, keys, width)
    multiply(context, shares, values, target.reshape(count, rows, width), how.precision)
    if not straight:
        out[...] = target


# ---- the standard's operator ----


def takes(node: Any) -> bool | str:
    """What the kernels know: no windows, no lengths of padded caches, no scores as a result."""
    attributes = attribute_values(node)
    given = [value is not None and bool(value.name) for value in node.inputs]
    if len(given) > 6 and given[6]:
        return "the kernel takes no nonpad_kv_seqlen"
    if len(node.outputs) > 3 and node.outputs[3].name:
        return "the kernel does not give the scores"
    if max(attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)) >= 0:
        return "the kernel knows no windows"
    if attributes.get("softmax_precision", 1) not in (1, 10, 16):
        return "the kernel's softmax is in float32"
    kinds = {element_type(value) for value in node.inputs[:4] if value is not None and value.name}
    if len(kinds - {"bool"}) > 1 or not kinds <= TYPES | {"bool"}:  # types of results may be unknown
        return f"the kernel takes one of {sorted(TYPES)}, found {sorted(kinds)}"
    return True


def split(array: Any, heads: int | None, name: str) -> Any:
    """[B, L, heads size] as [B, heads, L, size], a view; four axes stay.

    Raises:
        ValueError: if the last axis cannot be split.
    """
    if array.ndim == 4:
        return array
    if not heads or array.shape[2] % heads:
        raise ValueError(f"{name} of shape {array.shape} cannot be split into {heads} heads")
    return array.reshape(*array.shape[:2], heads, array.shape[2] // heads).transpose(0, 2, 1, 3)


def result(context: RunContext, node: Any, q: Tensor, shape: Sequence[int]) -> tuple[Tensor, Any]:
    """Memory for [B, H, L, E], joined where the queries were, and its view of four axes."""
    batch, heads, length, width = shape
    joined = q.ndim == 3
    sizes = (batch, length, heads * width) if joined else tuple(shape)
    out: Tensor = context.empty(node.outputs[0], sizes, q.dtype)
    return out, split(out.array, heads, "the result") if joined else out.array


def check(q: Any, k: Any, v: Any) -> None:
    """Refuse queries, keys and values that do not fit together."""
    fits = q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3] and v.shape[:3] == k.shape[:3]
    if not fits or q.shape[1] % max(1, k.shape[1]):
        raise ValueError(f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit")


def attend_rounded(context: RunContext, operands: list[Any], mask: Any, out: Any, how: Scores) -> None:
    """Attention whose float32 operands are rounded as the option ``precision`` says; its result is as wide as ever."""
    wanted = ROUNDED.get(how.precision)
    if wanted is None or out.dtype != np.float32:
        attend(context, operands[0], operands[1], operands[2], mask, out, how)
        return
    xp = stream_of(context).machine.xp
    narrow = [xp.astype(item, wanted) for item in operands]
    if mask is not None and mask.dtype != np.bool_:
        mask = xp.astype(mask, wanted)
    made = xp.empty(out.shape, wanted)
    attend(context, narrow[0], narrow[1], narrow[2], mask, made, how)
    out[...] = made


def attention_kernels(precision: str) -> list[Kernel]:
    """Attention in a precision."""

    @kernel("Attention", since=23, when=takes)
    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        *rest: Tensor | None,
        is_causal: int = 0,
        kv_num_heads: int | None = None,
        q_num_heads: int | None = None,
        scale: float | None = None,
        softcap: float = 0.0,
        context: RunContext,
        node: Any,
    ) -> tuple[Tensor, ...]:
        """Queries, keys and values of four axes, or of three with the heads joined; a head of keys may be shared."""
        queries = split(dense(context, q), q_num_heads, "Q")
        fresh = [split(dense(context, item), kv_num_heads, name) for item, name in ((k, "K"), (v, "V"))]
        past = 0 if past_key is None else past_key.shape[2]
        keys, values = appended(context, node, (past_key, past_value), fresh)
        check(queries, keys.array, values.array)
        shape = (*queries.shape[:3], values.shape[3])
        out, view = result(context, node, q, shape)
        factor = 1 / math.sqrt(max(1, queries.shape[3])) if scale is None else scale
        how = Scores(factor, softcap, past if is_causal else None, precision)
        hidden = None if mask is None else dense(context, mask)
        attend_rounded(context, [queries, keys.array, values.array], hidden, view, how)
        return out, keys, values

    return [attention]


def sources() -> list[str]:
    """Every source that these kernels launch."""
    found = []
    for name in sorted(TYPES):
        for kind in ("", "seen", "added"):
            for pack in (1, 4 if name == "float32" else 8):
                found += [few_source(name, kind, pack, shared=shared) for shared in (False, True)]
            found.append(softmax_source(name, kind))
        found.append(joined_source(name))
    return found


assert CHUNK % THREADS == 0
