"""Quantised operators: gathers, conversions, products and everything that works element by element.

Where a result is quantised it is ``saturate(round(y / scale) + zero_point)``, halves to even, with y computed
in float32 from exact integer sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from epkit.backend import CustomOperator
from epkit.kernels import pool
from epkit.kernels import quantize as standard_quantize
from epkit.kernels._dtypes import is_integer, name_of
from epkit.kernels._pointwise import checked_axis, scalar
from epkit.kernels.arithmetic import add
from epkit.kernels.cast import converted
from epkit.kernels.index import gather
from epkit.kernels.quantize import by_column, by_row, dynamic_quantize_linear, product, quantized, shifted, wrapped
from onnx import TensorProto
from onnx.defs import OpSchema

from ._infer import Dims, attr, dims, elem, put, times
from ._layout import channels_first, channels_last
from ._shapes import copied, standard
from .declare import DECLARED, MICROSOFT, contrib

Ints = Sequence[int]

BYTES = ("tensor(int8)", "tensor(uint8)")
CODES = (*BYTES, "tensor(int16)", "tensor(uint16)", "tensor(int4)", "tensor(uint4)")
REALS = ("tensor(float)", "tensor(float16)")
SCALE = "tensor(float)"


def real(xp: Any, x: Any, scale: Any, zero: Any, name: str) -> Any:
    """(x - zero) scale as float32, for one scale and zero point."""
    zero = None if zero is None else scalar(xp, zero, f"{name}_zero_point")
    return shifted(xp, x, zero, xp.float32) * scalar(xp, scale, f"{name}_scale")


def coded(xp: Any, y: Any, scale: Any, zero: Any, dtype: Any, name: str) -> Any:
    """saturate(round(y / scale) + zero)."""
    zero = None if zero is None else scalar(xp, zero, f"{name}_zero_point")
    with np.errstate(all="ignore"):
        return quantized(xp, y / scalar(xp, scale, f"{name}_scale"), zero, dtype)


def by_table(xp: Any, x: Any, function: Any) -> Any:
    """function(x) for bytes: computed once for each of the 256 codes."""
    codes = xp.astype(xp.arange(256), xp.uint8).view(x.dtype)
    return xp.take(function(codes), x.view(xp.uint8))


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
        "T1": [f"tensor({n})" for n in ("int4", "uint4", "uint8", "float4e2m1", "float8e4m3fn", "float8e4m3fnuz")]
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
    whole, packed = is_integer(data.dtype), name_of(data.dtype) == "uint8"
    along = checked_axis(gather_axis, data.ndim, "gather_axis")
    across = checked_axis(quantize_axis, data.ndim, "quantize_axis")
    if not (block_size >= 16 and block_size & (block_size - 1) == 0 or block_size == 0 and not whole):
        raise ValueError(f"attribute block_size={block_size} is not a power of 2 of at least 16")
    if packed and (bits not in (2, 4, 8) or along != 0):
        raise ValueError(f"attributes bits={bits}, gather_axis={gather_axis}: packed data need 2, 4 or 8, and 0")
    if zero_points is not None and not whole:
        raise ValueError(f"input zero_points is given, but data of type {data.dtype} have none")
    per_byte = 8 // bits if packed else 1
    if per_byte > 1 and along == across:
        raise ValueError(f"attributes gather_axis and quantize_axis are both {along}, for packed data")
    size = data.shape[across] * (per_byte if across == data.ndim - 1 else 1)
    block = block_size or max(size, 1)
    fits = [
        n == (-(-size // block) if axis == across else data.shape[axis] * (per_byte if axis == data.ndim - 1 else 1))
        or (n == 1 and axis != across and not whole)
        for axis, n in enumerate(scales.shape)
    ]
    if scales.ndim != data.ndim or not all(fits):
        raise ValueError(
            f"input scales of shape {scales.shape} does not fit data of shape {data.shape} in blocks of {block} "
            f"on axis {across}"
        )
    flat, rows = xp.reshape(indices, (-1,)), data.shape[along]
    known = (flat >= -rows) & (flat < rows)
    flat = xp.where(known, xp.where(flat < 0, flat + rows, flat), xp.zeros_like(flat))
    if not rows:
        raise ValueError(f"input data of shape {data.shape} has nothing to gather on axis {along}")

    def chosen(x: Any) -> Any:
        return x if x.shape[along] == 1 and rows != 1 else xp.take(x, flat, axis=along)

    def spread(x: Any) -> Any:
        if along == across:
            return xp.take(x, flat // block, axis=across)
        return xp.take(chosen(x), xp.arange(size) // block, axis=across)

    values = xp.take(data, flat, axis=along)
    values = converted(xp, unpacked(xp, values, bits) if packed else values, xp.float32)
    if zero_points is not None:
        zeros = unpacked(xp, zero_points, bits)[..., : scales.shape[-1]] if packed else zero_points
        if zeros.shape != scales.shape:
            raise ValueError(f"input zero_points of shape {zero_points.shape} does not fit scales {scales.shape}")
        values = values - converted(xp, spread(zeros), xp.float32)
    elif packed:
        values = values - 2 ** (bits - 1)
    with np.errstate(all="ignore"):
        values = values * converted(xp, spread(scales), xp.float32)
    values = xp.where(xp.reshape(known, (-1, *(1,) * (data.ndim - 1 - along))), values, xp.zeros_like(values))
    shape = (*values.shape[:along], *indices.shape, *values.shape[along + 1 :])
    with np.errstate(all="ignore"):
        return converted(xp, xp.reshape(values, shape), scales.dtype)


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
    return standard_quantize.quantize_linear(xp, x, scale, zero_point, axis=axis, precision=TensorProto.FLOAT)


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
    return standard_quantize.dequantize_linear(xp, x, scale, zero_point, axis=axis)


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
def dynamic_quantize_mat_mul(xp: Any, a: Any, b: Any, b_scale: Any, b_zero_point: Any = None, bias: Any = None) -> Any:
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
    types={"T": [SCALE], "TA": BYTES, "TB": BYTES, "TC": ["tensor(int32)"], "TYZ": BYTES, "TY": (SCALE, *BYTES)},
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
    """alpha a_scale b_scale ((A - a_zero_point)' (B - b_zero_point)' + C), quantised if there is a y_scale."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"inputs A {a.shape} and B {b.shape} should be matrices")
    if (y_scale is None) != (y_zero_point is None):
        raise ValueError("inputs y_scale and y_zero_point should be given together")
    left, right = a.T if transA else a, b.T if transB else b
    whole = product(xp, left, right, a_zero_point, b_zero_point)
    if c is not None:
        whole = whole + xp.broadcast_to(c, whole.shape)
    factor = factor_of(xp, left, a_scale, right, b_scale) * xp.asarray(alpha, dtype=xp.float32)
    if y_scale is None:
        return scaled_product(xp, whole, factor, None, xp.float32)
    return coded(xp, converted(xp, whole, xp.float32) * factor, y_scale, y_zero_point, y_zero_point.dtype, "y")


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
    return wrapped(xp, xp.matmul(converted(xp, a, xp.float64), converted(xp, b, xp.float64)))


@contrib(
    "MulInteger",
    inputs=[("A", "T"), ("A_zero_point", "T", "optional"), ("B", "T"), ("B_zero_point", "T", "optional")],
    outputs=[("C", "T1")],
    types={"T": BYTES, "T1": ["tensor(int32)"]},
    infer=standard("Add", inputs=(0, 2), element_of=None, code=TensorProto.INT32),
)
def mul_integer(xp: Any, a: Any, a_zero_point: Any, b: Any, b_zero_point: Any = None) -> Any:
    """(a - a_zero_point) (b - b_zero_point) as int32."""
    a_zero, b_zero = (
        None if zero is None else scalar(xp, zero, name)
        for name, zero in (("A_zero_point", a_zero_point), ("B_zero_point", b_zero_point))
    )
    return shifted(xp, a, a_zero, xp.int32) * shifted(xp, b, b_zero, xp.int32)


# ---- element by element

PAIR = [
    ("A", "T"),
    ("A_scale", SCALE),
    ("A_zero_point", "T", "optional"),
    ("B", "T"),
    ("B_scale", SCALE),
    ("B_zero_point", "T", "optional"),
    ("C_scale", SCALE),
    ("C_zero_point", "T", "optional"),
]
SINGLE = [
    ("X", "T"),
    ("X_scale", SCALE),
    ("X_zero_point", "T", "optional"),
    ("Y_scale", SCALE),
    ("Y_zero_point", "T", "optional"),
]


@contrib(
    "QLinearAdd", inputs=PAIR, outputs=[("C", "T")], types={"T": BYTES}, infer=standard("Add", inputs=(0, 3))
)
def q_linear_add(
    xp: Any, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, c_scale: Any, c_zero: Any = None
) -> Any:
    """The quantised sum of what A and B stand for."""
    total = add(xp, real(xp, a, a_scale, a_zero, "A"), real(xp, b, b_scale, b_zero, "B"))
    return coded(xp, total, c_scale, c_zero, a.dtype, "C")


@contrib(
    "QLinearMul", inputs=PAIR, outputs=[("C", "T")], types={"T": BYTES}, infer=standard("Add", inputs=(0, 3))
)
def q_linear_mul(
    xp: Any, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, c_scale: Any, c_zero: Any = None
) -> Any:
    """The quantised product of what A and B stand for."""
    whole = converted(xp, mul_integer(xp, a, a_zero, b, b_zero), xp.float32)
    factor = scalar(xp, a_scale, "A_scale") * scalar(xp, b_scale, "B_scale")
    return coded(xp, whole * factor, c_scale, c_zero, a.dtype, "C")


@contrib("QLinearSigmoid", inputs=SINGLE, outputs=[("Y", "T")], types={"T": BYTES}, infer=copied())
def q_linear_sigmoid(xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any = None) -> Any:
    """The quantised 1 / (1 + exp(-x))."""

    def table(codes: Any) -> Any:
        with np.errstate(over="ignore"):
            y = 1 / (1 + xp.exp(-real(xp, codes, x_scale, x_zero, "X")))
        return coded(xp, y, y_scale, y_zero, x.dtype, "Y")

    return by_table(xp, x, table)


@contrib(
    "QLinearLeakyRelu",
    inputs=SINGLE,
    outputs=[("Y", "T")],
    types={"T": BYTES},
    attributes={"alpha": 0.01},
    infer=copied(),
)
def q_linear_leaky_relu(
    xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any = None, *, alpha: float = 0.01
) -> Any:
    """The quantised x, times ``alpha`` where it is negative."""

    def table(codes: Any) -> Any:
        y = real(xp, codes, x_scale, x_zero, "X")
        return coded(xp, xp.where(y < 0, y * alpha, y), y_scale, y_zero, x.dtype, "Y")

    return by_table(xp, x, table)


@contrib(
    "QLinearSoftmax",
    inputs=[
        ("X", "T"),
        ("X_scale", SCALE),
        ("x_zero_point", "T", "optional"),
        ("y_scale", SCALE),
        ("y_zero_point", "T"),
    ],
    outputs=[("Y", "T")],
    types={"T": BYTES},
    attributes={"axis": -1, "opset": OpSchema.AttrType.INT},
    infer=copied(),
)
def q_linear_softmax(
    xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any, *, axis: int = -1, opset: int
) -> Any:
    """The quantised exp(x) / sum(exp(x)) over ``axis``, or, before opset 13, over all axes from it on.

    ``opset`` is the attribute; the operator has one version only.
    """
    axis = checked_axis(axis, x.ndim)
    over = axis if opset >= 13 else tuple(range(axis, x.ndim))
    scores = real(xp, x, x_scale, x_zero, "X")
    if not x.size:
        return xp.asarray(x, copy=True)
    exps = xp.exp(scores - xp.max(scores, axis=over, keepdims=True))
    return coded(xp, exps / xp.sum(exps, axis=over, keepdims=True), y_scale, y_zero, x.dtype, "Y")


def requantized(xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any, name: str) -> Any:
    """``x`` in the scale and with the zero point of y."""
    return by_table(
        xp, x, lambda codes: coded(xp, real(xp, codes, x_scale, x_zero, name), y_scale, y_zero, y_zero.dtype, "Y")
    )


def q_linear_concat(xp: Any, y_scale: Any, y_zero: Any, *inputs: Any, axis: int) -> Any:
    """The inputs (each with its scale and zero point), brought to one scale and concatenated along ``axis``."""
    if not inputs or len(inputs) % 3:
        raise ValueError(f"{len(inputs)} inputs are not tensors, each with scale and zero point")
    parts = [
        requantized(xp, inputs[i], inputs[i + 1], inputs[i + 2], y_scale, y_zero, f"inputs[{i}]")
        for i in range(0, len(inputs), 3)
    ]
    axis = checked_axis(axis, parts[0].ndim)
    for part in parts:
        if part.ndim != parts[0].ndim or (*part.shape[:axis], *part.shape[axis + 1 :]) != (
            *parts[0].shape[:axis],
            *parts[0].shape[axis + 1 :],
        ):
            raise ValueError(f"inputs of shapes {parts[0].shape} and {part.shape} do not meet on axis {axis}")
    return xp.concat(parts, axis=axis)


def concat_schema() -> OpSchema:
    """Declared here, for its repeated input takes tensors, scales and zero points by turns."""
    schema = OpSchema(
        "QLinearConcat",
        MICROSOFT,
        1,
        doc=q_linear_concat.__doc__ or "",
        inputs=[
            OpSchema.FormalParameter("Y_scale", SCALE),
            OpSchema.FormalParameter("Y_zero_point", "T8"),
            OpSchema.FormalParameter(
                "inputs", "TV", param_option=OpSchema.FormalParameterOption.Variadic, is_homogeneous=False
            ),
        ],
        outputs=[OpSchema.FormalParameter("Y", "T8")],
        type_constraints=[("T8", list(BYTES), ""), ("TV", [SCALE, *BYTES], "")],
        attributes=[OpSchema.Attribute("axis", OpSchema.AttrType.INT, required=True)],
    )
    schema.set_type_and_shape_inference_function(
        standard("Concat", inputs=lambda count: range(2, count, 3), element_of=1)
    )
    return schema


DECLARED.append(CustomOperator(MICROSOFT, "QLinearConcat", q_linear_concat, 1, concat_schema()))


@contrib(
    "QLinearWhere",
    inputs=[
        ("condition", "tensor(bool)"),
        ("X", "T"),
        ("x_scale", SCALE),
        ("x_zero_point", "T"),
        ("Y", "T"),
        ("y_scale", SCALE),
        ("y_zero_point", "T"),
        ("z_scale", SCALE),
        ("z_zero_point", "T"),
    ],
    outputs=[("Z", "T")],
    types={"T": BYTES},
    infer=standard("Where", inputs=(0, 1, 4), element_of=1),
)
def q_linear_where(
    xp: Any,
    condition: Any,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    y: Any,
    y_scale: Any,
    y_zero: Any,
    z_scale: Any,
    z_zero: Any,
) -> Any:
    """X where the condition holds, else Y, both brought to the scale of Z."""
    left = requantized(xp, x, x_scale, x_zero, z_scale, z_zero, "X")
    return xp.where(condition, left, requantized(xp, y, y_scale, y_zero, z_scale, z_zero, "Y"))


# ---- means


@contrib(
    "QLinearReduceMean",
    inputs=[
        ("data", "T"),
        ("data_scale", SCALE),
        ("data_zero_point", "T", "optional"),
        ("reduced_scale", SCALE),
        ("reduced_zero_point", "T", "optional"),
    ],
    outputs=[("reduced", "T")],
    types={"T": BYTES},
    attributes={"axes": OpSchema.AttrType.INTS, "keepdims": OpSchema.AttrType.INT},
    infer=standard("ReduceMean"),
)
def q_linear_reduce_mean(
    xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any = None, *, axes: Ints, keepdims: int
) -> Any:
    """The quantised mean over ``axes``; over all, if there are none."""
    over = tuple(checked_axis(axis, x.ndim, "axes") for axis in axes) or tuple(range(x.ndim))
    count = math.prod(x.shape[axis] for axis in over)
    if not count:
        raise ValueError(f"input data of shape {x.shape} has no mean over axes {over}")
    total = xp.sum(real(xp, x, x_scale, x_zero, "data"), axis=over, keepdims=bool(keepdims))
    return coded(xp, xp.asarray(total / count), y_scale, y_zero, x.dtype, "reduced")


POOLED = [("X", "T"), ("x_scale", SCALE), ("x_zero_point", "T", "optional"), ("y_scale", SCALE)]


@contrib(
    "QLinearAveragePool",
    inputs=[*POOLED, ("y_zero_point", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": BYTES},
    attributes={
        "auto_pad": "NOTSET",
        "ceil_mode": 0,
        "channels_last": 0,
        "count_include_pad": 0,
        "kernel_shape": OpSchema.AttrType.INTS,
        "pads": (OpSchema.AttrType.INTS, None),
        "strides": (OpSchema.AttrType.INTS, None),
    },
    infer=standard("AveragePool", channels_last=None, opset=22),
)
def q_linear_average_pool(
    xp: Any,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    y_scale: Any,
    y_zero: Any = None,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """The quantised mean of each window, as AveragePool counts its elements."""
    y = pool.average_pool(
        xp,
        real(xp, in_channels_first(xp, x, channels_last), x_scale, x_zero, "x"),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        pads=pads,
        strides=strides,
    )
    return in_layout(xp, coded(xp, y, y_scale, y_zero, x.dtype, "y"), channels_last)


@contrib(
    "QLinearGlobalAveragePool",
    inputs=[("X", "T"), ("x_scale", SCALE), ("x_zero_point", "T"), ("y_scale", SCALE), ("y_zero_point", "T")],
    outputs=[("Y", "T")],
    types={"T": BYTES},
    attributes={"channels_last": 0},
    infer=standard("GlobalAveragePool", channels_last=None, opset=1),
)
def q_linear_global_average_pool(
    xp: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any, *, channels_last: int = 0
) -> Any:
    """The quantised mean of each channel, the spatial axes kept with size 1."""
    y = real(xp, in_channels_first(xp, x, channels_last), x_scale, x_zero, "x")
    y = pool.global_average_pool(xp, y)
    return in_layout(xp, coded(xp, y, y_scale, y_zero, x.dtype, "y"), channels_last)


def in_channels_first(xp: Any, x: Any, last: int) -> Any:
    """The input with channels before the spatial axes, where they are ``last``."""
    return channels_first(xp, x) if last else x


def in_layout(xp: Any, y: Any, last: int) -> Any:
    """The result in the layout of the input."""
    return channels_last(xp, y) if last else y
