"""Recipes for operators that sample images between their pixels. Positions are such that weights are exact."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .trial import Array, Trial, draw, exactly, is_float, recipe, wide

# ---- grids ----


@recipe("AffineGrid")
def affine_grid(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two images; the corners are the centres of pixels."""
    theta = draw(rng, (2, 2, 3), dtype)
    y, x = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 3), indexing="ij")
    places = np.stack([x, y, np.ones_like(x)], -1).astype(wide(theta).dtype)

    def moved(theta: Array, places: Array) -> Array:
        return np.asarray(np.einsum("nij,hwj->nhwi", theta, places))

    scale = moved(np.abs(wide(theta)), np.abs(places))
    size = np.array([2, 1, 5, 3])
    want = moved(wide(theta), places)
    return Trial([theta, size], [want], {"align_corners": 1}, frozenset({1}), scale, terms=3)


@recipe("GridSample")
def grid_sample(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Floats between four pixels, some of them outside; other types at the nearest pixel, the border repeated."""
    x = draw(rng, (2, 3, 5, 5), dtype)
    places = rng.integers(-2, 19, (2, 4, 3, 2)) / 4  # in pixels
    if not is_float(dtype):
        places = np.round(places) + 0.25
        places = np.where(rng.random(places.shape) < 0.5, places, places - 0.5)
    grid = (places / 2 - 1).astype(x.dtype if is_float(dtype) else np.float32)
    if is_float(dtype):
        mode = "bilinear" if version < 20 else "linear"
        want = _sampled(wide(x), places)
        how = {"mode": mode, "align_corners": 1}
        return Trial([x, grid], [want], how, scale=_sampled(np.abs(wide(x)), places), terms=4)
    column, row = (np.clip(np.rint(places[..., k]), 0, 4).astype(int) for k in (0, 1))
    image, channel = np.ogrid[:2, :3]
    want = x[image[..., None, None], channel[..., None, None], row[:, None], column[:, None]]
    how = {"mode": "nearest", "padding_mode": "border", "align_corners": 1}
    return Trial([x, grid], exactly(want), how)


def _sampled(x: Array, places: Array) -> Array:
    """Between the four pixels around each place (x first); zero outside of the image."""
    want = np.zeros((x.shape[0], x.shape[1], *places.shape[1:3]), x.dtype)
    for n, i, j in np.ndindex(*places.shape[:3]):
        want[n, :, i, j] = _at(x[n], places[n, i, j, 1], places[n, i, j, 0])
    return want


def _at(image: Array, y: float, x: float) -> Array:
    """All channels of an image between four pixels; zero outside."""
    total = np.zeros(image.shape[0], image.dtype)
    top, left = int(np.floor(y)), int(np.floor(x))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total = total + image[:, row, column] * ((1 - abs(y - row)) * (1 - abs(x - column)))
    return total


@recipe("DeformConv")
def deform_conv(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Offsets of quarters of a pixel, some beyond the edge; a mask and a bias."""
    x, w, b = draw(rng, (1, 2, 5, 4), dtype), draw(rng, (3, 2, 2, 2), dtype), draw(rng, (3,), dtype)
    offset = (rng.integers(-4, 5, (1, 8, 4, 3)) / 4).astype(x.dtype)
    mask = draw(rng, (1, 4, 4, 3), dtype, 0, 1)

    def exact(x: Array, w: Array, b: Array) -> Array:
        want = np.zeros((1, 3, 4, 3), x.dtype) + b[:, None, None]
        for i, j, tap in np.ndindex(4, 3, 4):
            dy, dx = (float(offset[0, 2 * tap + k, i, j]) for k in (0, 1))
            pixels = _at(x[0], i + tap // 2 + dy, j + tap % 2 + dx)
            want[0, :, i, j] += w[:, :, tap // 2, tap % 2] @ pixels * wide(mask)[0, tap, i, j]
        return want

    arrays = [wide(value) for value in (x, w, b)]
    scale = exact(*map(np.abs, arrays))
    how = {"kernel_shape": [2, 2], "pads": [0, 0, 0, 0]}
    return Trial([x, w, offset, b, mask], [exact(*arrays)], how, scale=scale, terms=33)


# ---- other sizes ----


@recipe("Upsample")
def upsample(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Each pixel twice and thrice."""
    x = draw(rng, (1, 2, 2, 3), dtype)
    want = np.repeat(np.repeat(x, 2, 2), 3, 3)
    if version < 7:
        return Trial([x], [want], {"height_scale": 2.0, "width_scale": 3.0, "mode": "nearest"})
    scales = [1.0, 1.0, 2.0, 3.0]
    if version < 9:
        return Trial([x], [want], {"scales": scales, "mode": "nearest"})
    return Trial([x, np.array(scales, np.float32)], [want], {"mode": "nearest"}, frozenset({1}))


@recipe("Resize")
def resize(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Integers to the nearest pixel; floats by weights, in a way that is new in the version."""
    x = draw(rng, (1, 2, 3, 5), dtype)
    scales = np.array([1, 1, 2, 2], np.float32)
    if version < 11:
        want = np.repeat(np.repeat(x, 2, 2), 2, 3)
        return Trial([x, scales], [want], {"mode": "nearest"}, frozenset({1}))
    none = np.array([], np.float32) if version < 13 else None
    how: dict[str, Any]
    fixed = frozenset({1, 2, 3})
    if not is_float(dtype):
        want = np.repeat(np.repeat(x, 2, 2), 2, 3)
        return Trial([x, none, scales], exactly(want), {"mode": "nearest"}, fixed)
    if version == 13:  # corners stay where they are
        sizes = np.array([1, 2, 5, 9])
        how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        return _resized(x, [x, none, None, sizes], how, _linear, lambda i: i / 2, (5, 9))
    if version == 18:
        how = {"mode": "linear", "axes": [2, 3]}
        return _resized(x, [x, none, scales[2:]], how, _linear, _half_pixels, (6, 10))
    if version >= 19:
        return _resized(x, [x, none, scales], {"mode": "cubic"}, _cubic, _half_pixels, (6, 10))
    return _resized(x, [x, none, scales], {"mode": "linear"}, _linear, _half_pixels, (6, 10))


Weights = Callable[[float], list[tuple[int, float]]]


def _half_pixels(index: int) -> float:
    return (index + 0.5) / 2 - 0.5


def _linear(place: float) -> list[tuple[int, float]]:
    first = int(np.floor(place))
    return [(first, 1 - (place - first)), (first + 1, place - first)]


def _cubic(place: float) -> list[tuple[int, float]]:
    """Keys's kernel with a = -0.75."""
    a, first = -0.75, int(np.floor(place))

    def weight(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    return [(first + k, weight(place - first - k)) for k in (-1, 0, 1, 2)]


def _resized(
    x: Array,
    inputs: Sequence[Any],
    how: dict[str, Any],
    weights: Weights,
    place: Callable[[int], float],
    size: tuple[int, int],
) -> Trial:
    """One axis after the other; pixels beyond the edge are those of the edge."""

    def matrix(old: int, new: int) -> Array:
        found = np.zeros((new, old), wide(x).dtype)
        for index in range(new):
            for pixel, weight in weights(place(index)):
                found[index, min(max(pixel, 0), old - 1)] += weight
        return found

    rows, columns = matrix(x.shape[2], size[0]), matrix(x.shape[3], size[1])
    want = rows @ wide(x) @ columns.T
    scale = np.abs(rows) @ np.abs(wide(x)) @ np.abs(columns).T
    terms = 16 if weights is _cubic else 4
    return Trial(inputs, [want], how, frozenset({1, 2, 3}), scale, terms)


# ---- regions ----


@recipe("RoiAlign")
def roi_align(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The mean of four samples in each part of a region; regions on whole pixels, one of each image."""
    x = draw(rng, (2, 3, 7, 8), dtype)
    rois = np.array([[1, 1, 5, 5], [2, 0, 6, 4]]).astype(x.dtype)
    back = 0.5 if version >= 16 else 0.0

    def exact(x: Array) -> Array:
        want = np.zeros((2, 3, 2, 2), x.dtype)
        for r, i, j in np.ndindex(2, 2, 2):
            left, top = (float(rois[r, k]) - back for k in (0, 1))
            for dy, dx in np.ndindex(2, 2):
                want[r, :, i, j] += _at(x[1 - r], top + 2 * i + dy + 0.5, left + 2 * j + dx + 0.5) / 4
        return want

    how = {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    inputs = [x, rois, np.array([1, 0])]
    return Trial(inputs, [exact(wide(x))], how, scale=exact(np.abs(wide(x))), terms=16)


@recipe("MaxRoiPool")
def max_roi_pool(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Regions with both ends, whose parts overlap where a side is odd."""
    x = draw(rng, (2, 3, 7, 8), dtype)
    rois = [[1, 0, 0, 3, 3], [0, 2, 1, 6, 3], [1, 4, 2, 4, 2]]
    want = np.zeros((3, 3, 2, 2), wide(x).dtype)
    for r, (image, left, top, right, bottom) in enumerate(rois):
        for i, j in np.ndindex(2, 2):
            (y0, y1), (x0, x1) = _part(i, bottom - top + 1), _part(j, right - left + 1)
            want[r, :, i, j] = wide(x)[image, :, top + y0 : top + y1, left + x0 : left + x1].max((1, 2))
    return Trial([x, np.array(rois).astype(x.dtype)], [want], {"pooled_shape": [2, 2]})


def _part(index: int, size: int) -> tuple[int, int]:
    """The half of a side: from the floor to the ceiling of its ends."""
    return index * size // 2, -(-(index + 1) * size // 2)


@recipe("NonMaxSuppression")
def non_max_suppression(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Two classes of boxes on whole numbers; at most three of each stay."""
    low = rng.integers(0, 6, (1, 9, 2))
    boxes = np.concatenate([low, low + rng.integers(2, 6, (1, 9, 2))], 2).astype(np.float32)
    scores = np.stack([rng.permutation(9) for _ in range(2)])[None].astype(np.float32) / 8
    kept = [[0, label, box] for label in (0, 1) for box in _kept(boxes[0], scores[0, label], 0.3, 0.2)]
    limits = [np.array(3), np.array(0.3, np.float32), np.array(0.2, np.float32)]
    return Trial([boxes, scores, *limits], [np.array(kept)], fixed=frozenset({2, 3, 4}), result="int64")


def _kept(boxes: Array, scores: Array, most: float, least: float) -> list[int]:
    def overlap(a: Array, b: Array) -> float:
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        both = float(np.prod(np.maximum(sides, 0)))
        areas = sum(float(np.prod(box[2:] - box[:2])) for box in (a, b))
        return both / (areas - both)

    kept: list[int] = []
    for box in map(int, np.argsort(-scores)):
        fits = all(overlap(boxes[box], boxes[other]) <= most for other in kept)
        if scores[box] > least and fits and len(kept) < 3:
            kept.append(box)
    return kept


# ---- files ----


@recipe("ImageDecoder")
def image_decoder(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A bitmap of 24 bits, whose rows go upwards, blue first, and are filled up to words."""
    pixels = rng.integers(0, 256, (3, 5, 3), np.uint8)
    rows = b"".join(pixels[row, :, ::-1].tobytes() + b"\0" for row in (2, 1, 0))
    head = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", 54 + len(rows), 0, 0, 54, 40, 5, 3, 1, 24, 0, len(rows), 0, 0, 0, 0
    )
    return Trial([np.frombuffer(head + rows, np.uint8).copy()], [pixels], {"pixel_format": "RGB"})
