"""Resize: the source on the host, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from test_cuda_kernels import data, ours, theirs

import epkit

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # a source is compiled in between
FEW = settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


@FEW
@given(st.data())
def test_pictures_as_onnxruntime_resizes_them(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    mode = choose("nearest", "linear", "cubic")
    options = {"mode": mode, "coordinate_transformation_mode": choose(*COORDINATES)}
    if mode == "nearest":
        options["nearest_mode"] = choose(*NEAREST)
    if mode == "cubic":
        options |= {"exclude_outside": choose(0, 1), "cubic_coeff_a": choose(-0.5, -0.75)}
    x = data(2, 1, choose(4, 7), choose(5, 8))
    corners = options["coordinate_transformation_mode"] == "align_corners"
    if corners or choose(
        True, False
    ):  # where scales give no whole size, onnxruntime's corners are not the standard's
        inputs = ["x", "", "", "s"]
        sizes = np.array([2, 1, choose(1, 4, 9, 14), choose(3, 8, 16)], np.int64)
    else:
        inputs = ["x", "", "s"]
        sizes = np.array([1, 1, choose(0.6, 1, 2), choose(0.5, 2.5, 3)], np.float32)
    known = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(sizes))
    nodes = [known, helper.make_node("Resize", inputs, ["y"], **options)]
    launched = gpu.launches
    found = ours(nodes, {"x": x})
    np.testing.assert_allclose(found, theirs(nodes, {"x": x}), rtol=1e-4, atol=1e-5)
    assert gpu.launches == launched + 1


def test_any_element_type_moves_and_an_infinity_stays_where_it_is(gpu: StandIn) -> None:
    codes = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4)
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="asymmetric")]
    feeds = {"x": codes, "s": np.array([1, 1, 2, 2], np.float32)}
    np.testing.assert_array_equal(ours(nodes, feeds), codes.repeat(2, 2).repeat(2, 3))
    line = np.array([[[[1, np.inf, 3, 5]]]], np.float16)
    nodes = [helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", axes=[3])]
    found = ours(nodes, {"x": line, "s": np.array([4], np.int64)})
    np.testing.assert_array_equal(found, line)
    assert gpu.launches == 2


def test_what_cannot_be_is_told_and_what_is_rare_stays_portable(gpu: StandIn) -> None:
    nodes = [helper.make_node("Resize", ["x", "", "", "s"], ["y"])]
    with pytest.raises(epkit.errors.RunError, match="size 0 cannot be resized"):
        ours(nodes, {"x": data(1, 0), "s": np.array([1, 4], np.int64)})
    known = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1, 1, 3, 3])))
    rare = [known, helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", antialias=1)]
    feeds = {"x": data(1, 1, 8, 8)}
    np.testing.assert_allclose(ours(rare, feeds), theirs(rare, feeds), rtol=1e-4, atol=1e-5)
    assert gpu.launches == 0
