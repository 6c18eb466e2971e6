"""Codes in blocks, along any axis, and of four bits: the source on the host, against onnxruntime and NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_standin import StandIn
from onnx import helper, numpy_helper
from test_cuda_kernels import data, ours, theirs

import epkit

LIMITS = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}


def constant(name: str, array: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def dtype_of(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


@pytest.mark.parametrize("code", list(LIMITS))
@pytest.mark.parametrize(("axis", "block"), [(0, 4), (1, 3), (2, 2)])
def test_blocks_there_and_back(gpu: StandIn, code: str, axis: int, block: int) -> None:
    x = 9 * data(8, 6, 4)
    shape = [-(-n // block) if i == axis else n for i, n in enumerate(x.shape)]
    scale = (0.5 + np.random.default_rng(0).random(shape)).astype(np.float32)
    zero = np.random.default_rng(1).integers(0, 7, shape).astype(np.int8).astype(dtype_of(code))
    options = {"axis": axis, "block_size": block}
    nodes = [
        constant("s", scale),
        constant("z", zero),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **options),
    ]
    found = ours(nodes, {"x": x})
    np.testing.assert_allclose(found, theirs(nodes, {"x": x}), rtol=1e-6)
    low, high = LIMITS[code]
    s, z = (item.repeat(block, axis).astype(np.float32) for item in (scale, zero))
    want = (np.clip(np.rint(x / s) + z, low, high) - z) * s
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert gpu.launches == 2


def test_a_last_block_may_be_short_and_half_floats_are_divided_as_such(gpu: StandIn) -> None:
    x, scale = data(3, 7).astype(np.float16), np.array([[0.3, 0.7]] * 3, np.float16)
    nodes = [
        constant("s", scale),
        constant("z", np.zeros((3, 2), np.int8)),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=-1, block_size=5),
    ]
    spread = scale.repeat(5, 1)[:, :7]
    np.testing.assert_array_equal(ours(nodes, {"x": x}), np.rint(x / spread).astype(np.int8))
    with pytest.raises(epkit.errors.RunError, match="do not fit blocks of 2 along axis 1"):
        nodes[-1] = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=-1, block_size=2)
        ours(nodes, {"x": x})


def test_weights_of_four_bits_with_one_scale_and_by_rows(gpu: StandIn) -> None:
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    for scale, spread in ((np.array(0.5, np.float32), 0.5), (np.arange(1, 5, dtype=np.float32), None)):
        nodes = [
            constant("q", codes.astype(ml_dtypes.int4)),
            constant("s", scale),
            helper.make_node("DequantizeLinear", ["q", "s"], ["d"], axis=0),
            helper.make_node("Add", ["d", "x"], ["y"]),
        ]
        want = codes * (scale[:, None] if spread is None else spread)
        np.testing.assert_array_equal(ours(nodes, {"x": np.zeros((4, 4), np.float32)}), want)
    assert gpu.launches == 4
