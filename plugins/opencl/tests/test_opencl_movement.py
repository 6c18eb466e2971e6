"""What only moves elements, against NumPy: rows shorter and longer than a work-item of a CPU copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from test_opencl_kernels import data, model_of, ours

from epkit_opencl.kernels.movement import LONG, STRETCH

TYPES = st.sampled_from([np.float32, np.int8, np.int64, np.float16])


def run(name: str, feeds: dict[str, Any], **attributes: Any) -> Any:
    """The output of one node."""
    node = helper.make_node(name, list(feeds), ["y"], **attributes)
    return ours(model_of([node], feeds, ["y"]), feeds)[0]


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    row=st.sampled_from([1, LONG - 1, LONG, 3 * LONG + 5, STRETCH + 7]),
    axis=st.integers(0, 1),
    dtype=TYPES,
)
def test_rows_of_any_length_are_joined_and_cut(shapes: list[int], row: int, axis: int, dtype: Any) -> None:
    parts = [
        (10 * data(*((size, 2) if axis == 0 else (2, size)), row, seed=size)).astype(dtype) for size in shapes
    ]
    whole = np.concatenate(parts, axis)
    np.testing.assert_array_equal(run("Concat", dict(zip("abc", parts, strict=False)), axis=axis), whole)
    begin, end = np.array([1]), np.array([whole.shape[axis]])
    feeds = {"x": whole, "begin": begin, "end": end, "axis": np.array([axis])}
    np.testing.assert_array_equal(run("Slice", feeds), np.delete(whole, 0, axis))


@pytest.mark.parametrize("width", [LONG - 8, LONG, 200])
def test_rows_with_gaps_on_either_side(width: int) -> None:
    x = data(3, 5, width)
    padded = run("Pad", {"x": x, "pads": np.array([0, 1, 2, 1, 0, 3])})
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 1), (1, 0), (2, 3))))
    cut = run("Slice", {"x": x, "b": np.array([1]), "e": np.array([width - 2]), "a": np.array([2])})
    np.testing.assert_array_equal(cut, x[:, :, 1 : width - 2])
    np.testing.assert_array_equal(run("Transpose", {"x": x}, perm=[1, 0, 2]), x.transpose(1, 0, 2))
    np.testing.assert_array_equal(run("Transpose", {"x": x}, perm=[2, 1, 0]), x.T)
