"""MultiHeadAttention and Attention against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import epkit


def numbers(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


QUERY, KEY, VALUE, PAST = numbers(2, 5, 32), numbers(2, 7, 32), numbers(2, 7, 32), numbers(2, 4, 3, 8)
LENGTHS = np.array([5, 7], np.int32)
PROJECTION = (numbers(2, 5, 16), numbers(16, 48), numbers(48))
CASES = {
    "cross": ("MultiHeadAttention", (QUERY, KEY, VALUE), {}, 1),
    "bias": ("MultiHeadAttention", (QUERY, KEY, VALUE, numbers(96)), {}, 1),
    "lengths": ("MultiHeadAttention", (QUERY, KEY, VALUE, None, LENGTHS), {}, 1),
    "added": ("MultiHeadAttention", (QUERY, KEY, VALUE, None, None, numbers(1, 4, 5, 7)), {}, 1),
    "causal": ("MultiHeadAttention", (QUERY, QUERY + 1, QUERY + 2), {"unidirectional": 1}, 1),
    "past": ("MultiHeadAttention", (QUERY, QUERY, QUERY, None, None, None, PAST, PAST + 1), {}, 3),
    "projected": ("Attention", PROJECTION, {}, 1),
    "projected lengths": ("Attention", (*PROJECTION, np.array([4, 5], np.int32)), {}, 1),
    "projected causal": ("Attention", PROJECTION, {"unidirectional": 1}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_attention(name: str) -> None:
    operator, inputs, attributes, count = CASES[name]
    feeds = {f"x{index}": x for index, x in enumerate(inputs) if x is not None}
    names = [f"x{index}" if x is not None else "" for index, x in enumerate(inputs)]
    infos = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for key, x in feeds.items()
    ]
    outputs = [f"y{index}" for index in range(count)]
    node = helper.make_node(operator, names, outputs, domain="com.microsoft", num_heads=4, **attributes)
    graph = helper.make_graph([node], "one", infos, [helper.make_empty_tensor_value_info(y) for y in outputs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = epkit.load(model).run(outputs, feeds)
    for output, want in zip(outputs, oracle.run(None, feeds), strict=True):
        np.testing.assert_allclose(found[output], want, rtol=1e-4, atol=1e-5)
