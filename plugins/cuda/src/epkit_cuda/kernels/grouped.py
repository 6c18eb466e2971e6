"""GroupQueryAttention of com.microsoft: rotary embedding and both caches in one kernel, then attention.

Entry b has ``seqlens_k[b] + 1`` tokens after a step; the new ones go to the cache at their places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, on_host, stream_of
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .attention import TYPES, Scores, attend_rounded, result, split

BLOCK, GRID = 256, 1 << 16
KEY, VALUE, PAST_KEY, PAST_VALUE, COSINES, SINES, IDS, BIAS = 1, 2, 3, 4, 7, 8, 9, 10
"""Inputs that may be absent."""


def caches_source(c_type: str, *, turned: bool, interleaved: bool = False) -> str:
    """The caches with the new tokens in them and, ``turned`` by their places, the new keys and the queries."""
    pair = "d ^ 1" if interleaved else "d < pairs ? d + pairs : d - pairs"
    first = "!(d & 1)" if interleaved else "d < pairs"
    angle = "d / 2" if interleaved else "d % pairs"
    place = "ids ? (prompt ? ids[0] + s : ids[(long long)b * length + s]) : s < fresh ? before + s : 0"
    turn = f"""
    const long long place = {place};
    if (place < 0 || place >= angles) {{ atomicOr(fault, 1); return x[d]; }}
    if (d >= 2 * pairs) return x[d];
    const C c = widen(cosines[place * pairs + ({angle})]), z = widen(sines[place * pairs + ({angle})]);
    const C mine = widen(x[d]), other = widen(x[{pair}]);
    return stored_as<T>({first} ? mine * c - other * z : mine * c + other * z);"""
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
__device__ inline T turned(const T* x, int d, int b, int s, int length, int before, int fresh, int pairs, int angles,
    int prompt, const T* cosines, const T* sines, const long long* ids, int* fault) {{
{turn if turned else "return x[d];"}
}}
extern "C" __global__ void caches(long long n, long long n_keys, int heads, int groups, int length, int size,
    int given, int kept, int total, int pairs, int angles, int prompt,
    long long q_row, long long k_row, long long v_row,
    const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, const T* __restrict__ past_keys,
    const T* __restrict__ past_values, const int* __restrict__ lengths, const T* __restrict__ cosines,
    const T* __restrict__ sines, const long long* __restrict__ ids, T* __restrict__ keys, T* __restrict__ values,
    T* __restrict__ queries, int* fault) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const bool query = i >= 2 * n_keys, value = !query && i >= n_keys;
    const long long at = query ? i - 2 * n_keys : value ? i - n_keys : i, row = at / size;
    const int d = (int)(at % size), rows = query ? length : total, each = query ? heads : groups;
    const int j = (int)(row % rows), h = (int)(row / rows % each), b = (int)(row / rows / each);
    const int present = lengths[b] + 1, before = present > length ? present - length : 0;
    if (present < 1 || present > total) {{ atomicOr(fault, 1); continue; }}
    const int fresh = present - before, s = query ? j : j - before;
    if (query) {{
      const T* x = q + ((long long)b * length + s) * q_row + h * size;
      queries[at] = turned(x, d, b, s, length, before, fresh, pairs, angles, prompt, cosines, sines, ids, fault);
    }} else if (s >= 0 && s < fresh && s < given) {{
      const long long token = (long long)b * given + s;
      if (value) values[at] = v[token * v_row + h * size + d];
      else keys[at] = turned(k + token * k_row + h * size, d, b, s, length, before, fresh, pairs, angles, prompt,
          cosines, sines, ids, fault);
    }} else {{
      const T* past = value ? past_values : past_keys;
      T found = {{}};
      if (j < kept) found = past[(((long long)b * groups + h) * kept + j) * size + d];
      (value ? values : keys)[at] = found;
    }}
  }}
}}
"""


def seen_source(c_type: str, *, bias: bool) -> str:
    """Which of ``total`` keys each of ``length`` queries sees; with a bias, that where it sees, else -infinity."""
    kind = c_type if bias else "bool"
    hidden = "narrow(-INFINITY, out[i]);" if bias else "out[i] = false;"
    seen = "out[i] = bias[b * b_b + h * b_h + s * b_s + j * b_j];" if bias else "out[i] = true;"
    return f"""{PRELUDE}
extern "C" __global__ void seen(long long n, int heads, int length, int total, int window, int causal, long long b_b,
    long long b_h, long long b_s, long long b_j, const int* __restrict__ lengths,
    const {kind}* __restrict__ bias, {kind}* __restrict__ out) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const int j = (int)(i % total), s = (int)(i / total % length), h = (int)(i / total / length % heads);
    const long long b = i / total / length / heads;
    const int present = lengths[b] + 1, before = present > length ? present - length : 0, last = before + s;
    const bool sees = j < present && (!causal || j <= last) && (window < 0 || j > last - window);
    if (sees) {{ {seen} }} else {{ {hidden} }}
  }}
}}
"""


@dataclass(frozen=True)
class Sizes:
    """Of one step.

    Attributes:
        batch, heads, groups, length, size: queries are [batch, length, heads size]; ``groups`` heads of keys.
        kept, total, capacity: rows of the old caches, tokens after this step at most, rows of the new caches.
    """

    batch: int
    heads: int
    groups: int
    length: int
    size: int
    kept: int
    total: int

    @property
    def capacity(self) -> int:
        """Rows of the caches after this step."""
        return max(self.kept, self.total)


def takes(node: Any) -> bool | str:
    """Plain caches, causal or not, with windows and a bias; no norms, sinks, quantised caches or scores as results."""
    attributes = attribute_values(node)
    given = [value for value in node.inputs if value is not None and value.name]
    extra = [value for value in node.inputs[11:] if value is not None and value.name]
    odd = [name for name in ("sliding_window_cache", "qk_output") if attributes.get(name, 0)]
    odd += ["smooth_softmax"] * (attributes.get("smooth_softmax", -1) > 0)
    odd += [name for name in ("k_quant_type", "v_quant_type") if attributes.get(name, "NONE") != "NONE"]
    if extra or odd:
        return f"{', '.join([*(str(value.name) for value in extra), *odd])}: the kernel knows none of these"
    if len(node.outputs) > 3 and node.outputs[3].name:
        return "the kernel does not give the scores"
    if len(node.outputs) < 3 or not all(value.name for value in node.outputs[1:3]):
        return "the kernel gives both caches"
    kinds = {element_type(value) for value in given} - {"int32", "int64"}
    return (
        len(kinds) == 1 and kinds <= TYPES
    ) or f"the kernel takes one of {sorted(TYPES)}, found {sorted(kinds)}"


def parts_of(
    context: RunContext, q: Tensor, k: Tensor | None, v: Tensor | None, sizes: tuple[int, int]
) -> list[Any]:
    """Queries, keys and values [B, L, heads size], views of one array where they are packed."""
    heads, groups = sizes
    if (k is None) != (v is None):
        raise ValueError("key and value should be given together")
    if heads < 1 or groups < 1 or heads % groups:
        raise ValueError(f"num_heads={heads} and kv_num_heads={groups} do not fit together")
    whole = dense(context, q)
    if k is None or v is None:
        size = whole.shape[2] // (heads + 2 * groups)
        ends = (heads * size, (heads + groups) * size)
        return [whole[:, :, : ends[0]], whole[:, :, ends[0] : ends[1]], whole[:, :, ends[1] :]]
    found = [whole, dense(context, k), dense(context, v)]
    rows = (
        found[1].shape[0],
        found[1].shape[1] or whole.shape[1],
    )  # without rows: all of them are in the cache
    if found[1].shape != found[2].shape or rows != whole.shape[:2]:
        raise ValueError(f"query {q.shape}, key {k.shape} and value {v.shape} do not fit together")
    return found


def store(
    context: RunContext,
    node: Any,
    parts: list[Any],
    rest: tuple[Tensor | None, ...],
    sizes: Sizes,
    way: dict[str, int],
) -> tuple[Any, Tensor, Tensor]:
    """Queries [B, H, L, D], and both caches after this step.

    Args:
        rest: past keys and values, lengths, cosines, sines and positions.
        way: ``rotary`` and ``interleaved``.
    """
    past_keys, past_values, lengths, cosines, sines, ids = rest
    assert lengths is not None
    xp = stream_of(context).machine.xp
    dtype, turns = parts[0].dtype, bool(way["rotary"])
    shape = (sizes.batch, sizes.groups, sizes.capacity, sizes.size)
    keys, values = (context.empty(node.outputs[index], shape, dtype) for index in (1, 2))
    queries = split(parts[0], sizes.heads, "query")
    pairs = angles = 0
    if turns:
        if cosines is None or sines is None or cosines.ndim != 2 or cosines.shape != sines.shape:
            raise ValueError("do_rotary needs cos_cache and sin_cache of equal shapes with two axes")
        angles, pairs = cosines.shape
        if not 0 < 2 * pairs <= sizes.size:
            raise ValueError(f"{pairs} angles do not turn {sizes.size} features")
        queries = xp.empty((sizes.batch, sizes.heads, sizes.length, sizes.size), dtype)
    prompt = sizes.length == sizes.total
    if ids is not None and not prompt and ids.size != sizes.batch * sizes.length:
        raise ValueError(f"position_ids of shape {ids.shape} should have one number for each token")
    n_keys = keys.size
    count = 2 * n_keys + (queries.size if turns else 0)
    numbers: list[np.generic] = [np.int64(count), np.int64(n_keys)]
    fresh = parts[1].shape[1]
    numbers += map(np.int32, (sizes.heads, sizes.groups, sizes.length, sizes.size, fresh, sizes.kept))
    numbers.append(np.int32(sizes.capacity))
    numbers += map(np.int32, (pairs, angles, prompt))
    rows = [np.int64(part.strides[1] // dtype.itemsize) for part in parts]
    held = [keys.array if item is None else dense(context, item) for item in (past_keys, past_values)]
    table = [parts[0] if item is None else dense(context, item) for item in (cosines, sines)]
    places = np.uint64(0) if ids is None or not turns else dense(context, ids)
    fault = stream_of(context).fault(str(node.name))
    arguments = [*numbers, *rows, *parts, *held, dense(context, lengths), *table, places]
    arguments += [keys.array, values.array, queries if turns else keys.array, fault]
    source = caches_source(stored(dtype), turned=turns, interleaved=bool(way["interleaved"]))
    launch(context, source, "caches", min(GRID, -(-count // BLOCK)), BLOCK, arguments)
    return queries, keys, values


def visible(
    context: RunContext,
    lengths: Tensor,
    bias: Tensor | None,
    sizes: Sizes,
    window: int,
    causal: int,
    dtype: Any,
) -> Any:
    """The mask of what each query sees: bool, or of the data's type where there is a bias."""
    xp = stream_of(context).machine.xp
    given = None if bias is None else dense(context, bias)
    wanted = (sizes.batch, sizes.heads, sizes.length, sizes.total)
    if given is not None and (
        given.ndim != 4 or any(a not in (1, b) for a, b in zip(given.shape, wanted, strict=True))
    ):
        raise ValueError(f"attention_bias of shape {given.shape} does not fit scores of shape {wanted}")
    heads = 1 if given is None else given.shape[1]
    out = xp.empty((sizes.batch, heads, *wanted[2:]), np.bool_ if given is None else dtype)
    steps = [0] * 4
    if given is not None:
        each = given.dtype.itemsize
        steps = [0 if n == 1 else step // each for n, step in zip(given.shape, given.strides, strict=True)]
    numbers = [np.int64(out.size), *map(np.int32, (heads, sizes.length, sizes.total, window, causal))]
    arguments = [
        *numbers,
        *map(np.int64, steps),
        dense(context, lengths),
        out if given is None else given,
        out,
    ]
    source = seen_source(stored(dtype), bias=given is not None)
    launch(context, source, "seen", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)
    return out


def group_query_kernels(precision: str) -> list[Kernel]:
    """GroupQueryAttention in a precision."""

    @kernel("GroupQueryAttention", domain="com.microsoft", when=takes)
    def group_query_attention(
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        past_key: Tensor | None,
        past_value: Tensor | None,
        lengths: Tensor,
        most: Tensor,
        cosines: Tensor | None = None,
        sines: Tensor | None = None,
        ids: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        causal: int = 1,
        do_rotary: int = 0,
        kv_num_heads: int,
        local_window_size: int = -1,
        num_heads: int,
        rotary_interleaved: int = 0,
        scale: float = 0.0,
        softcap: float = 0.0,
        context: RunContext,
        node: Any,
    ) -> tuple[Tensor, ...]:
        """New tokens against all so far, several heads of queries sharing one of keys."""
        parts = parts_of(context, query, key, value, (num_heads, kv_num_heads))
        batch, length = parts[0].shape[:2]
        size, total = parts[0].shape[2] // num_heads, int(on_host(context, most).reshape(-1)[0])
        kept = 0 if past_key is None else past_key.shape[2]
        sizes = Sizes(batch, num_heads, kv_num_heads, length, size, kept, total)
        if past_key is not None and past_key.shape != (batch, kv_num_heads, kept, size):
            raise ValueError(
                f"past_key of shape {past_key.shape} does not fit a query of shape {query.shape}"
            )
        if (past_value is None) != (past_key is None) or (past_value and past_value.shape != past_key.shape):  # type: ignore[union-attr]
            raise ValueError("past_key and past_value should be given together, of one shape")
        if lengths.size != batch or length > total:
            raise ValueError(
                f"seqlens_k {lengths.shape} and total_sequence_length {total} do not fit {query.shape}"
            )
        rest = (past_key, past_value, lengths, cosines, sines, ids)
        way = {"rotary": do_rotary, "interleaved": rotary_interleaved}
        queries, keys, values = store(context, node, parts, rest, sizes, way)
        out, view = result(context, node, query, (batch, num_heads, length, size))
        known = lengths.host if batch == 1 else None
        alike = length == total or (known is not None and int(known.reshape(-1)[0]) + 1 == total)
        lengths.asked |= known is not None
        plain = alike and local_window_size < 0 and causal and bias is None
        mask = (
            None if plain else visible(context, lengths, bias, sizes, local_window_size, causal, query.dtype)
        )
        how = Scores(scale or 1 / math.sqrt(size), softcap, total - length if plain else None, precision)
        operands = [queries, *(item.array[:, :, :total] for item in (keys, values))]
        attend_rounded(context, operands, mask, view, how)
        return out, keys, values

    return [group_query_attention]


def sources() -> list[str]:
    """Every source that these kernels launch."""
    found = []
    for t in ("float", "f16", "bf16"):
        found += [
            caches_source(t, turned=False),
            *(caches_source(t, turned=True, interleaved=x) for x in (False, True)),
        ]
        found.append(seen_source(t, bias=True))
    return [*found, seen_source("float", bias=False)]
