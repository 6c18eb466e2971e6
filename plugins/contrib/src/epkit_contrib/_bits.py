"""Numbers of 2, 3, 4 and 8 bits packed in bytes, the first in the lowest bits; their dequantisation in blocks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def _table(bits: int) -> Any:
    """What each byte holds: float32 numbers side by side, seen as one complex element, so that a copy is a copy."""
    codes = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1
    return codes.astype(np.float32).view(np.complex64 if bits == 4 else np.complex128)[:, 0]


def unpack(xp: Any, packed: Any, bits: int) -> Any:
    """The codes along the last axis as float32: 8 / bits of them for each byte (rounded down)."""
    if bits == 8:
        return xp.astype(packed, xp.float32)
    if bits in (2, 4):
        return xp.take(xp.asarray(_table(bits)), packed).view(xp.float32)
    ones = packed[..., None] >> xp.arange(8, dtype=xp.uint8) & 1
    count = packed.shape[-1] * 8 // bits
    ones = xp.reshape(ones, (*packed.shape[:-1], -1))[..., : count * bits]
    weights = xp.asarray([1 << place for place in range(bits)], dtype=xp.float32)
    return xp.matmul(xp.astype(xp.reshape(ones, (*packed.shape[:-1], count, bits)), xp.float32), weights)


def dequantized(xp: Any, codes: Any, scales: Any, zeros: Any) -> Any:
    """(code - zero) * scale, in place: each scale serves a run of codes along the last axis.

    ``zeros`` has the shape of ``scales``, or is a number.
    """
    blocks = xp.reshape(codes, (*scales.shape, codes.shape[-1] // scales.shape[-1]))
    blocks -= zeros if isinstance(zeros, float) else zeros[..., None]
    blocks *= scales[..., None]
    return xp.reshape(blocks, codes.shape)


def unpack_zeros(xp: Any, zeros: Any, bits: int, blocks: int) -> Any:
    """Zero points (..., blocks) as float32; if they are bytes, they are packed in rows of whole bytes."""
    if zeros.dtype != xp.uint8:
        return xp.astype(zeros, xp.float32)
    return unpack(xp, zeros, bits)[..., :blocks]
