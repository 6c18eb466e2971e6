"""Pooling against onnxruntime, and where it refuses."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours

ATTRIBUTES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 11), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 2]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 4], "strides": [2, 3], "pads": [1, 2, 0, 1]}),
    ((1, 2, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 9, 8), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 3, 3], "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 1]}),
]


@pytest.mark.parametrize(("shape", "attributes"), ATTRIBUTES)
@pytest.mark.parametrize("opset", [7, 11, 19])
@pytest.mark.parametrize("count", [0, 1])
def test_average_pool(shape: Any, attributes: Any, opset: int, count: int) -> None:
    assert_like_peer("AveragePool", [data(*shape)], opset, count_include_pad=count, **attributes)


@pytest.mark.parametrize(("shape", "attributes"), ATTRIBUTES)
@pytest.mark.parametrize("opset", [1, 8, 12])
def test_max_pool(shape: Any, attributes: Any, opset: int) -> None:
    assert_like_peer("MaxPool", [data(*shape)], opset, **attributes)
    if opset >= 8:
        for order in (0, 1):
            assert_like_peer("MaxPool", [data(*shape)], opset, outputs=2, storage_order=order, **attributes)


@pytest.mark.parametrize(("shape", "attributes"), ATTRIBUTES)
@pytest.mark.parametrize(("opset", "p"), [(2, 1), (11, 2), (18, 3)])
def test_lp_pool(shape: Any, attributes: Any, opset: int, p: int) -> None:
    assert_like_peer("LpPool", [data(*shape)], opset, p=p, **attributes)


@pytest.mark.parametrize("name", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1]])
def test_ceil_mode_and_dilations(name: str, pads: Any) -> None:
    attributes = {
        "kernel_shape": [3, 2],
        "strides": [2, 3],
        "dilations": [2, 1],
        "pads": pads,
        "ceil_mode": 1,
    }
    assert_like_peer(name, [data(1, 2, 10, 9)], 19, **attributes)


def test_lp_pool_1_has_a_float_p() -> None:
    x = np.abs(data(1, 1, 4))
    y = ours("LpPool", [x], 1, p=1.5, kernel_shape=[2])
    np.testing.assert_allclose(y[0, 0], (x[0, 0, :-1] ** 1.5 + x[0, 0, 1:] ** 1.5) ** (1 / 1.5), rtol=1e-6)
    with pytest.raises(ValueError, match="kernel_shape is missing"):
        ours("LpPool", [x], 1)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, ml_dtypes.bfloat16])
def test_max_pool_types(dtype: Any) -> None:
    x = np.array([[[3, 1, 2, 5]]]).astype(dtype)
    y, index = ours("MaxPool", [x], 22, outputs=2, kernel_shape=[2], pads=[1, 1])
    assert y.dtype == dtype and y.astype(int).tolist() == [[[3, 3, 2, 5, 5]]]
    assert index.dtype == np.int64 and index.tolist() == [[[0, 0, 2, 3, 3]]]


def test_max_pool_index_of_minus_infinity_is_in_the_input() -> None:
    y, index = ours(
        "MaxPool", [np.full((1, 1, 2), -np.inf, np.float32)], 22, outputs=2, kernel_shape=[2], pads=[1, 1]
    )
    assert index.tolist() == [[[0, 0, 1]]] and np.isneginf(y).all()


@pytest.mark.parametrize(
    ("name", "opset"), [("GlobalAveragePool", 1), ("GlobalMaxPool", 1), ("GlobalLpPool", 2)]
)
def test_global(name: str, opset: int) -> None:
    assert_like_peer(name, [data(2, 3, 4, 5)], opset)
    assert ours(name, [data(2, 3, 4, dtype=np.float16)], 22).dtype == np.float16


def test_max_unpool_undoes_max_pool() -> None:
    x = data(2, 3, 6, 4)
    y, index = ours("MaxPool", [x], 22, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    back = ours("MaxUnpool", [y, index], 22, kernel_shape=[2, 2], strides=[2, 2])
    assert_like_peer("MaxUnpool", [y, index], 11, kernel_shape=[2, 2], strides=[2, 2])
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    with pytest.raises(ValueError, match="indices from"):
        ours("MaxUnpool", [y, index + 99], 22, kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": [9]}, "reaches over 9"),
        ({"kernel_shape": [2, 2]}, "kernel_shape"),
        ({"kernel_shape": [2], "strides": [-1]}, "strides"),
        ({"kernel_shape": [2], "dilations": [0]}, "dilations"),
    ],
)
def test_refusals(attributes: Any, message: str) -> None:
    for name in ("MaxPool", "AveragePool", "LpPool"):
        with pytest.raises(ValueError, match=message):
            ours(name, [data(1, 1, 4)], 22, **attributes)


def test_a_kernel_of_one_still_copies() -> None:
    x = data(1, 1, 4)
    assert not np.shares_memory(ours("MaxPool", [x], 22, kernel_shape=[1]), x)


def test_a_window_of_padding_alone_is_refused() -> None:
    for name in ("MaxPool", "AveragePool"):
        with pytest.raises(ValueError, match="lies in the padding"):
            ours(name, [data(1, 1, 4)], 22, kernel_shape=[2], pads=[2, 0])
    y = ours(
        "AveragePool",
        [np.ones((1, 1, 4), np.float32)],
        22,
        kernel_shape=[2],
        pads=[2, 0],
        count_include_pad=1,
    )
    assert y.tolist() == [[[0, 0.5, 1, 1, 1]]]
