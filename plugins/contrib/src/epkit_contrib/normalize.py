"""Normalisations by the root mean square, with a residual before them, of embeddings, and of groups."""

from __future__ import annotations

import math
from typing import Any

from onnx import TensorProto
from onnx.defs import OpSchema

from epkit.kernels._precision import cast, element_type, quiet, wide
from epkit.kernels.normalize import (
    affine,
    check_vector,
    positive_axis,
    standardized,
    stash,
)

from ._infer import attr, dims, elem, put
from .declare import FLOATS, contrib

INT, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.FLOAT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
HALF_AND_SINGLE = ("tensor(float16)", "tensor(float)")
EPSILON = 9.999999960041972e-13  # the float32 nearest to 1e-12


def rms(xp: Any, rows: Any, epsilon: float) -> tuple[Any, Any]:
    """Rows (r, width) over the root of their mean square, and the inverse of that (r, 1)."""
    squares = xp.expand_dims(xp.vecdot(rows, rows), axis=1)
    inverse = 1 / xp.sqrt(squares / max(rows.shape[1], 1) + epsilon)
    return rows * inverse, inverse


# ---- the default domain


def infer_simplified(ctx: Any) -> None:
    """Y in the type of the scale; the statistics with the normalised axes of size 1."""
    shape = dims(ctx, 0)
    put(ctx, 0, elem(ctx, 1), shape)
    if shape is not None:
        axis = positive_axis(attr(ctx, "axis", -1), len(shape))
        shape = [*shape[:axis], *[1] * (len(shape) - axis)]
    put(ctx, 1, attr(ctx, "stash_type", TensorProto.FLOAT), shape)


def check_scale(x: Any, axis: int, scale: Any) -> None:
    """Refuse a scale that does not broadcast into the normalised axes."""
    inner = x.shape[axis:]
    fits = all(n in (1, m) for n, m in zip(scale.shape[::-1], inner[::-1], strict=False))
    if not fits or math.prod(scale.shape[: -len(inner)]) != 1:
        raise ValueError(f"input scale of shape {scale.shape} does not fit X {x.shape} from axis {axis} on")


@contrib(
    "SimplifiedLayerNormalization",
    inputs=[("X", "T"), ("scale", "V")],
    outputs=[("Y", "V"), ("inv_std_var", "U", "optional")],
    types={"T": FLOATS, "U": ("tensor(float)", "tensor(double)"), "V": FLOATS},
    attributes={"axis": -1, "epsilon": 9.999999747378752e-06, "stash_type": 1},
    infer=infer_simplified,
    domain="",
)
@quiet
def simplified_layer_normalization(
    xp: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """x / sqrt(mean(x²) + epsilon) * scale, the mean over everything from ``axis`` on; then the inverse root."""
    axis = positive_axis(axis, x.ndim)
    check_scale(x, axis, scale)
    rows = xp.reshape(stash(xp, x, stash_type), (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    y, inverse = rms(xp, rows, epsilon)
    inverse = xp.reshape(inverse, (*x.shape[:axis], *(1,) * (x.ndim - axis)))
    y = cast(
        xp, affine(xp, xp.reshape(y, x.shape), xp.reshape(scale, scale.shape[-x.ndim :]), None), scale.dtype
    )
    return y, cast(xp, inverse, element_type(stash_type, "stash_type"))


# ---- after a residual


def infer_skip(ctx: Any) -> None:
    """Output and sum like the input; statistics of one number a row."""
    shape = dims(ctx, 0)
    for output in (0, 3):
        put(ctx, output, elem(ctx, 0), shape)
    for output in (1, 2):
        put(ctx, output, TensorProto.FLOAT, shape and [*shape[:-1], 1])


SKIP_OUTPUTS = [
    ("output", "T"),
    ("mean", "U", "optional"),
    ("inv_std_var", "U", "optional"),
    ("input_skip_bias_sum", "T", "optional"),
]
SKIP_TYPES = {"T": (*REAL, "tensor(double)"), "U": ("tensor(float)",)}


def summed(xp: Any, x: Any, skip: Any, bias: Any, gamma: Any) -> Any:
    """x + skip + bias in at least float32; of the skip, the first axis or axes may be absent or 1."""
    hidden = x.shape[-1] if x.ndim else 0
    if x.ndim not in (2, 3):
        raise ValueError(f"input of shape {x.shape} should have 2 or 3 axes")
    shapes = [x.shape, x.shape[-2:], (1, *x.shape[-2:])]
    if skip.shape not in shapes:
        raise ValueError(f"input skip of shape {skip.shape} does not fit an input of shape {x.shape}")
    check_vector("gamma", gamma, hidden, "features")
    total = wide(xp, x) + wide(xp, skip)
    if bias is not None:
        check_vector("bias", bias, hidden, "features")
        total += wide(xp, bias)
    return total


def skip_outputs(xp: Any, x: Any, y: Any, mean: Any, inverse: Any, total: Any) -> tuple[Any, ...]:
    """The four outputs in their types and shapes."""
    kept = (*x.shape[:-1], 1)
    mean, inverse = (
        cast(xp, xp.reshape(s, kept), xp.asarray(0, dtype=xp.float32).dtype) for s in (mean, inverse)
    )
    return cast(xp, xp.reshape(y, x.shape), x.dtype), mean, inverse, cast(xp, total, x.dtype)


@contrib(
    "SkipLayerNormalization",
    inputs=[
        ("input", "T"),
        ("skip", "T"),
        ("gamma", "T"),
        ("beta", "T", "optional"),
        ("bias", "T", "optional"),
    ],
    outputs=SKIP_OUTPUTS,
    types=SKIP_TYPES,
    attributes={"epsilon": EPSILON},
    infer=infer_skip,
)
@quiet
def skip_layer_normalization(
    xp: Any, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, *, epsilon: float = EPSILON
) -> Any:
    """s = x + skip + bias; (s - mean) / deviation * gamma + beta; then mean, 1 / deviation and s."""
    total = summed(xp, x, skip, bias, gamma)
    if beta is not None:
        check_vector("beta", beta, x.shape[-1], "features")
    y, mean, inverse = standardized(xp, xp.reshape(total, (math.prod(x.shape[:-1]), x.shape[-1])), epsilon)
    return skip_outputs(xp, x, affine(xp, y, gamma, beta), mean, inverse, total)


@contrib(
    "SkipSimplifiedLayerNormalization",
    inputs=[("input", "T"), ("skip", "T"), ("gamma", "T"), ("bias", "T", "optional")],
    outputs=SKIP_OUTPUTS,
    types=SKIP_TYPES,
    attributes={"epsilon": EPSILON},
    infer=infer_skip,
)
@quiet
def skip_simplified_layer_normalization(
    xp: Any, x: Any, skip: Any, gamma: Any, bias: Any = None, *, epsilon: float = EPSILON
) -> Any:
    """s = x + skip + bias; s / sqrt(mean(s²) + epsilon) * gamma; then 0, the inverse root, and s."""
    total = summed(xp, x, skip, bias, gamma)
    y, inverse = rms(xp, xp.reshape(total, (math.prod(x.shape[:-1]), x.shape[-1])), epsilon)
    return skip_outputs(xp, x, affine(xp, y, gamma, None), xp.zeros_like(inverse), inverse, total)


# ---- embeddings


def infer_embedding(ctx: Any) -> None:
    """(batch, length, hidden), the mask's index (batch), and the sum."""
    ids, words = dims(ctx, 0, 2), dims(ctx, 2, 2)
    shape = None if ids is None or words is None else [*ids, words[1]]
    put(ctx, 0, elem(ctx, 2), shape)
    put(ctx, 1, TensorProto.INT32, ids and ids[:1])
    put(ctx, 2, elem(ctx, 2), shape)


def rows_at(xp: Any, name: str, table: Any, ids: Any) -> Any:
    """The rows of an embedding table at ``ids``, in at least float32."""
    if table.ndim != 2:
        raise ValueError(f"input {name} of shape {table.shape} should be (count, hidden)")
    if ids.size and (xp.min(ids) < 0 or xp.max(ids) >= table.shape[0]):
        raise ValueError(f"an index is outside the {table.shape[0]} rows of input {name}")
    return wide(xp, xp.take(table, ids, axis=0))


@contrib(
    "EmbedLayerNormalization",
    inputs=[
        ("input_ids", "T1"),
        ("segment_ids", "T1", "optional"),
        ("word_embedding", "T"),
        ("position_embedding", "T"),
        ("segment_embedding", "T", "optional"),
        ("gamma", "T"),
        ("beta", "T"),
        ("mask", "T1", "optional"),
        ("position_ids", "T1", "optional"),
    ],
    outputs=[("output", "T"), ("mask_index", "T1", "optional"), ("embedding_sum", "T", "optional")],
    types={"T1": ("tensor(int32)",), "T": ("tensor(float)", "tensor(float16)")},
    attributes={"epsilon": EPSILON, "mask_index_type": (INT, None)},
    infer=infer_embedding,
)
@quiet
def embed_layer_normalization(
    xp: Any,
    input_ids: Any,
    segment_ids: Any,
    word_embedding: Any,
    position_embedding: Any,
    segment_embedding: Any,
    gamma: Any,
    beta: Any,
    mask: Any = None,
    position_ids: Any = None,
    *,
    epsilon: float = EPSILON,
) -> Any:
    """s = word + position + segment embeddings; s normalised; the count of ones in each mask (else 0); s."""
    if input_ids.ndim != 2:
        raise ValueError(f"input input_ids of shape {input_ids.shape} should be (batch, length)")
    batch, length = input_ids.shape
    for name, value in (("segment_ids", segment_ids), ("mask", mask)):
        if value is not None and value.shape != (batch, length):
            raise ValueError(f"input {name} of shape {value.shape} should have shape {(batch, length)}")
    if position_ids is None:
        position_ids = xp.arange(length)[None]
    if position_ids.shape not in ((batch, length), (1, length)):
        raise ValueError(f"input position_ids of shape {position_ids.shape} does not fit {(batch, length)}")
    total = rows_at(xp, "word_embedding", word_embedding, input_ids)
    hidden = word_embedding.shape[1]
    parts = [("position_embedding", position_embedding, position_ids)]
    if segment_embedding is not None and segment_ids is not None:
        parts.append(("segment_embedding", segment_embedding, segment_ids))
    for name, table, ids in parts:
        if table.ndim != 2 or table.shape[1] != hidden:
            raise ValueError(f"input {name} of shape {table.shape} should have {hidden} columns")
        total += rows_at(xp, name, table, ids)
    check_vector("gamma", gamma, hidden, "features")
    check_vector("beta", beta, hidden, "features")
    y, _, _ = standardized(xp, xp.reshape(total, (batch * length, hidden)), epsilon)
    y = xp.reshape(affine(xp, y, gamma, beta), (batch, length, hidden))
    index = xp.zeros((batch,), dtype=xp.int32) if mask is None else xp.sum(mask == 1, axis=1, dtype=xp.int32)
    return cast(xp, y, gamma.dtype), index, cast(xp, total, gamma.dtype)


# ---- groups of channels

GROUP_ATTRIBUTES = {"activation": INT, "channels_last": 1, "epsilon": 9.999999747378752e-06, "groups": INT}
GROUP_TYPES = {"T": HALF_AND_SINGLE, "M": HALF_AND_SINGLE}


def infer_group(ctx: Any) -> None:
    """Both outputs are like X."""
    for output in (0, 1):
        put(ctx, output, elem(ctx, 0), dims(ctx, 0))


@contrib(
    "GroupNorm",
    inputs=[("X", "T"), ("gamma", "M"), ("beta", "M")],
    outputs=[("Y", "T")],
    types=GROUP_TYPES,
    attributes=GROUP_ATTRIBUTES,
    infer=infer_group,
)
@quiet
def group_norm(
    xp: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    activation: int,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> Any:
    """Each group of channels of each sample standardised, times gamma[c], plus beta[c]; activation 1 is SiLU."""
    y = normalized_groups(xp, wide(xp, x), gamma, beta, activation, channels_last, epsilon, groups)
    return cast(xp, y, x.dtype)


@contrib(
    "SkipGroupNorm",
    inputs=[("X", "T"), ("gamma", "M"), ("beta", "M"), ("skip", "T"), ("bias", "T", "optional")],
    outputs=[("Y", "T"), ("S", "T", "optional")],
    types=GROUP_TYPES,
    attributes=GROUP_ATTRIBUTES,
    infer=infer_group,
)
@quiet
def skip_group_norm(
    xp: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    skip: Any,
    bias: Any = None,
    *,
    activation: int,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> Any:
    """s = x + skip + bias, where skip may lack the spatial axes; s normalised as by GroupNorm; then s."""
    form = channel_form(x, channels_last)
    if skip.shape in (x.shape[:1] + (math.prod(form),), x.shape[:1] + form):
        skip = xp.reshape(skip, x.shape[:1] + form)
    elif skip.shape != x.shape:
        raise ValueError(f"input skip of shape {skip.shape} does not fit X of shape {x.shape}")
    total = wide(xp, x) + wide(xp, skip)
    if bias is not None:
        check_vector("bias", bias, math.prod(form), "channels of X")
        total += xp.reshape(wide(xp, bias), form)
    y = normalized_groups(xp, total, gamma, beta, activation, channels_last, epsilon, groups)
    return cast(xp, y, x.dtype), cast(xp, total, x.dtype)


def channel_form(x: Any, channels_last: int) -> tuple[int, ...]:
    """The shape of a vector of channels that broadcasts with a sample of ``x``."""
    if x.ndim != 4:
        raise ValueError(f"input X of shape {x.shape} should have 4 axes")
    return (1, 1, x.shape[3]) if channels_last else (x.shape[1], 1, 1)


def normalized_groups(
    xp: Any, x: Any, gamma: Any, beta: Any, activation: int, channels_last: int, epsilon: float, groups: int
) -> Any:
    """What GroupNorm says, in float32."""
    form = channel_form(x, channels_last)
    channels = math.prod(form)
    if groups < 1 or channels % groups:
        raise ValueError(f"attribute groups={groups} does not divide the {channels} channels of X {x.shape}")
    if activation not in (0, 1):
        raise ValueError(f"attribute activation={activation} is neither 0 nor 1")
    check_vector("gamma", gamma, channels, "channels of X")
    check_vector("beta", beta, channels, "channels of X")
    if not x.size:
        return x
    split = (groups, channels // groups)
    shape = (x.shape[0], -1, *split) if channels_last else (x.shape[0], *split, -1)
    grouped, axes = xp.reshape(x, shape), (1, 3) if channels_last else (2, 3)
    y = grouped - xp.mean(grouped, axis=axes, keepdims=True)
    y /= xp.sqrt(xp.mean(y * y, axis=axes, keepdims=True) + epsilon)
    y = xp.reshape(y, x.shape) * xp.reshape(wide(xp, gamma), form) + xp.reshape(wide(xp, beta), form)
    return y / (1 + xp.exp(-y)) if activation else y
