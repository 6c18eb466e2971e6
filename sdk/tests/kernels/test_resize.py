"""Resize, Upsample and the sampling of grids against onnxruntime and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer import assert_like_peer, data, ours, peer

X = data(1, 2, 5, 7)


def f32(*values: float) -> Any:
    return np.asarray(values, dtype=np.float32)


SCALES = [(1, 1, 2, 2), (1, 1, 0.6, 0.8), (1, 1, 1.7, 0.5)]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", SCALES)
def test_opset_10(mode: str, scales: Any) -> None:
    assert_like_peer("Resize", [X, f32(*scales)], 10, mode=mode)
    if min(scales) >= 1:
        assert_like_peer("Upsample", [X, f32(*scales)], 9, mode=mode)
        assert_like_peer("Upsample", [X], 7, mode=mode, scales=[float(s) for s in scales])
        first = mode.replace("linear", "bilinear")
        got = ours("Upsample", [X], 1, mode=first, height_scale=2.0, width_scale=2.0)
        np.testing.assert_allclose(got, peer("Upsample", [X, f32(1, 1, 2, 2)], 9, mode=mode), rtol=1e-6)


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize(
    "rule",
    [
        *({"nearest_mode": f"round_prefer_{way}"} for way in ("floor", "ceil")),
        *({"nearest_mode": way} for way in ("floor", "ceil")),
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ],
)
def test_scales(coordinates: str, scales: Any, rule: Any) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, **rule}
    for opset, roi in ((11, f32()), (13, None)):
        assert_like_peer("Resize", [X, roi, f32(*scales)], opset, rtol=1e-4, **attributes)


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "tf_crop_and_resize"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_sizes(coordinates: str, mode: str) -> None:
    roi = f32(0, 0, 0.1, 0.2, 1, 1, 0.9, 1.1) if coordinates == "tf_crop_and_resize" else None
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode, "extrapolation_value": 3.0}
    assert_like_peer("Resize", [X, roi, None, np.array([1, 2, 9, 4])], 13, rtol=1e-4, **attributes)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_antialias(mode: str, exclude: int) -> None:
    attributes = {"antialias": 1, "exclude_outside": exclude, "mode": mode}
    assert_like_peer("Resize", [X, None, f32(1, 1, 0.3, 0.8)], 18, rtol=1e-4, **attributes)


def test_long_axes_and_short_axes_agree() -> None:
    x = data(2, 300)
    whole = ours("Resize", [x, None, f32(1, 2)], 13, mode="linear")
    want = np.interp((np.arange(600) + 0.5) / 2 - 0.5, np.arange(300), x[0])
    np.testing.assert_allclose(whole[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [8, 300])
def test_an_infinity_stays_where_it_is(size: int) -> None:
    x = np.zeros(size, dtype=np.float32)
    x[4] = np.inf
    y = ours("Resize", [x, None, f32(2)], 13, mode="linear", coordinate_transformation_mode="asymmetric")
    assert np.flatnonzero(~np.isfinite(y)).tolist() == [7, 8, 9]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.float16, np.float64])
def test_constants_stay_constant(dtype: Any) -> None:
    x = np.full((1, 1, 5, 7), 100, dtype=dtype)
    for mode in ("linear", "cubic"):
        y = ours("Resize", [x, None, f32(1, 1, 1.7, 0.6)], 13, mode=mode)
        assert y.dtype == x.dtype
        np.testing.assert_allclose(y, x[0, 0, 0, 0], rtol=1e-14 if dtype == np.float64 else 0)


@pytest.mark.parametrize(("axis", "policy", "size"), [(0, "not_larger", (6, 9)), (0, "not_smaller", (8, 12))])
def test_aspect_ratio(axis: int, policy: str, size: Any) -> None:
    y = ours("Resize", [data(4, 6), None, None, np.array([8, 9])], 18, keep_aspect_ratio_policy=policy)
    assert y.shape == size


REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    ([X, None, None, None], {}, "exactly one"),
    ([X, None, f32(1, 1, 2, 2), np.array([1, 2, 3, 4])], {}, "exactly one"),
    ([X, None, f32(1, 1, -2, 2)], {}, "positive"),
    ([X, None, f32(2, 2)], {}, "4 axes"),
    ([X, None, f32(1, 1, 1e9, 1e9)], {}, "exceed"),
    ([X, None, f32(1, 1, 2, 2)], {"mode": "quintic"}, "quintic"),
    ([X, None, f32(1, 1, 2, 2)], {"coordinate_transformation_mode": "tf_crop_and_resize"}, "roi"),
    ([data(0), None, None, np.array([2])], {}, "size 0"),
]


@pytest.mark.parametrize(("inputs", "attributes", "words"), REFUSED)
def test_refused(inputs: Any, attributes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ours("Resize", inputs, 19, **attributes)


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        (shape, mode)
        for shape in [(5, 6), (3, 4, 5), (1, 1)]
        for mode in ("linear", "nearest", "cubic")
        if len(shape) == 2 or mode != "cubic"  # the peer has no cubic volumes
    ],
)
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(shape: Any, align: int, padding: str, mode: str) -> None:
    x, grid = data(2, 3, *shape), 1.2 * data(2, *(n + 1 for n in shape), len(shape))
    options = {"mode": mode, "padding_mode": padding, "align_corners": align}
    assert_like_peer("GridSample", [x, grid], 20, rtol=1e-3, **options)


def test_cubic_volume_reproduces_what_is_linear() -> None:
    x = np.arange(6 * 6 * 6, dtype=np.float64).reshape(1, 1, 6, 6, 6)
    grid = np.random.default_rng(0).uniform(-0.4, 0.4, (1, 2, 2, 2, 3))
    linear, cubic = (ours("GridSample", [x, grid], 20, mode=m, align_corners=1) for m in ("linear", "cubic"))
    np.testing.assert_allclose(cubic, linear, rtol=2e-2)


def test_positions_that_are_no_numbers_are_outside() -> None:
    grid = f32(np.nan, np.inf, -np.inf, 0).reshape(1, 4, 1)
    assert ours("GridSample", [np.ones((1, 1, 1), dtype=np.float32), grid], 20).tolist() == [[[0, 0, 0, 1]]]


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid(align: int) -> None:
    for theta, size in ((data(2, 2, 3), (2, 1, 3, 4)), (data(2, 3, 4), (2, 1, 3, 4, 2))):
        assert_like_peer("AffineGrid", [theta, np.array(size)], 20, align_corners=align)


def test_infinite_affine_grids_are_results_and_no_warnings() -> None:
    theta = np.full((1, 3, 4), np.inf, np.float32)
    assert np.isnan(ours("AffineGrid", [theta, np.array([1, 2, 3, 4, 2])], 20)).any()
