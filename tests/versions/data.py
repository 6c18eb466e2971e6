"""Reproducible numbers for the cases."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def floats(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    """float32 numbers between ``low`` and ``high``."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def whole(*shape: int, low: int = 0, high: int = 10, seed: int = 0, dtype: Any = np.int64) -> Array:
    """Integers from ``low`` to ``high`` - 1."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def truths(*shape: int, seed: int = 0) -> Array:
    """Truth values, some of each."""
    return whole(*shape, high=2, seed=seed).astype(bool)


def distinct(*shape: int, seed: int = 0) -> Array:
    """float32 numbers no two of which are equal, in no order."""
    size = int(np.prod(shape))
    numbers = np.random.default_rng([seed, *shape]).permutation(size) - size // 2
    return (numbers.reshape(shape) * np.float32(0.5)).astype(np.float32)


def ints(*values: int) -> Array:
    """A vector of int64."""
    return np.array(values, np.int64)


def text(*values: str) -> Array:
    """A vector of strings."""
    return np.array(values, object)
