"""ImageDecoder, through Pillow if it is installed."""

from __future__ import annotations

import warnings
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from ._axes import choice
from .operator import op

FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")


@op("ImageDecoder", since=20)
def image_decoder(xp: Any, encoded_stream: Any, *, pixel_format: str = "RGB") -> Any:
    """The encoded image as uint8 [H, W, channels]; [0, 0, channels] if it cannot be decoded."""
    choice(pixel_format, ("RGB", "BGR", "Grayscale"), "pixel_format")
    data = bytes(encoded_stream.tolist())
    pixels = decoded(data, "L" if pixel_format == "Grayscale" else "RGB")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return xp.asarray(np.ascontiguousarray(pixels[:, :, ::-1] if pixel_format == "BGR" else pixels))


def decoded(data: bytes, mode: str) -> Any:
    try:
        pil = import_module("PIL.Image")
    except ImportError as error:
        raise ImportError("ImageDecoder needs the package pillow: pip install pillow") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pil.DecompressionBombWarning)
            with pil.open(BytesIO(data), formats=FORMATS) as image:
                return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombWarning, pil.DecompressionBombError):
        return np.zeros((0, 0, 1 if mode == "L" else 3), dtype=np.uint8)
