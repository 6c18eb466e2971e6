"""Matrix products with quantised weights, with transposed batches, and of float8."""

from __future__ import annotations

import math
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._dtypes import dtype_of
from epkit.kernels._pointwise import scalar
from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.activation import gelu
from epkit.kernels.cast import converted
from epkit.kernels.matmul import gemm, matmul

from ._bits import dequantized, unpack, unpack_zeros
from ._infer import Dims, attr, broadcast, dims, elem, put
from .declare import FLOATS, contrib

INT, STRING = OpSchema.AttrType.INT, OpSchema.AttrType.STRING
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
FLOAT8 = ("tensor(float8e4m3fn)", "tensor(float8e5m2)")

CHUNK = 1 << 20
"""Weights that are dequantised at a time: they stay in the cache until their product is made."""


def infer_rows(ctx: Any) -> None:
    """A's shape with N last; K for a product with B itself (transB=0)."""
    shape = dims(ctx, 0)
    put(ctx, 0, elem(ctx, 0), shape and [*shape[:-1], attr(ctx, "N" if attr(ctx, "transB", 1) else "K")])


def rows_of(xp: Any, a: Any, size: int, name: str) -> Any:
    """``a`` as a matrix in at least float32, after checking the size of its last axis."""
    if not a.ndim or a.shape[-1] != size:
        raise ValueError(f"input A of shape {a.shape} does not have attribute {name}={size} last")
    return xp.reshape(wide(xp, a), (math.prod(a.shape[:-1]), size))


def shaped(xp: Any, name: str, value: Any, *shapes: tuple[int, ...]) -> Any:
    """``value`` in the first of these shapes that has as many elements; old files have flat ones."""
    for shape in shapes:
        if math.prod(shape) == value.size:
            return xp.reshape(value, shape)
    raise ValueError(f"input {name} of shape {value.shape} should have shape {' or '.join(map(str, shapes))}")


@contrib(
    "MatMulNBits",
    inputs=[
        ("A", "T1"),
        ("B", "T2"),
        ("scales", "T1"),
        ("zero_points", "T3", "optional"),
        ("g_idx", "T4", "optional"),
        ("bias", "T1", "optional"),
    ],
    outputs=[("Y", "T1")],
    types={
        "T1": REAL,
        "T2": ("tensor(uint8)",),
        "T3": ("tensor(uint8)", *REAL),
        "T4": ("tensor(int32)",),
    },
    attributes={
        "K": INT,
        "N": INT,
        "bits": 4,
        "block_size": INT,
        "accuracy_level": 0,
        "weight_prepacked": 0,
    },
    infer=infer_rows,
)
@quiet
def matmul_n_bits(
    xp: Any,
    a: Any,
    b: Any,
    scales: Any,
    zero_points: Any = None,
    g_idx: Any = None,
    bias: Any = None,
    *,
    K: int,
    N: int,
    bits: int = 4,
    block_size: int,
    weight_prepacked: int = 0,
) -> Any:
    """Y = A W' + bias, W[n, k] = (B[n, k] - zero_points[n, g]) scales[n, g] with g = k / block_size, or g_idx[k].

    Without zero points they are the middle, 2^(bits - 1). An empty B stands for an omitted projection: W = 0.
    """
    if bits not in (2, 4, 8):
        raise ValueError(f"attribute bits={bits} is not 2, 4 or 8")
    if block_size < 16 or block_size & (block_size - 1):
        raise ValueError(f"attribute block_size={block_size} is not a power of 2 of at least 16")
    if weight_prepacked:
        raise ValueError(
            f"attribute weight_prepacked={weight_prepacked} is a layout of one device, 0 is portable"
        )
    if K < 1 or N < 1:
        raise ValueError(f"attributes K={K} and N={N} should be positive")
    if bias is not None and bias.shape != (N,):
        raise ValueError(f"input bias of shape {bias.shape} should have shape ({N},)")
    rows = rows_of(xp, a, K, "K")
    if b.size:
        y = times_quantized(xp, rows, b, scales, zero_points, g_idx, bits, N, block_size)
    else:
        y = xp.zeros((rows.shape[0], N), dtype=xp.float32)
    if bias is not None:
        y += wide(xp, bias)
    return cast(xp, xp.reshape(y, (*a.shape[:-1], N)), a.dtype)


def times_quantized(
    xp: Any, rows: Any, b: Any, scales: Any, zeros: Any, g_idx: Any, bits: int, n: int, block_size: int
) -> Any:
    """rows W' in float32, for some rows of W at a time."""
    k = rows.shape[1]
    blocks = -(-k // block_size)
    b = shaped(xp, "B", b, (n, blocks * (block_size * bits // 8)))
    scales = xp.astype(shaped(xp, "scales", scales, (n, blocks)), xp.float32)
    if zeros is not None:
        packed = -(-blocks * bits // 8) if zeros.dtype == xp.uint8 else blocks
        zeros = unpack_zeros(xp, shaped(xp, "zero_points", zeros, (n, packed)), bits, blocks)
    if g_idx is not None:
        group = groups_of(xp, g_idx, k, blocks)
        scales = xp.take(scales, group, axis=1)
        zeros = zeros if zeros is None else xp.take(zeros, group, axis=1)
    y = xp.empty((rows.shape[0], n), dtype=rows.dtype)
    step = max(1, CHUNK // k)
    for start in range(0, n, step):
        part = slice(start, start + step)
        zero = float(1 << bits - 1) if zeros is None else zeros[part]
        codes = unpack(xp, b[part], bits)
        codes = codes if g_idx is None else xp.ascontiguousarray(codes[:, :k])
        y[:, part] = xp.matmul(rows, dequantized(xp, codes, scales[part], zero)[:, :k].T)
    return y


def groups_of(xp: Any, g_idx: Any, k: int, blocks: int) -> Any:
    """The block whose scale serves each of k columns."""
    if g_idx.ndim != 1 or g_idx.shape[0] < k:
        raise ValueError(f"input g_idx of shape {g_idx.shape} should have {k} elements")
    group = g_idx[:k]
    if xp.min(group) < 0 or xp.max(group) >= blocks:
        raise ValueError(f"input g_idx reaches outside the {blocks} blocks")
    return group


FP4 = (0.0, 0.0052083333, 0.6666667, 1.0, 0.33333334, 0.5, 0.16666667, 0.25)
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171229224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
LEVELS = ((*FP4, *(-x for x in FP4)), NF4)
"""The sixteen numbers of each quant_type."""


@contrib(
    "MatMulBnb4",
    inputs=[("A", "T1"), ("B", "T2"), ("absmax", "T1")],
    outputs=[("Y", "T1")],
    types={"T1": REAL, "T2": ("tensor(uint8)",)},
    attributes={"K": INT, "N": INT, "block_size": INT, "quant_type": INT, "training_mode": 0, "transB": 1},
    infer=infer_rows,
)
@quiet
def matmul_bnb4(
    xp: Any, a: Any, b: Any, absmax: Any, *, K: int, N: int, block_size: int, quant_type: int, transB: int = 1
) -> Any:
    """Y = A W' (A W for transB=0), the flat weights W (N, K) being LEVELS[quant_type][code] * absmax[block].

    Two codes share a byte, the first in the upper half.
    """
    if quant_type not in (0, 1):
        raise ValueError(f"attribute quant_type={quant_type} is neither 0 (FP4) nor 1 (NF4)")
    if K < 1 or N < 1 or block_size < 1:
        raise ValueError(f"attributes K={K}, N={N} and block_size={block_size} should be positive")
    rows = rows_of(xp, a, K if transB else N, "K" if transB else "N")
    b = shaped(xp, "B", b, (-(-N * K // 2),))
    scales = xp.astype(shaped(xp, "absmax", absmax, (-(-N * K // block_size),)), xp.float32)
    levels = xp.asarray(LEVELS[quant_type], dtype=xp.float32)
    weights = xp.reshape(xp.take(levels, xp.stack([b >> 4, b & 15], axis=-1)), (-1,))[: N * K]
    weights = xp.reshape(weights * xp.repeat(scales, block_size)[: N * K], (N, K))
    y = xp.matmul(rows, weights.T if transB else weights)
    return cast(xp, xp.reshape(y, (*a.shape[:-1], y.shape[1])), a.dtype)


def oriented(xp: Any, x: Any, transposed: int, batch: int) -> Any:
    """``x`` with the first axis moved next to the last (``batch``), then the last two swapped."""
    if (batch or transposed) and x.ndim < 2:
        return x
    if batch:
        x = xp.moveaxis(x, 0, -2)
    return xp.matrix_transpose(x) if transposed else x


def infer_fused(ctx: Any) -> None:
    """The product of the shapes, transposed as the attributes say."""
    a, b = (
        turned(dims(ctx, i), attr(ctx, f"trans{name}", 0), attr(ctx, f"transBatch{name}", 0))
        for i, name in enumerate("AB")
    )
    shape = None
    if a and b:
        inner, batch = b[-2] if len(b) > 1 else b[0], broadcast(a[:-2], b[:-2])
        if isinstance(a[-1], int) and isinstance(inner, int) and a[-1] != inner:
            raise ValueError(f"inputs A and B do not have the same inner size: {a[-1]} and {inner}")
        shape = [*(batch or []), *a[-2:-1], *(b[-1:] if len(b) > 1 else [])]
    put(ctx, 0, elem(ctx, 0), shape)


def turned(shape: Dims, transposed: int, batch: int) -> Dims:
    """What ``oriented`` does to a shape."""
    if shape is None or len(shape) < 2:
        return shape
    if batch:
        shape = [*shape[1:-1], shape[0], shape[-1]]
    return [*shape[:-2], shape[-1], shape[-2]] if transposed else shape


@contrib(
    "FusedMatMul",
    inputs=[("A", "T"), ("B", "T")],
    outputs=[("Y", "T")],
    types={"T": FLOATS},
    attributes={"alpha": 1.0, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0},
    infer=infer_fused,
)
@quiet
def fused_matmul(
    xp: Any,
    a: Any,
    b: Any,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Any:
    """Y = alpha A' B': of A' and B' the last axes are swapped (trans), or the first is moved before the last."""
    left, right = (
        oriented(xp, wide(xp, a), transA, transBatchA),
        oriented(xp, wide(xp, b), transB, transBatchB),
    )
    y = matmul(xp, left, right)
    return cast(xp, y if alpha == 1 else y * xp.asarray(alpha, dtype=y.dtype), a.dtype)


def infer_gemm(ctx: Any) -> None:
    """(M, N) in the type that the attribute names."""
    a, b = (
        turned(dims(ctx, 0, 2), attr(ctx, "transA", 0), 0),
        turned(dims(ctx, 1, 2), attr(ctx, "transB", 0), 0),
    )
    put(ctx, 0, attr(ctx, "dtype", 1), a and b and [a[0], b[1]])


@contrib(
    "GemmFloat8",
    inputs=[
        ("A", "TA"),
        ("B", "TB"),
        ("C", "TC", "optional"),
        ("scaleA", "TS", "optional"),
        ("scaleB", "TS", "optional"),
        ("scaleY", "TS", "optional"),
    ],
    outputs=[("Y", "TR")],
    types={
        "TA": (*FLOAT8, *REAL),
        "TB": (*FLOAT8, *REAL),
        "TC": REAL,
        "TR": (*FLOAT8, *REAL),
        "TS": ("tensor(float)",),
    },
    attributes={
        "activation": (STRING, None),
        "alpha": 1.0,
        "beta": 0.0,
        "dtype": 1,
        "transA": 0,
        "transB": 0,
    },
    infer=infer_gemm,
)
@quiet
def gemm_float8(
    xp: Any,
    a: Any,
    b: Any,
    c: Any = None,
    scale_a: Any = None,
    scale_b: Any = None,
    scale_y: Any = None,
    *,
    activation: str = "NONE",
    alpha: float = 1.0,
    beta: float = 0.0,
    dtype: int = 1,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """Y = activation(alpha scaleA scaleB A' B' + beta C) scaleY, in the type ``dtype``."""
    left, right = (converted(xp, x, xp.float32) for x in (a, b))
    factor = xp.asarray(alpha, dtype=xp.float32)
    for name, scale in (("scaleA", scale_a), ("scaleB", scale_b)):
        factor = factor if scale is None else factor * scalar(xp, scale, name)
    y = gemm(xp, left, right, None, 1.0, 0.0, transA, transB) * factor
    if c is not None and beta:
        y += xp.broadcast_to(wide(xp, c) * xp.asarray(beta, dtype=xp.float32), y.shape)
    if activation not in ("NONE", "RELU", "GELU"):
        raise ValueError(f"attribute activation={activation!r} is not NONE, RELU or GELU")
    if activation != "NONE":
        y = xp.maximum(y, 0) if activation == "RELU" else gelu(xp, y)
    if scale_y is not None:
        y *= scalar(xp, scale_y, "scaleY")
    return converted(xp, y, dtype_of(xp, dtype))
