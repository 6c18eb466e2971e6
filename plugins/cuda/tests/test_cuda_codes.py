"""Quantised codes: formulas against onnxruntime, alone and in one chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_standin import StandIn
from onnx import helper
from test_cuda_kernels import data, ours, theirs


@pytest.mark.parametrize(("code", "channels"), [(np.int8, False), (np.uint8, True), (np.int16, True)])
def test_codes_there_and_back(gpu: StandIn, code: Any, channels: bool) -> None:
    x = np.concatenate([300 * data(2, 3, 40), np.arange(-3, 3).reshape(2, 3, 1) + 0.5], -1).astype(np.float32)
    scale = np.array([0.5, 1, 2], np.float32) if channels else np.array(1, np.float32)
    zero = (np.array([3, 0, 9]) if channels else np.array(7)).astype(code)
    constants = [
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", 1, scale.shape, scale.ravel())),
        helper.make_node(
            "Constant", [], ["z"],
            value=helper.make_tensor("z", helper.np_dtype_to_tensor_dtype(zero.dtype), zero.shape, zero.ravel()),
        ),
    ]  # fmt: skip
    nodes, feeds = [*constants, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])], {"x": x}
    found = ours(nodes, feeds)
    np.testing.assert_array_equal(found, theirs(nodes, feeds))
    assert found.dtype == code and gpu.launches == 1
    both = [
        *constants,
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    np.testing.assert_allclose(ours(both, feeds), theirs(both, feeds), rtol=1e-6)
    assert gpu.launches == 2
