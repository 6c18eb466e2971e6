"""MatMul, Gemm and their like, on the packed product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext, kernel

from ..memory import Tensor
from ..strides import broadcast
from .activations import MICROSOFT, single
from .gemm import Side, multiply, pack
from .gemm_source import End
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
    transposed: tuple[int, int] = (0, 0),
    alpha: float = 1.0,
) -> None:
    """One product for each matrix of the broadcast batch; ``shapes`` and ``sizes`` are those after transposing."""
    left, right, batch = shapes
    m, n, k = sizes
    if not out.size:
        return
    if not k:
        fill(context, out, 0)
        return
    count = math.prod(batch)
    own = math.prod(right[:-2])
    row, column = (1, k) if transposed[1] else (n, 1)
    left_row, left_column = (1, m) if transposed[0] else (k, 1)
    shared = own == 1 or own == count
    folded = not transposed[0] and own == 1 and math.prod(left[:-2]) == count
    if folded:  # one matrix on the right: all rows are one product
        panels = pack(context, Side(b, row, column), k, n, 1)
        multiply(context, Side(a, k, 1), panels, 1, out, (1, count * m, n, k), alpha=alpha)
        return
    left_own = math.prod(left[:-2])
    if shared and left_own in (1, count):
        panels = pack(context, Side(b, row, column, k * n), k, n, own)
        multiply(
            context,
            Side(a, left_row, left_column, m * k, left_own),
            panels,
            own,
            out,
            (count, m, n, k),
            alpha=alpha,
        )
        return
    panels = pack(context, Side(b, row, column, k * n), k, n, own)
    at_a, at_b = (batch_offsets(shape[:-2], batch) for shape in (left, right))
    for index in range(count):
        part = Tensor(
            panels.buffer,
            int(at_b[index]) * math.prod(panels.shape[1:]) * b.dtype.itemsize,
            panels.shape[1:],
            b.dtype,
        )
        side = Side(a, left_row, left_column, 0, 1, int(at_a[index]) * m * k)
        multiply(context, side, part, 1, out, (1, m, n, k), first=index * m * n, alpha=alpha)


def batch_offsets(shape: Sequence[int], batch: Sequence[int]) -> np.ndarray[Any, Any]:
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
    return general(context, node, (a, b, c), (alpha, beta), (transA, transB))


def general(
    context: RunContext,
    node: Any,
    operands: tuple[Tensor, Tensor, Tensor | None],
    factors: tuple[float, float],
    transposed: tuple[int, int],
    end: End | None = None,
) -> Tensor:
    """end(alpha A' B' + beta C)."""
    a, b, c = operands
    transA, transB = transposed
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
    alpha, beta = factors
    multiply(context, left, panels, 1, out, (1, m, n, k), addend=addend, alpha=alpha, beta=beta, end=end)
    return out


@kernel("FusedGemm", domain=MICROSOFT, when=single)
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """activation(alpha A' B' + beta C)."""
    numbers = [number for number in (activation_alpha, activation_beta) if number is not None]
    end = End(activation, numbers)
    return general(context, node, (a, b, c), (alpha, beta), (transA, transB), end)


def whole_batches(node: Any) -> bool | str:
    """Only the last two axes are exchanged, of matrices."""
    if any(
        name in node.attributes and node.attributes[name].as_int() for name in ("transBatchA", "transBatchB")
    ):
        return "FusedMatMul with transposed batches has no kernel"
    if any(value.shape is None or len(value.shape) < 2 for value in node.inputs):
        return "FusedMatMul has a kernel for two axes and more"
    return single(node)


@kernel("FusedMatMul", domain=MICROSOFT, when=whole_batches)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """alpha A' B', each transposed in its last two axes if asked for."""
    left = (*a.shape[:-2], a.shape[-1], a.shape[-2]) if transA else a.shape
    right = (*b.shape[:-2], b.shape[-1], b.shape[-2]) if transB else b.shape
    if left[-1] != right[-2]:
        raise ValueError(f"shapes {left} and {right} cannot be multiplied")
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    sizes = left[-2], right[-1], left[-1]
    out = fresh(context, node, (*batch, *sizes[:2]), a)
    products(context, a, b, out, (left, right, batch), sizes, (transA, transB), alpha)
    return out


KERNELS = (matmul, gemm, fused_gemm, fused_matmul)
