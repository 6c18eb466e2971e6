"""Activations with a bias, a split or a residual: what transformers' and diffusion models' fusions leave."""

from __future__ import annotations

import math
from typing import Any

from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels._pointwise import pointwise
from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.activation import gelu as gelu_of
from epkit.kernels.activation import swish
from epkit.kernels.creation import dropout
from epkit.kernels.softmax import shifted

from ._infer import dims, elem, over, put, same
from .declare import FLOATS, contrib

INT = OpSchema.AttrType.INT
HALF_AND_SINGLE = ("tensor(float16)", "tensor(float)")
T = {"T": FLOATS}
ALPHA = 1.7020000219345093  # the float32 nearest to 1.702


def check_row(name: str, vector: Any, x: Any) -> None:
    """Refuse a bias that is not one value for each position on the last axis of ``x``."""
    if vector.ndim != 1 or not x.ndim or vector.shape[0] != x.shape[-1]:
        raise ValueError(f"input {name} of shape {vector.shape} does not fit the last axis of X {x.shape}")


@contrib("Gelu", inputs=[("X", "T")], outputs=[("Y", "T")], types=T, infer=same)
def gelu(xp: Any, x: Any) -> Any:
    """y = x (1 + erf(x / sqrt 2)) / 2."""
    return gelu_of(xp, x)


@contrib("BiasGelu", inputs=[("A", "T"), ("B", "T")], outputs=[("C", "T")], types=T, infer=same)
@pointwise
def bias_gelu(xp: Any, a: Any, b: Any) -> Any:
    """c = gelu(a + b), with a vector b along the last axis."""
    check_row("B", b, a)
    return gelu_of(xp, a + b)


@contrib(
    "FastGelu", inputs=[("X", "T"), ("bias", "T", "optional")], outputs=[("Y", "T")], types=T, infer=same
)
@pointwise
def fast_gelu(xp: Any, x: Any, bias: Any = None) -> Any:
    """y = z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z³))) / 2 with z = x + bias."""
    if bias is not None:
        check_row("bias", bias, x)
        x = x + bias
    return gelu_of(xp, x, approximate="tanh")


@contrib(
    "QuickGelu",
    inputs=[("X", "T")],
    outputs=[("Y", "T")],
    types=T,
    attributes={"alpha": ALPHA},
    infer=same,
)
def quick_gelu(xp: Any, x: Any, *, alpha: float = ALPHA) -> Any:
    """y = x sigmoid(alpha x)."""
    return swish(xp, x, alpha=alpha)


def infer_split(ctx: Any) -> None:
    """The last axis halved."""
    shape = dims(ctx, 0)
    put(ctx, 0, elem(ctx, 0), shape and [*shape[:-1], over(shape[-1], 2)])


@contrib(
    "BiasSplitGelu",
    inputs=[("X", "T"), ("bias", "T")],
    outputs=[("Y", "T")],
    types={"T": HALF_AND_SINGLE},
    infer=infer_split,
)
@pointwise
def bias_split_gelu(xp: Any, x: Any, bias: Any) -> Any:
    """y = a gelu(b), where a and b are the halves of x + bias on the last axis."""
    check_row("bias", bias, x)
    if x.shape[-1] % 2:
        raise ValueError(f"the last axis of X {x.shape} cannot be halved")
    a, b = xp.split(x + bias, 2, axis=-1)
    return a * gelu_of(xp, b)


@contrib(
    "BiasAdd",
    inputs=[("X", "T"), ("bias", "T"), ("skip", "T")],
    outputs=[("Y", "T")],
    types={"T": HALF_AND_SINGLE},
    infer=same,
)
@pointwise
def bias_add(xp: Any, x: Any, bias: Any, skip: Any) -> Any:
    """y = x + bias + skip."""
    check_row("bias", bias, x)
    if skip.shape != x.shape:
        raise ValueError(f"inputs X {x.shape} and skip {skip.shape} must have one shape")
    return x + bias + skip


@contrib(
    "BiasSoftmax",
    inputs=[("data", "T"), ("bias", "T")],
    outputs=[("output", "T")],
    types={"T": ("tensor(float16)", "tensor(float)", "tensor(double)")},
    attributes={"axis": 1, "is_inner_broadcast": INT},
    infer=same,
)
@pointwise
def bias_softmax(xp: Any, data: Any, bias: Any, *, axis: int = 1, is_inner_broadcast: int) -> Any:
    """softmax(data + bias) over everything from ``axis`` on.

    The bias lacks some of the axes before ``axis``: those next to it (inner) or the first ones.
    """
    if not -data.ndim <= axis < data.ndim:
        raise ValueError(f"attribute axis={axis} is out of range for data of shape {data.shape}")
    axis %= data.ndim
    width = math.prod(data.shape[axis:])
    rows = math.prod(data.shape[:axis])
    own = bias.size // width if width else 0
    if own * width != bias.size or (own and rows % own) or (rows * width and not own):
        raise ValueError(
            f"input bias of shape {bias.shape} does not fit data of shape {data.shape}, axis={axis}"
        )
    if not data.size:
        return data
    form = (own, rows // own, width) if is_inner_broadcast else (rows // own, own, width)
    scores = xp.reshape(data, form) + xp.reshape(
        bias, (own, 1, width) if is_inner_broadcast else (1, own, width)
    )
    y = xp.exp(shifted(xp, scores, -1))
    y /= xp.sum(y, axis=-1, keepdims=True)
    return xp.reshape(y, data.shape)


def infer_dropout(ctx: Any) -> None:
    """A mask of bool beside the output."""
    same(ctx)
    put(ctx, 1, TensorProto.BOOL, dims(ctx, 0))


@contrib(
    "BiasDropout",
    inputs=[
        ("data", "T"),
        ("bias", "T"),
        ("residual", "T", "optional"),
        ("ratio", "T1", "optional"),
        ("training_mode", "T2", "optional"),
    ],
    outputs=[("output", "T"), ("mask", "T2", "optional")],
    types={"T": FLOATS, "T1": FLOATS, "T2": ("tensor(bool)",)},
    attributes={"seed": (INT, None)},
    infer=infer_dropout,
)
@quiet
def bias_dropout(
    xp: Any,
    data: Any,
    bias: Any,
    residual: Any = None,
    ratio: Any = None,
    training_mode: Any = None,
    *,
    seed: int | None = None,
) -> Any:
    """dropout(data + bias) + residual; then what was kept."""
    if bias.shape != data.shape:
        check_row("bias", bias, data)
    if residual is not None and residual.shape != data.shape:
        raise ValueError(f"inputs data {data.shape} and residual {residual.shape} must have one shape")
    y, mask = dropout(xp, wide(xp, data) + wide(xp, bias), ratio, training_mode, seed=seed)
    return cast(xp, y if residual is None else y + wide(xp, residual), data.dtype), mask
