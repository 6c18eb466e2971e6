"""Operators of image models: fused convolutions and products, other layouts, sampling and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels import activation as act
from epkit.kernels import arithmetic, grid, matmul, pool
from epkit.kernels import conv as kernels
from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels._window import pad, taps

from ._codes import BYTES
from ._infer import dims, elem, put
from ._layout import channels_first, in_layout
from ._shapes import copied, standard, values
from .declare import contrib

Ints = Sequence[int]
INTS, FLOAT, FLOATS, STRING = (
    (getattr(OpSchema.AttrType, name), None) for name in ("INTS", "FLOAT", "FLOATS", "STRING")
)
"""Optional attributes without default."""

REALS = ("tensor(float)", "tensor(float16)", "tensor(double)")
CONVOLUTION: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "dilations": INTS,
    "group": 1,
    "kernel_shape": INTS,
    "pads": INTS,
    "strides": INTS,
}
ACTIVATION: dict[str, Any] = {"activation": STRING, "activation_params": FLOATS}

ACTIVATIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "": (lambda xp, x: x, ()),
    "Celu": (act.celu, ("alpha",)),
    "Clip": (arithmetic.clip_6, ("min", "max")),
    "Elu": (act.elu, ("alpha",)),
    "HardSigmoid": (act.hard_sigmoid, ("alpha", "beta")),
    "HardSwish": (act.hard_swish, ()),
    "LeakyRelu": (act.leaky_relu, ("alpha",)),
    "Relu": (act.relu, ()),
    "Selu": (act.selu, ("alpha", "gamma")),
    "Sigmoid": (act.sigmoid, ()),
    "Softplus": (act.softplus, ()),
    "Softsign": (act.softsign, ()),
    "Tanh": (act.tanh, ()),
    "ThresholdedRelu": (act.thresholded_relu, ("alpha",)),
}
"""The activations that are fused, with their parameters in order."""


def activated(xp: Any, y: Any, name: str, parameters: dict[str, float] | Sequence[float]) -> Any:
    """The named activation of ``y``; its parameters are in order, or named and not all its own."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"attribute activation={name!r} is not one of {', '.join(filter(None, ACTIVATIONS))}"
        )
    function, names = ACTIVATIONS[name]
    if isinstance(parameters, dict):
        return function(xp, y, **{key: value for key, value in parameters.items() if key in names})
    if len(parameters) not in (0, len(names)):
        raise ValueError(f"attribute activation_params={list(parameters)}: {name} takes {len(names)}")
    return function(xp, y, **dict(zip(names, parameters, strict=False)))


# ---- convolutions


@contrib(
    "FusedConv",
    inputs=[("X", "T"), ("W", "T"), ("B", "T", "optional"), ("Z", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": REALS},
    attributes=CONVOLUTION | ACTIVATION,
    infer=standard("Conv", inputs=(0, 1), opset=11),
)
@quiet
def fused_conv(
    xp: Any,
    x: Any,
    w: Any,
    b: Any = None,
    z: Any = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """activation(Conv(X, W, B) + Z), in float32 for float16."""
    y = kernels.conv(
        xp,
        wide(xp, x),
        wide(xp, w),
        wide(xp, b),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if z is not None:
        if z.shape != y.shape:
            raise ValueError(f"input Z of shape {z.shape} should have the shape {y.shape} of the result")
        y = y + wide(xp, z)
    return cast(xp, activated(xp, y, activation, activation_params or ()), x.dtype)


@contrib(
    "NhwcFusedConv",
    inputs=[("X", "T"), ("W", "T"), ("B", "T", "optional"), ("Z", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": REALS[:2]},
    attributes=CONVOLUTION | ACTIVATION,
    infer=standard("Conv", inputs=(0, 1), opset=11, channels_last=True),
)
def nhwc_fused_conv(
    xp: Any,
    x: Any,
    w: Any,
    b: Any = None,
    z: Any = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """FusedConv with X, Z and Y as (N, spatial..., C) and W as ever."""
    y = fused_conv(
        xp,
        channels_first(xp, x),
        w,
        b,
        None if z is None else channels_first(xp, z),
        activation=activation,
        activation_params=activation_params,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return in_layout(xp, y)


@contrib(
    "NhwcConv",
    inputs=[("X", "T"), ("W", "T"), ("B", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": REALS},
    attributes=CONVOLUTION,
    infer=standard("Conv", inputs=(0, 1), opset=11, channels_last=True),
)
def nhwc_conv(
    xp: Any,
    x: Any,
    w: Any,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """Conv with X and Y as (N, spatial..., C) and W as ever."""
    y = kernels.conv(
        xp,
        channels_first(xp, x),
        w,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return in_layout(xp, y)


@contrib(
    "ConvTransposeWithDynamicPads",
    inputs=[("X", "T"), ("W", "T"), ("Pads", "tensor(int64)", "optional"), ("B", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": REALS},
    attributes={key: value for key, value in CONVOLUTION.items() if key != "pads"} | {"output_padding": INTS},
    infer=lambda ctx: put(ctx, 0, elem(ctx, 0), transposed_shape(ctx)),
)
def conv_transpose_with_dynamic_pads(
    xp: Any,
    x: Any,
    w: Any,
    pads: Any = None,
    b: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """ConvTranspose whose pads are an input."""
    return kernels.conv_transpose(
        xp,
        x,
        w,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        output_padding=output_padding,
        pads=None if pads is None else [int(v) for v in pads],
        strides=strides,
    )


def transposed_shape(ctx: Any) -> list[Any] | None:
    """Batch and rank of X; the rest depends on the pads."""
    x = dims(ctx, 0)
    return None if x is None else [x[0], *[None] * (len(x) - 1)]


# ---- products


@contrib(
    "FusedGemm",
    inputs=[("A", "T"), ("B", "T"), ("C", "T", "optional")],
    outputs=[("Y", "T")],
    types={"T": [*REALS, *(f"tensor({n})" for n in ("int32", "int64", "uint32", "uint64"))]},
    attributes={
        "activation": STRING,
        "activation_alpha": FLOAT,
        "activation_beta": FLOAT,
        "activation_gamma": FLOAT,
        "alpha": 1.0,
        "beta": 1.0,
        "transA": 0,
        "transB": 0,
    },
    infer=standard("Gemm", inputs=(0, 1)),
)
@quiet
def fused_gemm(
    xp: Any,
    a: Any,
    b: Any,
    c: Any = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """activation(alpha A' B' + beta C), in float32 for float16."""
    y = matmul.gemm(xp, wide(xp, a), wide(xp, b), wide(xp, c), alpha, beta, transA, transB)
    given = {"alpha": activation_alpha, "beta": activation_beta, "gamma": activation_gamma}
    known = {key: value for key, value in given.items() if value is not None}
    return cast(xp, activated(xp, y, activation, known), a.dtype)


# ---- pooling


@contrib(
    "NhwcMaxPool",
    inputs=[("x", "T")],
    outputs=[("y", "T")],
    types={"T": BYTES},
    attributes={
        "auto_pad": "NOTSET",
        "ceil_mode": 0,
        "dilations": INTS,
        "kernel_shape": OpSchema.AttrType.INTS,
        "pads": INTS,
        "strides": INTS,
    },
    infer=standard("MaxPool", opset=22, channels_last=True),
)
def nhwc_max_pool(
    xp: Any,
    x: Any,
    *,
    kernel_shape: Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Any:
    """MaxPool of bytes as (N, spatial..., C)."""
    y = pool.max_pool(
        xp,
        channels_first(xp, x),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
        n_outputs=1,
    )
    return in_layout(xp, y)


@contrib(
    "MaxpoolWithMask",
    inputs=[("X", "T"), ("M", "tensor(int32)")],
    outputs=[("Y", "T")],
    types={"T": ["tensor(float)"]},
    attributes={
        "auto_pad": "NOTSET",
        "kernel_shape": INTS,
        "pads": INTS,
        "storage_order": 0,
        "strides": INTS,
    },
    infer=standard("MaxPool", opset=22),
)
@quiet
def maxpool_with_mask(
    xp: Any,
    x: Any,
    mask: Any,
    *,
    kernel_shape: Ints | None = None,
    auto_pad: str = "NOTSET",
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
) -> Any:
    """MaxPool in which each row of a window ends at the first 0 of the mask; the lowest number if empty.

    The mask's channels repeat over those of X. The first element of an image counts in any case.
    """
    view = pool.pool_window(x, kernel_shape or x.shape[2:], auto_pad, 0, None, pads, strides)
    channels = math.prod(mask.shape[:2])
    if mask.ndim != x.ndim or mask.shape[2:] != x.shape[2:] or not channels:
        raise ValueError(f"input M of shape {mask.shape} does not fit X of shape {x.shape}")
    counts = xp.reshape(mask != 0, (channels, -1))
    if x.ndim > 3:
        counts = xp.concat([xp.ones_like(counts[:, :1]), counts[:, 1:]], axis=1)
    counts = xp.take(counts, xp.arange(math.prod(x.shape[:2])) % channels, axis=0)
    counts = pad(xp, xp.reshape(counts, x.shape), view, True)
    lowest = xp.asarray(xp.finfo(x.dtype).min, dtype=x.dtype)
    best: Any = lowest
    alive: Any = True
    for i, (read, open_) in enumerate(
        zip(taps(pad(xp, x, view, lowest), view), taps(counts, view), strict=True)
    ):
        alive = open_ if i % view.kernel[-1] == 0 else alive & open_
        best = xp.maximum(best, xp.where(alive, read, lowest))
    return best


# ---- sampling


@contrib(
    "GridSample",
    inputs=[("X", "T1"), ("Grid", "T1")],
    outputs=[("Y", "T2")],
    types={"T1": REALS, "T2": REALS},
    attributes={"align_corners": 0, "mode": "bilinear", "padding_mode": "zeros"},
    infer=standard("GridSample", inputs=(0, 1), opset=16),
)
def grid_sample(
    xp: Any,
    x: Any,
    points: Any,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Any:
    """GridSample of the standard, for images (N, C, H, W)."""
    if x.ndim != 4:
        raise ValueError(f"input X of shape {x.shape} should be (N, C, H, W)")
    return grid.grid_sample(xp, x, points, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


def infer_crops(ctx: Any) -> None:
    """(regions, channels, height, width)."""
    x, rois, size = dims(ctx, 0), dims(ctx, 1), values(ctx, 3)
    height, width = size if size is not None and len(size) == 2 else (None, None)
    put(ctx, 0, elem(ctx, 0), [rois[0] if rois else None, x[1] if x and len(x) == 4 else None, height, width])


@contrib(
    "CropAndResize",
    inputs=[("X", "T1"), ("rois", "T1"), ("batch_indices", "T2"), ("crop_size", "T2")],
    outputs=[("Y", "T1")],
    types={"T1": REALS, "T2": ["tensor(int32)"]},
    attributes={"extrapolation_value": 0.0, "mode": "bilinear"},
    infer=infer_crops,
)
@quiet
def crop_and_resize(
    xp: Any,
    x: Any,
    rois: Any,
    batch_indices: Any,
    crop_size: Any,
    *,
    extrapolation_value: float = 0.0,
    mode: str = "bilinear",
) -> Any:
    """y[r, c, i, j] = x[batch_indices[r], c] at even steps between the corners of region r: (y1, x1, y2, x2).

    Corners are relative to the image; a single step reads the middle, and points outside have a fixed value.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"attribute mode={mode!r} is neither bilinear nor nearest")
    if (
        x.ndim != 4
        or rois.shape != (*batch_indices.shape, 4)
        or batch_indices.ndim != 1
        or crop_size.shape != (2,)
    ):
        raise ValueError(
            f"inputs X {x.shape}, rois {rois.shape}, batch_indices {batch_indices.shape} and crop_size "
            f"{crop_size.shape} should be (N, C, H, W), (regions, 4), (regions,) and (2,)"
        )
    size = [int(v) for v in crop_size]
    if min(size) < 1 or len(batch_indices) * x.shape[1] * math.prod(size) > 2**31:
        raise ValueError(f"input crop_size={size} is not positive, or too large")
    if batch_indices.size and (xp.min(batch_indices) < 0 or xp.max(batch_indices) >= x.shape[0]):
        raise ValueError(f"input batch_indices reaches outside the batch of {x.shape[0]}")
    regions, images = wide(xp, rois), wide(xp, x)
    rows, columns = (steps(xp, regions[:, i], regions[:, i + 2], size[i], x.shape[2 + i]) for i in (0, 1))
    inside = ((rows >= 0) & (rows <= x.shape[2] - 1))[:, :, None] & (
        (columns >= 0) & (columns <= x.shape[3] - 1)
    )[:, None, :]
    image = batch_indices[:, None, None]
    total: Any = 0
    for row, row_share in neighbours(xp, rows, x.shape[2], mode):
        for column, share in neighbours(xp, columns, x.shape[3], mode):
            pixels = images[image, :, row[:, :, None], column[:, None, :]]
            total = total + pixels * (row_share[:, :, None] * share[:, None, :])[..., None]
    outside = xp.asarray(extrapolation_value, dtype=images.dtype)
    return cast(xp, xp.permute_dims(xp.where(inside[..., None], total, outside), (0, 3, 1, 2)), x.dtype)


def steps(xp: Any, start: Any, end: Any, count: int, size: int) -> Any:
    """(regions, count) positions on an axis with ``size`` pixels."""
    if count == 1:
        return ((start + end) * (size - 1) / 2)[:, None]
    stride = (end - start) * (size - 1) / (count - 1)
    return (start * (size - 1))[:, None] + xp.arange(count, dtype=start.dtype) * stride[:, None]


def neighbours(xp: Any, at: Any, size: int, mode: str) -> list[tuple[Any, Any]]:
    """The pixels that count at each position, and their shares; positions outside are brought inside."""
    at = xp.clip(xp.where(xp.isnan(at), xp.zeros_like(at), at), 0, size - 1)
    if mode == "nearest":
        return [(xp.astype(xp.floor(at + 0.5), xp.int64), xp.ones_like(at))]
    low = xp.floor(at)
    index = xp.astype(low, xp.int64)
    return [(index, 1 - (at - low)), (xp.minimum(index + 1, xp.asarray(size - 1)), at - low)]


@contrib(
    "SampleOp",
    inputs=[("X", "T")],
    outputs=[("Y", "T")],
    types={"T": [*REALS, *(f"tensor({n})" for n in ("int32", "int64", "uint32", "uint64"))]},
    infer=copied(),
)
def sample_op(xp: Any, x: Any) -> Any:
    """A copy of X; a sample of an operator, not of X."""
    return xp.asarray(x, copy=True)
