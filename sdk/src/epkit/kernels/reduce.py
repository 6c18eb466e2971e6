"""Reductions over axes (ReduceSum, ReduceMean, ReduceMax, ...) that an attribute or an input names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ._precision import cast, is_float, quiet, wide
from .operator import op

Reduction = Callable[[Any, Any, tuple[int, ...], bool], Any]
"""(xp, data, axes, keepdims) -> the reduced array, in the type of ``data`` or a wider one."""


def declare(name: str, axes_input_since: int) -> Callable[[Reduction], Reduction]:
    """Declare a reduction in both of its forms; ``axes`` became an input at ``axes_input_since``."""

    def both(reduction: Reduction) -> Reduction:
        @quiet
        def axes_attribute(
            xp: Any, data: Any, *, axes: Sequence[int] | None = None, keepdims: int = 1
        ) -> Any:
            return reduced(xp, reduction, data, axes, keepdims)

        @quiet
        def axes_input(
            xp: Any, data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
        ) -> Any:
            listed = [] if axes is None else axes.reshape(-1).tolist()
            return reduced(xp, reduction, data, listed, keepdims, bool(noop_with_empty_axes))

        axes_attribute.__doc__ = axes_input.__doc__ = reduction.__doc__
        op(name)(axes_attribute)
        op(name, since=axes_input_since)(axes_input)
        return reduction

    return both


def reduced(
    xp: Any, reduction: Reduction, data: Any, axes: Sequence[int] | None, keepdims: int, noop: bool = False
) -> Any:
    """Apply a reduction over the named axes; over all of them (or none, with ``noop``) if none are named."""
    for axis in axes or ():
        if not -data.ndim <= axis < data.ndim:
            raise ValueError(f"axes {list(axes or ())}: {axis} is outside the {data.ndim} axes of the input")
    chosen = tuple(axis % data.ndim for axis in axes or ()) or (() if noop else tuple(range(data.ndim)))
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"axes {list(axes or ())} name an axis of the {data.ndim} axes of the input twice")
    return cast(xp, xp.asarray(reduction(xp, wide(xp, data), chosen, bool(keepdims))), data.dtype)


def as_float(xp: Any, x: Any) -> Any:
    """Integers as float64, for the reductions whose steps are not integer ones."""
    return x if is_float(xp, x.dtype) else xp.astype(x, xp.float64)


def counted(x: Any, axes: tuple[int, ...]) -> int:
    """How many elements go into each result."""
    return math.prod(x.shape[axis] for axis in axes)


@declare("ReduceSum", 13)
def reduce_sum(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum; 0 over nothing. float32 is summed in float64: models that subtract such sums lose its digits."""
    accumulator = xp.float64 if x.dtype == xp.float32 else x.dtype
    total = xp.sum(x, axis=axes, keepdims=keepdims, dtype=accumulator)
    return xp.astype(xp.asarray(total), x.dtype, copy=False)


@declare("ReduceMean", 18)
def reduce_mean(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The mean; of integers truncated toward zero; NaN (0 for integers) over nothing."""
    count = counted(x, axes)
    if is_float(xp, x.dtype):
        return reduce_sum(xp, x, axes, keepdims) / xp.asarray(count, dtype=x.dtype)
    total = xp.asarray(xp.sum(x, axis=axes, keepdims=keepdims))
    if not count:
        return total
    return xp.where(total < 0, -(-total // count), total // count)


@declare("ReduceProd", 18)
def reduce_prod(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The product; 1 over nothing."""
    return xp.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


@declare("ReduceMax", 18)
def reduce_max(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The maximum; minus infinity (or the type's least value) over nothing; False < True since opset 20."""
    if not counted(x, axes):
        return extreme_of_nothing(xp, x, axes, keepdims, greatest=False)
    return xp.max(x, axis=axes, keepdims=keepdims)


@declare("ReduceMin", 18)
def reduce_min(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The minimum; infinity (or the greatest value of the type) over nothing; False < True since opset 20."""
    if not counted(x, axes):
        return extreme_of_nothing(xp, x, axes, keepdims, greatest=True)
    return xp.min(x, axis=axes, keepdims=keepdims)


def extreme_of_nothing(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool, *, greatest: bool) -> Any:
    """The neutral element of a maximum or minimum in the shape of the result."""
    value: Any
    if is_float(xp, x.dtype):
        value = math.inf if greatest else -math.inf
    elif x.dtype == xp.bool:
        value = greatest
    else:
        value = xp.iinfo(x.dtype).max if greatest else xp.iinfo(x.dtype).min
    sizes = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes]
    return xp.full(tuple(sizes), value, dtype=x.dtype)


@declare("ReduceL1", 18)
def reduce_l1(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum of absolute values."""
    return reduce_sum(xp, xp.abs(x), axes, keepdims)


@declare("ReduceSumSquare", 18)
def reduce_sum_square(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum of squares."""
    return reduce_sum(xp, x * x, axes, keepdims)


@declare("ReduceL2", 18)
def reduce_l2(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The square root of the sum of squares."""
    return xp.sqrt(reduce_sum_square(xp, as_float(xp, x), axes, keepdims))


@declare("ReduceLogSum", 18)
def reduce_log_sum(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The logarithm of the sum; minus infinity over nothing."""
    return xp.log(reduce_sum(xp, as_float(xp, x), axes, keepdims))


@declare("ReduceLogSumExp", 18)
def reduce_log_sum_exp(xp: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """log(sum(exp(x))), shifted by the maximum so that nothing overflows; minus infinity over nothing."""
    x = as_float(xp, x)
    top = reduce_max(xp, x, axes, True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.log(reduce_sum(xp, xp.exp(x - top), axes, keepdims))
    return total + xp.reshape(top, total.shape)
