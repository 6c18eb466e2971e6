"""The integer reference: what the data sheet says, in Python's exact numbers, one element after the other.

It shares nothing with the simulator: no tiles, no floating-point sums, no multiplier and shift. A rounding is that
of Python's ``round`` of a Fraction, which is half to even.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from npu_node import Q

Array = np.ndarray[Any, Any]


def finish(exact: Fraction, output: Q) -> int:
    """Round, move by the zero point, keep in range."""
    info = np.iinfo(output.dtype)
    return min(max(round(exact) + int(output.zero), int(info.min)), int(info.max))


def requantised(acc: Array, factor: Callable[[tuple[int, ...]], Any], output: Q) -> Array:
    """Sums times the float32 factor of their channel."""
    result = np.empty(acc.shape, output.dtype)
    for index in np.ndindex(*acc.shape):
        result[index] = finish(int(acc[index]) * Fraction(float(factor(index))), output)
    return result


def conv(
    x: Q,
    w: Q,
    output: Q,
    bias: Array | None = None,
    *,
    group: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> Array:
    """A convolution by its definition."""
    a = x.array.astype(int) - int(x.zero)
    zeros = np.broadcast_to(np.asarray(w.zero).reshape(-1), w.array.shape[0]).astype(int)
    b = w.array.astype(int) - zeros[:, None, None, None]
    (images, _, height, width), (outs, per_group, kh, kw) = a.shape, b.shape
    ho = (height + pads[0] + pads[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    wo = (width + pads[1] + pads[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    acc = np.zeros((images, outs, ho, wo), np.int64)
    for n, o, i, j in np.ndindex(*acc.shape):
        first = o // (outs // group) * per_group
        total = 0 if bias is None else int(bias[o])
        for c, p, q in itertools.product(range(per_group), range(kh), range(kw)):
            row, col = (
                i * strides[0] - pads[0] + p * dilations[0],
                j * strides[1] - pads[1] + q * dilations[1],
            )
            if 0 <= row < height and 0 <= col < width:
                total += int(a[n, first + c, row, col]) * int(b[o, c, p, q])
        acc[n, o, i, j] = total
    factors = channel_factors(x, w, output, outs)
    return requantised(acc, lambda index: factors[index[1]], output)


def channel_factors(x: Q, w: Q, output: Q, channels: int) -> Array:
    """(x_scale w_scale) / y_scale in float32, one for each channel."""
    scales = np.broadcast_to(np.asarray(w.scale, np.float32).reshape(-1), channels)
    return np.asarray((np.float32(x.scale) * scales) / np.float32(output.scale))


def matmul(a: Q, b: Q, output: Q) -> Array:
    """A product of (batches of) matrices."""
    zeros = np.asarray(b.zero).astype(int)
    left, right = a.array.astype(int) - int(a.zero), b.array.astype(int) - zeros
    acc = np.matmul(left.astype(object), right.astype(object))
    factors = channel_factors(a, b, output, acc.shape[-1])
    return requantised(acc, lambda index: factors[index[-1]], output)


def fixed(first: float, second: float) -> tuple[int, int, int]:
    """Two factors as integers over 2^shift: the larger one has 30 bits."""
    shift = 62
    while shift > 0 and max(first, second) * Fraction(2) ** shift >= 2**30:
        shift -= 1
    return round(Fraction(first) * 2**shift), round(Fraction(second) * 2**shift), shift


def add(a: Q, b: Q, output: Q, sign: int = 1) -> Array:
    """A sum (or a difference) of two tensors."""
    ratios = [float(np.float32(q.scale)) / float(np.float32(output.scale)) for q in (a, b)]
    ma, mb, shift = fixed(*ratios)
    left, right = np.broadcast_arrays(a.array.astype(int) - int(a.zero), b.array.astype(int) - int(b.zero))
    result = np.empty(left.shape, output.dtype)
    for index in np.ndindex(*left.shape):
        exact = Fraction(int(left[index]) * ma + sign * int(right[index]) * mb, 2**shift)
        result[index] = finish(exact, output)
    return result
