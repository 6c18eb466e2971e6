"""Quantised gathers, conversions and products.

Products of codes are summed exactly; what follows is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels import quantize as kernels
from epkit.kernels._dtypes import is_integer, name_of
from epkit.kernels._pointwise import checked_axis
from epkit.kernels.cast import converted
from epkit.kernels.quantize import by_column, by_row, dynamic_quantize_linear, product, wrapped

from ._codes import BYTES, SCALE, coded
from ._infer import Dims, attr, dims, elem, put, times
from ._shapes import copied, standard
from .declare import contrib

Ints = Sequence[int]
CODES = (*BYTES, "tensor(int16)", "tensor(uint16)", "tensor(int4)", "tensor(uint4)")
REALS = ("tensor(float)", "tensor(float16)")


# ---- gathers and conversions


def infer_gather(ctx: Any) -> None:
    """The shape of Gather; packed data have several values in each element of the last axis."""
    data, indices = dims(ctx, 0), dims(ctx, 1)
    shape: Dims = None
    if data is not None and indices is not None:
        axis = checked_axis(attr(ctx, "gather_axis", 0), len(data), "gather_axis")
        packed = 8 // attr(ctx, "bits", 4) if elem(ctx, 0) == TensorProto.UINT8 else 1
        data = [*data[:-1], times(data[-1], packed)]
        shape = [*data[:axis], *indices, *data[axis + 1 :]]
    put(ctx, 0, elem(ctx, 2), shape)


@contrib(
    "GatherBlockQuantized",
    inputs=[("data", "T1"), ("indices", "Tind"), ("scales", "T2"), ("zero_points", "T1", "optional")],
    outputs=[("output", "T2")],
    types={
        "T1": [
            f"tensor({n})" for n in ("int4", "uint4", "uint8", "float4e2m1", "float8e4m3fn", "float8e4m3fnuz")
        ]
        + ["tensor(float8e5m2)", "tensor(float8e5m2fnuz)"],
        "T2": (*REALS, "tensor(bfloat16)"),
        "Tind": ["tensor(int32)", "tensor(int64)"],
    },
    attributes={"bits": 4, "block_size": 128, "gather_axis": 0, "quantize_axis": 1},
    infer=infer_gather,
)
def gather_block_quantized(
    xp: Any,
    data: Any,
    indices: Any,
    scales: Any,
    zero_points: Any = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Any:
    """Gather of (data - zero point) scale, where each block along ``quantize_axis`` has its own scale.

    Bytes hold 8 / bits values each, the lowest bits first, along the last axis, and are centred on
    2^(bits - 1) by default. An index out of range gives zeros.
    """
    along = checked_axis(gather_axis, data.ndim, "gather_axis")
    across = checked_axis(quantize_axis, data.ndim, "quantize_axis")
    whole, packed = is_integer(data.dtype), name_of(data.dtype) == "uint8"
    if packed and (bits not in (2, 4, 8) or along != 0 or not 0 < across == data.ndim - 1):
        raise ValueError(
            f"attributes bits={bits}, gather_axis={gather_axis}, quantize_axis={quantize_axis}: bytes hold "
            "2, 4 or 8 bits a value, are gathered on axis 0 and quantised along the last"
        )
    sizes = (*data.shape[:-1], data.shape[-1] * (8 // bits if packed else 1))
    block = checked_blocks(sizes, scales, across, block_size, whole)
    if zero_points is not None:
        if not whole:
            raise ValueError(f"input zero_points is given, but data of type {data.dtype} have none")
        zero_points = unpacked(xp, zero_points, bits)[..., : scales.shape[-1]] if packed else zero_points
        if zero_points.shape != scales.shape:
            raise ValueError(
                f"input zero_points (shape {zero_points.shape}) does not fit scales {scales.shape}"
            )
    flat, known = safe_indices(xp, xp.reshape(indices, (-1,)), sizes[along])

    def gathered(x: Any) -> Any:
        """A scale or zero point for each value gathered."""
        if along == across:
            return converted(xp, xp.take(x, flat // block, axis=along), xp.float32)
        x = x if x.shape[along] < sizes[along] else xp.take(x, flat, axis=along)
        return converted(xp, xp.take(x, xp.arange(sizes[across]) // block, axis=across), xp.float32)

    values = xp.take(data, flat, axis=along)
    values = converted(xp, unpacked(xp, values, bits) if packed else values, xp.float32)
    if zero_points is not None:
        values = values - gathered(zero_points)
    elif packed:
        values = values - 2 ** (bits - 1)
    with np.errstate(all="ignore"):
        values = converted(xp, values * gathered(scales), scales.dtype)
    known = xp.reshape(known, (-1, *(1,) * (data.ndim - 1 - along)))
    values = xp.where(known, values, xp.zeros_like(values))
    return xp.reshape(values, (*values.shape[:along], *indices.shape, *values.shape[along + 1 :]))


def checked_blocks(sizes: Ints, scales: Any, across: int, block_size: int, whole: bool) -> int:
    """The size of a block along axis ``across``, after a look at the shape of the scales."""
    if block_size & (block_size - 1) or not (block_size >= 16 or block_size == 0 and not whole):
        raise ValueError(f"attribute block_size={block_size} is not a power of 2 of at least 16")
    block = block_size or max(sizes[across], 1)
    wanted = [-(-size // block) if axis == across else size for axis, size in enumerate(sizes)]
    shared = [axis != across and not whole for axis in range(len(sizes))]
    if scales.ndim != len(sizes) or not all(
        n == w or (n == 1 and one) for n, w, one in zip(scales.shape, wanted, shared, strict=True)
    ):
        raise ValueError(f"input scales of shape {scales.shape} should have shape {tuple(wanted)}")
    return block


def safe_indices(xp: Any, indices: Any, size: int) -> tuple[Any, Any]:
    """Indices counted from the front, those out of range as 0; and which are in range."""
    known = (indices >= -size) & (indices < size)
    if not size and indices.shape[0]:
        raise ValueError("input data has nothing to gather")
    return xp.where(known, xp.where(indices < 0, indices + size, indices), xp.zeros_like(indices)), known


def unpacked(xp: Any, x: Any, bits: int) -> Any:
    """The 8 / bits values of each byte, lowest bits first, along the last axis."""
    if bits == 8:
        return x
    shifts = xp.astype(xp.arange(0, 8, bits), xp.uint8)
    values = (x[..., None] >> shifts) & xp.asarray(2**bits - 1, dtype=xp.uint8)
    return xp.reshape(values, (*x.shape[:-1], x.shape[-1] * (8 // bits)))


@contrib(
    "QuantizeLinear",
    inputs=[("x", "T1"), ("y_scale", "T1"), ("y_zero_point", "T2", "optional")],
    outputs=[("y", "T2")],
    types={"T1": REALS, "T2": CODES},
    attributes={"axis": (OpSchema.AttrType.INT, None)},
    infer=copied(element_of=2, code=TensorProto.UINT8),
)
def quantize_linear(xp: Any, x: Any, scale: Any, zero_point: Any = None, *, axis: int = 1) -> Any:
    """saturate(round(x / scale) + zero_point), with one scale or one for each place along ``axis``.

    The quotient is a float32, also of float16 (the standard rounds it to float16).
    """
    return kernels.quantize_linear(xp, x, scale, zero_point, axis=axis, precision=TensorProto.FLOAT)


@contrib(
    "DequantizeLinear",
    inputs=[("x", "T1"), ("x_scale", "T2"), ("x_zero_point", "T1", "optional")],
    outputs=[("y", "T2")],
    types={"T1": (*CODES, "tensor(int32)"), "T2": REALS},
    attributes={"axis": (OpSchema.AttrType.INT, None)},
    infer=copied(element_of=1),
)
def dequantize_linear(xp: Any, x: Any, scale: Any, zero_point: Any = None, *, axis: int = 1) -> Any:
    """(x - zero_point) scale, with one scale or one for each place along ``axis``."""
    return kernels.dequantize_linear(xp, x, scale, zero_point, axis=axis)


# ---- products


def scaled_product(xp: Any, whole: Any, factor: Any, bias: Any, dtype: Any) -> Any:
    """whole factor + bias, in float32 and then rounded to ``dtype``."""
    with np.errstate(all="ignore"):
        y = converted(xp, whole, xp.float32) * factor
        if bias is not None:
            if bias.shape != y.shape[-1:]:
                raise ValueError(f"input bias of shape {bias.shape} should have {y.shape[-1]} values")
            y = y + converted(xp, bias, xp.float32)
        return converted(xp, y, dtype)


def check_inner(a: Any, b: Any) -> None:
    """Refuse factors that do not fit together."""
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} do not have the same inner size")


def factor_of(xp: Any, a: Any, a_scale: Any, b: Any, b_scale: Any) -> Any:
    """a_scale b_scale, per row of ``a`` and column of ``b``, in float32."""
    rows, columns = by_row(xp, a_scale, a, "a_scale"), by_column(xp, b_scale, b, "b_scale")
    return converted(xp, rows, xp.float32) * converted(xp, columns, xp.float32)


@contrib(
    "DynamicQuantizeMatMul",
    inputs=[
        ("A", "T1"),
        ("B", "T2"),
        ("b_scale", "T1"),
        ("b_zero_point", "T2", "optional"),
        ("bias", "T1", "optional"),
    ],
    outputs=[("Y", "T1")],
    types={"T1": [SCALE], "T2": BYTES},
    infer=standard("MatMul", inputs=(0, 1)),
)
def dynamic_quantize_mat_mul(
    xp: Any, a: Any, b: Any, b_scale: Any, b_zero_point: Any = None, bias: Any = None
) -> Any:
    """MatMulIntegerToFloat of ``a`` quantised as by DynamicQuantizeLinear."""
    whole, a_scale, a_zero = dynamic_quantize_linear(xp, a)
    return mat_mul_integer_to_float(xp, whole, b, a_scale, b_scale, a_zero, b_zero_point, bias)


@contrib(
    "MatMulIntegerToFloat",
    inputs=[
        ("A", "T1"),
        ("B", "T2"),
        ("a_scale", "T3"),
        ("b_scale", "T3"),
        ("a_zero_point", "T1", "optional"),
        ("b_zero_point", "T2", "optional"),
        ("bias", "T3", "optional"),
    ],
    outputs=[("Y", "T3")],
    types={"T1": BYTES, "T2": BYTES, "T3": REALS},
    infer=standard("MatMul", inputs=(0, 1), element_of=2),
)
def mat_mul_integer_to_float(
    xp: Any,
    a: Any,
    b: Any,
    a_scale: Any,
    b_scale: Any,
    a_zero_point: Any = None,
    b_zero_point: Any = None,
    bias: Any = None,
) -> Any:
    """(a - a_zero_point) @ (b - b_zero_point) a_scale b_scale + bias."""
    check_inner(a, b)
    whole = product(xp, a, b, a_zero_point, b_zero_point)
    return scaled_product(xp, whole, factor_of(xp, a, a_scale, b, b_scale), bias, a_scale.dtype)


@contrib(
    "QGemm",
    inputs=[
        ("A", "TA"),
        ("a_scale", "T"),
        ("a_zero_point", "TA"),
        ("B", "TB"),
        ("b_scale", "T"),
        ("b_zero_point", "TB"),
        ("C", "TC", "optional"),
        ("y_scale", "T", "optional"),
        ("y_zero_point", "TYZ", "optional"),
    ],
    outputs=[("Y", "TY")],
    types={
        "T": [SCALE],
        "TA": BYTES,
        "TB": BYTES,
        "TC": ["tensor(int32)"],
        "TYZ": BYTES,
        "TY": (SCALE, *BYTES),
    },
    attributes={"alpha": 1.0, "transA": 0, "transB": 0},
    infer=standard("Gemm", inputs=(0, 3), element_of=8, code=TensorProto.FLOAT),
)
def q_gemm(
    xp: Any,
    a: Any,
    a_scale: Any,
    a_zero_point: Any,
    b: Any,
    b_scale: Any,
    b_zero_point: Any,
    c: Any = None,
    y_scale: Any = None,
    y_zero_point: Any = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """alpha a_scale b_scale ((A - a_zero_point)' (B - b_zero_point)' + C), quantised if y_scale is given."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} should be matrices")
    if (y_scale is None) != (y_zero_point is None):
        raise ValueError("inputs y_scale and y_zero_point should be given together")
    left, right = a.T if transA else a, b.T if transB else b
    check_inner(left, right)
    whole = product(xp, left, right, a_zero_point, b_zero_point)
    if c is not None:
        whole = whole + xp.broadcast_to(c, whole.shape)
    factor = factor_of(xp, left, a_scale, right, b_scale) * xp.asarray(alpha, dtype=xp.float32)
    if y_scale is None:
        return scaled_product(xp, whole, factor, None, xp.float32)
    return coded(
        xp, converted(xp, whole, xp.float32) * factor, y_scale, y_zero_point, y_zero_point.dtype, "y"
    )


@contrib(
    "MatMulInteger16",
    inputs=[("A", "T1"), ("B", "T2")],
    outputs=[("Y", "T3")],
    types={
        "T1": ["tensor(int16)", "tensor(uint16)"],
        "T2": ["tensor(int16)", "tensor(uint16)"],
        "T3": ["tensor(int32)", "tensor(uint32)"],
    },
    infer=standard("MatMul", inputs=(0, 1), element_of=None, code=TensorProto.INT32),
)
def mat_mul_integer16(xp: Any, a: Any, b: Any) -> Any:
    """a @ b as int32, which sums may overflow; exact before that for up to 2^21 terms."""
    check_inner(a, b)
    return wrapped(xp, xp.matmul(converted(xp, a, xp.float64), converted(xp, b, xp.float64)))
