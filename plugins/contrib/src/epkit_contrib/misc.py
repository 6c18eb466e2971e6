"""Operators that came before their like in the standard, transforms, and small linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels import creation, crop, index, shape
from epkit.kernels._pointwise import checked_axis, scalar
from epkit.kernels._precision import cast, quiet, wide

from . import sequences, texts  # noqa: F401 - they declare their operators
from ._infer import attr, dims, elem, put
from ._shapes import copied, standard, values
from .declare import contrib
from .matmul import fused_matmul, infer_fused

REALS = ("tensor(float)", "tensor(float16)", "tensor(double)")
NARROW = (*REALS, "tensor(bfloat16)")
WHOLE = tuple(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64))
PLAIN = (*REALS, *WHOLE, "tensor(bool)")
ALL = (*PLAIN, "tensor(string)", "tensor(complex64)", "tensor(complex128)")
INDEX = ("tensor(int32)", "tensor(int64)")


# ---- the standard's, before they were standard


@contrib(
    "Pad",
    inputs=[("data", "T"), ("pads", "tensor(int64)"), ("value", "T", "optional")],
    outputs=[("output", "T")],
    types={"T": REALS},
    attributes={"mode": "constant"},
    infer=standard("Pad", inputs=(0, 1), opset=11),
)
def pad(xp: Any, data: Any, pads: Any, value: Any = None, *, mode: str = "constant") -> Any:
    """Surround the data (negative: crop it): begins of all axes, then ends, also as one row of a matrix."""
    if pads.ndim > 2 or (pads.ndim == 2 and pads.shape[0] != 1):
        raise ValueError(f"input pads of shape {pads.shape} should have 2 * {data.ndim} values in a row")
    if mode == "wrap":
        raise ValueError("attribute mode='wrap' is not constant, reflect or edge")
    return crop.pad(xp, data, pads, value, mode=mode)


def infer_unique(ctx: Any) -> None:
    """As many values as there are; one index for each element."""
    put(ctx, 0, elem(ctx, 0), [None])
    put(ctx, 1, TensorProto.INT64, dims(ctx, 0) or [None])
    put(ctx, 2, TensorProto.INT64, [None])


@contrib(
    "Unique",
    inputs=[("x", "T")],
    outputs=[("y", "T"), ("idx", "tensor(int64)"), ("counts", "tensor(int64)")],
    types={"T": ALL},
    infer=infer_unique,
)
def unique(xp: Any, x: Any) -> Any:
    """The distinct values in the order of their first occurrence, the place of each element, their counts."""
    if x.ndim != 1:
        raise ValueError(f"input x of shape {x.shape} should have one axis")
    y, _, inverse, counts = index.unique(xp, x, sorted=0)
    return y, inverse, counts


@contrib(
    "Trilu",
    inputs=[("X", "T"), ("k", "tensor(int64)", "optional")],
    outputs=[("Y", "T")],
    types={"T": (*PLAIN, "tensor(bfloat16)")},
    attributes={"upper": 1},
    infer=copied(),
)
def trilu(xp: Any, x: Any, k: Any = None, *, upper: int = 1) -> Any:
    """Keep the upper (lower) triangle of each matrix, from diagonal k on; 0 elsewhere."""
    return crop.trilu(xp, x, k, upper=upper)


def infer_expanded(ctx: Any) -> None:
    """One more axis, of size 1."""
    x, axis = dims(ctx, 0), values(ctx, 1)
    if x is not None and axis is not None and len(axis) == 1 and -len(x) - 1 <= axis[0] <= len(x):
        x.insert(axis[0] % (len(x) + 1), 1)
        put(ctx, 0, elem(ctx, 0), x)
    else:
        put(ctx, 0, elem(ctx, 0), None if x is None else [None] * (len(x) + 1))


@contrib(
    "ExpandDims",
    inputs=[("X", "T"), ("axis", "tensor(int32)")],
    outputs=[("Y", "T")],
    types={"T": ALL},
    infer=infer_expanded,
)
def expand_dims(xp: Any, x: Any, axis: Any) -> Any:
    """X with an axis of size 1 at ``axis``, counted in the result."""
    return shape.unsqueeze(xp, x, [int(scalar(xp, axis, "axis"))])


@contrib(
    "Range",
    inputs=[("start", "T"), ("limit", "T"), ("delta", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": ["tensor(float)", "tensor(double)", "tensor(int16)", *INDEX]},
    infer=lambda ctx: put(ctx, 0, elem(ctx, 0), [None]),
)
def range_(xp: Any, start: Any, limit: Any, delta: Any = None) -> Any:
    """start + i delta, up to but without ``limit``; delta is 1 by default."""
    delta = xp.asarray(1, dtype=start.dtype) if delta is None else delta
    return creation.range_(xp, start, limit, delta)


@contrib(
    "GatherND",
    inputs=[("data", "T"), ("indices", "Tind")],
    outputs=[("output", "T")],
    types={"T": ALL, "Tind": INDEX},
    infer=standard("GatherND", inputs=(0, 1)),
)
def gather_nd(xp: Any, data: Any, indices: Any) -> Any:
    """The slices of the data at the last axis of ``indices``."""
    return index.gather_nd(xp, data, indices)


def infer_rows(ctx: Any) -> None:
    """The shape of the indices and one row."""
    table, indices = dims(ctx, 0), dims(ctx, 1)
    put(ctx, 0, elem(ctx, 0), indices + table[1:] if table is not None and indices is not None else None)


@contrib(
    "TorchEmbedding",
    inputs=[
        ("weight", "T"),
        ("indices", "tensor(int64)"),
        ("padding_idx", "tensor(int64)", "optional"),
        ("scale_grad_by_freq", "tensor(bool)", "optional"),
    ],
    outputs=[("Y", "T")],
    types={"T": (*REALS, *WHOLE, "tensor(bfloat16)")},
    infer=infer_rows,
)
def torch_embedding(
    xp: Any, weight: Any, indices: Any, padding_idx: Any = None, scale_grad_by_freq: Any = None
) -> Any:
    """The rows of ``weight`` at ``indices``; the other inputs are for training."""
    if weight.ndim != 2:
        raise ValueError(f"input weight of shape {weight.shape} should be a matrix")
    return index.gather(xp, weight, indices)


# ---- products and distances


@contrib(
    "TransposeMatMul",
    inputs=[("A", "T"), ("B", "T")],
    outputs=[("Y", "T")],
    types={"T": NARROW},
    attributes={"alpha": 1.0, "transA": 0, "transB": 0},
    infer=infer_fused,
)
def transpose_mat_mul(
    xp: Any, a: Any, b: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0
) -> Any:
    """alpha A' B', the last two axes swapped where asked."""
    return fused_matmul(xp, a, b, alpha=alpha, transA=transA, transB=transB)


@contrib("Inverse", inputs=[("X", "T")], outputs=[("Y", "T")], types={"T": REALS}, infer=copied())
@quiet
def inverse(xp: Any, x: Any) -> Any:
    """The inverse of each matrix."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"input X of shape {x.shape} should hold square matrices")
    try:
        return cast(xp, xp.linalg.inv(wide(xp, x)), x.dtype)
    except np.linalg.LinAlgError:
        raise ValueError("input X holds a matrix that has no inverse") from None


def infer_distances(ctx: Any) -> None:
    """(rows of A, rows of B)."""
    a, b = dims(ctx, 0), dims(ctx, 1)
    put(ctx, 0, elem(ctx, 0), [a[0] if a else None, b[0] if b else None])


@contrib(
    "CDist",
    inputs=[("A", "T"), ("B", "T")],
    outputs=[("C", "T")],
    types={"T": ["tensor(float)", "tensor(double)"]},
    attributes={"metric": "sqeuclidean"},
    infer=infer_distances,
)
@quiet
def c_dist(xp: Any, a: Any, b: Any, *, metric: str = "sqeuclidean") -> Any:
    """The (squared) distance |a - b| of each row of A from each row of B, as |a|^2 + |b|^2 - 2 a b."""
    if metric not in ("sqeuclidean", "euclidean"):
        raise ValueError(f"attribute metric={metric!r} is neither sqeuclidean nor euclidean")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} should be matrices with rows of one length")
    left, right = (cast(xp, m, xp.float64) for m in (a, b))
    squares = (
        xp.sum(left * left, axis=1)[:, None] + xp.sum(right * right, axis=1) - 2 * xp.matmul(left, right.T)
    )
    squares = xp.where(squares < 0, xp.zeros_like(squares), squares)  # NaN stays
    return cast(xp, xp.sqrt(squares) if metric == "euclidean" else squares, a.dtype)


# ---- transforms and complex numbers, which are pairs along the last axis


def checked_signal(rank: int, signal_ndim: int, onesided: int, normalized: int) -> tuple[int, ...]:
    """The axes of the signal: the last ones of ``rank``."""
    if not onesided or normalized:
        raise ValueError(f"attributes onesided={onesided}, normalized={normalized} should be 1 and 0")
    if not 1 <= signal_ndim <= rank:
        raise ValueError(f"attribute signal_ndim={signal_ndim} is outside 1 to {rank}")
    return tuple(range(rank - signal_ndim, rank))


def infer_rfft(ctx: Any) -> None:
    """Half of the last axis and one more; pairs."""
    x = dims(ctx, 0)
    half = x[-1] // 2 + 1 if x and isinstance(x[-1], int) else None
    put(ctx, 0, elem(ctx, 0), x and [*x[:-1], half, 2])


@contrib(
    "Rfft",
    inputs=[("X", "T")],
    outputs=[("Y", "T")],
    types={"T": REALS},
    attributes={"normalized": 0, "onesided": 1, "signal_ndim": 1},
    infer=infer_rfft,
)
@quiet
def rfft(xp: Any, x: Any, *, normalized: int = 0, onesided: int = 1, signal_ndim: int = 1) -> Any:
    """The Fourier transform over the last axes of a real signal, without its redundant half."""
    axes = checked_signal(x.ndim, signal_ndim, onesided, normalized)
    if 0 in x.shape[axes[0] :]:
        raise ValueError(f"input X of shape {x.shape} has no signal")
    z = xp.fft.rfftn(wide(xp, x), axes=axes)
    return cast(xp, xp.stack([z.real, z.imag], axis=-1), x.dtype)


def infer_irfft(ctx: Any) -> None:
    """The signal whose half with pairs this is, of even length."""
    x = dims(ctx, 0)
    full = 2 * (x[-2] - 1) if x and len(x) > 1 and isinstance(x[-2], int) else None
    put(ctx, 0, elem(ctx, 0), x and [*x[:-2], full])


@contrib(
    "Irfft",
    inputs=[("X", "T")],
    outputs=[("Y", "T")],
    types={"T": REALS},
    attributes={"normalized": 0, "onesided": 1, "signal_ndim": OpSchema.AttrType.INT},
    infer=infer_irfft,
)
@quiet
def irfft(xp: Any, x: Any, *, normalized: int = 0, onesided: int = 1, signal_ndim: int) -> Any:
    """The real signal of even length that Rfft makes X of."""
    pairs = halves(x, "X")
    axes = checked_signal(x.ndim - 1, signal_ndim, onesided, normalized)
    if 0 in x.shape[axes[0] : -1] or x.shape[-2] < 2:
        raise ValueError(f"input X of shape {x.shape} has no signal")
    z = wide(xp, pairs[0]) + 1j * wide(xp, pairs[1])
    sizes = [*x.shape[axes[0] : -2], 2 * (x.shape[-2] - 1)]
    return cast(xp, xp.fft.irfftn(z, s=sizes, axes=axes), x.dtype)


def halves(x: Any, name: str) -> tuple[Any, Any]:
    """Real and imaginary part."""
    if not x.ndim or x.shape[-1] != 2:
        raise ValueError(f"input {name} of shape {x.shape} should have pairs along its last axis")
    return x[..., 0], x[..., 1]


def complex_product(xp: Any, a: Any, b: Any, sign: int) -> Any:
    """(a + bi) (c + sign di), in at least float32."""
    (p, q), (r, s) = halves(wide(xp, a), "A"), halves(wide(xp, b), "B")
    s = s if sign > 0 else -s
    return cast(xp, xp.stack([p * r - q * s, p * s + q * r], axis=-1), a.dtype)


PAIR: dict[str, Any] = {
    "inputs": [("A", "T"), ("B", "T")],
    "outputs": [("C", "T")],
    "types": {"T": REALS},
    "infer": standard("Add", inputs=(0, 1)),
}


@contrib("ComplexMul", **PAIR)
@quiet
def complex_mul(xp: Any, a: Any, b: Any) -> Any:
    """A B for complex numbers."""
    return complex_product(xp, a, b, 1)


@contrib("ComplexMulConj", **PAIR)
@quiet
def complex_mul_conj(xp: Any, a: Any, b: Any) -> Any:
    """A times the conjugate of B, for complex numbers."""
    return complex_product(xp, a, b, -1)


# ---- the rest


@contrib(
    "IsAllFinite",
    inputs=[("input", "V", "variadic")],
    outputs=[("output", "T")],
    types={"V": NARROW, "T": ["tensor(bool)"]},
    attributes={"isinf_only": 0, "isnan_only": 0},
    infer=lambda ctx: put(ctx, 0, TensorProto.BOOL, []),
)
def is_all_finite(xp: Any, *inputs: Any, isinf_only: int = 0, isnan_only: int = 0) -> Any:
    """Whether no input holds an infinity or NaN; with one of the attributes, only that is looked for."""
    if isinf_only and isnan_only:
        raise ValueError("attributes isinf_only and isnan_only are both set")
    bad = xp.isinf if isinf_only else xp.isnan if isnan_only else lambda x: ~xp.isfinite(x)
    return xp.asarray(not any(bool(xp.any(bad(wide(xp, x)))) for x in inputs))


def infer_unfolded(ctx: Any) -> None:
    """The places of the slices in place of the axis; last, what is in a slice."""
    x, size, step = dims(ctx, 0), attr(ctx, "size"), attr(ctx, "step", 1)
    if x:
        axis = checked_axis(attr(ctx, "dim", -1), len(x), "dim")
        whole = x[axis]
        x[axis] = (whole - size) // step + 1 if isinstance(whole, int) and step > 0 else None
    put(ctx, 0, elem(ctx, 0), x and [*x, size])


@contrib(
    "UnfoldTensor",
    inputs=[("input", "T")],
    outputs=[("output", "T")],
    types={"T": (*ALL, "tensor(bfloat16)")},
    attributes={"dim": -1, "size": OpSchema.AttrType.INT, "step": 1},
    infer=infer_unfolded,
)
def unfold_tensor(xp: Any, x: Any, *, dim: int = -1, size: int, step: int = 1) -> Any:
    """All slices of ``size`` along ``dim``, each ``step`` after the one before, as a new last axis."""
    axis = checked_axis(dim, x.ndim, "dim")
    if step < 1 or not 1 <= size <= x.shape[axis]:
        raise ValueError(f"attributes size={size} and step={step} do not fit an axis of {x.shape[axis]}")
    count = (x.shape[axis] - size) // step + 1
    taken = xp.take(x, xp.arange(count)[:, None] * step + xp.arange(size), axis=axis)
    return xp.moveaxis(taken, axis + 1, -1)
