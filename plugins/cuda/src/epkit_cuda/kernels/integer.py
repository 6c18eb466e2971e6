"""Products of bytes: by cuBLASLt in int8 with sums in int32, zero points and scales in one kernel afterwards.

The library multiplies signed bytes in multiples of four, the columns of the second factor dense: unsigned codes and
their zero points are taken less 128, rows are padded with zeros. With row sums A, column sums B and K products each,
sum (a - za)(b - zb) = sum a b - zb A - za B + K za zb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import PRELUDE, stored
from .rows import threads

BLOCK, GRID = 256, 1 << 16
PADDED = 16
"""Columns, and the length of rows, are multiples of it."""

BYTES = frozenset({"int8", "uint8"})
RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def rows_source(kind: str) -> str:
    """Rows as signed bytes, with zeros up to ``padded``; and their sums."""
    return f"""{PRELUDE}
extern "C" __global__ void rows(int size, int padded, const {stored(kind)}* __restrict__ p,
    signed char* __restrict__ q, int* __restrict__ sums) {{
  const long long row = blockIdx.x;
  int total = 0;
  for (int j = threadIdx.x; j < padded; j += blockDim.x) {{
    const int value = j < size ? (int)p[row * size + j] - {_shift(kind)} : 0;
    q[row * padded + j] = (signed char)value;
    total += value;
  }}
  total = over_block(Sum(), total);
  if (threadIdx.x == 0) sums[row] = total;
}}
"""


def _shift(kind: str) -> int:
    return 128 if kind == "uint8" else 0


@dataclass(frozen=True)
class Finish:
    """What becomes of the sums.

    Attributes:
        a, b: element types of the operands.
        result: of the result: ``int32``, ``float32``, or codes.
        zeros: whether a and b have zero points.
        bias: element type of what is added, or "": ``int32`` before the scales, ``float32`` after.
    """

    a: str
    b: str
    result: str
    zeros: tuple[bool, bool]
    bias: str = ""

    def source(self) -> str:
        """out[m, n] from sums[m, n], whose rows are ``padded`` long."""
        zero_a = "(int)a_zero[0]" if self.zeros[0] else "0"
        zero_b = "(int)b_zero[n * b_zeros]" if self.zeros[1] else "0"
        bias = "bias[m * bias_rows + n * bias_columns]"
        whole = f"sum + {bias}" if self.bias == "int32" else "sum"
        real = f"(float)({whole}) * factor" + (f" + {bias}" if self.bias == "float32" else "")
        if self.result == "int32":
            value = "sum"
        elif self.result == "float32":
            value = real
        else:
            low, high = RANGES[self.result]
            value = f"fmin(fmax(rint({real}) + (float)y_zero[0], {low}.0f), {high}.0f)"
        scaled = "a_scale[0] * b_scale[n * b_scales] * alpha" + (
            " / y_scale[0]" if self.result in BYTES else ""
        )
        factor = "" if self.result == "int32" else f"const float factor = {scaled};"
        code = stored(self.result)
        return f"""{PRELUDE}
extern "C" __global__ void finish(long long count, int columns, int padded, int inner, float alpha, int b_zeros,
    int b_scales, int bias_rows, int bias_columns, const int* __restrict__ sums, const int* __restrict__ row_sums,
    const int* __restrict__ column_sums, const {stored(self.a)}* __restrict__ a_zero,
    const {stored(self.b)}* __restrict__ b_zero, const float* __restrict__ a_scale,
    const float* __restrict__ b_scale, const float* __restrict__ y_scale, const {code}* __restrict__ y_zero,
    const {stored(self.bias or "float32")}* __restrict__ bias, {code}* __restrict__ out) {{
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {{
    const long long m = i / columns;
    const int n = (int)(i % columns), za = {zero_a} - {_shift(self.a)}, zb = {zero_b} - {_shift(self.b)};
    int sum = sums[m * padded + n];
    if (zb) sum -= zb * row_sums[m];
    if (za) sum += za * (inner * zb - column_sums[n]);
    {factor}
    out[i] = ({code})({value});
  }}
}}
"""


@dataclass(frozen=True)
class Operands:
    """The tensors of a product; what is absent is None."""

    a: Tensor
    b: Tensor
    a_zero: Tensor | None = None
    b_zero: Tensor | None = None
    a_scale: Tensor | None = None
    b_scale: Tensor | None = None
    y_scale: Tensor | None = None
    y_zero: Tensor | None = None
    bias: Tensor | None = None
    alpha: float = 1.0


def padded(size: int) -> int:
    """The next multiple."""
    return -(-size // PADDED) * PADDED


def as_rows(context: RunContext, array: Any, count: int) -> tuple[Any, Any]:
    """Rows [M, K] as signed bytes [count, padded K], and their sums; rows behind M are whatever they are."""
    xp, (rows, size) = stream_of(context).machine.xp, array.shape
    made, sums = xp.empty((count, padded(size)), np.int8), xp.empty((count,), np.int32)
    arguments = [np.int32(size), np.int32(padded(size)), stream_of(context).dense(array), made, sums]
    launch(context, rows_source(array.dtype.name), "rows", rows, threads(size), arguments)
    return made, sums


def columns_of(context: RunContext, b: Tensor, transposed: int) -> tuple[Any, Any]:
    """The second factor by columns [padded N, padded K] and their sums; of a weight made once."""
    key = f"bytes by columns, {transposed}"
    if b.packed is not None and key in b.packed:
        found: tuple[Any, Any] = b.packed[key]
        return found
    array = b.array if transposed else b.array.T
    made = as_rows(context, array, padded(array.shape[0]))
    if b.packed is not None and not stream_of(context).capturing:
        b.packed[key] = made
    return made


def is_zero(zero: Tensor | None, kind: str) -> bool:
    """True if a zero point is known to be that of plain signed numbers."""
    return kind == "int8" and (zero is None or (zero.host is not None and not zero.host.any()))


def multiply(
    context: RunContext, node: Any, given: Operands, result: str, transA: int = 0, transB: int = 0
) -> Tensor:
    """The product of matrices of bytes, finished; ``a`` may have more axes than two.

    Raises:
        ValueError: if shapes do not fit.
    """
    a, b = given.a, given.b
    array = a.array.T if transA else a.array
    inner, columns = b.shape[::-1] if transB else b.shape
    if array.shape[-1] != inner:
        raise ValueError(f"codes of shapes {tuple(array.shape)} and {b.shape} cannot be multiplied")
    for name, item, wanted in (
        ("b_zero_point", given.b_zero, columns), ("b_scale", given.b_scale, columns), ("a_zero_point", given.a_zero, 1),
        ("a_scale", given.a_scale, 1), ("y_scale", given.y_scale, 1), ("y_zero_point", given.y_zero, 1),
    ):  # fmt: skip
        if item is not None and item.size not in (1, wanted):
            raise ValueError(
                f"{name} of shape {item.shape} should have {' or '.join(sorted({'1', str(wanted)}))} numbers"
            )
    out: Tensor = context.empty(node.outputs[0], (*array.shape[:-1], columns), np.dtype(result))
    if not out.size:
        return out
    stream = stream_of(context)
    flat = stream.dense(array).reshape(-1, inner)
    weights, column_sums = columns_of(context, b, transB)
    plain = is_zero(given.b_zero, b.dtype.name) and a.dtype == np.int8 and inner % PADDED == 0
    rows, row_sums = (flat, column_sums) if plain else as_rows(context, flat, flat.shape[0])
    sums = stream.machine.xp.empty((rows.shape[0], weights.shape[0]), np.int32)
    stream.machine.multiply(rows, weights.T, sums, "fp32")
    _finish(context, given, out, (sums, row_sums, column_sums), inner)
    return out


def _finish(
    context: RunContext, given: Operands, out: Tensor, sums: tuple[Any, Any, Any], inner: int
) -> None:
    columns, bias = out.shape[-1], given.bias
    zeros = given.a_zero is not None, given.b_zero is not None
    kind = "" if bias is None else bias.dtype.name
    how = Finish(given.a.dtype.name, given.b.dtype.name, out.dtype.name, zeros, kind)
    b_zeros, b_scales = (int(item is not None and item.size > 1) for item in (given.b_zero, given.b_scale))
    rows, along = bias_steps(bias, out)
    numbers = map(np.int32, (columns, sums[0].shape[1], inner))
    steps = map(np.int32, (b_zeros, b_scales, rows, along))
    extras = (given.a_zero, given.b_zero, given.a_scale, given.b_scale, given.y_scale, given.y_zero, bias)
    places = [sums[0] if item is None else dense(context, item) for item in extras]
    arguments = [np.int64(out.size), *numbers, np.float32(given.alpha), *steps, *sums, *places, out.array]
    launch(context, how.source(), "finish", min(GRID, -(-out.size // BLOCK)), BLOCK, arguments)


def bias_steps(bias: Tensor | None, out: Tensor) -> tuple[int, int]:
    """Elements of the bias from one row of the result to the next, and from one column."""
    if bias is None:
        return 0, 0
    shape = (1,) * (2 - bias.ndim) + bias.shape
    wanted = math.prod(out.shape[:-1]), out.shape[-1]
    if len(shape) != 2 or any(size not in (1, most) for size, most in zip(shape, wanted, strict=True)):
        raise ValueError(f"a bias of shape {bias.shape} does not fit a result of shape {out.shape}")
    return (shape[1] if shape[0] > 1 else 0), int(shape[1] > 1)


# ---- operators ----


def bytes_by_matrix(a: int, b: int, scales: tuple[int, ...] = (), single: tuple[int, ...] = ()) -> Any:
    """A predicate: bytes times a matrix of bytes, float32 scales, one number where there must be one."""

    def takes(node: Any) -> bool | str:
        kinds = {element_type(node.inputs[index]) for index in (a, b)}
        if not kinds <= BYTES:
            return f"the kernel multiplies {sorted(BYTES)}, found {sorted(kinds)}"
        rank = {
            index: None if node.inputs[index].shape is None else len(node.inputs[index].shape)
            for index in (a, b)
        }
        if rank[b] != 2 or not rank[a]:
            return "the kernel multiplies by one matrix of known rank"
        for index in (*scales, *single):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or not value.name:
                continue
            if index in scales and element_type(value) != "float32":
                return f"{value.name}: the kernel takes scales of float32, found {element_type(value)}"
            if index in single and (value.shape is None or any(size != 1 for size in value.shape)):
                return f"{value.name}: the kernel takes one number for all rows"
        made = element_type(node.outputs[0])
        return made in (*BYTES, "int32", "float32") or f"the kernel gives no {made}"

    return takes


@kernel("MatMulInteger", since=10, when=bytes_by_matrix(0, 1, single=(2,)))
def matmul_integer(
    a: Tensor,
    b: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """(a - a_zero)(b - b_zero) in int32."""
    return multiply(context, node, Operands(a, b, a_zero, b_zero), "int32")


@kernel("QLinearMatMul", since=10, when=bytes_by_matrix(0, 3, scales=(1, 4, 6), single=(1, 2, 6, 7)))
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """The product of what the codes stand for, as codes."""
    given = Operands(a, b, a_zero, b_zero, a_scale, b_scale, y_scale, y_zero)
    return multiply(context, node, given, y_zero.dtype.name)


@kernel("MatMulIntegerToFloat", domain="com.microsoft", when=bytes_by_matrix(0, 1, (2, 3, 6), (2, 4)))
def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """(a - a_zero)(b - b_zero) a_scale b_scale + bias."""
    given = Operands(a, b, a_zero, b_zero, a_scale, b_scale, bias=bias)
    return multiply(context, node, given, "float32")


@kernel("QGemm", domain="com.microsoft", when=bytes_by_matrix(0, 3, scales=(1, 4, 7), single=(1, 2, 7, 8)))
def q_gemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    context: RunContext,
    node: Any,
) -> Tensor:
    """alpha a_scale b_scale ((a - a_zero)(b - b_zero) + c), as codes where y_scale is given."""
    if a.ndim != 2 or (y_scale is None) != (y_zero is None):
        raise ValueError("QGemm takes matrices, and y_scale and y_zero_point together")
    given = Operands(a, b, a_zero, b_zero, a_scale, b_scale, y_scale, y_zero, c, alpha)
    result = "float32" if y_zero is None else y_zero.dtype.name
    return multiply(context, node, given, result, transA, transB)


KERNELS: tuple[Kernel, ...] = (matmul_integer, qlinear_matmul, matmul_integer_to_float, q_gemm)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    both, pairs = (False, True), [(a, b) for a in RANGES for b in RANGES]
    found = [rows_source(kind) for kind in RANGES]
    for a, b in pairs:
        for zeros in [(x, y) for x in both for y in both]:
            found.append(Finish(a, b, "int32", zeros).source())
            found += [Finish(a, b, "float32", zeros, bias).source() for bias in ("", "float32", "int32")]
        found += [Finish(a, b, y, (True, True), bias).source() for y in RANGES for bias in ("", "int32")]
    return found
