"""Normalisations: (x - mean) / sqrt(variance + epsilon) over batches, channels, groups or layers; norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._precision import cast, element_type, quiet, wide
from ._precision import mean as mean_of
from ._window import along_channels
from .operator import op


def standardized(xp: Any, rows: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Rows (r, width) with mean 0 and variance 1, their means (r, 1) and 1 / standard deviation (r, 1)."""
    mean = mean_of(xp, rows, 1)
    centred = rows - mean
    inverse = 1 / xp.sqrt(xp.expand_dims(xp.vecdot(centred, centred), axis=1) / rows.shape[1] + epsilon)
    centred *= inverse
    return centred, mean, inverse


def check_vector(name: str, vector: Any, size: int, of: str) -> None:
    """Refuse a scale, bias, ... that does not have one value per channel or group."""
    if tuple(vector.shape) != (size,):
        raise ValueError(
            f"input {name} of shape {vector.shape} should have one value for each of {size} {of}"
        )


def positive_axis(axis: int, ndim: int) -> int:
    """The attribute ``axis`` counted from the front."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"attribute axis={axis} is outside the {ndim} axes of the input")
    return axis % ndim


# ---- batch


def batch_scaled(xp: Any, x: Any, statistics: Sequence[Any], epsilon: float) -> Any:
    """(x - mean) / sqrt(var + epsilon) * scale + bias for (scale, bias, mean, var) that broadcast with x."""
    # The coefficients are few: in double precision they cost nothing and the result is rounded less often.
    scale, bias, mean, var = (xp.astype(s, xp.float64) for s in statistics)
    factor = scale / xp.sqrt(var + epsilon)
    wider = wide(xp, x)
    y = wider * xp.astype(factor, wider.dtype)
    y += xp.astype(bias - mean * factor, wider.dtype)
    return cast(xp, y, x.dtype)


def per_channel(xp: Any, x: Any, named: dict[str, Any]) -> list[Any]:
    """Vectors over the channels of ``x``, shaped to broadcast with it; a vector ``x`` has one channel."""
    for name, vector in named.items():
        check_vector(name, vector, x.shape[1] if x.ndim > 1 else 1, "channels of X")
    return [along_channels(xp, v, x.ndim) if x.ndim > 1 else v for v in named.values()]


def per_element(xp: Any, x: Any, named: dict[str, Any]) -> list[Any]:
    """Arrays over the elements of one sample of ``x``, in its shape."""
    for name, value in named.items():
        if math.prod(value.shape) != math.prod(x.shape[1:]):
            raise ValueError(
                f"input {name} of shape {value.shape} should have shape {x.shape[1:]} (spatial=0)"
            )
    return [xp.reshape(value, x.shape[1:]) for value in named.values()]


def batch_statistics(xp: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and population variance over ``axes``, which stay with size 1, in at least float32."""
    x = wide(xp, x)
    mean = mean_of(xp, x, axes)
    return mean, mean_of(xp, (x - mean) ** 2, axes)


def moving(xp: Any, running: Any, current: Any, momentum: float) -> Any:
    """running * momentum + current * (1 - momentum), in the shape and type of ``running``."""
    wider = wide(xp, running)
    new = wider * momentum + xp.astype(xp.reshape(current, running.shape), wider.dtype) * (1 - momentum)
    return cast(xp, new, running.dtype)


@quiet
def batch_normalization(
    xp: Any,
    x: Any,
    named: dict[str, Any],
    *,
    epsilon: float,
    momentum: float,
    training: bool,
    spatial: bool = True,
) -> Any:
    """Y in inference; Y, running mean and variance, and this batch's mean and variance in training.

    ``named`` holds scale, B, mean and var in this order: per channel, or if not spatial per element.
    """
    shaped = per_channel(xp, x, named) if spatial else per_element(xp, x, named)
    if not training:
        return batch_scaled(xp, x, shaped, epsilon)
    now = batch_statistics(xp, x, (0, *range(2, x.ndim)) if spatial else (0,))
    running = list(named.values())[2:]
    new = [moving(xp, old, current, momentum) for old, current in zip(running, now, strict=True)]
    saved = [cast(xp, xp.reshape(s, old.shape), old.dtype) for s, old in zip(now, running, strict=True)]
    return batch_scaled(xp, x, [*shaped[:2], *now], epsilon), *new, *saved


@op("BatchNormalization")
def batch_normalization_1(
    xp: Any,
    x: Any,
    scale: Any,
    b: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    n_outputs: int,
    spatial: int = 1,
) -> Any:
    """Normalise per channel (per element of a sample with ``spatial=0``); training unless ``is_test``."""
    named = {"scale": scale, "B": b, "mean": mean, "var": var}
    training = not is_test and n_outputs > 1
    return batch_normalization(
        xp, x, named, epsilon=epsilon, momentum=momentum, training=training, spatial=bool(spatial)
    )


@op("BatchNormalization", since=7)
def batch_normalization_7(
    xp: Any,
    x: Any,
    scale: Any,
    b: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    n_outputs: int,
    spatial: int = 1,
) -> Any:
    """Training is what has more than one output; ``spatial`` ends with opset 9."""
    named = {"scale": scale, "B": b, "mean": mean, "var": var}
    training = n_outputs > 1
    return batch_normalization(
        xp, x, named, epsilon=epsilon, momentum=momentum, training=training, spatial=bool(spatial)
    )


@op("BatchNormalization", since=14)
def batch_normalization_14(
    xp: Any,
    x: Any,
    scale: Any,
    b: Any,
    input_mean: Any,
    input_var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    """Normalise per channel with the given statistics, or in training with those of this batch."""
    named = {"scale": scale, "B": b, "input_mean": input_mean, "input_var": input_var}
    result = batch_normalization(
        xp, x, named, epsilon=epsilon, momentum=momentum, training=bool(training_mode)
    )
    return result[:3] if training_mode else result


# ---- instance, group, layer


@op("InstanceNormalization")
@quiet
def instance_normalization(xp: Any, x: Any, scale: Any, b: Any, *, epsilon: float = 1e-5) -> Any:
    """Each channel of each sample with mean 0 and variance 1, times scale[c], plus B[c]."""
    if x.ndim < 3:
        raise ValueError(f"input X of shape {x.shape} should have batch, channel and spatial axes")
    return grouped(xp, x, {"scale": scale, "B": b}, x.shape[1], epsilon, per_group=False)


def grouped(xp: Any, x: Any, named: dict[str, Any], groups: int, epsilon: float, *, per_group: bool) -> Any:
    """Each group of channels of each sample standardised; (scale, bias) are per group or per channel."""
    n, channels = x.shape[:2]
    if groups < 1 or channels % groups:
        raise ValueError(f"attribute num_groups={groups} does not divide the {channels} channels of X")
    for name, vector in named.items():
        check_vector(
            name, vector, groups if per_group else channels, "groups" if per_group else "channels of X"
        )
    wider = wide(xp, x)
    rows, _, _ = standardized(xp, xp.reshape(wider, (n * groups, math.prod(x.shape[1:]) // groups)), epsilon)
    form = (n, groups if per_group else channels, -1 if x.size else 0)
    y = xp.reshape(rows, form)
    scale, bias = (xp.reshape(cast(xp, v, y.dtype), (1, -1, 1)) for v in named.values())
    y *= scale
    y += bias
    return cast(xp, xp.reshape(y, x.shape), x.dtype)


@op("GroupNormalization", since=18)
@quiet
def group_normalization_18(
    xp: Any, x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5
) -> Any:
    """Each group of channels of each sample with mean 0 and variance 1, times scale[g], plus bias[g]."""
    return grouped(xp, x, {"scale": scale, "bias": bias}, num_groups, epsilon, per_group=True)


@op("GroupNormalization", since=21)
@quiet
def group_normalization_21(
    xp: Any, x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """As before, with one scale and bias per channel.

    Computed in ``stash_type`` or, where that is wider, in the type of X (float32 at least).
    """
    stashed = stash(xp, x, stash_type)
    return cast(
        xp,
        grouped(xp, stashed, {"scale": scale, "bias": bias}, num_groups, epsilon, per_group=False),
        x.dtype,
    )


def stash(xp: Any, x: Any, stash_type: int) -> Any:
    """``x`` in the type ``stash_type``, or in its own where that is wider; in float32 at least."""
    wanted = element_type(stash_type, "stash_type")
    return xp.astype(x, xp.float64) if wanted == xp.float64 else wide(xp, x)


@op("LayerNormalization", since=17)
@quiet
def layer_normalization(
    xp: Any, x: Any, scale: Any, b: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """All from ``axis`` on with mean 0 and variance 1, times scale, plus B; then mean and 1 / deviation."""
    axis = positive_axis(axis, x.ndim)
    stashed = stash(xp, x, stash_type)
    rows = xp.reshape(stashed, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    y, mean, inverse = standardized(xp, rows, epsilon)
    y = affine(xp, xp.reshape(y, x.shape), scale, b)
    kept = (*x.shape[:axis], *(1,) * (x.ndim - axis))
    statistics = (
        cast(xp, xp.reshape(s, kept), element_type(stash_type, "stash_type")) for s in (mean, inverse)
    )
    return cast(xp, y, x.dtype), *statistics


def affine(xp: Any, y: Any, scale: Any, b: Any) -> Any:
    """y * scale + b in place, for a ``y`` of our own."""
    y *= xp.broadcast_to(cast(xp, scale, y.dtype), y.shape)
    if b is not None:
        y += xp.broadcast_to(cast(xp, b, y.dtype), y.shape)
    return y


@op("RMSNormalization", since=23)
@quiet
def rms_normalization(
    xp: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """x / sqrt(mean(x^2) + epsilon) * scale, the mean over everything from ``axis`` on."""
    axis = positive_axis(axis, x.ndim)
    stashed = stash(xp, x, stash_type)
    rows = xp.reshape(stashed, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
    y = rows / xp.sqrt(xp.expand_dims(xp.vecdot(rows, rows), axis=1) / rows.shape[1] + epsilon)
    return cast(xp, affine(xp, xp.reshape(y, x.shape), scale, None), scale.dtype)


@op("MeanVarianceNormalization", since=9)
@quiet
def mean_variance_normalization(xp: Any, x: Any, *, axes: Sequence[int] = (0, 2, 3)) -> Any:
    """(x - mean) / (deviation + 1e-9) over ``axes``."""
    chosen = tuple(positive_axis(axis, x.ndim) for axis in axes)
    mean, variance = batch_statistics(xp, x, chosen)
    return cast(xp, (wide(xp, x) - mean) / (xp.sqrt(variance) + 1e-9), x.dtype)


# ---- norms


@op("LpNormalization")
@quiet
def lp_normalization(xp: Any, x: Any, *, axis: int = -1, p: int = 2) -> Any:
    """x / norm_p(x) along ``axis``; 0 where the norm is 0."""
    if p not in (1, 2):
        raise ValueError(f"attribute p={p} is neither 1 nor 2")
    axis = positive_axis(axis, x.ndim)
    wider = wide(xp, x)
    if p == 1:
        norm = xp.sum(xp.abs(wider), axis=axis, keepdims=True)
    else:
        norm = xp.sqrt(xp.sum(wider * wider, axis=axis, keepdims=True))
    return cast(xp, xp.where(norm == 0, xp.zeros_like(wider), wider / norm), x.dtype)


@op("LRN")
@quiet
def lrn(xp: Any, x: Any, *, size: int, alpha: float = 0.0001, beta: float = 0.75, bias: float = 1.0) -> Any:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ^ beta."""
    if size < 1 or x.ndim < 2:
        raise ValueError(
            f"attribute size={size} should be positive, and input X {x.shape} should have channels"
        )
    wider, channels = wide(xp, x), x.shape[1]
    before, after = (min(reach, channels) for reach in ((size - 1) // 2, size // 2))
    squares = xp.zeros((x.shape[0], before + channels + after, *x.shape[2:]), dtype=wider.dtype)
    squares[:, before : before + channels] = wider * wider
    total = sum(squares[:, shift : shift + channels] for shift in range(before + after + 1))
    return cast(xp, wider / (bias + alpha / size * total) ** beta, x.dtype)
