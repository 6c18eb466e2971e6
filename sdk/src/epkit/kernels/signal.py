"""Signals: DFT, STFT, window functions, MelWeightMatrix."""

from __future__ import annotations

import math
from typing import Any

from ._bounds import bounded
from ._precision import cast, element_type, is_float, quiet, wide
from .operator import op


def integer(xp: Any, name: str, value: Any, least: int) -> int:
    """The value of a scalar input."""
    if math.prod(value.shape) != 1:
        raise ValueError(f"input {name} of shape {value.shape} should be a scalar")
    result = int(xp.reshape(value, (-1,))[0])
    if result < least:
        raise ValueError(f"input {name}={result} is below {least}")
    return result


# ---- Fourier transforms


def as_complex(xp: Any, name: str, x: Any) -> Any:
    """The last axis, (real,) or (real, imaginary), as one real or complex number."""
    if x.ndim < 2 or x.shape[-1] not in (1, 2):
        raise ValueError(
            f"input {name} of shape {x.shape} should end in an axis of size 1 (real) or 2 (complex)"
        )
    x = wide(xp, x)
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def as_pairs(xp: Any, z: Any, dtype: Any) -> Any:
    """A complex array as (..., 2) real and imaginary parts."""
    return cast(xp, xp.stack([xp.real(z), xp.imag(z)], axis=-1), dtype)


def transform(xp: Any, x: Any, dft_length: Any, axis: int, inverse: int, onesided: int) -> Any:
    """The (inverse) DFT along ``axis`` of numbers held in the last axis of ``x``."""
    if not (-x.ndim <= axis < x.ndim and axis % x.ndim != x.ndim - 1):
        raise ValueError(f"axis={axis} is not one of the {x.ndim - 1} signal axes of the input")
    axis %= x.ndim
    z = as_complex(xp, "input", x)
    if onesided and (x.shape[-1] == 2) != bool(inverse):
        raise ValueError(
            f"onesided=1 needs a {'complex' if inverse else 'real'} input (inverse={inverse}), "
            f"not one of shape {x.shape}"
        )
    default = 2 * (x.shape[axis] - 1) if onesided and inverse else x.shape[axis]
    length = default if dft_length is None else integer(xp, "dft_length", dft_length, 1)
    if length < 1:
        raise ValueError(f"axis={axis} of input {x.shape} is too short for a transform")
    bounded((*x.shape[:axis], length, *x.shape[axis + 1 : -1], 2), z)
    if onesided and inverse:
        return cast(xp, xp.fft.irfft(z, n=length, axis=axis)[..., None], x.dtype)
    if onesided:
        return as_pairs(xp, xp.fft.rfft(z, n=length, axis=axis), x.dtype)
    function = xp.fft.ifft if inverse else xp.fft.fft
    return as_pairs(xp, function(z, n=length, axis=axis), x.dtype)


@op("DFT", since=17)
@quiet
def dft_17(
    xp: Any, x: Any, dft_length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Any:
    """y[k] = sum over n of x[n] exp(-2 pi i k n / N); the inverse has a plus and 1 / N."""
    return transform(xp, x, dft_length, axis, inverse, onesided)


@op("DFT", since=20)
@quiet
def dft_20(
    xp: Any, x: Any, dft_length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0
) -> Any:
    """As before, the axis an input that defaults to the last signal axis."""
    along = -2 if axis is None else integer(xp, "axis", axis, -x.ndim)
    return transform(xp, x, dft_length, along, inverse, onesided)


@op("STFT", since=17)
@quiet
def stft(
    xp: Any, signal: Any, frame_step: Any, window: Any = None, frame_length: Any = None, *, onesided: int = 1
) -> Any:
    """The DFT of each frame times the window: (batch, frames, bins, 2) of (batch, length, 1 or 2)."""
    if signal.ndim != 3:
        raise ValueError(f"input signal of shape {signal.shape} should have batch, time and number axes")
    step = integer(xp, "frame_step", frame_step, 1)
    if frame_length is not None:
        length = integer(xp, "frame_length", frame_length, 1)
    else:
        length = signal.shape[1] if window is None else window.shape[0]
    if window is not None and tuple(window.shape) != (length,):
        raise ValueError(f"input window of shape {window.shape} should have the frame length {length}")
    if not 1 <= length <= signal.shape[1]:
        raise ValueError(f"the frame length {length} does not fit a signal of {signal.shape[1]} samples")
    if onesided and signal.shape[-1] == 2:
        raise ValueError(f"onesided=1 needs a real signal, not one of shape {signal.shape}")
    z = as_complex(xp, "signal", signal)
    count = (signal.shape[1] - length) // step + 1
    index = xp.arange(count)[:, None] * step + xp.arange(length)
    frames = xp.reshape(xp.take(z, xp.reshape(index, (-1,)), axis=1), (z.shape[0], count, length))
    if window is not None:
        frames = frames * cast(xp, wide(xp, window), wide(xp, signal).dtype)
    return as_pairs(xp, (xp.fft.rfft if onesided else xp.fft.fft)(frames, axis=-1), signal.dtype)


# ---- windows


def cosine_window(
    xp: Any, size: Any, coefficients: tuple[float, ...], periodic: int, output_datatype: int
) -> Any:
    """a0 - a1 cos(t) + a2 cos(2 t) ... for t from 0 to 2 pi, which a periodic window stops one short of."""
    count = integer(xp, "size", size, 0)
    bounded((count,), what="the window")
    turn = 2 * math.pi / max(count if periodic else count - 1, 1)
    t = xp.arange(count, dtype=xp.float64) * turn
    total = xp.full(t.shape, coefficients[0], dtype=xp.float64)
    for order, coefficient in enumerate(coefficients[1:], start=1):
        total += (-1) ** order * coefficient * xp.cos(order * t)
    if count == 1 and not periodic:
        total = xp.ones_like(total)
    dtype = element_type(output_datatype, "output_datatype")
    if not is_float(xp, dtype):  # a one must not become zero for its last bit
        total = xp.astype(total, xp.float32)
    return cast(xp, total, dtype)


@op("HannWindow", since=17)
@quiet
def hann_window(xp: Any, size: Any, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    """1/2 - 1/2 cos(t)."""
    return cosine_window(xp, size, (0.5, 0.5), periodic, output_datatype)


@op("HammingWindow", since=17)
@quiet
def hamming_window(xp: Any, size: Any, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    """25/46 - 21/46 cos(t)."""
    return cosine_window(xp, size, (25 / 46, 21 / 46), periodic, output_datatype)


@op("BlackmanWindow", since=17)
@quiet
def blackman_window(xp: Any, size: Any, *, output_datatype: int = 1, periodic: int = 1) -> Any:
    """0.42 - 0.5 cos(t) + 0.08 cos(2 t)."""
    return cosine_window(xp, size, (0.42, 0.5, 0.08), periodic, output_datatype)


@op("MelWeightMatrix", since=17)
@quiet
def mel_weight_matrix(
    xp: Any,
    num_mel_bins: Any,
    dft_length: Any,
    sample_rate: Any,
    lower_edge_hertz: Any,
    upper_edge_hertz: Any,
    *,
    output_datatype: int = 1,
) -> Any:
    """Triangles of height 1 over DFT bins, their corners evenly spaced on the mel scale: (bins, mel bins)."""
    bands = integer(xp, "num_mel_bins", num_mel_bins, 1)
    length = integer(xp, "dft_length", dft_length, 1)
    rate = integer(xp, "sample_rate", sample_rate, 1)
    bounded((length // 2 + 1, bands), what="the matrix")
    edges = [float(xp.reshape(edge, (-1,))[0]) for edge in (lower_edge_hertz, upper_edge_hertz)]
    if not all(-700 < edge < math.inf for edge in edges):
        raise ValueError(f"inputs lower_edge_hertz and upper_edge_hertz {edges} are not frequencies")
    low, high = (2595 * math.log10(1 + edge / 700) for edge in edges)
    mel = low + xp.arange(bands + 2, dtype=xp.float64) * ((high - low) / (bands + 2))
    corners = xp.floor((length + 1) * 700 * (10 ** (mel / 2595) - 1) / rate)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    place = xp.arange(length // 2 + 1, dtype=xp.float64)[:, None]
    rising, falling = (place - left) / (centre - left), (right - place) / (right - centre)
    inside = (place >= left) & (place < right)
    weights = xp.where(inside, xp.where(place < centre, rising, falling), xp.zeros_like(rising))
    weights = xp.where(place == centre, xp.ones_like(weights), weights)
    return cast(xp, weights, element_type(output_datatype, "output_datatype"))
