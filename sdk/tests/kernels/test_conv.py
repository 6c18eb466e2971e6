"""Convolutions against onnxruntime, and where they refuse."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peer import assert_like_peer, data, ours

from epkit.kernels import conv as module

CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 4, 9), (6, 4, 3), {}),
    ((1, 4, 9), (4, 1, 3), {"group": 4, "pads": [1, 2], "strides": [2]}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "dilations": [2, 3], "pads": [2, 1, 0, 2]}),
    ((2, 4, 9, 8), (8, 1, 3, 3), {"group": 4, "auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "VALID"}),
    ((2, 3, 8, 8), (2, 3, 1, 1), {"strides": [3, 2]}),
    ((1, 4, 5, 6, 7), (4, 2, 2, 3, 2), {"group": 2, "strides": [2, 1, 2], "pads": [1, 0, 1, 0, 1, 1]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), CASES)
@pytest.mark.parametrize("opset", [1, 11, 22])
def test_conv(x: Any, w: Any, attributes: Any, opset: int) -> None:
    assert_like_peer("Conv", [data(*x), data(*w, seed=1), data(w[0], seed=2)], opset, **attributes)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    inputs = [data(2, 4, 9, 8), data(4, 4 // group, 3, 2, seed=1)]
    whole = ours("Conv", inputs, 22, group=group, strides=(2, 1))
    monkeypatch.setattr(module, "DENSE_BLOCK", 20)
    monkeypatch.setattr(module, "GROUPED_BLOCK", 20)
    np.testing.assert_allclose(
        ours("Conv", inputs, 22, group=group, strides=(2, 1)), whole, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_conv_accumulates_wide(dtype: Any) -> None:
    x, w = np.ones((1, 4096, 1), dtype), np.ones((1, 4096, 1), dtype)
    y = ours("Conv", [x, w], 22)
    assert y.dtype == dtype
    assert float(y[0, 0, 0]) == 4096


def test_conv_of_an_empty_batch() -> None:
    assert ours("Conv", [data(0, 3, 8, 8), data(5, 3, 3, 3)], 22).shape == (0, 5, 6, 6)


@pytest.mark.parametrize(
    ("x", "w", "attributes", "message"),
    [
        ((1, 3, 8), (2, 4, 3), {}, "3 channels"),
        ((1, 4, 8), (3, 2, 3), {"group": 2}, "3 output channels"),
        ((1, 4, 8), (2, 4, 9), {}, "reaches over 9"),
        ((1, 4, 8), (2, 4, 3), {"kernel_shape": (5,)}, "kernel_shape"),
        ((1, 4, 8), (2, 4, 3), {"strides": (0,)}, "strides"),
        ((1, 4, 8), (2, 4, 3), {"pads": (1,)}, "pads"),
        ((1, 4, 8), (2, 4, 3), {"auto_pad": "SAME"}, "auto_pad"),
        ((1, 4), (2, 4), {}, "rank"),
    ],
)
def test_conv_refuses(x: Any, w: Any, attributes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours("Conv", [data(*x), data(*w)], 22, **attributes)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
        ((2, 4, 5, 4), (4, 2, 3, 2), {"group": 2, "strides": [2, 3], "dilations": [1, 2]}),
        ((1, 2, 3, 3), (2, 3, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
        ((1, 2, 3, 3), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 3, 3), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ((1, 2, 3, 3, 2), (2, 1, 2, 2, 3), {"pads": [1, 0, 1, 0, 1, 0]}),
    ],
)
@pytest.mark.parametrize("opset", [1, 11, 22])
def test_conv_transpose(x: Any, w: Any, attributes: Any, opset: int) -> None:
    bias = data(w[1] * attributes.get("group", 1), seed=2)
    assert_like_peer("ConvTranspose", [data(*x), data(*w, seed=1), bias], opset, **attributes)


@pytest.mark.parametrize("groups", [(1, 1), (2, 4)])
def test_deform_conv(groups: tuple[int, int]) -> None:
    group, offset_group = groups
    inputs = [
        data(2, 4, 6, 5),
        data(4, 4 // group, 3, 2, seed=1),
        2 * data(2, offset_group * 12, 4, 4, seed=2),
        data(4, seed=3),
        data(2, offset_group * 6, 4, 4, seed=4),
    ]
    assert_like_peer("DeformConv", inputs, 19, group=group, offset_group=offset_group, rtol=1e-4)


def test_deform_conv_without_offsets_is_conv_of_any_rank() -> None:
    x, w = data(1, 2, 4, 5, 3), data(3, 2, 2, 2, 2, seed=1)
    y = ours("DeformConv", [x, w, np.zeros((1, 24, 3, 4, 2), np.float32)], 22)
    np.testing.assert_allclose(y, ours("Conv", [x, w], 22), rtol=1e-5, atol=1e-6)


def test_causal_conv_in_two_pieces() -> None:
    x, w = data(2, 3, 7), data(3, 1, 4, seed=1)
    whole, state = ours("CausalConvWithState", [x, w], 27, outputs=2)
    first, carried = ours("CausalConvWithState", [x[..., :2], w], 27, outputs=2)
    second, last = ours("CausalConvWithState", [x[..., 2:], w, None, carried], 27, outputs=2)
    np.testing.assert_allclose(np.concatenate([first, second], -1), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(last, state)
