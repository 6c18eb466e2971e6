"""MatMul, Gemm and their like, on the packed product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext, kernel

from ..memory import Tensor
from ..strides import broadcast
from .gemm import Side, multiply, pack
from .movement import fill, fresh

NUMBERS = frozenset({"float32", "float64", "int32", "int64"})


@kernel("MatMul", types={"T": NUMBERS})
def matmul(a: Tensor, b: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """a @ b, as NumPy's matmul."""
    if not a.ndim or not b.ndim:
        raise ValueError(f"shapes {a.shape} and {b.shape} are no matrices")
    left = (1, *a.shape) if a.ndim == 1 else a.shape
    right = (*b.shape, 1) if b.ndim == 1 else b.shape
    if left[-1] != right[-2]:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    m, k, n = left[-2], left[-1], right[-1]
    shape = (*batch, *([] if a.ndim == 1 else [m]), *([] if b.ndim == 1 else [n]))
    out = fresh(context, node, shape, a)
    products(context, a, b, out, (left, right, batch), (m, n, k))
    return out


def products(
    context: RunContext,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    shapes: tuple[Sequence[int], Sequence[int], Sequence[int]],
    sizes: tuple[int, int, int],
) -> None:
    """One product for each matrix of the broadcast batch."""
    left, right, batch = shapes
    m, n, k = sizes
    if not out.size:
        return
    if not k:
        fill(context, out, 0)
        return
    count = math.prod(batch)
    own = math.prod(right[:-2])
    shared = own == 1 or own == count
    folded = own == 1 and math.prod(left[:-2]) == count
    if folded:  # one matrix on the right: all rows are one product
        panels = pack(context, Side(b, n, 1), k, n, 1)
        multiply(context, Side(a, k, 1), panels, 1, out, (1, count * m, n, k))
        return
    left_own = math.prod(left[:-2])
    if shared and left_own in (1, count):
        panels = pack(context, Side(b, n, 1, k * n), k, n, own)
        multiply(context, Side(a, k, 1, m * k, left_own), panels, own, out, (count, m, n, k))
        return
    panels = pack(context, Side(b, n, 1, k * n), k, n, own)
    at_a, at_b = (_offsets(shape[:-2], batch) for shape in (left, right))
    for index in range(count):
        part = Tensor(
            panels.buffer,
            int(at_b[index]) * math.prod(panels.shape[1:]) * b.dtype.itemsize,
            panels.shape[1:],
            b.dtype,
        )
        side = Side(a, k, 1, 0, 1, int(at_a[index]) * m * k)
        multiply(context, side, part, 1, out, (1, m, n, k), first=index * m * n)


def _offsets(shape: Sequence[int], batch: Sequence[int]) -> np.ndarray[Any, Any]:
    """For each matrix of the batch, which of the operand's own it is."""
    strides = broadcast(shape, batch)
    grid = np.indices(tuple(batch)).reshape(len(batch), -1) if batch else np.zeros((0, 1), np.int64)
    found: np.ndarray[Any, Any] = (np.asarray(strides, np.int64)[:, None] * grid).sum(axis=0)
    return found if batch else np.zeros(1, np.int64)


@kernel("Gemm", since=7, types={"T": NUMBERS})
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """alpha A' B' + beta C."""
    m, k = a.shape[::-1] if transA else a.shape
    inner, n = b.shape[::-1] if transB else b.shape
    if inner != k:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    out = fresh(context, node, (m, n), a)
    if not out.size:
        return out
    addend = None
    if c is not None:
        row, column = broadcast(c.shape, (m, n))
        addend = Side(c, row, column)
    left = Side(a, 1, m) if transA else Side(a, k, 1)
    right = Side(b, 1, k) if transB else Side(b, n, 1)
    panels = pack(context, right, k, n, 1)
    multiply(context, left, panels, 1, out, (1, m, n, k), addend=addend, alpha=alpha, beta=beta)
    return out


KERNELS = (matmul, gemm)
