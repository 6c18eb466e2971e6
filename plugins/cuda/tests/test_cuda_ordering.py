"""TopK: the source on the host, against onnxruntime and a stable sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import epkit

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # a source is compiled in between
FEW = settings(max_examples=8, deadline=None, suppress_health_check=SLOW)


def model_of(x: Any, **attributes: Any) -> Any:
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    dims = [f"n{axis}" for axis in range(x.ndim)]
    inputs = [helper.make_tensor_value_info("x", code, dims), helper.make_tensor_value_info("k", 7, [1])]
    outputs = [helper.make_tensor_value_info("v", code, None), helper.make_tensor_value_info("i", 7, None)]
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], **attributes)
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def ours(model: Any, x: Any, k: int) -> list[Any]:
    with epkit.load(model, ["cuda"], fallback="error", optimise="none") as session:
        return list(session.run(None, {"x": x, "k": np.array([k])}).values())


@FEW
@given(st.data())
def test_the_first_of_each_row(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    dtype, shape = choose(np.float32, np.int64), choose((300,), (3, 40), (2, 7, 5))
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)  # many are equal
    axis = choose(*range(-len(shape), len(shape)))
    k = choose(0, 1, shape[axis] // 2, shape[axis])
    largest = choose(0, 1)
    model, launched = model_of(x, axis=axis, largest=largest), gpu.launches
    found = ours(model, x, k)
    order = np.argsort(-x if largest else x, axis=axis, kind="stable").take(range(k), axis)
    if k <= 128:
        np.testing.assert_array_equal(found[1], order)
        assert gpu.launches - launched == (k > 0)
    np.testing.assert_array_equal(found[0], np.take_along_axis(x, found[1], axis))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found[0], session.run(None, {"x": x, "k": np.array([k])})[0])


def test_what_is_no_number_comes_first_and_too_many_are_told(gpu: StandIn) -> None:
    x = np.array([1, np.nan, -np.inf, np.nan, np.inf], np.float16)
    assert ours(model_of(x), x, 5)[1].tolist() == [1, 3, 4, 0, 2]
    assert ours(model_of(x, largest=0), x, 5)[1].tolist() == [2, 0, 4, 1, 3]
    with pytest.raises(epkit.errors.RunError, match="k is 6"):
        ours(model_of(x), x, 6)
