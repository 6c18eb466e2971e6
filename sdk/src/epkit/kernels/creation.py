"""Tensors made from attributes, shapes or ranges; and the operators that pass a tensor on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._bounds import bounded
from ._dtypes import dtype_of, is_integer, is_narrow_float, name_of
from ._pointwise import checked_axis, convert, pointwise, scalar
from .attributes import tensor_array
from .operator import op


@op("Constant", since=1)
def constant(
    xp: Any,
    *,
    value: Any = None,
    sparse_value: Any = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: tuple[int, ...] | None = None,
    value_string: str | None = None,
    value_strings: tuple[str, ...] | None = None,
) -> Any:
    """y = the one attribute that is given (``sparse_value`` since opset 11, the ``value_`` ones since 12)."""
    if value is not None:
        return xp.asarray(value)
    if sparse_value is not None:
        return xp.asarray(dense(sparse_value))
    for number, dtype in (
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
        (value_string, np.object_),
        (value_strings, np.object_),
    ):
        if number is not None:
            return xp.asarray(np.array(number, dtype=dtype))
    raise ValueError("none of the attributes value, sparse_value and value_* is given")


def dense(sparse: Any) -> Any:
    """A sparse tensor (``values``, ``indices``, ``dims``) as an array; indices are flat or one row each."""
    values, indices = host_array(sparse.values), host_array(sparse.indices)
    shape = bounded(tuple(int(n) for n in sparse.dims), what="sparse_value")
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    if flat.shape != values.shape or np.any((flat < 0) | (flat >= math.prod(shape))):
        raise ValueError(f"sparse_value has indices outside its shape {shape}, or not one for each value")
    result = np.zeros(math.prod(shape), dtype=values.dtype)
    if values.dtype == object:
        result[:] = ""
    result[flat] = values
    return result.reshape(shape)


def host_array(tensor: Any) -> Any:
    if hasattr(tensor, "numpy"):
        return tensor_array(tensor)
    from onnx import numpy_helper  # late, for it is slow to import and hardly ever needed

    return numpy_helper.to_array(tensor)


@op("ConstantOfShape", since=9)
def constant_of_shape(xp: Any, shape: Any, *, value: Any = None) -> Any:
    """y = a tensor of the given shape, filled with the one element of ``value`` (float32 0 by default)."""
    sizes = bounded(tuple(int(n) for n in shape))
    if value is None:
        return xp.zeros(sizes, dtype=xp.float32)
    if value.size != 1:
        raise ValueError(f"attribute value must hold one element, it has shape {value.shape}")
    return xp.asarray(np.full(sizes, value.reshape(())[()], dtype=value.dtype))


@op("Range", since=11)
def range_(xp: Any, start: Any, limit: Any, delta: Any, *, stash_type: int = 1) -> Any:
    """y[i] = start + i delta, for i from 0 to ceil((limit - start) / delta) - 1.

    ``stash_type`` (opset 27), the type to compute narrow floats in, can only be float32 or wider.
    """
    dtype = start.dtype
    if is_narrow_float(dtype) and stash_type not in (1, 11):
        raise ValueError(f"attribute stash_type={stash_type} is neither 1 (float32) nor 11 (float64)")
    kind = int if is_integer(dtype) else float
    first, last, step = (
        kind(scalar(xp, x, name)) for x, name in ((start, "start"), (limit, "limit"), (delta, "delta"))
    )
    if not math.isfinite(first) or not math.isfinite(last) or not math.isfinite(step) or step == 0:
        raise ValueError(f"start={first}, limit={last}, delta={step} give no finite range")
    steps = -((first - last) // step) if kind is int else math.ceil(quotient(last - first, step))
    bounded((max(int(steps), 0),), what="the range")
    i = xp.arange(max(int(steps), 0), dtype=xp.int64 if kind is int else xp.float64)
    return convert(xp, first + i * step, dtype)


def quotient(a: float, b: float) -> float:
    """``a / b``, infinite where it overflows."""
    try:
        return min(max(a / b, -1e300), 1e300)
    except OverflowError:
        return 1e300


@op("EyeLike", since=9)
def eye_like(xp: Any, x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    """y[i, i + k] = 1, else 0, in the shape of the matrix x and the type ``dtype`` (that of x by default)."""
    if x.ndim != 2:
        raise ValueError(f"input of shape {x.shape} must be a matrix")
    rows, columns = x.shape
    target = x.dtype if dtype is None else dtype_of(xp, dtype)
    diagonal = xp.expand_dims(xp.arange(rows), axis=1) + k == xp.arange(columns)
    return xp.astype(diagonal, target)


@op("OneHot", since=11)
def one_hot(xp: Any, indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    """y = values[1] where the index is the position on the new axis, else values[0]; -1 is the last one."""
    size, index = one_hot_arguments(xp, indices, depth)
    return one_hot_of(xp, xp.where(index < 0, index + size, index), size, values, axis)


@op("OneHot", since=9)
def one_hot_9(xp: Any, indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    """y = values[1] where the index is the position on the new axis, else values[0]; -1 is no position."""
    size, index = one_hot_arguments(xp, indices, depth)
    return one_hot_of(xp, index, size, values, axis)


def one_hot_arguments(xp: Any, indices: Any, depth: Any) -> tuple[int, Any]:
    size = int(scalar(xp, depth, "depth"))
    if size < 0:
        raise ValueError(f"input depth={size} must not be negative")
    bounded((*indices.shape, size), what="the one-hot tensor")
    if name_of(indices.dtype) == "uint64":  # what int64 cannot hold is out of range anyway
        indices = xp.minimum(indices, xp.asarray(2**63 - 1, dtype=indices.dtype))
    with np.errstate(invalid="ignore"):
        return size, convert(xp, indices, xp.int64)


def one_hot_of(xp: Any, index: Any, size: int, values: Any, axis: int) -> Any:
    if values.shape != (2,):
        raise ValueError(f"input values must be [off, on], it has shape {values.shape}")
    rank = index.ndim + 1
    axis = checked_axis(axis, rank)
    position = xp.reshape(xp.arange(size, dtype=xp.int64), (-1,) + (1,) * (rank - 1 - axis))
    return xp.asarray(xp.where(xp.expand_dims(index, axis=axis) == position, values[1], values[0]))


@op("Identity", since=1)
def identity(xp: Any, x: Any) -> Any:
    """y = x, a tensor, a sequence (opset 14) or an optional (opset 16)."""
    return x


@op("Dropout", since=12)
def dropout(
    xp: Any, x: Any, ratio: Any = None, training_mode: Any = None, *, seed: int | None = None
) -> tuple[Any, Any]:
    """y = mask x / (1 - ratio), mask being 1 with probability 1 - ratio in training, else y = x."""
    rate = 0.5 if ratio is None else float(scalar(xp, ratio, "ratio"))
    if training_mode is None or not bool(scalar(xp, training_mode, "training_mode")) or rate == 0:
        return x, xp.ones(x.shape, dtype=xp.bool)
    return dropped(xp, x, rate, seed)


def dropped(xp: Any, x: Any, rate: float, seed: int | None) -> tuple[Any, Any]:
    if not 0 <= rate < 1:
        raise ValueError(f"ratio={rate} is outside [0, 1)")
    # the generator of ONNX's own cases, so that a seed means there what it means here
    generator = np.random.RandomState(None if seed is None else seed % 2**32)
    mask = xp.asarray(generator.uniform(0.0, 1.0, x.shape) >= rate)
    y = scaled(xp, x, mask, scale=1.0 / (1.0 - rate))
    return y, mask


@pointwise
def scaled(xp: Any, x: Any, mask: Any, *, scale: float) -> Any:
    return xp.where(mask, x * scale, xp.zeros_like(x))


@op("Dropout", since=10)
def dropout_10(xp: Any, x: Any, *, ratio: float = 0.5) -> tuple[Any, Any]:
    """y = x (inference only), with a mask of bool."""
    return x, xp.ones(x.shape, dtype=xp.bool)


@op("Dropout", since=7)
def dropout_7(xp: Any, x: Any, *, ratio: float = 0.5) -> tuple[Any, Any]:
    """y = x (inference only), with a mask of the type of x."""
    mask = xp.ones(x.shape, dtype=xp.bool)
    return x, xp.astype(mask, x.dtype)


@op("Dropout", since=1)
def dropout_1(xp: Any, x: Any, *, ratio: float = 0.5, is_test: int = 0) -> tuple[Any, Any]:
    """y = x if ``is_test``, else randomly dropped as in training; the mask has the type of x."""
    if is_test or ratio == 0:
        return x, xp.astype(xp.ones(x.shape, dtype=xp.bool), x.dtype)
    y, mask = dropped(xp, x, ratio, None)
    return y, xp.astype(mask, x.dtype)
