"""Recipes for operators that look things up, put things in places, or make tensors from sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from epkit.dtypes import numpy_dtype

from .quantised import written
from .trial import Trial, draw, recipe, wide


@recipe("TopK")
def top_k(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """The three largest, or smallest where the version has that; all values differ."""
    x = np.stack([rng.permutation(11) for _ in range(4)]).astype(numpy_dtype(dtype))
    order = np.argsort(x.astype(np.float64), axis=1)
    chosen = order[:, :3] if version >= 11 else order[:, ::-1][:, :3]
    values = np.take_along_axis(x, chosen, axis=1)
    if version < 10:
        return Trial([x], [values, chosen], {"axis": 1, "k": 3})
    how = {"axis": -1, "largest": 0} if version >= 11 else {"axis": 1}
    return Trial([x, np.array([3])], [values, chosen], how, frozenset({1}))


@recipe("GatherND")
def gather_nd(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Rows by pairs of indices, from the end too."""
    x = draw(rng, (3, 4, 5), dtype)
    indices = np.array([[0, -1], [2, 1], [-3, 0]])
    return Trial([x, indices], [x[indices[:, 0], indices[:, 1]]])


@recipe("ScatterND")
def scatter_nd(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Rows into distinct places."""
    x, updates = draw(rng, (4, 3, 2), dtype), draw(rng, (2, 2), dtype)
    indices = np.array([[3, 0], [0, 2]])
    want = x.copy()
    want[indices[:, 0], indices[:, 1]] = updates
    return Trial([x, indices, updates], [want])


@recipe("Compress")
def compress(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Columns by a condition that is shorter than the axis."""
    x = draw(rng, (3, 5), dtype)
    chosen = np.array([True, False, True, True])
    return Trial([x, chosen], [x[:, [0, 2, 3]]], {"axis": 1})


@recipe("NonZero")
def nonzero(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Indices, axis by axis."""
    x = draw(rng, (4, 5), dtype, 0, 1) if dtype == "bool" else draw(rng, (4, 5), "int8", 0, 1)
    x = x.astype(numpy_dtype(dtype))
    return Trial([x], [np.array(np.nonzero(x))])


@recipe("OneHot")
def one_hot(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Indices of the main type; one from the end where the version knows that, one beyond the last column."""
    last = -1 if version >= 11 and not dtype.startswith("uint") else 4
    indices = np.array([0, 3, last, 7]).astype(numpy_dtype(dtype))
    want = np.full((4, 5), 2, np.float64)
    want[range(3), [0, 3, 4]] = 7
    values = np.array([2, 7], np.float32)
    return Trial([indices, np.array(5), values], [want], fixed=frozenset({1, 2}), result="float32")


@recipe("Shape Size")
def shape(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Of a tensor with an empty axis."""
    x = draw(rng, (3, 0, 5), dtype)
    return Trial([x], [np.array(x.shape if op == "Shape" else x.size)])


@recipe("EyeLike")
def eye_like(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A diagonal above the main one."""
    x = draw(rng, (4, 6), dtype)
    return Trial([x], [np.eye(4, 6, 2).astype(x.dtype)], {"k": 2})


@recipe("Range")
def range_(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Upwards, the end left out."""
    numbers: list[Any] = [np.array(value).astype(numpy_dtype(dtype)) for value in (2, 17, 3)]
    want = np.arange(2, 17, 3)
    return Trial(numbers, [want.astype(wide(numbers[0]).dtype)])


@recipe("ConstantOfShape")
def constant_of_shape(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """A value for every place."""
    value = numpy_helper.from_array(np.array([3], np.float32), "value")
    return Trial([np.array([2, 3])], [np.full((2, 3), 3.0)], {"value": value}, result="float32")


@recipe("ReverseSequence")
def reverse_sequence(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Each column as far as its length says."""
    x, lengths = draw(rng, (5, 3), dtype), np.array([5, 1, 3])
    want = x.copy()
    for column, length in enumerate(lengths):
        want[:length, column] = x[:length, column][::-1]
    return Trial([x, lengths], [want], {"time_axis": 0, "batch_axis": 1})


@recipe("Dropout")
def dropout(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """At inference, nothing is dropped."""
    x = draw(rng, (3, 5), dtype)
    return Trial([x], [x], {"is_test": 1} if version < 7 else {})


@recipe("CastLike")
def cast_like(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """To the type of another tensor."""
    x = draw(rng, (3, 5), dtype, 0, 9) if dtype != "string" else written(rng)
    return Trial([x, np.zeros(1, np.float32)], [x.astype(np.float64)], result="float32")


@recipe("CumProd")
def cumprod(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Along the last axis."""
    x = draw(rng, (4, 6), dtype, 1, 2)
    want = np.cumprod(wide(x), axis=-1).astype(wide(x).dtype)
    return Trial([x, np.array(-1)], [want], fixed=frozenset({1}), terms=6)


@recipe("Scatter")
def scatter(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """What ScatterElements was called before; indices from the start."""
    x, updates = draw(rng, (3, 5), dtype), draw(rng, (2, 5), dtype)
    indices = np.array([[0, 2, 1, 0, 2], [1, 0, 2, 2, 0]])
    want = x.copy()
    np.put_along_axis(want, indices, updates, axis=0)
    return Trial([x, indices, updates], [want], {"axis": 0})


@recipe("Unique")
def unique(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Sorted, of all elements; numbers that are not signed in the order in which they come, by columns."""
    if dtype.startswith("uint"):
        pattern = np.array([[3, 1, 3, 0, 1], [0, 2, 0, 1, 2]]).astype(numpy_dtype(dtype))
        want = [pattern[:, [0, 1, 3]], np.array([0, 1, 3]), np.array([0, 1, 0, 2, 1]), np.array([2, 2, 1])]
        return Trial([pattern], want, {"axis": 1, "sorted": 0})
    x = draw(rng, (4, 5), dtype) if dtype in ("bool", "string") else draw(rng, (4, 5), "int8")
    x = x.astype(numpy_dtype(dtype))
    flat = x.ravel().tolist()
    values = sorted(set(flat))
    found = [flat.index(value) for value in values]
    inverse, counts = [values.index(value) for value in flat], [flat.count(value) for value in values]
    want = [np.array(values, x.dtype), *(np.array(numbers) for numbers in (found, inverse, counts))]
    return Trial([x], want, {"sorted": 1})
