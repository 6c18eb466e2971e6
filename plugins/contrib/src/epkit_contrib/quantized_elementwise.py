"""Quantised operators that work element by element, and means: saturate(round(y / scale) + zero_point)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.backend import CustomOperator
from epkit.kernels import pool
from epkit.kernels._pointwise import checked_axis, scalar
from epkit.kernels.arithmetic import add
from epkit.kernels.cast import converted
from epkit.kernels.quantize import shifted

from ._codes import BYTES, SCALE, by_table, coded, real
from ._layout import channels_first, in_layout
from ._shapes import copied, standard
from .declare import DECLARED, MICROSOFT, contrib

Ints = Sequence[int]

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


@contrib(
    "QLinearAdd", inputs=PAIR, outputs=[("C", "T")], types={"T": BYTES}, infer=standard("Add", inputs=(0, 3))
)
def q_linear_add(
    xp: Any,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    c_scale: Any,
    c_zero: Any = None,
) -> Any:
    """The quantised sum of what A and B stand for."""
    total = add(xp, real(xp, a, a_scale, a_zero, "A"), real(xp, b, b_scale, b_zero, "B"))
    return coded(xp, total, c_scale, c_zero, a.dtype, "C")


@contrib(
    "QLinearMul", inputs=PAIR, outputs=[("C", "T")], types={"T": BYTES}, infer=standard("Add", inputs=(0, 3))
)
def q_linear_mul(
    xp: Any,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    c_scale: Any,
    c_zero: Any = None,
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

    ``opset`` is the attribute; the operator has one version only. The quotient is rounded once; onnxruntime
    first takes the whole part of 1 / y_scale, which is 254 for the float32 nearest to 1 / 255.
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
        xp,
        x,
        lambda codes: coded(xp, real(xp, codes, x_scale, x_zero, name), y_scale, y_zero, y_zero.dtype, "Y"),
    )


def q_linear_concat(xp: Any, y_scale: Any, y_zero: Any, *inputs: Any, axis: int) -> Any:
    """The inputs (each with scale and zero point), brought to one scale and concatenated along ``axis``."""
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
    """The quantised mean of each window, as AveragePool counts its elements.

    So what ceil_mode lets a window have beyond the pads is never counted; onnxruntime's quantised operator counts
    it with count_include_pad, its AveragePool does not.
    """
    y = pool.average_pool(
        xp,
        real(xp, channels_first(xp, x, channels_last), x_scale, x_zero, "x"),
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
    y = real(xp, channels_first(xp, x, channels_last), x_scale, x_zero, "x")
    y = pool.global_average_pool(xp, y)
    return in_layout(xp, coded(xp, y, y_scale, y_zero, x.dtype, "y"), channels_last)
