"""The systolic array: products of 8-bit numbers, summed in int32.

Nothing is written here: an instruction gives the place of its result, and the numbers that come there when it ends.

Sums are computed by a floating-point matrix product in which every partial sum is exact: in float32 while all
stay below 2^24 in size, else in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from .. import isa

Array = np.ndarray[Any, Any]
Result = tuple[Array, Array]
"""The place of a result in memory, and the numbers that come there."""

DTYPES = tuple(np.dtype(name) for name in isa.TYPE_NAMES)


def tensor(spad: Array, address: int, shape: tuple[int, ...], kind: int) -> Array:
    """A dense tensor in the scratchpad."""
    return np.ndarray(shape, DTYPES[kind], spad, address)


def centred(values: Array, zero: int | Array, dtype: type[np.floating[Any]]) -> Array:
    """values - zero as floating-point numbers (exact)."""
    result = values.astype(dtype)
    if isinstance(zero, np.ndarray) or zero:
        result -= np.asarray(zero, dtype)
    return result


def exact_type(stationary: Array, axis: int | tuple[int, ...]) -> type[np.floating[Any]]:
    """float32 if no partial sum with 9-bit factors can leave its exact range, else float64."""
    largest = float(np.abs(stationary).sum(axis=axis, dtype=np.float64).max(initial=0.0)) * 255.0
    return np.float32 if largest < 2.0**24 else np.float64


def _zeros(spad: Array, address: int, count: int, scalar: int) -> int | Array:
    return scalar if address < 0 else tensor(spad, address, (count,), isa.INT32)


def _sum(target: Array, result: Array, add: int) -> Result:
    exact = result.astype(np.int64).astype(np.int32)
    return target, target + exact if add else exact


def matmul(spad: Array, op: isa.MatMul) -> Result:
    """The instruction MatMul."""
    a = as_strided(tensor(spad, op.a, (1,), op.a_type), (op.m, op.k), _strides(op.a_row, op.a_col, op.a_type))
    b = as_strided(tensor(spad, op.b, (1,), op.b_type), (op.k, op.n), _strides(op.b_row, op.b_col, op.b_type))
    zero = _zeros(spad, op.zeros, op.n, op.zb)
    weights = centred(b, zero, np.float32)
    dtype = exact_type(weights, 0)
    product = centred(a, op.za, dtype) @ weights.astype(dtype, copy=False)
    return _sum(tensor(spad, op.c, (op.m, op.n), isa.INT32), product, op.add)


def _strides(row: int, col: int, kind: int) -> tuple[int, int]:
    return row * isa.TYPE_BYTES[kind], col * isa.TYPE_BYTES[kind]


def windows(x: Array, op: Any) -> Array:
    """x[c, h, w] with padding of zeros as windows [c, ho, wo, kh, kw]."""
    need_h = (op.ho - 1) * op.sh + (op.kh - 1) * op.dh + 1
    need_w = (op.wo - 1) * op.sw + (op.kw - 1) * op.dw + 1
    rows, cols = min(op.height, need_h - op.top), min(op.width, need_w - op.left)
    if (op.top, op.left, rows, cols) != (0, 0, op.height, op.width) or (rows, cols) != (need_h, need_w):
        padded = np.zeros((x.shape[0], need_h, need_w), x.dtype)
        padded[:, op.top : op.top + rows, op.left : op.left + cols] = x[:, :rows, :cols]
        x = padded
    spread = ((op.kh - 1) * op.dh + 1, (op.kw - 1) * op.dw + 1)
    return sliding_window_view(x, spread, (1, 2))[:, :: op.sh, :: op.sw, :: op.dh, :: op.dw]


def conv(spad: Array, op: isa.Conv) -> Result:
    """The instruction Conv: a product with the columns of all windows."""
    x = tensor(spad, op.x, (op.channels, op.height, op.width), op.x_type)
    w = tensor(spad, op.w, (op.out, op.channels * op.kh * op.kw), op.w_type)
    zero = _zeros(spad, op.zeros, op.out, op.zw)
    weights = centred(w, zero[:, None] if isinstance(zero, np.ndarray) else zero, np.float32)
    dtype = exact_type(weights, 1)
    found = windows(centred(x, op.zx, dtype), op)
    columns = found.transpose(0, 3, 4, 1, 2).reshape(op.channels * op.kh * op.kw, op.ho * op.wo)
    product = weights.astype(dtype, copy=False) @ columns
    return _sum(tensor(spad, op.y, (op.out, op.ho * op.wo), isa.INT32), product, op.add)
