"""Inputs that look like what the models were trained on: made, so that no data are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def speech(samples: int, rate: int = 16_000, seed: int = 0) -> Array:
    """A voice-like signal: harmonics of a gliding pitch under syllables of loudness, with a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t + rng.uniform(0, 6)) + 0.3, 0, 1)
    return np.asarray(0.15 * voice * syllables + 0.003 * rng.standard_normal(samples), np.float32)


def spectrum(frames: int, bins: int, seed: int = 0) -> Array:
    """The magnitudes of a short-time Fourier transform of speech, ``[frames, bins]``."""
    window = 2 * (bins - 1)
    hop = window // 2
    sound = speech((frames + 1) * hop, seed=seed)
    pieces = np.stack([sound[i * hop : i * hop + window] for i in range(frames)])
    magnitudes = np.abs(np.fft.rfft(pieces * np.hanning(window)))
    return np.asarray(magnitudes, np.float32)


def log_spectrum(frames: int, bins: int, seed: int = 0) -> Array:
    """Log power of speech, ``[frames, bins]``."""
    return np.asarray(np.log10(np.maximum(spectrum(frames, bins, seed) ** 2, 1e-12)), np.float32)


def picture(height: int, width: int, seed: int = 0) -> Array:
    """A page-like picture with lines of dark marks on a shaded ground, ``[height, width, 3]`` in 0..1."""
    rng = np.random.default_rng(seed)
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    page = 0.75 + 0.2 * down * rng.random(3) - 0.15 * across * rng.random(3)
    for top in range(4, height - 10, 20):
        left = 6
        while left < width - 12:
            glyph = rng.random((5, 3)) < 0.6
            mark = np.kron(glyph, np.ones((2, 2)))[:, :, None]
            page[top : top + 10, left : left + 6] *= 1 - 0.8 * mark
            left += int(rng.integers(7, 14))
    return np.asarray(np.clip(page, 0, 1), np.float32)


def seal(height: int, width: int, seed: int = 0) -> Array:
    """A red round seal on paper: a ring, and glyph-like marks along an arc inside it.

    ``[height, width, 3]`` in 0..1, blue before green and red.
    """
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(y - height / 2, x - width / 2) / (0.45 * min(height, width))
    angle = (np.arctan2(y - height / 2, x - width / 2) + np.pi) / (2 * np.pi)
    cell, across = np.divmod(angle * 24, 1)
    column, row = (across * 5).astype(int), np.clip((radius - 0.62) / 0.28 * 6, 0, 5).astype(int)
    glyphs = np.random.default_rng(seed).random((25, 6, 5)) < 0.5
    marks = (
        glyphs[cell.astype(int), row, column] & (radius > 0.62) & (radius < 0.9) & (column < 4) & (cell < 20)
    )
    page = np.full((height, width, 3), 0.95, np.float32)
    page[marks | (abs(radius - 1) < 0.035)] = (0.12, 0.1, 0.85)
    return page


def as_pixels(images: Sequence[Array]) -> Array:
    """Pictures as the models take them: stacked, channels first, in -1..1."""
    return np.ascontiguousarray((np.stack(images).transpose(0, 3, 1, 2) - 0.5) / 0.5, np.float32)


def sentences(batch: int, length: int, vocabulary: int = 30_000) -> tuple[Array, Array]:
    """Token ids and the attention mask of sentences of different lengths, padded with zeros."""
    rng = np.random.default_rng(batch * 1000 + length)
    ids = rng.integers(1000, vocabulary, (batch, length))
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):
        end = max(2, length - row * (length // (batch + 1)))
        ids[row, end:], mask[row, end:] = 0, 0
    return ids.astype(np.int64), mask
