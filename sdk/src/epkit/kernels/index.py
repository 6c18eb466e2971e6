"""Operators that read or write at positions given by a tensor."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ._axes import choice, in_range, ints, one_axis, wide_type, widened
from .operator import op


@op("Gather", since=1)
def gather(xp: Any, data: Any, indices: Any, *, axis: int = 0) -> Any:
    """Slices of data along ``axis``: data.shape[:axis] + indices.shape + data.shape[axis+1:]."""
    axis = one_axis(axis, data.ndim)
    rows = xp.reshape(in_range(xp, indices, data.shape[axis]), (-1,))
    shape = data.shape[:axis] + indices.shape + data.shape[axis + 1 :]
    # NumPy's take would copy the whole of an unaligned table, as weights inside a model file are
    picked = data[rows] if axis == 0 else xp.take(data, rows, axis=axis)
    return xp.reshape(picked, shape)


@op("GatherElements", since=11)
def gather_elements(xp: Any, data: Any, indices: Any, *, axis: int = 0) -> Any:
    """y[i][j][k] = data[indices[i][j][k]][j][k] for axis 0; y has the shape of the indices."""
    axis = one_axis(axis, data.ndim)
    check_elements(data, indices, axis)
    inner = tuple(slice(None) if i == axis else slice(0, d) for i, d in enumerate(indices.shape))
    index = xp.astype(in_range(xp, indices, data.shape[axis]), xp.int64, copy=False)
    return xp.take_along_axis(data[inner], index, axis=axis)


def check_elements(data: Any, indices: Any, axis: int) -> None:
    """Whether ``indices`` has data's rank, and is nowhere larger except along ``axis``."""
    fits = len(indices.shape) == data.ndim and all(
        i == axis or n <= d for i, (n, d) in enumerate(zip(indices.shape, data.shape, strict=True))
    )
    if not fits:
        raise ValueError(f"indices {indices.shape} do not fit data {data.shape} outside axis {axis}")


@op("GatherND", since=11)
def gather_nd(xp: Any, data: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    """y[i] = data[tuple(indices[i])], per element of the first ``batch_dims`` (opset 12) dimensions."""
    if not 0 <= batch_dims < min(indices.ndim, data.ndim):
        raise ValueError(f"batch_dims {batch_dims} must be less than the ranks {data.ndim}, {indices.ndim}")
    batch = data.shape[:batch_dims]
    if indices.shape[:batch_dims] != batch:
        raise ValueError(f"data {data.shape} and indices {indices.shape} differ in {batch_dims} batch_dims")
    rows = flat_rows(xp, indices, data.shape[batch_dims:])
    depth = batch_dims + indices.shape[-1]
    per_item = prod(data.shape[batch_dims:depth])
    items = xp.reshape(xp.arange(prod(batch)), batch + (1,) * (rows.ndim - batch_dims))
    rows = xp.reshape(rows + items * per_item, (-1,))
    flat = xp.reshape(data, (prod(data.shape[:depth]), *data.shape[depth:]))
    return xp.reshape(xp.take(flat, rows, axis=0), indices.shape[:-1] + data.shape[depth:])


def flat_rows(xp: Any, indices: Any, shape: tuple[int, ...]) -> Any:
    """The index tuples along the last axis as positions in the flattened leading dimensions of ``shape``."""
    depth = indices.shape[-1]
    if depth > len(shape):
        raise ValueError(f"indices hold tuples of {depth} for data of rank {len(shape)}")
    rows = xp.zeros(indices.shape[:-1], dtype=xp.int64)
    for i in range(depth):
        rows = rows * shape[i] + in_range(xp, indices[..., i], shape[i])
    return rows


@op("Scatter", since=9)
@op("ScatterElements", since=11)
def scatter_elements(
    xp: Any, data: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none"
) -> Any:
    """data with y[indices[i][j]][j] = updates[i][j] for axis 0, or reduced with it.

    ``reduction`` came with opset 16 (add, mul) and 18 (max, min); with ``none`` the last update stays.
    """
    axis = one_axis(axis, data.ndim)
    check_elements(data, indices, axis)
    if updates.shape != indices.shape:
        raise ValueError(f"updates {updates.shape} and indices {indices.shape} differ in shape")
    rows = xp.zeros((1,) * data.ndim, dtype=xp.int64)
    for i, size in enumerate(data.shape):
        if i == axis:
            place = in_range(xp, indices, size)
        else:
            place = xp.reshape(xp.arange(indices.shape[i]), (-1,) + (1,) * (data.ndim - 1 - i))
        rows = rows * size + place
    flat = scattered(
        xp, xp.reshape(data, (-1,)), xp.reshape(rows, (-1,)), xp.reshape(updates, (-1,)), reduction
    )
    return xp.reshape(flat, data.shape)


@op("ScatterND", since=11)
def scatter_nd(xp: Any, data: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    """data with y[tuple(indices[i])] = updates[i], or reduced with it.

    ``reduction`` came with opset 16 (add, mul) and 18 (max, min); with ``none`` the last update stays.
    """
    rows = xp.reshape(flat_rows(xp, indices, data.shape), (-1,))
    depth = indices.shape[-1]
    rest = data.shape[depth:]
    if updates.shape != indices.shape[:-1] + rest:
        raise ValueError(f"updates {updates.shape} should have the shape {indices.shape[:-1] + rest}")
    flat = xp.reshape(data, (prod(data.shape[:depth]), *rest))
    result = scattered(xp, flat, rows, xp.reshape(updates, (rows.shape[0], *rest)), reduction)
    return xp.reshape(result, data.shape)


REDUCTIONS = {"none": "", "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


def scattered(xp: Any, data: Any, rows: Any, updates: Any, reduction: str) -> Any:
    """A copy of ``data`` with ``updates`` written to, or reduced into, its ``rows``."""
    choice(reduction, tuple(REDUCTIONS), "reduction")
    if reduction == "none":
        result = xp.asarray(data, copy=True)
        result[rows] = updates
        return result
    result = xp.astype(data, wide_type(xp, data), copy=True)
    with np.errstate(all="ignore"):
        getattr(xp, REDUCTIONS[reduction]).at(result, rows, widened(xp, updates))
    return xp.astype(result, data.dtype, copy=False)


@op("TensorScatter", since=24)
def tensor_scatter(
    xp: Any, past_cache: Any, update: Any, write_indices: Any = None, *, axis: int = -2, mode: str = "linear"
) -> Any:
    """The cache with item b's update at write_indices[b] (modulo its length if circular) along ``axis``."""
    axis = one_axis(axis, past_cache.ndim)
    batch, length, steps = past_cache.shape[0], past_cache.shape[axis], update.shape[axis]
    starts = (0,) * batch if write_indices is None else ints(write_indices)
    if axis == 0 or update.shape != past_cache.shape[:axis] + (steps,) + past_cache.shape[axis + 1 :]:
        raise ValueError(f"update {update.shape} and cache {past_cache.shape} differ outside axis {axis}")
    if len(starts) != batch or steps > length:
        raise ValueError(f"{len(starts)} write_indices and {steps} steps do not fit cache {past_cache.shape}")
    if choice(mode, ("linear", "circular"), "mode") == "linear" and any(
        not 0 <= s <= length - steps for s in starts
    ):
        raise ValueError(f"write_indices {starts} with {steps} steps leave the cache of length {length}")
    place = (xp.asarray(starts, dtype=xp.int64)[:, None] + xp.arange(steps)) % max(length, 1)
    result = xp.asarray(past_cache, copy=True)
    moved = xp.moveaxis(result, axis, 1)
    moved[xp.arange(batch)[:, None], place] = xp.moveaxis(update, axis, 1)
    return result


@op("Compress", since=9)
def compress(xp: Any, x: Any, condition: Any, *, axis: int | None = None) -> Any:
    """The slices along ``axis`` (without it: the elements of x flattened) where the condition holds."""
    if axis is None:
        x, axis = xp.reshape(x, (-1,)), 0
    axis = one_axis(axis, x.ndim)
    chosen = xp.nonzero(condition)[0]
    return xp.take(x, in_range(xp, chosen, x.shape[axis], "condition's true positions"), axis=axis)


@op("NonZero", since=9)
def non_zero(xp: Any, x: Any) -> Any:
    """[rank, count]: the positions of the elements that are not zero, in row-major order."""
    found = x != ("" if x.dtype.kind in "OUT" else xp.zeros((), dtype=x.dtype))
    if x.ndim == 0:
        return xp.zeros((0, int(found)), dtype=xp.int64)
    return xp.astype(xp.stack(xp.nonzero(found)), xp.int64, copy=False)


@op("Unique", since=11)
def unique(xp: Any, x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    """The distinct elements (or slices along ``axis``), their first positions, the inverse, the counts.

    In ascending order, or with ``sorted=0`` in the order of first occurrence.
    """
    if axis is not None:
        axis = one_axis(axis, x.ndim)
    if axis is None or x.ndim == 1:
        x, axis = xp.reshape(x, (-1,)), 0
        keys = x
    else:
        keys = xp.reshape(xp.moveaxis(ranks(xp, x), axis, 0), (x.shape[axis], -1))
    _, first, inverse, counts = distinct(xp, keys)
    if not sorted:
        order = xp.argsort(first)
        first, counts, inverse = first[order], counts[order], xp.argsort(order)[inverse]
    return (
        xp.take(x, first, axis=axis),
        *(xp.astype(v, xp.int64, copy=False) for v in (first, inverse, counts)),
    )


def ranks(xp: Any, x: Any) -> Any:
    """Integers that compare as the elements of x do; strings and NaN become comparable in rows by it."""
    return xp.reshape(distinct(xp, xp.reshape(x, (-1,)))[2], x.shape)


def distinct(xp: Any, keys: Any) -> Any:
    """The distinct rows of ``keys``, their first positions, the inverse and the counts."""
    keys = widened(xp, keys)
    values, first, inverse, counts = xp.unique(
        keys, return_index=True, return_inverse=True, return_counts=True, axis=0 if keys.ndim > 1 else None
    )
    return values, first, xp.reshape(inverse, (-1,)), counts
