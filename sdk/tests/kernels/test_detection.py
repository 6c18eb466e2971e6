"""Boxes and regions against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer import assert_like_peer, data, ours, peer

rng = np.random.default_rng(6)
X = data(2, 3, 12, 15)
IMAGES = rng.integers(0, 2, 20)


def regions(low: float) -> Any:
    corner, extent = rng.uniform(low, 12, (20, 2)), rng.uniform(0.5, 9, (20, 2))
    return np.concatenate([corner, corner + extent], axis=1).astype(np.float32)


@pytest.mark.parametrize("sampling", [0, 1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("half", ["half_pixel", "output_half_pixel"])
def test_roi_align(sampling: int, scale: float, half: str) -> None:
    shape = {"output_height": 3, "output_width": 4, "sampling_ratio": sampling, "spatial_scale": scale}
    versions: list[tuple[int, dict[str, Any]]] = [(10, {}), (16, {"coordinate_transformation_mode": half})]
    for opset, attributes in versions:
        inputs = [X, regions(-2), IMAGES]
        got, want = (run("RoiAlign", inputs, opset, **shape, **attributes) for run in (ours, peer))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_max_roi_pool(scale: float) -> None:
    rois = np.concatenate([IMAGES[:, None], np.round(2 * regions(-2)) / 2], axis=1).astype(np.float32)
    assert_like_peer("MaxRoiPool", [X, rois], 1, pooled_shape=[3, 4], spatial_scale=scale)


@pytest.mark.parametrize("centered", [0, 1])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("least", [None, 0.0, 0.3])
def test_non_max_suppression(centered: int, overlap: float, least: float | None) -> None:
    boxes = rng.uniform(0, 1, (2, 40, 4)).astype(np.float32)
    scores = np.round(rng.uniform(0, 1, (2, 3, 40)), 1).astype(np.float32)
    limits = [np.array([7]), np.float32([overlap])] + ([] if least is None else [np.float32([least])])
    assert_like_peer("NonMaxSuppression", [boxes, scores, *limits], 11, center_point_box=centered)


def test_nothing_to_select() -> None:
    boxes, scores = np.zeros((1, 0, 4), dtype=np.float32), np.zeros((1, 2, 0), dtype=np.float32)
    assert ours("NonMaxSuppression", [boxes, scores, np.int64(3)], 11).shape == (0, 3)
    assert ours("NonMaxSuppression", [boxes, scores], 11).shape == (0, 3)
    assert ours("RoiAlign", [X, np.zeros((0, 4), dtype=np.float32), IMAGES[:0]], 16).shape == (0, 3, 1, 1)


def test_refused() -> None:
    roi = np.float32([[0, 0, 1e9, 1]])
    with pytest.raises(ValueError, match="batch indices"):
        ours("RoiAlign", [X, roi, np.array([2])], 16)
    with pytest.raises(ValueError, match="sampling points"):
        ours("RoiAlign", [X, roi, np.array([0])], 16)
    with pytest.raises(ValueError, match="iou_threshold"):
        ours("NonMaxSuppression", [np.zeros((1, 1, 4)), np.zeros((1, 1, 1)), np.int64(1), np.float32(2)], 11)
