"""TopK: on a CPU each row is walked once, elsewhere every element counts those that come before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epkit.backend import RunContext, kernel

from ..launch import c_type, download, empty, launch, pragma
from ..memory import ClStream, Tensor
from .formulas import NUMBERS
from .indexing import rows
from .movement import fresh
from .views import whole_axes

TYPES = {"T": NUMBERS}


def _before(largest: bool, x: str, y: str) -> str:
    """True if x comes before y: NaN counts as the greatest value."""
    a, b = (x, y) if largest else (y, x)
    return f"({a} > {b} || ({a} != {a} && {b} == {b}))"


def walked(t: str, largest: bool) -> str:
    """One work-item a row; an element that beats the worst of those kept is put in its place among them."""
    return f"""{pragma([t])}
__kernel void top(const int lines, const int size, const int inner, const int k, __global const {t}* p, const long op,
                  __global {t}* q, const long oq, __global long* w, const long ow) {{
  const int i = get_global_id(0);
  if (i >= lines) return;
  p += op + (long)(i / inner) * size * inner + i % inner;
  q += oq + (long)(i / inner) * k * inner + i % inner;
  w += ow + (long)(i / inner) * k * inner + i % inner;
  int held = 0;
  for (int j = 0; j < size; j++) {{
    const {t} v = p[(long)j * inner];
    if (held == k && !{_before(largest, "v", "q[(long)(k - 1) * inner]")}) continue;
    int at = held < k ? held++ : k - 1;
    for (; at > 0; at--) {{
      const {t} other = q[(long)(at - 1) * inner];
      if (!{_before(largest, "v", "other")}) break;
      q[(long)at * inner] = other;
      w[(long)at * inner] = w[(long)(at - 1) * inner];
    }}
    q[(long)at * inner] = v;
    w[(long)at * inner] = j;
  }}
}}
"""


def counted(t: str, largest: bool) -> str:
    """One work-item an element: how many come before it is its place."""
    return f"""{pragma([t])}
__kernel void top(const int n, const int size, const int inner, const int k, __global const {t}* p, const long op,
                  __global {t}* q, const long oq, __global long* w, const long ow) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int c = i % inner, j = i / inner % size;
  const long row = i / inner / size;
  p += op + row * size * inner + c;
  const {t} v = p[(long)j * inner];
  int place = 0;
  for (int o = 0; o < size && place < k; o++) {{
    const {t} u = p[(long)o * inner];
    place += {_before(largest, "u", "v")} || (o < j && !{_before(largest, "v", "u")});
  }}
  if (place < k) {{
    const long to = (row * k + place) * inner + c;
    q[oq + to] = v;
    w[ow + to] = j;
  }}
}}
"""


def best(
    context: RunContext, node: Any, x: Tensor, k: int, axis: int, largest: bool
) -> tuple[Tensor, Tensor]:
    """The first k in order along an axis, and where they were.

    Raises:
        ValueError: if the axis has fewer than k elements.
    """
    (at,) = whole_axes([axis], x.ndim)
    size, inner = x.shape[at], math.prod(x.shape[at + 1 :])
    if not 0 <= k <= size:
        raise ValueError(f"K is {k}, axis {axis} has {size} elements")
    shape = (*x.shape[:at], k, *x.shape[at + 1 :])
    values = fresh(context, node, shape, x)
    places: Tensor = empty(context, node.outputs[1], shape, np.dtype(np.int64))
    assert isinstance(context.stream, ClStream)
    is_cpu = context.stream.gpu.is_cpu
    source = (walked if is_cpu else counted)(c_type(x.dtype), largest)
    count = x.size // max(1, size) if is_cpu else x.size
    extent, group = rows(count)
    arguments = [count, size, max(1, inner), k, x, values, places]
    launch(context, source, "top", extent if values.size else [0], arguments, group=[1] if is_cpu else group)
    return values, places


@kernel("TopK", until=9, types=TYPES)
def top_k_1(x: Tensor, *, k: int, axis: int = -1, context: RunContext, node: Any) -> tuple[Tensor, Tensor]:
    """The k largest, by attribute."""
    return best(context, node, x, k, axis, True)


@kernel("TopK", since=10, types=TYPES)
def top_k(
    x: Tensor,
    k: Tensor,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
    context: RunContext,
    node: Any,
) -> tuple[Tensor, Tensor]:
    """The k largest or smallest; in order even where any order would do."""
    return best(context, node, x, int(download(context, k).reshape(-1)[0]), axis, bool(largest))


KERNELS = (top_k_1, top_k)
