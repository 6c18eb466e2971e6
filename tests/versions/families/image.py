"""Sampling of images, and boxes in them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import PIL.Image

from ..case import Case, cases_for
from ..data import Array, floats, ints, whole

NONE = np.zeros(0, np.float32)


def scales(*values: float) -> Array:
    """A vector of float32."""
    return np.array(values, np.float32)


@cases_for("Upsample")
def upsample(op: str, version: int) -> Iterator[Case]:
    x = floats(1, 2, 3, 4)
    modes = ("nearest", "bilinear") if version < 7 else ("nearest", "linear")
    for mode in modes:
        if version < 7:
            given = {"height_scale": 2.0, "width_scale": 3.0, "mode": mode}
            name = "linear" if mode == "bilinear" else mode
            yield Case([x], given, twin=(7, {"scales": (1.0, 1.0, 2.0, 3.0), "mode": name}))
        elif version < 9:
            yield Case([x], {"scales": (1.0, 1.0, 2.0, 3.0), "mode": mode})
        else:
            yield Case([x, scales(1, 1, 2, 3)], {"mode": mode})


@cases_for("Resize")
def resize(op: str, version: int) -> Iterator[Case]:
    x = floats(1, 2, 4, 5)
    if version < 11:
        for mode in ("nearest", "linear"):
            yield Case([x, scales(1, 1, 2, 3)], {"mode": mode})
            yield Case([x, scales(1, 1, 0.5, 0.6)], {"mode": mode})
        return
    absent = NONE if version < 13 else None
    up, down = scales(1, 1, 1.5, 2), scales(1, 1, 0.5, 0.6)
    for mode in ("nearest", "linear", "cubic"):
        for factors in (up, down):
            yield Case([x, absent, factors], {"mode": mode})
        places = "align_corners" if mode != "nearest" else "asymmetric"
        yield Case([x, absent, NONE if version < 13 else None, ints(1, 2, 6, 7)], _at(mode, places))
    yield Case([x, absent, up], _at("nearest", "pytorch_half_pixel", nearest_mode="ceil"))
    roi = scales(0, 0, 0.2, 0.1, 1, 1, 0.8, 1.2)
    cropped = _at("linear", "tf_crop_and_resize", extrapolation_value=9.0)
    yield Case([x, roi, NONE if version < 13 else None, ints(1, 2, 3, 4)], cropped)
    yield Case([x, absent, down], {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5})
    if version >= 18:
        yield Case([x, None, None, ints(6, 7)], {"axes": (2, 3), "keep_aspect_ratio_policy": "not_larger"})
        yield Case([x, None, down], {"mode": "linear", "antialias": 1})
    if version >= 19:
        yield Case([x, None, down], _at("linear", "half_pixel_symmetric"))


def _at(mode: str, places: str, **more: object) -> dict[str, object]:
    return {"mode": mode, "coordinate_transformation_mode": places, **more}


@cases_for("GridSample")
def grid_sample(op: str, version: int) -> Iterator[Case]:
    x, grid = floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-1.3, high=1.3)
    names = ("bilinear", "bicubic") if version < 20 else ("linear", "cubic")
    yield Case([x, grid])
    for padding in ("zeros", "border", "reflection"):
        yield Case([x, grid], {"mode": names[0], "padding_mode": padding, "align_corners": 1})
    yield Case([x, grid], {"mode": names[1]})
    yield Case([x, grid], {"mode": "nearest", "padding_mode": "border"})
    if version >= 20:
        yield Case([floats(1, 2, 3, 4, 3), floats(1, 2, 2, 3, 3, low=-1.2, high=1.2)])


@cases_for("AffineGrid")
def affine(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 2, 3), ints(2, 3, 4, 5)])
    yield Case([floats(2, 2, 3), ints(2, 3, 4, 5)], {"align_corners": 1})
    yield Case([floats(1, 3, 4), ints(1, 2, 3, 4, 2)])


@cases_for("NonMaxSuppression")
def suppression(op: str, version: int) -> Iterator[Case]:
    corners = floats(1, 6, 2, low=0, high=2)
    boxes = np.concatenate([corners, corners + floats(1, 6, 2, low=0.5, high=1)], axis=2)
    scores = floats(1, 2, 6, low=0, high=1)
    limits = [np.array(3), np.array(0.3, np.float32), np.array(0.2, np.float32)]
    yield Case([boxes, scores, *limits])
    yield Case([boxes, scores, limits[0]], {"center_point_box": 1})


@cases_for("ImageDecoder")
def decoder(op: str, version: int) -> Iterator[Case]:
    pixels = whole(5, 4, 3, high=256, dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    encoded = np.frombuffer(stream.getvalue(), np.uint8)
    yield Case([encoded], expect=lambda _: [pixels])
    yield Case([encoded], {"pixel_format": "BGR"}, expect=lambda _: [pixels[:, :, ::-1]])
