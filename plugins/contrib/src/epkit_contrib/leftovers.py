"""Operators of the default domain that files have and the standard has no more, or not yet at their version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels._precision import cast, mean, quiet, wide
from epkit.kernels.crop import slice_10
from epkit.kernels.normalize import layer_normalization, positive_axis

from ._infer import attr, dims, elem, put, same
from ._shapes import standard
from .declare import FLOATS, contrib

FLOAT_LIST, INTS = OpSchema.AttrType.FLOATS, OpSchema.AttrType.INTS
REAL = ("tensor(float16)", "tensor(float)", "tensor(double)")
WIDTHS = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float",
    "double",
)
ANY = tuple(f"tensor({name})" for name in (*WIDTHS, "string", "bool", "complex64", "complex128"))


# ---- before it came into the standard, at 17


def infer_layer(ctx: Any) -> None:
    """Y in the type of the scale; mean and inverse deviation with the normalised axes of size 1."""
    shape = dims(ctx, 0)
    put(ctx, 0, elem(ctx, 1), shape)
    if shape is not None:
        axis = positive_axis(attr(ctx, "axis", -1), len(shape))
        shape = [*shape[:axis], *[1] * (len(shape) - axis)]
    for output in (1, 2):
        put(ctx, output, attr(ctx, "stash_type", TensorProto.FLOAT), shape)


@contrib(
    "LayerNormalization",
    inputs=[("X", "T"), ("Scale", "V"), ("B", "V", "optional")],
    outputs=[("Y", "V"), ("Mean", "U", "optional"), ("InvStdDev", "U", "optional")],
    types={"T": FLOATS, "U": ("tensor(float)", "tensor(double)"), "V": FLOATS},
    attributes={"axis": -1, "epsilon": 9.999999747378752e-06, "stash_type": 1},
    infer=infer_layer,
    domain="",
)
@quiet
def early_layer_normalization(
    xp: Any, x: Any, scale: Any, b: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + b: what optimisers write below opset 17, where it is standard."""
    y, *statistics = layer_normalization(xp, x, scale, b, axis=axis, epsilon=epsilon, stash_type=stash_type)
    return cast(xp, y, scale.dtype), *statistics


# ---- experimental, taken back with opset 10


@contrib(
    "MeanVarianceNormalization",
    inputs=[("input", "T")],
    outputs=[("output", "T")],
    types={"T": REAL},
    attributes={"across_channels": 0, "normalize_variance": 1},
    infer=same,
    domain="",
)
@quiet
def early_mean_variance_normalization(
    xp: Any, x: Any, *, across_channels: int = 0, normalize_variance: int = 1
) -> Any:
    """x - mean, then over sqrt(variance); both over all axes but that of the channels, or over all."""
    if x.ndim < 2:
        raise ValueError(f"input of shape {x.shape} should have a batch and a channel axis")
    axes = tuple(axis for axis in range(x.ndim) if across_channels or axis != 1)
    y = wide(xp, x)
    y = y - mean(xp, y, axes)
    if normalize_variance:
        y = y / xp.sqrt(mean(xp, y * y, axes))
    return cast(xp, y, x.dtype)


@contrib(
    "Scale",
    inputs=[("input", "T")],
    outputs=[("output", "T")],
    types={"T": REAL},
    attributes={"scale": 1.0},
    infer=same,
    domain="",
)
@quiet
def scale(xp: Any, x: Any, *, scale: float = 1.0) -> Any:
    """scale x."""
    return x * xp.asarray(scale, dtype=x.dtype)


@contrib(
    "ImageScaler",
    inputs=[("input", "T")],
    outputs=[("output", "T")],
    types={"T": REAL},
    attributes={"bias": (FLOAT_LIST, None), "scale": 1.0},
    infer=same,
    domain="",
)
@quiet
def image_scaler(xp: Any, x: Any, *, bias: Sequence[float] = (), scale: float = 1.0) -> Any:
    """scale x + bias of the channel."""
    if x.ndim != 4 or len(bias) != x.shape[1]:
        raise ValueError(f"attribute bias={list(bias)} does not fit images of shape {x.shape}")
    shift = xp.reshape(xp.asarray(bias, dtype=xp.float32), (1, -1, 1, 1))
    return x * xp.asarray(scale, dtype=x.dtype) + cast(xp, shift, x.dtype)


def infer_crop(ctx: Any) -> None:
    """Images of another height and width."""
    shape, border, size = dims(ctx, 0, 4), attr(ctx, "border"), attr(ctx, "scale")
    if shape is None or not border or len(border) != 4:
        put(ctx, 0, elem(ctx, 0), None)
        return
    left, top, right, bottom = border
    cut = [
        d - n if isinstance(d, int) else None
        for d, n in zip(shape[2:], (top + bottom, left + right), strict=True)
    ]
    put(ctx, 0, elem(ctx, 0), [*shape[:2], *(size or cut)])


@contrib(
    "Crop",
    inputs=[("input", "T")],
    outputs=[("output", "T")],
    types={"T": REAL},
    attributes={"border": (INTS, None), "scale": (INTS, None)},
    infer=infer_crop,
    domain="",
)
def crop(xp: Any, x: Any, *, border: Sequence[int] = (), scale: Sequence[int] | None = None) -> Any:
    """Images without their border (left, top, right, bottom); with ``scale``, that height and width of them."""
    if x.ndim != 4 or len(border) != 4:
        raise ValueError(
            f"attribute border={list(border)} and input {x.shape} should have 4 numbers and axes"
        )
    left, top, right, bottom = border
    height, width = scale or (x.shape[2] - top - bottom, x.shape[3] - left - right)
    if min(border) < 0 or min(height, width) < 0 or top + height > x.shape[2] or left + width > x.shape[3]:
        raise ValueError(
            f"attributes border={list(border)} and scale={scale} reach outside images of {x.shape}"
        )
    return xp.asarray(x[:, :, top : top + height, left : left + width], copy=True)


@contrib(
    "DynamicSlice",
    inputs=[("data", "T"), ("starts", "Tind"), ("ends", "Tind"), ("axes", "Tind", "optional")],
    outputs=[("output", "T")],
    types={"T": ANY, "Tind": ("tensor(int32)", "tensor(int64)")},
    infer=standard("Slice", inputs=(0, 1, 2, 3)),
    domain="",
)
def dynamic_slice(xp: Any, data: Any, starts: Any, ends: Any, axes: Any = None) -> Any:
    """data[start:end] along each of ``axes``: what Slice is from opset 10 on."""
    return slice_10(xp, data, starts, ends, axes)
