"""What the published cases of the index family leave out."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours

rng = np.random.default_rng(3)


def i64(*values: Any) -> Any:
    return np.asarray(values, dtype=np.int64)


WHOLE = rng.integers(0, 3, (3, 4, 2)).astype(np.float32)
LIKE_PEER: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("Gather", 1, [data(4, 6), i64([-1, 0])], {"axis": 1}),
    ("Gather", 13, [data(4, 6), np.array(2, dtype=np.int32)], {"axis": -1}),
    ("Gather", 13, [data(0, 3), i64()], {}),
    ("GatherElements", 11, [data(4, 6), i64([0, -1, 2])], {}),
    ("GatherElements", 13, [data(4, 6), np.int32([[0, -1, 2]])], {"axis": 1}),
    ("GatherND", 11, [data(2, 3, 4), i64([1, -1])], {}),
    ("GatherND", 12, [data(2, 3, 4), i64([1], [2])], {"batch_dims": 1}),
    ("GatherND", 12, [data(2, 3, 4), rng.integers(-4, 4, (2, 3, 5, 1))], {"batch_dims": 2}),
    ("Scatter", 9, [data(4, 6), i64([0, 1, 2]), data(1, 3)], {}),
    ("ScatterElements", 11, [data(4, 6), i64([0, -1]), data(1, 2)], {"axis": 1}),
    ("ScatterND", 11, [data(4, 6), i64([3, 5], [0, -6]), data(2)], {}),
    ("Compress", 9, [data(4, 6), np.array([0, 1, 1], dtype=bool)], {"axis": 1}),
    ("Compress", 11, [data(4, 6), np.array([0, 1, 1] * 3, dtype=bool)], {}),
    ("NonZero", 9, [WHOLE], {}),
    ("NonZero", 13, [data(0, 3)], {}),
]


@pytest.mark.parametrize(("name", "opset", "inputs", "attributes"), LIKE_PEER)
def test_like_onnxruntime(name: str, opset: int, inputs: Any, attributes: Any) -> None:
    assert_like_peer(name, inputs, opset, **attributes)


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_scatter_reductions(reduction: str, dtype: Any) -> None:
    x, updates = (9 * data(4, 6)).astype(dtype), (9 * data(3, 5, seed=1)).astype(dtype)
    index = rng.integers(-4, 4, (3, 5))
    assert_like_peer("ScatterElements", [x, index, updates], 18, reduction=reduction)
    rows = (9 * data(3, 6, seed=2)).astype(dtype)
    assert_like_peer("ScatterND", [x, i64([0], [-1], [0]), rows], 18, reduction=reduction)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_scatter_rounds_once(dtype: Any) -> None:
    ones = np.ones(4096, dtype=dtype)
    got = ours("ScatterElements", [ones[:1], np.zeros(4096, dtype=np.int64), ones], 18, reduction="add")
    assert (got.dtype, float(got[0])) == (np.dtype(dtype), float(dtype(4097)))


def test_inputs_are_not_written() -> None:
    x = data(4)
    for reduction in ("none", "add"):
        ours("ScatterElements", [x, i64(0), np.float32([5])], 18, reduction=reduction)
    np.testing.assert_array_equal(x, data(4))


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("axis", [{}, {"axis": 0}, {"axis": 1}, {"axis": -1}])
def test_unique(ordered: int, axis: Any) -> None:
    assert_like_peer("Unique", [WHOLE], 11, outputs=4, sorted=ordered, **axis)


def test_unique_of_strings_along_an_axis() -> None:
    x = np.array([["b", "a"], ["a", "c"], ["b", "a"]], dtype=object)
    y, first, inverse, counts = ours("Unique", [x], 11, outputs=4, axis=0)
    assert y.tolist() == [["a", "c"], ["b", "a"]]
    assert [first.tolist(), inverse.tolist(), counts.tolist()] == [[1, 0], [1, 0, 1], [1, 2]]


def test_a_scalar_that_is_not_zero_has_no_coordinates() -> None:
    assert ours("NonZero", [np.float32(3)], 13).shape == (0, 1)


def test_tensor_scatter_wraps() -> None:
    cache, update = np.zeros((2, 4, 1), dtype=np.float32), np.ones((2, 3, 1), dtype=np.float32)
    got = ours("TensorScatter", [cache, update, i64(0, 3)], 24, mode="circular")
    assert got[..., 0].tolist() == [[1, 1, 1, 0], [1, 1, 0, 1]]


REFUSED: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("Gather", [data(4, 6), i64(6)], {"axis": 1}, "hold 6"),
    ("GatherElements", [data(4), i64(-5)], {}, "hold -5"),
    ("GatherElements", [data(4, 2), i64([0, 0, 0])], {}, "do not fit"),
    ("GatherND", [data(2, 3), i64([9])], {}, "hold 9"),
    ("GatherND", [data(2), i64([0, 0])], {}, "tuples of 2"),
    ("ScatterElements", [data(4), i64(4), data(1)], {}, "hold 4"),
    ("ScatterElements", [data(4), i64(0), data(1)], {"reduction": "mean"}, "mean"),
    ("ScatterND", [data(4), i64([0]), data(2)], {}, "updates"),
    ("TensorScatter", [data(1, 2, 3, 1), data(1, 2, 2, 1), i64(2)], {}, "leave the cache"),
    ("Compress", [data(2), np.ones(3, dtype=bool)], {}, "condition"),
]


@pytest.mark.parametrize(("name", "inputs", "attributes", "words"), REFUSED)
def test_refused(name: str, inputs: Any, attributes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ours(name, inputs, 24, **attributes)
