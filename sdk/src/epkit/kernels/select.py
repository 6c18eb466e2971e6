"""Operators that pick by value along an axis, and the cumulative ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._axes import one_axis, scalar, wide_type, widened
from .operator import op


@op("TopK", since=1)
def top_k_1(xp: Any, x: Any, *, k: int, axis: int = -1) -> Any:
    """The k largest values along ``axis`` in falling order, and their positions. Opsets 1 to 9."""
    return top_k(xp, x, (k,), axis=axis)


@op("TopK", since=10)
def top_k(xp: Any, x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """The k largest (smallest) values along ``axis`` in order, and their positions.

    Of equal values the one with the lower index comes first. NaN counts as the greatest value. The result
    is in order even if ``sorted`` is 0, which only allows any order. Opset 11 added the last two attributes.
    """
    axis = one_axis(axis, x.ndim)
    count = scalar(k, "K")
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"K is {count}, axis {axis} has {x.shape[axis]} elements")
    rows = xp.moveaxis(x, axis, -1)
    keys = widened(xp, rows)
    if 0 < count < x.shape[axis] // 4 and x.size:
        candidates = best(xp, keys, count, bool(largest))
        order = ranking(xp, xp.take_along_axis(keys, candidates, axis=-1), bool(largest))
        order = xp.take_along_axis(candidates, order, axis=-1)
    else:
        order = ranking(xp, keys, bool(largest))[..., :count]
    order = xp.astype(order, xp.int64, copy=False)
    values = xp.take_along_axis(rows, order, axis=-1)
    return xp.moveaxis(values, -1, axis), xp.moveaxis(order, -1, axis)


def ranking(xp: Any, rows: Any, descending: bool) -> Any:
    """The stable sorting order of each row."""
    if not descending:
        return xp.argsort(rows, axis=-1, stable=True)
    return rows.shape[-1] - 1 - xp.flip(xp.argsort(xp.flip(rows, axis=-1), axis=-1, stable=True), axis=-1)


def best(xp: Any, rows: Any, k: int, largest: bool) -> Any:
    """The positions, rising, of each row's k best values: all beyond the k-th, then the first equal to it."""
    size = rows.shape[-1]
    kth = xp.partition(rows, size - k if largest else k - 1, axis=-1)[
        ..., size - k if largest else k - 1, None
    ]
    if rows.dtype.kind == "f" and bool(xp.any(xp.isnan(rows))):
        return ranking(xp, rows, largest)[..., :k]
    beyond, equal = rows > kth if largest else rows < kth, rows == kth
    missing = k - xp.sum(beyond, axis=-1, keepdims=True)
    chosen = beyond | (equal & (xp.cumsum(equal, axis=-1) <= missing))
    return xp.reshape(xp.nonzero(chosen)[-1], (*rows.shape[:-1], k))


@op("ArgMax", since=1)
def arg_max(xp: Any, x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """The position of the greatest element along ``axis``; of equals the first, or the last (opset 12)."""
    return extreme(xp, x, xp.argmax, axis, keepdims, select_last_index)


@op("ArgMin", since=1)
def arg_min(xp: Any, x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """The position of the least element along ``axis``; of equals the first, or the last (opset 12)."""
    return extreme(xp, x, xp.argmin, axis, keepdims, select_last_index)


def extreme(xp: Any, x: Any, find: Any, axis: int, keepdims: int, last: int) -> Any:
    axis = one_axis(axis, x.ndim)
    if x.shape[axis] == 0:
        raise ValueError(f"axis {axis} of {x.shape} has no element to choose")
    keys = widened(xp, x)
    found = find(xp.flip(keys, axis=axis) if last else keys, axis=axis)
    found = xp.astype(xp.asarray(x.shape[axis] - 1 - found if last else found), xp.int64, copy=False)
    return xp.expand_dims(found, axis=axis) if keepdims else found


@op("CumSum", since=11)
def cum_sum(xp: Any, x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """y[i] = sum of x[j], j <= i (``exclusive``: j < i; ``reverse``: from the end) along ``axis``."""
    return cumulated(xp, x, axis, xp.cumsum, 0, exclusive, reverse)


@op("CumProd", since=26)
def cum_prod(xp: Any, x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """y[i] = product of x[j], j <= i (``exclusive``: j < i; ``reverse``: from the end) along ``axis``."""
    return cumulated(xp, x, axis, xp.cumprod, 1, exclusive, reverse)


@np.errstate(over="ignore", invalid="ignore")
def cumulated(xp: Any, x: Any, axis: Any, scan: Any, start: int, exclusive: int, reverse: int) -> Any:
    """The running sum or product, kept in a type wider than x's."""
    along = one_axis(scalar(axis, "axis"), x.ndim)
    values = xp.flip(x, axis=along) if reverse else x
    if exclusive and x.shape[along]:
        first = xp.full((*x.shape[:along], 1, *x.shape[along + 1 :]), start, dtype=x.dtype)
        kept = values[(slice(None),) * along + (slice(0, -1),)]
        values = xp.concat([first, kept], axis=along)
    wide = xp.float64 if x.dtype == xp.float32 else wide_type(xp, x)
    total = xp.astype(scan(values, axis=along, dtype=wide), x.dtype, copy=False)
    return xp.flip(total, axis=along) if reverse else total
