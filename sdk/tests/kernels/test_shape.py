"""What the published cases of the shape and crop families leave out: old opsets, bounds, refusals."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours

FAR = 2**62


def i64(*values: int) -> Any:
    return np.asarray(values, dtype=np.int64)


LIKE_PEER: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("Reshape", 5, [data(4, 6), i64(0, -1, 2)], {}),
    ("Reshape", 14, [data(0, 3), i64(0, 3)], {}),
    ("Reshape", 14, [data(0, 3), i64(3, 0)], {"allowzero": 1}),
    ("Flatten", 11, [data(2, 3, 4)], {"axis": -1}),
    ("Flatten", 9, [data(2, 3, 4)], {"axis": 3}),
    ("Squeeze", 1, [data(1, 3, 1)], {}),
    ("Squeeze", 11, [data(1, 3, 1)], {"axes": [-1]}),
    ("Squeeze", 13, [data(1, 3, 1), i64(-3)], {}),
    ("Unsqueeze", 1, [data(2, 3)], {"axes": [0, 3]}),
    ("Unsqueeze", 13, [data(2, 3), i64(-1, 0)], {}),
    ("Transpose", 1, [data(2, 3, 4)], {}),
    ("Concat", 4, [data(2, 3), data(0, 3)], {"axis": 0}),
    ("Expand", 8, [data(4, 6), i64(2, 1, 6)], {}),
    ("Expand", 8, [data(4, 6), i64(1)], {}),
    ("Tile", 6, [data(4, 6), i64(2, 0)], {}),
    ("Shape", 15, [data(2, 3, 4)], {"start": -2, "end": 9}),
    ("Shape", 15, [data(2, 3, 4)], {"start": 2, "end": 1}),
    ("DepthToSpace", 1, [data(1, 12, 2, 4)], {"blocksize": 2}),
    ("DepthToSpace", 11, [data(1, 12, 2, 4)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", 1, [data(1, 3, 2, 4)], {"blocksize": 2}),
    ("Slice", 1, [data(4, 6)], {"starts": [1, -2], "ends": [-1, 1000]}),
    ("Pad", 2, [data(4, 6)], {"pads": [1, 0, 2, 3], "value": 2.5}),
    ("Pad", 11, [data(4, 6), i64(-1, 2, 1, -3)], {"mode": "reflect"}),
    ("Pad", 13, [data(4, 6), i64(1, 2, 0, -1)], {"mode": "edge"}),
    ("Pad", 18, [data(4, 6), i64(2, 1), np.float32([3]), i64(-1)], {}),
    ("Pad", 19, [data(4, 6), i64(5, -1, 9, 8)], {"mode": "wrap"}),
    ("Pad", 13, [data(0, 3), i64(1, 0, 1, 0)], {}),
    ("CenterCropPad", 18, [data(4, 7), i64(3, 10)], {}),
    ("ReverseSequence", 10, [data(2, 3, 4), i64(1, 0, 2)], {}),
    ("ReverseSequence", 10, [data(2, 3, 4), i64(3, 2)], {"batch_axis": 0, "time_axis": 1}),
    ("Col2Im", 18, [data(1, 12, 12), i64(5, 5), i64(2, 2)], {"strides": [1, 2], "pads": [0, 1, 0, 1]}),
    ("Col2Im", 18, [data(1, 4, 9), i64(5, 5), i64(2, 2)], {"dilations": [2, 2]}),
]


@pytest.mark.parametrize(("name", "opset", "inputs", "attributes"), LIKE_PEER)
def test_like_onnxruntime(name: str, opset: int, inputs: Any, attributes: Any) -> None:
    assert_like_peer(name, inputs, opset, **attributes)


BOUNDS = [(-100, 100, 1), (100, -100, -1), (-100, -1, -1), (-100, 100, -1), (4, -(9**9), -3), (2, 1, 1)]
BOUNDS += [(-1, -FAR, -1), (FAR, -FAR, -2), (1, FAR, 2), (5, 0, -2)]


@pytest.mark.parametrize(("start", "end", "step"), BOUNDS)
def test_slice_bounds(start: int, end: int, step: int) -> None:
    assert_like_peer("Slice", [data(4, 6), i64(start), i64(end), i64(1), i64(step)], 13)


@pytest.mark.parametrize("k", [0, 1, -2, 9, -9, FAR])
@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(k: int, upper: int) -> None:
    want = np.triu(data(2, 3, 4), min(k, 9)) if upper else np.tril(data(2, 3, 4), min(k, 9))
    np.testing.assert_array_equal(ours("Trilu", [data(2, 3, 4), np.int64(k)], 14, upper=upper), want)


SPLITS: list[tuple[int, int, list[Any], dict[str, Any], list[int]]] = [
    (1, 2, [], {}, [3, 3]),
    (1, 2, [np.float32([2, 4])], {}, [2, 4]),
    (2, 2, [], {"split": [1, 5]}, [1, 5]),
    (11, 3, [], {}, [2, 2, 2]),
    (13, 3, [i64(2, 0, 4)], {}, [2, 0, 4]),
    (18, 4, [], {"num_outputs": 4}, [2, 2, 2, 0]),
    (18, 3, [i64(1, 2, 3)], {}, [1, 2, 3]),
]


@pytest.mark.parametrize(("opset", "outputs", "inputs", "attributes", "lengths"), SPLITS)
def test_split(opset: int, outputs: int, inputs: Any, attributes: Any, lengths: list[int]) -> None:
    x = data(2, 6)
    parts = ours("Split", [x, *inputs], opset, outputs=outputs, axis=1, **attributes)
    assert [p.shape[1] for p in parts] == lengths
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), x)


def test_first_opsets() -> None:
    x = data(2, 3)
    assert ours("Reshape", [x], 1, shape=[3, -1]).shape == (3, 2)
    assert ours("Concat", [x, x], 1).shape == (2, 6)
    np.testing.assert_array_equal(ours("Tile", [x, np.float32([2]), np.float32([1])], 1), np.tile(x, (1, 2)))
    np.testing.assert_array_equal(ours("Pad", [x], 1, paddings=[0, 1, 0, 0], value=7.0)[:, 0], [7, 7])


TYPES = [np.float16, ml_dtypes.bfloat16, ml_dtypes.int4, np.bool_, np.int8, np.complex64]


@pytest.mark.parametrize("dtype", TYPES)
def test_types_are_kept(dtype: Any) -> None:
    x = np.ones((2, 2), dtype=dtype)
    for name, shape in (
        ("Pad", i64(1, 0, 0, 0)),
        ("Trilu", None),
        ("Expand", i64(2, 2, 2)),
        ("Tile", i64(2, 2)),
    ):
        assert ours(name, [x, shape], 18).dtype == dtype


def test_strings_are_padded_with_empty_ones() -> None:
    assert ours("Pad", [np.array(["a"], dtype=object), i64(1, 0)], 13).tolist() == ["", "a"]


def test_expand_and_split_do_not_alias_what_they_should_not() -> None:
    x = data(1, 3)
    ours("Expand", [x, i64(2, 3)], 13)[...] = 0
    np.testing.assert_array_equal(x, data(1, 3))


REFUSED: list[tuple[str, int, list[Any], dict[str, Any], str]] = [
    ("Reshape", 14, [data(4, 6), i64(5, -1)], {}, "24 elements"),
    ("Reshape", 14, [data(0, 3), i64(0, -1)], {}, "no whole size"),
    ("Reshape", 14, [data(0, 3), i64(0, -1)], {"allowzero": 1}, "ambiguous"),
    ("Reshape", 14, [data(4), i64(4, 0)], {}, "rank 1"),
    ("Reshape", 14, [data(4), i64(-2)], {}, "negative"),
    ("Flatten", 13, [data(4)], {"axis": 2}, "axis 2"),
    ("Squeeze", 13, [data(2, 3), i64(0)], {}, "size 2"),
    ("Unsqueeze", 13, [data(2, 3), i64(0, 0)], {}, "repeats"),
    ("Transpose", 13, [data(2, 3)], {"perm": [0, 0]}, "permutation"),
    ("Concat", 13, [data(2, 3), data(2, 4)], {"axis": 0}, "differ"),
    ("Split", 13, [data(6)], {"outputs": 4}, "equal parts"),
    ("Split", 18, [data(6), i64(7)], {}, "do not split"),
    ("Split", 18, [data(6), i64(6)], {"num_outputs": 1}, "both"),
    ("Expand", 13, [data(2, 3), i64(4, 3)], {}, "broadcast"),
    ("Expand", 13, [data(1), i64(2**50)], {}, "exceed"),
    ("Tile", 13, [data(1), i64(2**50)], {}, "exceed"),
    ("Tile", 13, [data(1), i64(-1)], {}, "at least 0"),
    ("Slice", 13, [data(4), i64(0), i64(4), i64(0), i64(0)], {}, "steps"),
    ("Slice", 13, [data(4), i64(0), i64(4), i64(1)], {}, "rank 1"),
    ("Pad", 13, [data(4), i64(2**50, 0)], {}, "exceed"),
    ("Pad", 13, [data(4), i64(-3, -3)], {}, "negative"),
    ("Pad", 13, [data(0), i64(1, 0)], {"mode": "edge"}, "size 0"),
    ("Pad", 13, [data(4), i64(1, 0)], {"mode": "mirror"}, "mirror"),
    ("DepthToSpace", 13, [data(1, 6, 2, 2)], {"blocksize": 2}, "divide"),
    ("ReverseSequence", 10, [data(2, 3), i64(1, 2, 3)], {}, "sequence_lens"),
    ("Col2Im", 18, [data(1, 4, 9), i64(5, 5), i64(2, 2)], {}, "blocks"),
    ("CenterCropPad", 18, [data(4), i64(-1)], {}, "negative"),
]


@pytest.mark.parametrize(("name", "opset", "inputs", "attributes", "words"), REFUSED)
def test_refused(name: str, opset: int, inputs: Any, attributes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ours(name, inputs, opset, **attributes)
