"""ImageDecoder on images that Pillow writes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from peer import ours

PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_formats(kind: str) -> None:
    image = pytest.importorskip("PIL.Image")
    stream = BytesIO()
    image.fromarray(PIXELS).save(stream, kind)
    data = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    np.testing.assert_array_equal(ours("ImageDecoder", [data], 20), PIXELS)
    np.testing.assert_array_equal(ours("ImageDecoder", [data], 20, pixel_format="BGR"), PIXELS[..., ::-1])
    assert ours("ImageDecoder", [data], 20, pixel_format="Grayscale").shape == (2, 3, 1)
    assert ours("ImageDecoder", [data[:20]], 20).shape == (0, 0, 3)
