"""Operators of image models against onnxruntime; what its CPU build lacks, against Conv of other layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from versus import agree, ours

import epkit

F = np.float32
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*shape: int, dtype: Any = F) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


X, W, B = numbers(2, 4, 7, 6), numbers(6, 4, 3, 3) / 3, numbers(6)


def last(x: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize(
    "activation, parameters",
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("HardSwish", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.3, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
def test_fused_conv_activations(activation: str, parameters: list[float]) -> None:
    attributes = {"activation_params": parameters} if parameters else {}
    agree("FusedConv", X, W, B, activation=activation, **attributes, **CLOSE)
    agree(
        "FusedConv", X, W, B, numbers(2, 6, 7, 6), activation=activation, pads=[1] * 4, **attributes, **CLOSE
    )


def test_fused_conv_shapes() -> None:
    agree("FusedConv", X, W, **CLOSE)
    agree("FusedConv", X, W, None, numbers(2, 6, 3, 6), pads=[1] * 4, strides=[3, 1], **CLOSE)
    agree("FusedConv", X, numbers(6, 2, 3, 3), B, group=2, strides=[2, 1], dilations=[1, 2], **CLOSE)
    agree("FusedConv", X, W, B, auto_pad="SAME_UPPER", strides=[2, 2], activation="Relu", **CLOSE)


def test_fused_conv_rounds_float16_once() -> None:
    args = [v.astype(np.float16) for v in (X, W, B, numbers(2, 6, 7, 6))]
    found = ours("FusedConv", *args, pads=[1] * 4, activation="Relu")
    expected = ours("FusedConv", *(v.astype(F) for v in args), pads=[1] * 4, activation="Relu")
    np.testing.assert_array_equal(found, expected.astype(np.float16))


def test_fused_conv_refuses() -> None:
    with pytest.raises(epkit.EpkitError, match="activation='Maxout'"):
        ours("FusedConv", X, W, B, activation="Maxout")
    with pytest.raises(epkit.EpkitError, match="Clip takes 2"):
        ours("FusedConv", X, W, B, activation="Clip", activation_params=[1.0])
    with pytest.raises(epkit.EpkitError, match=r"Z of shape \(2, 6, 1, 1\)"):
        ours("FusedConv", X, W, B, numbers(2, 6, 1, 1))


def test_channels_last() -> None:
    z, settings = numbers(2, 6, 4, 6), {"pads": [1] * 4, "strides": [2, 1]}
    plain = ours("FusedConv", X, W, B, **settings)
    np.testing.assert_array_equal(ours("NhwcConv", last(X), W, B, **settings), last(plain))
    fused = ours("NhwcFusedConv", last(X), W, B, last(z), activation="Relu", **settings)
    np.testing.assert_array_equal(fused, last(np.maximum(plain + z, 0)))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "output_padding": [1, 1]},
        {"group": 2, "dilations": [2, 1]},
    ],
)
def test_conv_transpose_with_dynamic_pads(attributes: dict[str, Any]) -> None:
    b = numbers(3 * attributes.get("group", 1))
    pads = np.array([1, 1, 0, 1])
    agree("ConvTransposeWithDynamicPads", X, numbers(4, 3, 3, 3), pads, b, **attributes, **CLOSE)


@pytest.mark.parametrize(
    "activation, parameters",
    [
        ("Relu", {}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Tanh", {}),
        ("Elu", {"alpha": 0.5}),
        ("Celu", {"alpha": 0.7}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("ThresholdedRelu", {"alpha": 0.3}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("Selu", {"alpha": 1.5, "gamma": 1.1}),
    ],
)
def test_fused_gemm(activation: str, parameters: dict[str, float]) -> None:
    given = {f"activation_{name}": value for name, value in parameters.items()}
    a, b = numbers(3, 8), numbers(8, 5)
    agree("FusedGemm", a, b, numbers(5), alpha=0.5, beta=2.0, activation=activation, **given, **CLOSE)
    agree(
        "FusedGemm",
        a.T.copy(),
        b.T.copy(),
        numbers(3, 1),
        transA=1,
        transB=1,
        activation=activation,
        **given,
        **CLOSE,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"pads": [1, 1, 1, 0]},
        {"auto_pad": "SAME_LOWER"},
        {"ceil_mode": 1, "strides": [2, 2]},
        {"dilations": [2, 1]},
    ],
)
def test_nhwc_max_pool(dtype: Any, attributes: dict[str, Any]) -> None:
    x = np.random.default_rng(1).integers(0, 256, (2, 7, 6, 3)).astype(np.uint8).view(dtype)
    agree("NhwcMaxPool", x, kernel_shape=[3, 2], **attributes)


@pytest.mark.parametrize("shape", [(6,), (7, 6), (4, 5, 6)])
@pytest.mark.parametrize("attributes", [{}, {"strides": 2}, {"pads": 1}, {"auto_pad": "SAME_UPPER"}])
def test_maxpool_with_mask(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    rank = len(shape)
    lists = {"strides": [2] * rank, "pads": [1] * 2 * rank}
    attributes = {key: lists.get(key, value) for key, value in attributes.items()}
    mask = np.random.default_rng(rank).integers(0, 3, (1, 1, *shape)).astype(np.int32)
    for first in (0, 1):
        mask.reshape(-1)[0] = first
        agree("MaxpoolWithMask", numbers(2, 3, *shape), mask, kernel_shape=[3, 2, 2][:rank], **attributes)


def test_maxpool_masks_by_channel() -> None:
    x, mask = numbers(1, 2, 1, 4), np.ones((1, 2, 1, 4), np.int32)
    mask[0, 1, 0, 2] = 0
    y = ours("MaxpoolWithMask", x, mask, kernel_shape=[1, 4])
    assert y.ravel().tolist() == [x[0, 0].max(), x[0, 1, 0, :2].max()]
    with pytest.raises(epkit.EpkitError, match="input M of shape"):
        ours("MaxpoolWithMask", x, mask[..., :3], kernel_shape=[1, 4])


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    points = (np.random.default_rng(2).random((2, 5, 3, 2)) * 2.6 - 1.3).astype(F)
    agree("GridSample", X, points, mode=mode, padding_mode=padding, align_corners=align, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [[3, 4], [1, 1], [1, 5], [7, 6]])
def test_crop_and_resize(mode: str, size: list[int]) -> None:
    boxes = [[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], [-0.2, 0.1, 1.2, 0.5], [0.8, 0.9, 0.2, 0.1]]
    args = X, np.array(boxes, F), np.array([0, 1, 1, 0], np.int32), np.array(size, np.int32)
    agree("CropAndResize", *args, mode=mode, extrapolation_value=1.5, constants=(3,), **CLOSE)
    with pytest.raises(epkit.EpkitError, match="batch of 2"):
        ours("CropAndResize", *args[:2], args[2] + 1, args[3], mode=mode)


def test_sample_op() -> None:
    agree("SampleOp", X)
