"""Operators on boxes and regions of interest."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

import numpy as np

from ._axes import choice, ints, scalar, wide_type
from ._bounds import bounded
from .operator import op


@op("NonMaxSuppression", since=10)
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def non_max_suppression(
    xp: Any,
    boxes: Any,
    scores: Any,
    max_output_boxes_per_class: Any = None,
    iou_threshold: Any = None,
    score_threshold: Any = None,
    *,
    center_point_box: int = 0,
) -> Any:
    """[selected, 3] of (batch, class, box): per class the best boxes that overlap no better one too much.

    Like onnxruntime and ONNX's reference this drops scores equal to the score threshold too.
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.shape[::2] != boxes.shape[:2]:
        raise ValueError(
            f"boxes {boxes.shape} and scores {scores.shape} are not [N, B, 4] and [N, classes, B]"
        )
    limit = (
        0 if max_output_boxes_per_class is None else scalar(max_output_boxes_per_class, "max_output_boxes")
    )
    overlap = 0.0 if iou_threshold is None else number(iou_threshold)
    if not 0 <= overlap <= 1:
        raise ValueError(f"iou_threshold is {overlap}, expected a value in [0, 1]")
    least = None if score_threshold is None else number(score_threshold)
    corners = as_corners(xp, boxes, bool(center_point_box))
    selected = [xp.zeros((0, 3), dtype=xp.int64)]
    for batch in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            chosen = survivors(xp, corners[batch], scores[batch, kind], limit, overlap, least)
            row = xp.asarray([[batch, kind, 0]], dtype=xp.int64) + xp.asarray([[0, 0, 1]]) * chosen[:, None]
            selected.append(row)
    return xp.concat(selected, axis=0)


def number(value: Any) -> float:
    """The value of a float scalar, or of a tensor of one element."""
    return float(value.reshape(-1)[0])


def as_corners(xp: Any, boxes: Any, centered: bool) -> Any:
    """[N, 5, B]: for each box its lower corner, its upper corner and its area."""
    a, b, c, d = (boxes[..., i] for i in range(4))
    if centered:
        low, high = (a - c / 2, b - d / 2), (a + c / 2, b + d / 2)
    else:
        low, high = (xp.minimum(a, c), xp.minimum(b, d)), (xp.maximum(a, c), xp.maximum(b, d))
    return xp.stack([*low, *high, (high[0] - low[0]) * (high[1] - low[1])], axis=1)


BLOCK = 256
"""Boxes whose overlaps are computed at once."""


def survivors(xp: Any, corners: Any, scores: Any, limit: int, overlap: float, least: float | None) -> Any:
    """The boxes selected for one class, best first; of equal scores the lower index first."""
    order = xp.argsort(-scores, stable=True)
    if least is not None:
        order = order[scores[order] > least]
    chosen = order[:0]
    for start in range(0, order.shape[0], BLOCK):
        if chosen.shape[0] >= limit:
            break
        block = order[start : start + BLOCK]
        block = block[~xp.any(overlapping(xp, corners, block, chosen, overlap), axis=1)]
        conflicts = overlapping(xp, corners, block, block, overlap)
        alive = xp.ones(block.shape, dtype=xp.bool)
        picked: list[int] = []
        for i in range(block.shape[0]):
            if alive[i] and chosen.shape[0] + len(picked) < limit:
                picked.append(i)
                alive &= ~conflicts[i]
        chosen = xp.concat([chosen, block[xp.asarray(picked, dtype=xp.int64)]])
    return chosen[:limit]


def overlapping(xp: Any, corners: Any, some: Any, others: Any, overlap: float) -> Any:
    """[some, others]: whether the intersection over the union of two boxes exceeds the threshold."""
    a, b = corners[:, some][:, :, None], corners[:, others][:, None, :]
    extent = xp.clip(xp.minimum(a[2:4], b[2:4]) - xp.maximum(a[:2], b[:2]), 0, None)
    shared = extent[0] * extent[1]
    return shared / (a[4] + b[4] - shared) > overlap


@op("RoiAlign", since=10)
def roi_align_10(
    xp: Any,
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    """As from opset 16 on with ``output_half_pixel``."""
    return roi_align(
        xp,
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op("RoiAlign", since=16)
@np.errstate(over="ignore", invalid="ignore")
def roi_align(
    xp: Any,
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    """y[r, c, i, j] = the mean of x[batch_indices[r], c] at points spread evenly over bin (i, j) of region r.

    Mode ``max`` is, as in ONNX's published cases, the greatest of the points' weighted neighbours.
    """
    choice(mode, ("avg", "max"), "mode")
    half = choice(
        coordinate_transformation_mode, ("half_pixel", "output_half_pixel"), "coordinate_transformation_mode"
    )
    images = batch_of(x, rois, batch_indices, 4)
    shape = bounded((len(images), x.shape[1], output_height, output_width), x)
    if output_height < 1 or output_width < 1 or sampling_ratio < 0:
        raise ValueError(
            f"output {output_height} x {output_width}, sampling_ratio {sampling_ratio}: too small"
        )
    scaled = np.asarray(rois.tolist(), dtype=np.float64).reshape(-1, 2, 2)[..., ::-1] * spatial_scale
    if not np.isfinite(scaled).all():
        raise ValueError("rois hold values that are not finite")
    start, end = scaled[:, 0], scaled[:, 1]
    extent = end - start
    if half == "half_pixel":
        start = start - 0.5
    else:
        extent = np.maximum(extent, 1.0)
    bins = extent / (output_height, output_width)
    points = np.ceil(bins) if sampling_ratio == 0 else np.full(bins.shape, sampling_ratio)
    with np.errstate(over="ignore"):
        most = points.prod(axis=1).max(initial=0)
    if most > LARGEST_SAMPLING:
        raise ValueError(
            f"a region takes {most:,.0f} sampling points in one bin, more than {LARGEST_SAMPLING:,}"
        )
    points = np.maximum(points, 0).astype(np.int64)
    result = xp.zeros(shape, dtype=x.dtype)
    rows = channel_rows(xp, x)
    for count in np.unique(points, axis=0):
        same = np.flatnonzero((points == count).all(axis=1))
        if count.min() == 0 or 0 in x.shape:
            continue
        down = taps(start[same, 0], bins[same, 0], output_height, int(count[0]), x.shape[2])
        across = taps(start[same, 1], bins[same, 1], output_width, int(count[1]), x.shape[3])
        origin = np.asarray(images)[same] * (x.shape[2] * x.shape[3])
        pooled = pool_points(xp, rows, origin, down, across, x.shape[3], mode)
        result[xp.asarray(same)] = xp.astype(xp.permute_dims(pooled, (0, 3, 1, 2)), x.dtype)
    return result


LARGEST_SAMPLING = 1 << 16
"""Sampling points per bin above which a region is taken for a mistake."""


def batch_of(x: Any, rois: Any, batch_indices: Any, width: int) -> tuple[int, ...]:
    """The image of each region."""
    images = ints(batch_indices)
    if x.ndim != 4 or rois.ndim != 2 or rois.shape != (len(images), width):
        raise ValueError(
            f"input {x.shape}, rois {rois.shape} and {len(images)} batch indices do not fit together"
        )
    if any(not 0 <= i < x.shape[0] for i in images):
        raise ValueError(f"batch indices {images} leave the batch of {x.shape[0]}")
    return images


def channel_rows(xp: Any, x: Any) -> Any:
    """One row of channels per pixel: [N * H * W, C]."""
    rows = xp.reshape(xp.permute_dims(x, (0, 2, 3, 1)), (-1, x.shape[1]))
    return xp.astype(rows, wide_type(xp, x), copy=False)


def taps(start: Any, size: Any, bins: int, points: int, length: int) -> tuple[Any, Any]:
    """The two pixels and weights of each sampling point of one axis: [2, points, regions, bins] each."""
    step = (np.arange(points)[:, None, None] + 0.5) / points + np.arange(bins)
    at = start[:, None] + step * size[:, None]
    inside = (at >= -1) & (at <= length)
    at = np.clip(at, 0, length - 1)
    low = np.floor(at)
    rest = at - low
    index = np.stack([low, np.minimum(low + 1, length - 1)]).astype(np.int64)
    return index, np.stack([1 - rest, rest]) * inside


def pool_points(xp: Any, rows: Any, origin: Any, down: Any, across: Any, width: int, mode: str) -> Any:
    """The mean or greatest of all points of each bin: [regions, bins down, bins across, C]."""
    (y, wy), (x, wx) = down, across
    total: Any = None
    for i in range(y.shape[1]):
        for j in range(x.shape[1]):
            for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = wy[a, i][:, :, None] * wx[b, j][:, None, :]
                pixel = origin[:, None, None] + y[a, i][:, :, None] * width + x[b, j][:, None, :]
                value = xp.reshape(xp.take(rows, xp.asarray(pixel.reshape(-1)), axis=0), (*pixel.shape, -1))
                value *= xp.asarray(weight, dtype=rows.dtype)[..., None]
                if total is None:
                    total = value
                elif mode == "avg":
                    total += value
                else:
                    total = xp.maximum(total, value)
    return total / (y.shape[1] * x.shape[1]) if mode == "avg" else total


@op("MaxRoiPool", since=1)
def max_roi_pool(xp: Any, x: Any, rois: Any, *, pooled_shape: Any, spatial_scale: float = 1.0) -> Any:
    """y[r, c, i, j] = the maximum of x[image of r, c] over bin (i, j) of region r; 0 in an empty bin."""
    images = batch_of(x, rois, rois[:, 0] if rois.ndim == 2 and rois.shape[1] else rois, 5)
    if len(pooled_shape) != 2 or min(pooled_shape) < 1:
        raise ValueError(f"pooled_shape {tuple(pooled_shape)} must be two positive sizes")
    result = xp.zeros(bounded((len(images), x.shape[1], *pooled_shape), x), dtype=x.dtype)
    for region, (image, corners) in enumerate(zip(images, rois.tolist(), strict=True)):
        if not np.isfinite(corners).all():
            raise ValueError(f"rois hold values that are not finite: {corners}")
        left, top, right, bottom = (nearest(c * spatial_scale) for c in corners[1:])
        bands = greatest(xp, x[image], bin_slices(top, bottom, pooled_shape[0], x.shape[2]))
        columns = xp.permute_dims(bands, (0, 2, 1))
        pooled = greatest(xp, columns, bin_slices(left, right, pooled_shape[1], x.shape[3]))
        result[region, ...] = xp.permute_dims(pooled, (0, 2, 1))
    return result


def nearest(value: float) -> int:
    """Rounded to the nearest integer, halves away from zero."""
    return floor(value + 0.5) if value >= 0 else ceil(value - 0.5)


def greatest(xp: Any, x: Any, bins: list[slice]) -> Any:
    """[C, A, B] -> [C, bins, B]: the maximum of each bin, 0 where it is empty."""
    empty = xp.zeros((x.shape[0], x.shape[2]), dtype=x.dtype)
    return xp.stack([xp.max(x[:, b], axis=1) if b.stop > b.start else empty for b in bins], axis=1)


def bin_slices(first: int, last: int, bins: int, length: int) -> list[slice]:
    """The overlapping bins of the pixels first to last (at least one), clipped to the image."""
    size = max(last - first + 1, 1) / bins
    bounds = [(first + floor(i * size), first + ceil((i + 1) * size)) for i in range(bins)]
    return [slice(min(max(a, 0), length), min(max(b, 0), length)) for a, b in bounds]
