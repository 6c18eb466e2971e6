"""Keys and values of tokens before, and the new ones after them: both caches in one kernel, moved as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE

BLOCK, GRID = 256, 1 << 16
MOVED = {2: "unsigned short", 4: "unsigned int", 16: "Sixteen"}
"""What a thread moves, by bytes."""


def append_source(each: int) -> str:
    """out[b, g, j] = past[b, g, j] for j < kept, else fresh[b, g, j - kept]; keys first, then values."""
    return f"""{PRELUDE}
struct alignas(16) Sixteen {{ unsigned v[4]; }};
typedef {MOVED[each]} T;
extern "C" __global__ void append(long long n, long long n_keys, int groups, int kept, int total, int key_size,
    int value_size, long long k_b, long long k_h, long long k_i, long long v_b, long long v_h, long long v_i,
    const T* __restrict__ past_keys, const T* __restrict__ keys, const T* __restrict__ past_values,
    const T* __restrict__ values, T* __restrict__ all_keys, T* __restrict__ all_values) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {{
    const bool key = i < n_keys;
    const long long at = key ? i : i - n_keys;
    const int size = key ? key_size : value_size;
    const long long row = at / size, head = row / total;
    const int d = (int)(at % size), j = (int)(row % total);
    const T* past = key ? past_keys : past_values;
    const long long place = key ? head / groups * k_b + head % groups * k_h + (j - kept) * k_i
                                : head / groups * v_b + head % groups * v_h + (j - kept) * v_i;
    const T found = j < kept ? past[(head * kept + j) * size + d] : (key ? keys : values)[place + d];
    (key ? all_keys : all_values)[at] = found;
  }}
}}
"""


def appended(
    context: RunContext, node: Any, pasts: Sequence[Tensor | None], fresh: Sequence[Any], first: int = 1
) -> tuple[Tensor, Tensor]:
    """Keys and values [B, G, P + L, D] of what was kept [B, G, P, D] and what is new; without a past, the new ones.

    Args:
        pasts: keys and values, or two times None.
        fresh: views [B, G, L, D], the last axis dense.
        first: index of the node's output for the keys; that of the values follows. The results are these
            outputs where they are named.
    """
    past_keys, past_values = pasts
    if past_keys is None or past_values is None:
        if past_keys is not past_values:
            raise ValueError("keys and values of the past should be given together")
        return Tensor(fresh[0]), Tensor(fresh[1])
    kept, groups = past_keys.shape[2], fresh[0].shape[1]
    for past, new in zip((past_keys, past_values), fresh, strict=True):
        if past.shape != (*new.shape[:2], kept, new.shape[3]):
            raise ValueError(f"a past of shape {past.shape} does not fit new ones of shape {new.shape}")
    total = kept + fresh[0].shape[2]
    made = [_result(context, node, first + index, new, total) for index, new in enumerate(fresh)]
    given = [dense(context, past_keys), fresh[0], dense(context, past_values), fresh[1]]
    each = _bytes_moved(given, made)
    width = fresh[0].dtype.itemsize
    sizes = [item.shape[3] * width // each for item in fresh]
    steps = [np.int64(step // each) for item in fresh for step in item.strides[:3]]
    counts = [tensor.size * width // each for tensor in made]
    numbers = [np.int64(sum(counts)), np.int64(counts[0]), *map(np.int32, (groups, kept, total, *sizes))]
    arguments = [*numbers, *steps, *given, *(tensor.array for tensor in made)]
    launch(context, append_source(each), "append", min(GRID, -(-sum(counts) // BLOCK)), BLOCK, arguments)
    return made[0], made[1]


def _result(context: RunContext, node: Any, index: int, fresh: Any, total: int) -> Tensor:
    """Memory of the core where it is a result."""
    shape = (*fresh.shape[:2], total, fresh.shape[3])
    if len(node.outputs) > index and node.outputs[index].name:
        made: Tensor = context.empty(node.outputs[index], shape, fresh.dtype)
        return made
    return Tensor(stream_of(context).machine.xp.empty(shape, fresh.dtype))


def _bytes_moved(given: Sequence[Any], made: Sequence[Tensor]) -> int:
    """Sixteen where every row begins and ends at a multiple of it, else an element."""
    arrays = [*given, *(tensor.array for tensor in made)]
    whole = all(
        array.data.ptr % 16 == 0
        and array.shape[3] * array.dtype.itemsize % 16 == 0
        and all(step % 16 == 0 for step in array.strides[:3])
        for array in arrays
    )
    return 16 if whole else int(given[1].dtype.itemsize)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [append_source(each) for each in MOVED]
