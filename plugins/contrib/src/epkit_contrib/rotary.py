"""Rotary position embeddings: of one position a token, and of three (time, height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx.defs import OpSchema

from epkit.kernels._precision import cast, quiet, wide
from epkit.kernels.attention import join_heads

from ._infer import same
from .declare import contrib

INT, INTS, FLOAT = OpSchema.AttrType.INT, OpSchema.AttrType.INTS, OpSchema.AttrType.FLOAT
REAL = ("tensor(float)", "tensor(float16)", "tensor(bfloat16)")
TYPES = {"T": REAL, "M": ("tensor(int64)",)}
ATTRIBUTES = {
    "interleaved": (INT, None),
    "is_packed_batching": (INT, None),
    "num_heads": (INT, None),
    "rotary_embedding_dim": (INT, None),
    "scale": (FLOAT, None),
}


def rotate(xp: Any, x: Any, cos: Any, sin: Any, interleaved: int) -> Any:
    """Turn each pair of features (a, b) of a float32 ``x`` by its angle: (a cos - b sin, a sin + b cos).

    The angles broadcast over (..., pairs); features past the pairs stay. Pairs are neighbours if
    ``interleaved``, else one of each half.
    """
    half = cos.shape[-1]
    y = xp.array(x)
    at = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
        if interleaved
        else (slice(half), slice(half, 2 * half))
    )
    a, b = (x[..., place] for place in at)
    y[..., at[0]] = a * cos - b * sin
    y[..., at[1]] = a * sin + b * cos
    return y


def positions_of(xp: Any, position_ids: Any, batch: int, length: int) -> Any:
    """The position of each token (batch, length): given one by one, or the first of all."""
    if position_ids.size == 1 and position_ids.ndim <= 1:
        steps = xp.arange(length, dtype=xp.int64) + xp.reshape(position_ids, ())
        return xp.broadcast_to(steps, (batch, length))
    if position_ids.shape != (batch, length):
        raise ValueError(
            f"input position_ids of shape {position_ids.shape} should be (1,) or {(batch, length)}"
        )
    return position_ids


def looked_up(xp: Any, name: str, cache: Any, positions: Any, pairs: int | None = None) -> Any:
    """The row of ``cache`` for each position, as float32."""
    if cache.ndim != 2 or (pairs is not None and cache.shape[1] != pairs):
        raise ValueError(f"input {name} of shape {cache.shape} should be (positions, {pairs or 'pairs'})")
    if positions.size and (xp.min(positions) < 0 or xp.max(positions) >= cache.shape[0]):
        raise ValueError(f"a position is outside the {cache.shape[0]} rows of input {name}")
    return wide(xp, xp.take(cache, positions, axis=0))


def heads_of(xp: Any, x: Any, num_heads: int, turned: int, cache: Any) -> tuple[Any, int]:
    """``x`` as (batch, heads, length, size) and how many features are turned, from what is given."""
    if x.ndim == 4:
        size = x.shape[3]
    elif x.ndim != 3:
        raise ValueError(f"input of shape {x.shape} should have 3 or 4 axes")
    elif num_heads:
        size = x.shape[2] // num_heads if num_heads > 0 else 0
    else:
        size = 0 if turned or cache.ndim != 2 else 2 * cache.shape[1]
    if not size or (x.ndim == 3 and x.shape[2] % size):
        raise ValueError(
            f"input of shape {x.shape} cannot be split into heads "
            f"(num_heads={num_heads}, rotary_embedding_dim={turned}, cos_cache {cache.shape})"
        )
    turned = turned or size
    if turned % 2 or not 0 < turned <= size:
        raise ValueError(
            f"attribute rotary_embedding_dim={turned} is no even part of a head of {size} features"
        )
    if x.ndim == 3:
        x = xp.permute_dims(xp.reshape(x, (*x.shape[:2], x.shape[2] // size, size)), (0, 2, 1, 3))
    return wide(xp, x), turned


@contrib(
    "RotaryEmbedding",
    inputs=[("input", "T"), ("position_ids", "M"), ("cos_cache", "T"), ("sin_cache", "T")],
    outputs=[("output", "T")],
    types=TYPES,
    attributes=ATTRIBUTES,
    infer=same,
)
@quiet
def rotary_embedding(
    xp: Any,
    x: Any,
    position_ids: Any,
    cos_cache: Any,
    sin_cache: Any,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    """Turn pairs of features by the angle of their token's position (of which only the first may be given).

    The attribute scale is in the schema, but onnxruntime has never applied it: it counts for nothing here too.
    """
    heads, turned = heads_of(xp, x, num_heads, rotary_embedding_dim, cos_cache)
    positions = positions_of(xp, position_ids, heads.shape[0], heads.shape[2])
    cos, sin = (
        looked_up(xp, name, cache, positions, turned // 2)[:, None]
        for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache))
    )
    return finished(xp, rotate(xp, heads, cos, sin, interleaved), x)


def finished(xp: Any, y: Any, x: Any, scale: float = 1.0) -> Any:
    """``y`` in the form and type of ``x``."""
    if scale != 1:
        y *= xp.asarray(scale, dtype=y.dtype)
    return cast(xp, join_heads(xp, y) if x.ndim == 3 else y, x.dtype)


@contrib(
    "MRotaryEmbedding",
    inputs=[("input", "T"), ("position_ids", "M"), ("cos_cache", "T"), ("sin_cache", "T")],
    outputs=[("output", "T")],
    types=TYPES,
    attributes={**ATTRIBUTES, "mrope_layout": (INT, None), "mrope_section": INTS},
    infer=same,
)
@quiet
def m_rotary_embedding(
    xp: Any,
    x: Any,
    position_ids: Any,
    cos_cache: Any,
    sin_cache: Any,
    *,
    interleaved: int = 0,
    mrope_layout: int = 0,
    mrope_section: Sequence[int],
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Any:
    """Turn each pair of features by the angle of its token's time, height or width, as its section says."""
    heads, turned = heads_of(xp, x, num_heads, rotary_embedding_dim, cos_cache)
    shape = (3, heads.shape[0], heads.shape[2])
    if position_ids.shape != shape:
        raise ValueError(f"input position_ids of shape {position_ids.shape} should have shape {shape}")
    stream = streams(xp, tuple(mrope_section), mrope_layout, turned // 2)
    cos, sin = (
        xp.where(stream == 0, found[0], xp.where(stream == 1, found[1], found[2]))[:, None]
        for found in (
            looked_up(xp, name, cache, position_ids, turned // 2)
            for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache))
        )
    )
    return finished(xp, rotate(xp, heads, cos, sin, interleaved), x, scale)


def streams(xp: Any, section: tuple[int, ...], layout: int, pairs: int) -> Any:
    """Which of the three positions turns each pair: in one run each, or every third from 1 and from 2 on."""
    if len(section) != 3 or min(section) < 0 or sum(section) != pairs:
        raise ValueError(
            f"attribute mrope_section={list(section)} should be three lengths with the sum {pairs}"
        )
    if layout not in (0, 1):
        raise ValueError(f"attribute mrope_layout={layout} is neither 0 nor 1")
    place = xp.arange(pairs)
    if not layout:
        return xp.astype(place >= section[0], xp.int64) + (place >= section[0] + section[1])
    third = place % 3
    return sum(xp.where((third == axis) & (place < 3 * section[axis]), axis, 0) for axis in (1, 2))
