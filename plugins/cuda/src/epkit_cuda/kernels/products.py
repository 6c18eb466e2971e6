"""Matrix products, by cuBLASLt; operands are rounded as the option ``precision`` says, sums stay in float32."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from epkit.backend import Kernel, RunContext, kernel

from ..launch import stream_of
from ..memory import Tensor
from .rows import output

TYPES = {"T": frozenset({"float32", "float64", "float16"})}
ROUNDED = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def rounded(context: RunContext, tensor: Tensor, precision: str) -> Any:
    """The operand in the type that it is multiplied in; a weight's is made once."""
    wanted = ROUNDED.get(precision)
    if wanted is None or tensor.dtype != np.float32:
        return tensor.array
    if tensor.packed is not None and precision in tensor.packed:
        return tensor.packed[precision]
    made = stream_of(context).machine.xp.astype(tensor.array, wanted)
    if tensor.packed is not None and not stream_of(context).capturing:
        tensor.packed[precision] = made
    return made


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a product of matrices; vectors count as one row, or one column.

    Raises:
        ValueError: if the inner sizes differ.
    """
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise ValueError(f"shapes {a} and {b} cannot be multiplied")
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    return (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def multiply(context: RunContext, a: Any, b: Any, out: Any, precision: str) -> None:
    """out = a b for arrays of any rank; many products with one matrix become one."""
    machine = stream_of(context).machine
    if not out.size:
        return
    if not a.size:
        out[...] = 0
        return
    rows = a.reshape(1, -1) if a.ndim == 1 else a
    columns = b.reshape(-1, 1) if b.ndim == 1 else b
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    m, k, n = rows.shape[-2], rows.shape[-1], columns.shape[-1]
    one_matrix = math.prod(columns.shape[:-2]) == 1
    if one_matrix and math.prod(rows.shape[:-2]) == math.prod(batch):
        flat = out.reshape(math.prod(batch) * m, n)
        machine.multiply(rows.reshape(-1, k), columns.reshape(k, n), flat, precision)
        return
    xp, count = machine.xp, math.prod(batch)
    left = xp.broadcast_to(rows, (*batch, m, k)).reshape(count, m, k)
    right = xp.broadcast_to(columns, (*batch, k, n)).reshape(count, k, n)
    machine.multiply(left, right, out.reshape(count, m, n), precision)


def product_kernels(precision: str) -> list[Kernel]:
    """MatMul and Gemm in a precision."""

    @kernel("MatMul", types=TYPES)
    def matmul(a: Tensor, b: Tensor, *, context: RunContext, node: Any) -> Tensor:
        out = output(context, node, a, product_shape(a.shape, b.shape))
        left, right = rounded(context, a, precision), rounded(context, b, precision)
        multiply(context, left, right, out.array, precision)
        return out

    @kernel("Gemm", since=7, types=TYPES)
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
        left, right = rounded(context, a, precision), rounded(context, b, precision)
        left, right = (left.T if transA else left), (right.T if transB else right)
        out = output(context, node, a, product_shape(left.shape, right.shape))
        multiply(context, left, right, out.array, precision)
        if alpha != 1.0:
            out.array *= a.dtype.type(alpha)
        if c is not None and beta:
            out.array += c.array if beta == 1.0 else c.array * a.dtype.type(beta)
        return out

    return [matmul, gemm]
