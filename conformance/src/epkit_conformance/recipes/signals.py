"""Recipes for spectra, and for the windows in front of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from epkit.dtypes import CODE

from .trial import Array, Trial, draw, recipe, wide


@recipe("HannWindow HammingWindow BlackmanWindow")
def window(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Ten points, periodic in float32, symmetric in float64."""
    periodic, result = (1, "float32") if dtype == "int32" else (0, "float64")
    kind = np.float64 if periodic else np.longdouble
    turn = 2 * np.arccos(kind(-1)) * np.arange(10) / (10 if periodic else 9)
    shares = {
        "HannWindow": (kind(1) / 2, kind(1) / 2, kind(0)),
        "HammingWindow": (kind(25) / 46, kind(21) / 46, kind(0)),
        "BlackmanWindow": (kind(42) / 100, kind(1) / 2, kind(8) / 100),
    }
    a, b, c = shares[op]
    want = a - b * np.cos(turn) + c * np.cos(2 * turn)
    how = {"periodic": periodic, "output_datatype": CODE[result]}
    size = np.array(10).astype(dtype)
    return Trial([size], [want], how, frozenset({0}), np.ones(1), result=result)


def _turns(count: int, length: int, dtype: Any) -> tuple[Array, Array]:
    """Cosines and sines of the transform, frequencies down."""
    pi = np.arccos(np.asarray(-1, dtype))
    angle = 2 * pi * (np.outer(np.arange(count), np.arange(length)) % length) / length
    return np.cos(angle), -np.sin(angle)


@recipe("DFT")
def dft(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Of real numbers: half of the spectrum at first; later all of it, of a signal that is cut to length."""
    x = draw(rng, (2, 10, 1), dtype)
    signal = wide(x)[..., 0]
    count, length = (6, 10) if version < 20 else (8, 8)
    cosines, sines = _turns(count, length, signal.dtype)
    want = np.stack([signal[:, :length] @ cosines.T, signal[:, :length] @ sines.T], -1)
    scale = np.abs(signal).sum(1)[:, None, None]
    if version < 20:
        return Trial([x], [want], {"axis": 1, "onesided": 1}, scale=scale, terms=10)
    return Trial([x, np.array(8), np.array(-2)], [want], {}, frozenset({1, 2}), scale, terms=8)


@recipe("STFT")
def stft(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Frames of eight, every four, under a window."""
    x, shape = draw(rng, (2, 18, 1), dtype), draw(rng, (8,), dtype, 0, 1)
    frames = np.stack([wide(x)[:, start : start + 8, 0] for start in (0, 4, 8)], 1) * wide(shape)
    cosines, sines = _turns(5, 8, frames.dtype)
    want = np.stack([frames @ cosines.T, frames @ sines.T], -1)
    scale = np.abs(frames).sum(-1)[..., None, None]
    return Trial([x, np.array(4), shape], [want], {"onesided": 1}, frozenset({1}), scale, terms=8)


@recipe("MelWeightMatrix")
def mel_weight_matrix(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Eight triangles over 17 frequencies; their corners are whole frequencies, so quotients are all there is."""
    bands, length, rate, low, high = 8, 32, 8192, 0.0, 4096.0
    top = 2595 * np.log10(1 + high / 700)
    corners = 700 * (10 ** (np.arange(bands + 2) * top / (bands + 2) / 2595) - 1)
    at = np.floor((length + 1) * corners / rate).astype(int)
    want = np.zeros((length // 2 + 1, bands))
    for band in range(bands):
        left, middle, right = at[band : band + 3]
        for place in range(left, right):
            rising = place <= middle and middle > left
            want[place, band] = (
                (place - left) / (middle - left) if rising else (right - place) / (right - middle)
            )
        want[middle, band] = 1
    numbers: list[Any] = [np.array(value).astype(dtype) for value in (bands, length, rate)]
    edges = [np.array(value, np.float32) for value in (low, high)]
    return Trial([*numbers, *edges], [want], fixed=frozenset(range(5)), result="float32")
