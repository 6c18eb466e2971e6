"""The largest of each window, line by line as on CPUs and one by one as elsewhere, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from test_opencl_kernels import data, model_of, ours, theirs

from epkit_opencl.device import all_handles, open_device

AXES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.parametrize("is_cpu", [True, False])
def test_the_largest_of_each_window(monkeypatch: pytest.MonkeyPatch, is_cpu: bool) -> None:
    monkeypatch.setattr(open_device(all_handles()[0]), "is_cpu", is_cpu)

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        sizes=st.tuples(st.integers(5, 12), st.integers(5, 40)),
        window=AXES,
        strides=AXES,
        dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        ceil=st.integers(0, 1),
        padded=st.booleans(),
    )
    def check(
        sizes: tuple[int, int],
        window: tuple[int, int],
        strides: tuple[int, int],
        dilations: tuple[int, int],
        ceil: int,
        padded: bool,
    ) -> None:
        x = data(2, 3, *sizes)
        x[1, 2, 3, 4] = -np.inf
        half = [size // 2 if padded else 0 for size in window]
        node = helper.make_node(
            "MaxPool", ["x"], ["y"], kernel_shape=window, strides=strides, dilations=dilations,
            ceil_mode=ceil, pads=[*half, *half],
        )  # fmt: skip
        model = model_of([node], {"x": x}, ["y"])
        for found, want in zip(ours(model, {"x": x}), theirs(model, {"x": x}), strict=True):
            alone = want == np.finfo(np.float32).min  # onnxruntime's largest of nothing but -inf
            np.testing.assert_array_equal(found, np.where(alone, -np.inf, want))

    check()


@pytest.mark.parametrize("is_cpu", [True, False])
def test_nan_is_larger_than_any_number(monkeypatch: pytest.MonkeyPatch, is_cpu: bool) -> None:
    monkeypatch.setattr(open_device(all_handles()[0]), "is_cpu", is_cpu)
    x = np.full((1, 1, 4, 4), 7, np.float32)
    x[0, 0, 1, 1] = np.nan
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    (found,) = ours(model_of([node], {"x": x}, ["y"]), {"x": x})
    want = np.array([[np.nan, np.nan, 7], [np.nan, np.nan, 7], [7, 7, 7]], np.float32)
    np.testing.assert_array_equal(found[0, 0], want)
