"""Random numbers. A seed gives the same numbers each time; the standard does not say which."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ._bounds import bounded
from ._dtypes import dtype_of, is_float
from .cast import converted
from .operator import op


def generator_of(seed: float | None) -> np.random.Generator:
    """A generator started from the bits of ``seed``, or from the machine's entropy."""
    return np.random.default_rng(None if seed is None else list(struct.pack("<d", seed)))


@op("RandomNormal", since=1)
def random_normal(
    xp: Any,
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Any:
    """y = numbers from the normal distribution with this mean and standard deviation."""
    return normal(xp, shape, float_type(dtype_of(xp, dtype)), mean, scale, seed)


@op("RandomNormalLike", since=1)
def random_normal_like(
    xp: Any,
    x: Any,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Any:
    """y = numbers from the normal distribution, in the shape of x; ``dtype`` is that of x by default."""
    target = x.dtype if dtype is None else dtype_of(xp, dtype)
    return normal(xp, x.shape, float_type(target), mean, scale, seed)


@op("RandomUniform", since=1)
def random_uniform(
    xp: Any,
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Any:
    """y = numbers evenly spread over [low, high)."""
    return uniform(xp, shape, float_type(dtype_of(xp, dtype)), low, high, seed)


@op("RandomUniformLike", since=1)
def random_uniform_like(
    xp: Any,
    x: Any,
    *,
    dtype: int | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Any:
    """y = numbers evenly spread over [low, high), in the shape of x; ``dtype`` is that of x by default."""
    target = x.dtype if dtype is None else dtype_of(xp, dtype)
    return uniform(xp, x.shape, float_type(target), low, high, seed)


def float_type(dtype: Any) -> Any:
    if not is_float(dtype):
        raise ValueError(f"random numbers of type {dtype} are not defined, only floating-point ones")
    return dtype


def normal(xp: Any, shape: Any, dtype: Any, mean: float, scale: float, seed: float | None) -> Any:
    if scale < 0:
        raise ValueError(f"attribute scale={scale} must not be negative")
    numbers = generator_of(seed).normal(mean, scale, bounded(tuple(shape)))
    return converted(xp, numbers, dtype)


def uniform(xp: Any, shape: Any, dtype: Any, low: float, high: float, seed: float | None) -> Any:
    if low > high:
        raise ValueError(f"attributes low={low} and high={high} are in the wrong order")
    size = bounded(tuple(shape))
    numbers = converted(xp, generator_of(seed).uniform(low, high, size), dtype)
    below = converted(xp, np.asarray(high), dtype)
    # rounding may have reached ``high``, which is not to occur
    return xp.asarray(xp.where(numbers < below, numbers, converted(xp, np.asarray(low), dtype)))


@op("Bernoulli", since=15)
def bernoulli(xp: Any, x: Any, *, dtype: int | None = None, seed: float | None = None) -> Any:
    """y = 1 with probability x, else 0."""
    target = x.dtype if dtype is None else dtype_of(xp, dtype)
    chance = converted(xp, x, xp.float64)
    if not xp.all((chance >= 0) & (chance <= 1)):
        raise ValueError("input holds a number outside [0, 1], which is no probability")
    return converted(xp, xp.asarray(generator_of(seed).random(x.shape)) < chance, target)


@op("Multinomial", since=7)
def multinomial(xp: Any, x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    """y[b] = ``sample_size`` classes, drawn with the probabilities softmax(x[b])."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"input of shape {x.shape} must be [batch, classes] with at least one class")
    if dtype not in (6, 7):
        raise ValueError(f"attribute dtype={dtype} is neither 6 (int32) nor 7 (int64)")
    batch, classes = x.shape
    bounded((batch, sample_size), what="the tensor of samples")
    logits = converted(xp, x, xp.float64)
    largest = xp.max(logits, axis=1, keepdims=True)
    if not xp.all(xp.isfinite(largest)):
        raise ValueError("input holds a row without a finite largest log-probability")
    cumulative = xp.cumulative_sum(xp.exp(logits - largest), axis=1)
    # one search for all rows: row b's distribution is moved to [b, b + 1]
    row = xp.expand_dims(xp.arange(batch, dtype=xp.float64), axis=1)
    edges = xp.reshape(cumulative / cumulative[:, -1:] + row, (-1,))
    wanted = xp.asarray(generator_of(seed).random((batch, sample_size))) + row
    found = xp.reshape(xp.searchsorted(edges, xp.reshape(wanted, (-1,)), side="right"), wanted.shape)
    first = xp.astype(row, xp.int64) * classes
    return xp.astype(xp.clip(found - first, 0, classes - 1), dtype_of(xp, dtype))
