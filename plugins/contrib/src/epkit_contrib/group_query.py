"""GroupQueryAttention and SparseAttention: decoders whose cache the caller keeps."""

from __future__ import annotations

import math
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.attention import join_heads

from ._attend import attend, bias_like, positions, split
from ._cache import Steps, appended, quantizer, window_step
from ._infer import Dim, attr, dims, elem, over, put, times
from .declare import contrib
from .normalize import rms
from .rotary import looked_up, rotate

INT, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
INT32 = ("tensor(int32)",)


def scalar_of(ctx: Any, index: int) -> Dim:
    """The number that an input is known to hold."""
    from onnx.numpy_helper import to_array

    data = ctx.get_input_data(index)
    return None if data is None else int(to_array(data).reshape(-1)[0])


def infer_grouped(ctx: Any) -> None:
    """Output, caches and scores of GroupQueryAttention and SparseAttention."""
    query, past, heads, shared = (
        dims(ctx, 0, 3),
        dims(ctx, 3),
        attr(ctx, "num_heads"),
        attr(ctx, "kv_num_heads"),
    )
    packed = not ctx.has_input(1)
    if query is None:
        shape, size = None, None
    else:
        size = over(query[2], heads + 2 * shared if packed else heads)
        shape = [*query[:2], times(size, heads) if packed else query[2]]
    put(ctx, 0, elem(ctx, 0), shape)
    sparse = attr(ctx, "sparse_block_size") is not None
    total = scalar_of(ctx, 7 if sparse else 6)
    if past is None:
        present = None if query is None or ctx.has_input(3) else [query[0], shared, total, size]
    elif sparse or attr(ctx, "sliding_window_cache", 0):
        present = past
    else:
        known = isinstance(past[2], int) and isinstance(total, int)
        present = [past[0], past[1], max(past[2], total) if known else None, past[3]]  # type: ignore[type-var]
    for output in (1, 2):
        put(ctx, output, elem(ctx, 3) or elem(ctx, 0), present)
    put(ctx, 3, elem(ctx, 0), None if query is None else [query[0], heads, query[1], total])


def unpacked(xp: Any, query: Any, key: Any, value: Any, heads: int, shared: int) -> tuple[Any, Any, Any]:
    """Queries, keys and values by head, in at least float32, of separate or packed inputs."""
    if heads < 1 or shared < 1 or heads % shared:
        raise ValueError(f"attributes num_heads={heads} and kv_num_heads={shared} do not fit together")
    if (key is None) != (value is None):
        raise ValueError("inputs key and value should be given together")
    if key is None:
        every = split(xp, "query", query, heads + 2 * shared)
        return every[:, :heads], every[:, heads : heads + shared], every[:, heads + shared :]
    q, k, v = (
        split(xp, "query", query, heads),
        split(xp, "key", key, shared),
        split(xp, "value", value, shared),
    )
    if k.shape != v.shape or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"inputs query {query.shape}, key {key.shape} and value {value.shape} do not fit together"
        )
    return q, k, v


def turned(xp: Any, x: Any, cos_cache: Any, sin_cache: Any, places: Any, interleaved: int) -> Any:
    """``x`` (batch, heads, length, size) with its features turned by the angles of their places."""
    if cos_cache is None or sin_cache is None:
        raise ValueError("attribute do_rotary=1 needs the inputs cos_cache and sin_cache")
    if (
        cos_cache.ndim != 2
        or not 0 < 2 * cos_cache.shape[1] <= x.shape[3]
        or sin_cache.shape != cos_cache.shape
    ):
        raise ValueError(
            f"inputs cos_cache {cos_cache.shape} and sin_cache {sin_cache.shape} do not fit heads of {x.shape[3]}"
        )
    cos, sin = (
        looked_up(xp, n, c, places)[:, None] for n, c in (("cos_cache", cos_cache), ("sin_cache", sin_cache))
    )
    return rotate(xp, x, cos, sin, interleaved)


def check_past(past_key: Any, past_value: Any, batch: int, shared: int, size: int) -> None:
    """Refuse caches that do not fit the new keys."""
    if (past_key is None) != (past_value is None):
        raise ValueError("inputs past_key and past_value should be given together")
    if past_key is None:
        return
    fits = past_key.ndim == 4 and past_key.shape[:2] == (batch, shared) and past_key.shape[3] == size
    if not fits or past_value.shape != past_key.shape:
        raise ValueError(
            f"inputs past_key {past_key.shape} and past_value {past_value.shape} should be "
            f"{(batch, shared, 'past', size)}"
        )


def steps_of(xp: Any, seqlens_k: Any, query_seqlens: Any, batch: int, length: int) -> Steps:
    """How many tokens each entry has and how many are new."""
    if seqlens_k.size != batch or (query_seqlens is not None and query_seqlens.size != batch):
        raise ValueError(
            f"inputs seqlens_k {seqlens_k.shape} and query_seqlens should have one number of {batch}"
        )
    total = xp.astype(xp.reshape(seqlens_k, (batch,)), xp.int64) + 1
    most = xp.minimum(total, length)
    new = most if query_seqlens is None else xp.astype(xp.reshape(query_seqlens, (batch,)), xp.int64)
    if xp.any(total < 1) or xp.any(new < 0) or xp.any(new > most):
        raise ValueError(
            f"inputs seqlens_k={seqlens_k.tolist()} and query_seqlens do not fit a chunk of {length} tokens"
        )
    return Steps(total, new)


@contrib(
    "GroupQueryAttention",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("past_key", "T_CACHE", "optional"),
        ("past_value", "T_CACHE", "optional"),
        ("seqlens_k", "M"),
        ("total_sequence_length", "M"),
        ("cos_cache", "T", "optional"),
        ("sin_cache", "T", "optional"),
        ("position_ids", "tensor(int64)", "optional"),
        ("attention_bias", "T", "optional"),
        ("head_sink", "T", "optional"),
        ("k_scale", "T_KV_SCALE", "optional"),
        ("v_scale", "T_KV_SCALE", "optional"),
        ("q_norm_weight", "T", "optional"),
        ("k_norm_weight", "T", "optional"),
        ("query_seqlens", "M", "optional"),
    ],
    outputs=[
        ("output", "T"),
        ("present_key", "T_CACHE", "optional"),
        ("present_value", "T_CACHE", "optional"),
        ("output_qk", "T", "optional"),
    ],
    types={
        "T": REAL,
        "T_CACHE": (*REAL, "tensor(uint8)", "tensor(int8)", "tensor(float8e4m3fn)"),
        "T_KV_SCALE": ("tensor(float)",),
        "M": INT32,
    },
    attributes={
        "causal": 1,
        "do_rotary": (INT, None),
        "k_norm_epsilon": (FLOAT, None),
        "k_quant_type": "NONE",
        "kv_cache_bit_width": (INT, None),
        "kv_num_heads": INT,
        "local_window_size": -1,
        "num_heads": INT,
        "q_norm_epsilon": (FLOAT, None),
        "qk_norm_epsilon": 9.999999974752427e-07,
        "qk_output": 0,
        "rotary_interleaved": (INT, None),
        "scale": (FLOAT, None),
        "sliding_window_cache": 0,
        "smooth_softmax": -1,
        "softcap": (FLOAT, None),
        "v_quant_type": "NONE",
    },
    infer=infer_grouped,
)
@quiet
def group_query_attention(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    seqlens_k: Any,
    total_sequence_length: Any,
    cos_cache: Any = None,
    sin_cache: Any = None,
    position_ids: Any = None,
    attention_bias: Any = None,
    head_sink: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
    q_norm_weight: Any = None,
    k_norm_weight: Any = None,
    query_seqlens: Any = None,
    *,
    causal: int = 1,
    do_rotary: int = 0,
    k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE",
    kv_cache_bit_width: int | None = None,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    q_norm_epsilon: float | None = None,
    qk_norm_epsilon: float = 1e-6,
    qk_output: int = 0,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sliding_window_cache: int = 0,
    smooth_softmax: int = -1,
    softcap: float = 0.0,
    v_quant_type: str = "NONE",
) -> Any:
    """Attention of new tokens to all so far, several query heads sharing one of keys; then the caches.

    Entry b has ``seqlens_k[b] + 1`` tokens after this step, of which the new ones go to the cache at their
    positions; rows past them are not specified. Query s stands at position (tokens before) + s.
    """
    if causal not in (0, 1) or qk_output not in (0, 1, 2) or total_sequence_length.size != 1:
        raise ValueError(
            f"causal={causal} should be 0 or 1, qk_output={qk_output} 0, 1 or 2, and total_sequence_length "
            f"{total_sequence_length.shape} one number"
        )
    if local_window_size == 0 or local_window_size < -1 or (local_window_size > 0 and not causal):
        raise ValueError(
            f"attribute local_window_size={local_window_size} should be -1 or, if causal, positive"
        )
    q, k, v = unpacked(xp, query, key, value, num_heads, kv_num_heads)
    batch, _, length, size = q.shape
    steps = steps_of(xp, seqlens_k, query_seqlens, batch, length)
    total = int(xp.reshape(total_sequence_length, ()))
    if xp.any(steps.total > total):
        raise ValueError(f"input seqlens_k={seqlens_k.tolist()} reaches past total_sequence_length={total}")
    quantizers = [
        quantizer(xp, side, kind, s, past, kv_num_heads, size, kv_cache_bit_width)
        for side, kind, s, past in (
            ("k", k_quant_type, k_scale, past_key),
            ("v", v_quant_type, v_scale, past_value),
        )
    ]
    half = 2 if any(z and z.bits == 4 for z in quantizers) else 1
    check_past(past_key, past_value, batch, kv_num_heads, size // half)

    if q_norm_weight is not None and k_norm_weight is not None:
        q = head_norm(xp, "q_norm_weight", q, q_norm_weight, q_norm_epsilon or qk_norm_epsilon)
        k = head_norm(xp, "k_norm_weight", k, k_norm_weight, k_norm_epsilon or qk_norm_epsilon)
    places = steps.places(xp, length)
    if do_rotary:
        prompt = length == total and query_seqlens is None
        angles = rotary_places(xp, position_ids, places, steps, prompt)
        q = turned(xp, q, cos_cache, sin_cache, angles, rotary_interleaved)
        k = turned(xp, k, cos_cache, sin_cache, angles, rotary_interleaved) if k.shape[2] else k

    stores = [
        cast(xp, x, query.dtype) if z is None else z.pack(xp, x, past.dtype)
        for x, z, past in zip((k, v), quantizers, (past_key, past_value), strict=True)
    ]
    added = Steps(steps.total, xp.minimum(steps.new, k.shape[2]))
    if sliding_window_cache:
        if past_key is None or local_window_size < 1 or past_key.shape[2] < local_window_size:
            raise ValueError(
                "attribute sliding_window_cache=1 needs a past of at least local_window_size > 0 rows"
            )
        pairs = [
            window_step(xp, past, new, added, local_window_size)
            for past, new in zip((past_key, past_value), stores, strict=True)
        ]
        caches, first, valid = [p[0] for p in pairs], pairs[0][1], pairs[0][2]
        presents = [p[3] for p in pairs]
    else:
        capacity = max(total, 0 if past_key is None else past_key.shape[2])
        presents = caches = [
            appended(xp, past, new, added, capacity)
            for past, new in zip((past_key, past_value), stores, strict=True)
        ]
        first, valid = xp.zeros_like(steps.total), steps.total

    used = caches[0].shape[2] if sliding_window_cache else total
    keys, values = (
        wide(xp, c[:, :, :used]) if z is None else z.unpack(xp, c[:, :, :used])
        for c, z in zip(caches, quantizers, strict=True)
    )
    at = first[:, None] + positions(xp, used)[None]
    y, qk = attend(
        xp,
        q,
        keys,
        values,
        scale=scale,
        bias=bias_at(xp, attention_bias, at, (batch, num_heads, length, total), bool(sliding_window_cache)),
        seen=visible(xp, places, at, first + valid, causal, local_window_size),
        softcap=softcap,
        sink=sink_of(xp, head_sink, smooth_softmax, num_heads),
        stage=qk_output,
    )
    y = cast(xp, join_heads(xp, y), query.dtype)
    return (y, *presents) if qk is None else (y, *presents, cast(xp, qk, query.dtype))


def head_norm(xp: Any, name: str, x: Any, weight: Any, epsilon: float) -> Any:
    """Each head's features over the root of their mean square, times the weight."""
    if weight.shape != x.shape[3:]:
        raise ValueError(f"input {name} of shape {weight.shape} should have shape {x.shape[3:]}")
    rows, _ = rms(xp, xp.reshape(x, (math.prod(x.shape[:3]), x.shape[3])), epsilon)
    return xp.reshape(rows, x.shape) * wide(xp, weight)


def rotary_places(xp: Any, position_ids: Any, places: Any, steps: Steps, prompt: bool) -> Any:
    """The position of each row for the rotation: those given, else where it stands (padding rows: anywhere).

    Of the position ids of a first prompt only the first counts, the others follow it: so the operator says.
    """
    if position_ids is None:
        padding = positions(xp, places.shape[1])[None] >= steps.new[:, None]
        return xp.where(padding, 0, places)
    if prompt and position_ids.size:
        row = xp.reshape(position_ids, (-1,))[:1] + positions(xp, places.shape[1])
        return xp.broadcast_to(row, places.shape)
    if position_ids.shape != places.shape:
        raise ValueError(f"input position_ids of shape {position_ids.shape} should have shape {places.shape}")
    return position_ids


def visible(xp: Any, places: Any, at: Any, end: Any, causal: int, window: int) -> Any:
    """Which keys, standing ``at`` (batch, keys) and ending before ``end``, a query at its place may see."""
    key, query = at[:, None, None, :], places[:, None, :, None]
    seen = key < xp.reshape(end, (-1, 1, 1, 1))
    if causal:
        seen = seen & (key <= query)
    if window > 0:
        seen = seen & (key > query - window)
    return seen


def bias_at(xp: Any, bias: Any, at: Any, shape: tuple[int, int, int, int], moved: bool) -> Any:
    """The attention bias of the keys that stand ``at`` their positions."""
    bias = bias_like(xp, "attention_bias", bias, shape)
    if bias is None or not moved:
        return bias
    columns = xp.clip(at, 0, max(shape[3] - 1, 0))[:, None, None, :]
    bias = xp.broadcast_to(bias, (shape[0], *bias.shape[1:]))
    return xp.take_along_axis(bias, xp.broadcast_to(columns, (*bias.shape[:3], at.shape[1])), axis=3)


def sink_of(xp: Any, head_sink: Any, smooth_softmax: int, heads: int) -> Any:
    """The score that takes weight from all, one for each head: the given ones, or 0 if smooth."""
    if head_sink is not None:
        if head_sink.shape != (heads,):
            raise ValueError(f"input head_sink of shape {head_sink.shape} should have shape ({heads},)")
        return xp.astype(head_sink, xp.float32)
    return xp.zeros((heads,), dtype=xp.float32) if smooth_softmax == 1 else None


@contrib(
    "SparseAttention",
    inputs=[
        ("query", "T"),
        ("key", "T", "optional"),
        ("value", "T", "optional"),
        ("past_key", "T"),
        ("past_value", "T"),
        ("block_row_indices", "M"),
        ("block_col_indices", "M"),
        ("total_sequence_length", "M"),
        ("key_total_sequence_lengths", "M"),
        ("cos_cache", "T", "optional"),
        ("sin_cache", "T", "optional"),
    ],
    outputs=[("output", "T"), ("present_key", "T"), ("present_value", "T")],
    types={"T": REAL, "M": INT32},
    attributes={
        "do_rotary": (INT, None),
        "kv_num_heads": INT,
        "num_heads": INT,
        "rotary_interleaved": (INT, None),
        "scale": (FLOAT, None),
        "sparse_block_size": INT,
    },
    infer=infer_grouped,
)
@quiet
def sparse_attention(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    block_row_indices: Any,
    block_col_indices: Any,
    total_sequence_length: Any,
    key_total_sequence_lengths: Any,
    cos_cache: Any = None,
    sin_cache: Any = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sparse_block_size: int,
) -> Any:
    """Causal attention to those blocks of keys that the layout of a head (cyclic) allows a block of queries."""
    q, k, v = unpacked(xp, query, key, value, num_heads, kv_num_heads)
    batch, _, length, size = q.shape
    check_past(past_key, past_value, batch, kv_num_heads, size)
    steps = steps_of(xp, key_total_sequence_lengths - 1, None, batch, length)
    total = int(xp.reshape(total_sequence_length, (-1,))[0])
    if xp.any(steps.total > total) or total > past_key.shape[2]:
        raise ValueError(
            f"input key_total_sequence_lengths={key_total_sequence_lengths.tolist()} does not fit "
            f"total_sequence_length={total} and a cache of {past_key.shape[2]} rows"
        )
    places = steps.places(xp, length)
    if do_rotary:
        angles = rotary_places(xp, None, places, steps, prompt=False)
        q, k = (turned(xp, x, cos_cache, sin_cache, angles, rotary_interleaved) for x in (q, k))
    presents = [
        appended(xp, past, cast(xp, new, past.dtype), steps, past.shape[2])
        for past, new in ((past_key, k), (past_value, v))
    ]
    keys, values = (wide(xp, p[:, :, :total]) for p in presents)
    at = xp.broadcast_to(positions(xp, total)[None], (batch, total))
    blocks = block_mask(xp, block_row_indices, block_col_indices, num_heads)
    if sparse_block_size < 1 or -(-total // sparse_block_size) > blocks.shape[1]:
        raise ValueError(
            f"attribute sparse_block_size={sparse_block_size} does not fit the indices of the blocks"
        )
    # padding queries stand past the last token: any block will do for them
    row = xp.clip(places // sparse_block_size, 0, blocks.shape[1] - 1)
    allowed = xp.permute_dims(blocks[:, row][..., positions(xp, total) // sparse_block_size], (1, 0, 2, 3))
    allowed = xp.take(allowed, xp.arange(num_heads) % blocks.shape[0], axis=1)
    seen = visible(xp, places, at, steps.total, 1, -1) & allowed
    y, _ = attend(xp, q, keys, values, scale=scale, seen=seen)
    return cast(xp, join_heads(xp, y), query.dtype), *presents


def block_mask(xp: Any, rows: Any, columns: Any, heads: int) -> Any:
    """Compressed rows of each layout as bool (layouts, blocks, blocks)."""
    if (
        rows.ndim != 2
        or columns.ndim != 2
        or rows.shape[0] != columns.shape[0]
        or heads % max(rows.shape[0], 1)
    ):
        raise ValueError(
            f"inputs block_row_indices {rows.shape} and block_col_indices {columns.shape} do not fit {heads} heads"
        )
    layouts, blocks = rows.shape[0], rows.shape[1] - 1
    entry = xp.arange(columns.shape[1])
    within = (entry >= rows[:, :-1, None]) & (entry < rows[:, 1:, None])
    layout, row, index = xp.nonzero(within)
    column = columns[layout, index]
    if column.size and (xp.min(column) < 0 or xp.max(column) >= blocks):
        raise ValueError(f"input block_col_indices reaches outside the {blocks} blocks")
    mask = xp.zeros((layouts, blocks, blocks), dtype=xp.bool)
    mask[layout, row, column] = True
    return mask
