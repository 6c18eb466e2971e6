"""Matrix products: a few rows by a kernel of our own, others by cuBLASLt; bias and activation inside.

Operands are rounded as the option ``precision`` says, sums stay in float32.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from epkit.backend import Kernel, RunContext, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from . import gemv
from .gemv import ACTIVATIONS
from .rows import output

TYPES = {"T": frozenset({"float32", "float64", "float16", "bfloat16"})}
ROUNDED = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
BLOCK, GRID = 256, 1 << 16


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


def multiply(
    context: RunContext, a: Any, b: Any, out: Any, precision: str, bias: Any = None, activation: str = ""
) -> None:
    """out = activation(a b + bias) for arrays of any rank; many products with one matrix become one.

    Args:
        bias: one number for each column, of the result's type.
        activation: one of ``gemv.ACTIVATIONS``.
    """
    if not out.size:
        return
    rows = a.reshape(1, -1) if a.ndim == 1 else a
    columns = b.reshape(-1, 1) if b.ndim == 1 else b
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    m, k, n = rows.shape[-2], rows.shape[-1], columns.shape[-1]
    one_matrix = math.prod(columns.shape[:-2]) == 1
    if not a.size:
        out[...] = 0
        finish(context, out, n, bias, activation)
    elif one_matrix and math.prod(rows.shape[:-2]) == math.prod(batch):
        flat = out.reshape(math.prod(batch) * m, n)
        _one(context, rows.reshape(-1, k), columns.reshape(k, n), flat, precision, bias, activation)
    else:
        machine, count = stream_of(context).machine, math.prod(batch)
        left = machine.xp.broadcast_to(rows, (*batch, m, k)).reshape(count, m, k)
        right = machine.xp.broadcast_to(columns, (*batch, k, n)).reshape(count, k, n)
        machine.multiply(left, right, out.reshape(count, m, n), precision)
        finish(context, out, n, bias, activation)


def _one(context: RunContext, a: Any, b: Any, out: Any, precision: str, bias: Any, activation: str) -> None:
    """out = activation(a b + bias) for matrices."""
    weight = gemv.Dense(b, bias)
    if a.dtype == out.dtype and gemv.fits(a, [weight]):
        gemv.multiply(context, a, [weight], [out], gemv.Around(activation=activation))
        return
    machine = stream_of(context).machine
    if not machine.multiply(a, b, out, precision, bias=bias, activation=activation):
        finish(context, out, out.shape[-1], bias, activation)


def finish_source(c_type: str, *, bias: bool, activation: str) -> str:
    """q[i] = activation(q[i] + bias[i % columns])."""
    x = "widen(q[i])" + (" + widen(bias[i % columns])" if bias else "")
    return f"""{PRELUDE}
extern "C" __global__ void finish(long long n, int columns, const {c_type}* __restrict__ bias, {c_type}* q) {{
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {{
    const {computed(c_type)} x = {x};
    narrow({ACTIVATIONS[activation].format("x")}, q[i]);
  }}
}}
"""


def finish(context: RunContext, out: Any, columns: int, bias: Any, activation: str) -> None:
    """Bias and activation in place, where they could not be had with the product."""
    if bias is None and not activation:
        return
    source = finish_source(stored(out.dtype), bias=bias is not None, activation=activation)
    arguments = [np.int64(out.size), np.int32(columns), out if bias is None else bias, out]
    launch(context, source, "finish", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)


def row_bias(c: Tensor, columns: int) -> bool:
    """True if a summand is one number for each column, dense."""
    dense = bool(c.array.flags.c_contiguous)
    return dense and c.size == columns and (not c.ndim or c.shape[-1] == columns)


def gelu_or_relu(node: Any) -> str | None:
    """The activation of ``ACTIVATIONS`` that a node is, or None."""
    if node.domain:
        return None
    if node.op_type == "Relu":
        return "relu"
    is_tanh = node.op_type == "Gelu" and attribute_values(node).get("approximate", "none") == "tanh"
    return "gelu_tanh" if is_tanh else None


def fused_relu(node: Any) -> bool | str:
    """Relu is what products have inside."""
    name = attribute_values(node).get("activation", "")
    return name == "Relu" or f"{name or 'no activation'} is a kernel of its own, after the product"


def product_kernels(precision: str) -> list[Kernel]:
    """Products in a precision."""

    @kernel("MatMul", types=TYPES)
    def matmul(
        a: Tensor,
        b: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "",
        context: RunContext,
        node: Any,
    ) -> Tensor:
        """Bias and activation come from the nodes that follow (see ``compile``)."""
        out = output(context, node, a, product_shape(a.shape, b.shape))
        left, right = rounded(context, a, precision), rounded(context, b, precision)
        summand = None if bias is None else bias.array
        multiply(context, left, right, out.array, precision, summand, activation)
        return out

    def product(
        a: Tensor, b: Tensor, c: Tensor | None, options: dict[str, Any], context: RunContext, node: Any
    ) -> Tensor:
        alpha, beta, activation = options["alpha"], options["beta"], options["activation"]
        left, right = rounded(context, a, precision), rounded(context, b, precision)
        left, right = (left.T if options["transA"] else left), (right.T if options["transB"] else right)
        out = output(context, node, a, product_shape(left.shape, right.shape))
        inside = alpha == 1.0 and (c is None or (beta == 1.0 and row_bias(c, out.shape[-1])))
        if inside:
            bias = None if c is None else c.array
            multiply(context, left, right, out.array, precision, bias, activation)
            return out
        multiply(context, left, right, out.array, precision)
        if alpha != 1.0:
            out.array *= a.dtype.type(alpha)
        if c is not None and beta:
            out.array += c.array if beta == 1.0 else c.array * a.dtype.type(beta)
        finish(context, out.array, max(1, out.shape[-1]), None, activation)
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
        options = {"alpha": alpha, "beta": beta, "transA": transA, "transB": transB, "activation": ""}
        return product(a, b, c, options, context, node)

    @kernel("FusedGemm", domain="com.microsoft", types=TYPES, when=fused_relu)
    def fused_gemm(
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
        options = {"alpha": alpha, "beta": beta, "transA": transA, "transB": transB, "activation": "relu"}
        return product(a, b, c, options, context, node)

    return [matmul, gemm, fused_gemm]


def sources() -> list[str]:
    """Every source that these kernels launch."""
    return [
        finish_source(t, bias=bias, activation=activation)
        for t in ("float", "double", "f16", "bf16")
        for bias in (False, True)
        for activation in ACTIVATIONS
        if bias or activation
    ]
