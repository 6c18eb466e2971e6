"""GridSample and AffineGrid: sampling an image at positions that are themselves a tensor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from ._axes import choice, ints, wide_type
from ._bounds import bounded
from .operator import op

CUBIC_A = -0.75
FAR = 1e9
MODES = {"bilinear": "linear", "bicubic": "cubic", "linear": "linear", "cubic": "cubic", "nearest": "nearest"}


@op("GridSample", since=16)
@np.errstate(over="ignore", invalid="ignore")
def grid_sample(
    xp: Any,
    x: Any,
    grid: Any,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Any:
    """y[n, c, o] = x[n, c] interpolated at grid[n, o], positions in [-1, 1] with the last dimension first.

    Opset 16 calls the modes bilinear and bicubic, and is for images only; from opset 20 on for any rank.
    """
    mode = MODES[choice(mode, tuple(MODES), "mode")]
    choice(padding_mode, ("zeros", "border", "reflection"), "padding_mode")
    spatial, places = x.shape[2:], grid.shape[1:-1]
    if x.ndim < 3 or grid.ndim != x.ndim or grid.shape[0] != x.shape[0] or grid.shape[-1] != len(spatial):
        raise ValueError(f"grid {grid.shape} does not belong to an input of shape {x.shape}")
    shape = bounded((*x.shape[:2], *places), x)
    if 0 in shape:
        return xp.zeros(shape, dtype=x.dtype)
    if 0 in spatial:
        raise ValueError(f"the input of shape {x.shape} has nothing to sample")

    taps = []
    for size, at in zip(spatial, positions(xp, grid), strict=True):
        center = ((at + 1) * (size - 1) if align_corners else (at + 1) * size - 1) / 2
        low = 0.0 if align_corners else -0.5
        taps.append(neighbours(xp, center, size, mode, fold(xp, padding_mode, size, low)))
    y = weighted(xp, x, taps, mode)
    if x.dtype.kind in "iu" and mode != "nearest":
        limits = xp.iinfo(x.dtype)
        y = xp.clip(xp.trunc(xp.round(y, 6)), limits.min, limits.max)
    return xp.astype(xp.reshape(y, shape), x.dtype, copy=False)


def positions(xp: Any, grid: Any) -> list[Any]:
    """The coordinates [N, places] of each spatial dimension, first dimension first, all of them finite."""
    flat = xp.astype(xp.reshape(grid, (grid.shape[0], -1, grid.shape[-1])), xp.float64)
    flat = xp.clip(xp.where(xp.isnan(flat), -FAR, flat), -FAR, FAR)
    return [flat[..., i] for i in reversed(range(grid.shape[-1]))]


Fold = Callable[[Any], Any]
Tap = tuple[Any, Any, Any]
"""Of one axis: the index of an input value, its weight, and whether there is a value."""


def fold(xp: Any, mode: str, size: int, low: float) -> Fold:
    """What brings a position outside [0, size - 1] back into it; with zeros it stays outside."""
    span = size - 1 - 2 * low

    def reflect(at: Any) -> Any:
        offset = xp.abs(at - low) % (2 * span) if span else at * 0
        return xp.clip(low + xp.minimum(offset, 2 * span - offset), 0, size - 1)

    def clamp(at: Any) -> Any:
        return xp.clip(at, 0, size - 1)

    return {"reflection": reflect, "border": clamp, "zeros": lambda at: at}[mode]


def neighbours(xp: Any, at: Any, size: int, mode: str, back: Fold) -> list[Tap]:
    """The input values along one axis that count for the positions ``at``."""
    if mode == "nearest":
        return [(*existing(xp, xp.round(back(at)), size), xp.ones_like(at))]
    below = xp.floor(at)
    rest = at - below
    steps, kernel = ((0, 1), linear) if mode == "linear" else ((-1, 0, 1, 2), cubic)
    return [(*existing(xp, back(below + k), size), kernel(xp, xp.abs(rest - k))) for k in steps]


def existing(xp: Any, index: Any, size: int) -> tuple[Any, Any]:
    """Whole positions as indices, and whether they are inside the input."""
    return xp.astype(xp.clip(index, 0, size - 1), xp.int64), (index >= 0) & (index <= size - 1)


def linear(xp: Any, distance: Any) -> Any:
    return 1 - distance


def cubic(xp: Any, distance: Any) -> Any:
    """Keys' cubic convolution kernel."""
    d, a = distance, CUBIC_A
    return xp.where(d <= 1, ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)


def weighted(xp: Any, x: Any, taps: list[list[Tap]], mode: str) -> Any:
    """The sum over all combinations of the axes' taps: [N, C, places]."""
    source = pixel_rows(xp, x, mode)
    n, channels, *spatial = x.shape
    outside = source.shape[0] - 1
    total: Any = None
    for corner in product(*taps):
        row: Any = xp.arange(n)[:, None]
        share: Any = 1.0
        for (index, inside, weight), size in zip(corner, spatial, strict=True):
            row = row * size + index
            share = share * weight * inside
        row = xp.reshape(xp.where(share != 0, row, outside), (-1,))
        value = xp.take(source, row, axis=0)
        if mode != "nearest":
            value *= xp.astype(xp.reshape(share, (-1, 1)), source.dtype)
        if total is None:
            total = value
        else:
            total += value
    return xp.permute_dims(xp.reshape(total, (n, -1, channels)), (0, 2, 1))


def pixel_rows(xp: Any, x: Any, mode: str) -> Any:
    """One row of channels per pixel, and a last one of zeros for all outside: [N * pixels + 1, C]."""
    n, channels = x.shape[:2]
    text = x.dtype.kind in "OUT"
    if text and mode != "nearest":
        raise ValueError(f"mode {mode!r} is not defined for strings")
    rows = xp.reshape(xp.permute_dims(xp.reshape(x, (n, channels, -1)), (0, 2, 1)), (-1, channels))
    rows = xp.concat([rows, xp.full((1, channels), "" if text else 0, dtype=x.dtype)], axis=0)
    if mode == "nearest":
        return rows
    return xp.astype(rows, xp.float64 if x.dtype.kind in "biu" else wide_type(xp, x), copy=False)


@op("AffineGrid", since=20)
def affine_grid(xp: Any, theta: Any, size: Any, *, align_corners: int = 0) -> Any:
    """grid[n, o] = theta[n] @ (position of o in [-1, 1], 1), the last spatial dimension first."""
    batch, _, *spatial = ints(size)
    rank = len(spatial)
    if rank not in (2, 3) or theta.shape != (batch, rank, rank + 1):
        raise ValueError(f"theta {theta.shape} and size {ints(size)} do not describe 2-D or 3-D maps")
    bounded((batch, *spatial, rank), theta)
    kind = wide_type(xp, theta)
    axes = [base(xp, n, bool(align_corners), kind) for n in spatial]
    grids = xp.meshgrid(*axes, indexing="ij")[::-1]
    points = xp.reshape(xp.stack([*grids, xp.ones_like(grids[0])], axis=-1), (-1, rank + 1))
    moved = xp.matmul(points, xp.permute_dims(xp.astype(theta, kind, copy=False), (0, 2, 1)))
    return xp.astype(xp.reshape(moved, (batch, *spatial, rank)), theta.dtype, copy=False)


def base(xp: Any, n: int, align_corners: bool, dtype: Any) -> Any:
    """n even positions in [-1, 1]: from edge to edge (a single one: 0), or the centres of n cells."""
    steps = xp.arange(n, dtype=xp.float64)
    if align_corners:
        return xp.astype(2 * steps / (n - 1) - 1 if n > 1 else steps * 0, dtype)
    return xp.astype((2 * steps + 1) / max(n, 1) - 1, dtype)
