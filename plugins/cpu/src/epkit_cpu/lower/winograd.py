"""Which convolutions are computed by Winograd's minimal filtering (kernels/winograd.h), and with tiles of what size.

Measured with AVX-512, the weights not in the core's own cache, against the direct kernel; the shares of its time:

========================  ==========  ==========
channels, size            tiles of 2  tiles of 4
========================  ==========  ==========
64, 56x56                 0.64        0.45
128, 28x28                0.57        0.45
256, 20x20                0.54        0.52
256, 14x14                0.61        0.72
64, 10x10                 0.75        1.05
512, 7x7                  1.02        1.52
16, 160x160               1.29        0.96
========================  ==========  ==========

Tiles of 4 need fewer products, but four times the memory of the weights; a small image has too few tiles for that to
come back. The rounding error is about three times that of direct sums for tiles of 4, and that of direct sums for 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..native import WINOGRAD

if TYPE_CHECKING:
    from .step import View

SMALL_IMAGE, LARGE_IMAGE = 8 * 8, 18 * 18
"""Pixels of the result from which on tiles of 2, and tiles of 4, pay."""
FEW_CHANNELS, MANY_CHANNELS = 16, 128
BLOCK = 16


def winograd_tile(view: View, weights: tuple[int, ...]) -> int:
    """Outputs down and across a tile, 2 or 4; 0 for the direct kernel. ``weights``: their shape, of one group."""
    if WINOGRAD.get() == "off" or weights[2:] != (3, 3):
        return 0
    if any(n != 1 for name in ("strides", "dilations") for n in view.attributes.get(name) or ()):
        return 0
    filters, channels = (-(-n // BLOCK) * BLOCK for n in weights[:2])
    shape = view.node.outputs[0].shape
    size = None if shape is None else [d for d in shape[2:] if isinstance(d, int)]
    if size is None or len(size) < 2:  # images of any size: seldom small ones
        tile = 4 if max(channels, filters) <= MANY_CHANNELS else 2
    else:
        pixels = int(np.prod(size))
        tile = 4 if pixels >= LARGE_IMAGE else 2 if pixels >= SMALL_IMAGE else 0
    least = FEW_CHANNELS * FEW_CHANNELS if tile == 4 else 2 * FEW_CHANNELS * FEW_CHANNELS
    return tile if channels * filters > least else 0
