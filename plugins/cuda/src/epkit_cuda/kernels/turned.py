"""Queries and keys turned by their positions, and both caches with the new tokens: one kernel.

What was kept moves by sixteen bytes; a new token's numbers are turned one by one. Su et al., "RoFormer" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import RunContext

from ..launch import launch, stream_of
from ..source import PRELUDE, computed, stored

BLOCK, GRID = 256, 1 << 16
WIDTH = 16
"""Bytes that a thread moves."""


def turned_source(kind: str, pack: int, *, interleaved: bool) -> str:
    """Keys and values [B, G, P + L, D], then queries [B, H, L, D]; ``pack`` elements a thread."""
    pair = "d ^ 1" if interleaved else "d < pairs ? d + pairs : d - pairs"
    first = "!(d & 1)" if interleaved else "d < pairs"
    angle = "d / 2" if interleaved else "d % pairs"
    return f"""{PRELUDE}
typedef {kind} T; typedef {computed(kind)} C;
struct alignas({pack} * sizeof(T)) Pack {{ T v[{pack}]; }};
extern "C" __global__ void turned(int n, int n_keys, int heads, int groups, int length, int packs, int kept, int pairs,
    int angles, long long q_row, long long k_row, long long v_row, const T* __restrict__ q, const T* __restrict__ k,
    const T* __restrict__ v, const T* __restrict__ past_keys, const T* __restrict__ past_values,
    const T* __restrict__ cosines, const T* __restrict__ sines, const long long* __restrict__ ids,
    T* __restrict__ keys, T* __restrict__ values, T* __restrict__ queries, int* fault) {{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const bool query = i >= 2 * n_keys, value = !query && i >= n_keys;
  const int at = query ? i - 2 * n_keys : value ? i - n_keys : i, row = at / packs, c = at % packs;
  const int rows = query ? length : kept + length, each = query ? heads : groups;
  const int j = row % rows, h = row / rows % each, s = query ? j : j - kept;
  const long long b = row / rows / each;
  Pack* out = (Pack*)(query ? queries : value ? values : keys) + at;
  if (s < 0) {{
    *out = ((const Pack*)(value ? past_values : past_keys))[((b * groups + h) * kept + j) * packs + c];
    return;
  }}
  const long long token = b * length + s;
  const T* x = query ? q + token * q_row : value ? v + token * v_row : k + token * k_row;
  x += (long long)h * packs * {pack};
  Pack made = ((const Pack*)x)[c];
  if (!value) {{
    const long long place = ids[token];
    if (place < 0 || place >= angles) {{ atomicOr(fault, 1); return; }}
    for (int e = 0; e < {pack}; e++) {{
      const int d = c * {pack} + e;
      if (d >= 2 * pairs) continue;
      const C cosine = widen(cosines[place * pairs + ({angle})]), sine = widen(sines[place * pairs + ({angle})]);
      const C mine = widen(made.v[e]), other = widen(x[{pair}]);
      narrow({first} ? mine * cosine - other * sine : mine * cosine + other * sine, made.v[e]);
    }}
  }}
  *out = made;
}}
"""


@dataclass(frozen=True)
class Turns:
    """What the kernel reads, and where it writes; arrays with a dense last axis.

    Attributes:
        parts: queries [B, L, H D], keys and values [B, L, G D].
        pasts: keys and values [B, G, P, D], dense, or two times None.
        angles: cosines and sines [positions, pairs], dense.
        ids: positions of the new tokens, int64, dense.
        made: keys and values [B, G, P + L, D] and queries [B, H, L, D].
    """

    parts: Sequence[Any]
    pasts: Sequence[Any]
    angles: Sequence[Any]
    ids: Any
    made: Sequence[Any]

    def launch(self, context: RunContext, node: str, *, interleaved: bool) -> None:
        """Enqueue it."""
        keys, values, queries = self.made
        batch, heads, length, size = queries.shape
        groups, kept = keys.shape[1], keys.shape[2] - length
        pack = self._pack()
        counts = [item.size // pack for item in (keys, queries)]
        positions, pairs = self.angles[0].shape
        sizes = (
            2 * counts[0] + counts[1],
            counts[0],
            heads,
            groups,
            length,
            size // pack,
            kept,
            pairs,
            positions,
        )
        rows = [np.int64(part.strides[1] // part.dtype.itemsize) for part in self.parts]
        pasts = [keys if past is None else past for past in self.pasts]
        arguments = [*map(np.int32, sizes), *rows, *self.parts, *pasts, *self.angles, self.ids]
        arguments += [keys, values, queries, stream_of(context).fault(node)]
        source = turned_source(stored(keys.dtype), pack, interleaved=interleaved)
        launch(context, source, "turned", -(-sizes[0] // BLOCK), BLOCK, arguments)

    def _pack(self) -> int:
        """Elements that a thread moves: sixteen bytes where every row begins and ends at a multiple of it."""
        arrays = [*self.parts, *(past for past in self.pasts if past is not None), *self.made]
        width = self.made[2].shape[3] * self.made[2].dtype.itemsize
        whole = width % WIDTH == 0 and all(
            array.data.ptr % WIDTH == 0 and all(step % WIDTH == 0 for step in array.strides[:-1])
            for array in arrays
        )
        return int(WIDTH // self.made[2].dtype.itemsize) if whole else 1


MOST = 2**31 - 1
"""Elements that the kernel counts to."""


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [
        turned_source(kind, pack, interleaved=interleaved)
        for kind, whole in (("float", 4), ("f16", 8), ("bf16", 8))
        for pack in (1, whole)
        for interleaved in (False, True)
    ]
