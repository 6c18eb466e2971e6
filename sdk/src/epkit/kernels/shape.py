"""Operators that change a tensor's shape and leave its values alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ._axes import all_axes, choice, ints, one_axis, scalar
from ._bounds import bounded
from .operator import op


@op("Reshape", since=1)
def reshape_1(xp: Any, data: Any, *, shape: Sequence[int] = ()) -> Any:
    """The data in another shape; 0 keeps a dimension, one -1 is inferred. Opset 1: an attribute."""
    return reshape(xp, data, shape)


@op("Reshape", since=5)
def reshape(xp: Any, data: Any, shape: Any, *, allowzero: int = 0) -> Any:
    """The data in another shape; 0 keeps a dimension (unless ``allowzero``), one -1 is inferred."""
    wanted = list(ints(shape))
    if any(d < -1 for d in wanted) or wanted.count(-1) > 1:
        raise ValueError(f"shape {wanted} may hold one -1 and no other negative value")
    if allowzero and 0 in wanted and -1 in wanted:
        raise ValueError(f"shape {wanted} holds 0 and -1, which allowzero=1 leaves ambiguous")
    if not allowzero:
        for i, d in enumerate(wanted):
            if d == 0:
                if i >= data.ndim:
                    raise ValueError(f"shape {wanted} keeps dimension {i} of a tensor of rank {data.ndim}")
                wanted[i] = data.shape[i]
    known, total = prod(d for d in wanted if d != -1), prod(data.shape)
    if -1 in wanted:
        if known == 0 or total % known:
            raise ValueError(f"shape {wanted} leaves no whole size for -1: the data has {total} elements")
        wanted[wanted.index(-1)] = total // known
    elif known != total:
        raise ValueError(f"shape {wanted} has {known} elements, the data {data.shape} has {total}")
    return xp.reshape(data, tuple(wanted))


@op("Flatten", since=1)
def flatten(xp: Any, x: Any, *, axis: int = 1) -> Any:
    """[d0 * ... * d(axis-1), d(axis) * ... * dn]; a negative axis counts from the back (from opset 11)."""
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"axis {axis} is out of range [{-x.ndim}, {x.ndim}]")
    axis = axis + x.ndim if axis < 0 else axis
    return xp.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@op("Squeeze", since=1)
def squeeze_1(xp: Any, data: Any, *, axes: Sequence[int] | None = None) -> Any:
    """Drop dimensions of size 1: those of ``axes``, else all. Until opset 12: an attribute."""
    return squeeze(xp, data, axes)


@op("Squeeze", since=13)
def squeeze(xp: Any, data: Any, axes: Any = None) -> Any:
    """Drop dimensions of size 1: those of ``axes``, else all."""
    if axes is None:
        dropped = tuple(i for i, d in enumerate(data.shape) if d == 1)
    else:
        dropped = all_axes(ints(axes), data.ndim)
    for axis in dropped:
        if data.shape[axis] != 1:
            raise ValueError(f"axis {axis} has size {data.shape[axis]}, only size 1 can be squeezed")
    return xp.reshape(data, tuple(d for i, d in enumerate(data.shape) if i not in dropped))


@op("Unsqueeze", since=1)
def unsqueeze_1(xp: Any, data: Any, *, axes: Sequence[int]) -> Any:
    """Insert dimensions of size 1 at the result's ``axes``. Until opset 12: an attribute."""
    return unsqueeze(xp, data, axes)


@op("Unsqueeze", since=13)
def unsqueeze(xp: Any, data: Any, axes: Any) -> Any:
    """Insert dimensions of size 1 at the result's ``axes``."""
    listed = ints(axes)
    rank = data.ndim + len(listed)
    new = all_axes(listed, rank)
    old = iter(data.shape)
    return xp.reshape(data, tuple(1 if i in new else next(old) for i in range(rank)))


@op("Transpose", since=1)
def transpose(xp: Any, data: Any, *, perm: Sequence[int] | None = None) -> Any:
    """y's dimension i is x's dimension perm[i]; all reversed without ``perm``."""
    if perm is None:
        perm = range(data.ndim)[::-1]
    if sorted(perm) != list(range(data.ndim)):
        raise ValueError(f"perm {tuple(perm)} is not a permutation of the {data.ndim} dimensions")
    return xp.permute_dims(data, tuple(perm))


@op("Concat", since=1)
def concat_1(xp: Any, *inputs: Any, axis: int = 1) -> Any:
    """The inputs one after the other along ``axis``, which is 1 by default until opset 3."""
    return concat(xp, *inputs, axis=axis)


@op("Concat", since=4)
def concat(xp: Any, *inputs: Any, axis: int) -> Any:
    """The inputs one after the other along ``axis``."""
    axis = one_axis(axis, inputs[0].ndim)
    rest = {x.shape[:axis] + x.shape[axis + 1 :] for x in inputs}
    if len(rest) > 1 or len({x.ndim for x in inputs}) > 1:
        raise ValueError(f"shapes {[x.shape for x in inputs]} differ outside axis {axis}")
    return xp.concat(inputs, axis=axis)


@op("Split", since=1)
def split_1(
    xp: Any, x: Any, lengths: Any = None, *, split: Sequence[int] | None = None, axis: int = 0, n_outputs: int
) -> Any:
    """Consecutive parts of x along ``axis``. Opset 1: the lengths are an input or an attribute, or equal."""
    return split_13(xp, x, split if lengths is None else lengths, axis=axis, n_outputs=n_outputs)


@op("Split", since=2)
def split_2(xp: Any, x: Any, *, split: Sequence[int] | None = None, axis: int = 0, n_outputs: int) -> Any:
    """Consecutive parts of x along ``axis``. Until opset 12 the lengths are an attribute, or equal."""
    return split_13(xp, x, split, axis=axis, n_outputs=n_outputs)


@op("Split", since=13)
def split_13(xp: Any, x: Any, split: Any = None, *, axis: int = 0, n_outputs: int) -> Any:
    """Consecutive parts of x along ``axis``. Until opset 17, parts without given lengths are equal."""
    axis = one_axis(axis, x.ndim)
    if split is None and x.shape[axis] % n_outputs:
        raise ValueError(f"axis {axis} of size {x.shape[axis]} has no {n_outputs} equal parts")
    return split_18(xp, x, split, axis=axis, n_outputs=n_outputs)


@op("Split", since=18)
def split_18(
    xp: Any, x: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None, n_outputs: int
) -> Any:
    """Consecutive parts of x along ``axis``: of given lengths, or equal but for a smaller last one."""
    axis = one_axis(axis, x.ndim)
    size = x.shape[axis]
    if split is not None and num_outputs is not None:
        raise ValueError("both the input split and the attribute num_outputs are given")
    if num_outputs not in (None, n_outputs):
        raise ValueError(f"num_outputs is {num_outputs}, but the node has {n_outputs} outputs")
    if split is not None:
        lengths = ints(split)
    else:
        part = -(-size // n_outputs)
        lengths = (*(part,) * (n_outputs - 1), size - part * (n_outputs - 1))
    if len(lengths) != n_outputs or sum(lengths) != size or min(lengths) < 0:
        raise ValueError(
            f"lengths {lengths} do not split axis {axis} of size {size} into {n_outputs} outputs"
        )
    return pieces(x, lengths, axis)


def pieces(x: Any, lengths: Sequence[int], axis: int) -> tuple[Any, ...]:
    """Consecutive views of x along ``axis``."""
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    before = (slice(None),) * axis
    return tuple(x[(*before, slice(s, s + n))] for s, n in zip(starts, lengths, strict=True))


@op("Expand", since=8)
def expand(xp: Any, x: Any, shape: Any) -> Any:
    """x broadcast with ``shape``: right-aligned, a size of 1 on either side gives way."""
    wanted = ints(shape)
    rank = max(x.ndim, len(wanted))
    pairs = zip((1,) * (rank - x.ndim) + x.shape, (1,) * (rank - len(wanted)) + wanted, strict=True)
    result = []
    for have, want in pairs:
        if have != want and 1 not in (have, want):
            raise ValueError(f"shape {wanted} does not broadcast with {x.shape}")
        result.append(want if have == 1 else have)
    return xp.asarray(xp.broadcast_to(x, bounded(result, x)), copy=True)


@op("Tile", since=1)
def tile_1(xp: Any, x: Any, tiles: Any, axis: Any) -> Any:
    """x repeated ``tiles`` times along one ``axis`` (both inputs). Until opset 5."""
    repeats = [1] * x.ndim
    repeats[one_axis(scalar(axis, "axis"), x.ndim)] = scalar(tiles, "tiles")
    return tile(xp, x, repeats)


@op("Tile", since=6)
def tile(xp: Any, x: Any, repeats: Any) -> Any:
    """y[i, ...] = x[i mod d0, ...]: x repeated repeats[k] times along each axis k."""
    counts = ints(repeats)
    if len(counts) != x.ndim or any(n < 0 for n in counts):
        raise ValueError(f"repeats {counts} must be {x.ndim} counts of at least 0")
    bounded([d * n for d, n in zip(x.shape, counts, strict=True)], x)
    return xp.tile(x, counts)


@op("Shape", since=1)
def shape_of(xp: Any, x: Any, *, start: int = 0, end: int | None = None) -> Any:
    """x's dimensions from ``start`` to ``end`` (both from opset 15; clamped, may be negative)."""
    return xp.asarray(x.shape[start:end], dtype=xp.int64)


@op("Size", since=1)
def size_of(xp: Any, x: Any) -> Any:
    """The number of x's elements, an int64 scalar."""
    return xp.asarray(prod(x.shape), dtype=xp.int64)


@op("DepthToSpace", since=1)
def depth_to_space(xp: Any, x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    """[N, C, H, W] -> [N, C/b², H·b, W·b]; the channels are (b, b, C/b²) in DCR, (C/b², b, b) in CRD.

    The attribute ``mode`` came with opset 11.
    """
    n, c, h, w = image_shape(x)
    b = blocksize
    if b < 1 or c % (b * b):
        raise ValueError(f"blocksize {b} squared does not divide the {c} channels")
    if choice(mode, ("DCR", "CRD"), "mode") == "DCR":
        y = xp.permute_dims(xp.reshape(x, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = xp.permute_dims(xp.reshape(x, (n, c // (b * b), b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return xp.reshape(y, (n, c // (b * b), h * b, w * b))


@op("SpaceToDepth", since=1)
def space_to_depth(xp: Any, x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    """[N, C, H, W] -> [N, b²·C, H/b, W/b]; the channels become (b, b, C) in DCR, (C, b, b) in CRD.

    The attribute ``mode`` came with opset 28.
    """
    n, c, h, w = image_shape(x)
    b = blocksize
    if b < 1 or h % b or w % b:
        raise ValueError(f"blocksize {b} does not divide the image of {h} x {w}")
    order = (0, 3, 5, 1, 2, 4) if choice(mode, ("DCR", "CRD"), "mode") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = xp.permute_dims(xp.reshape(x, (n, c, h // b, b, w // b, b)), order)
    return xp.reshape(y, (n, c * b * b, h // b, w // b))


def image_shape(x: Any) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise ValueError(f"expected an input [N, C, H, W], got shape {x.shape}")
    n, c, h, w = x.shape
    return n, c, h, w
