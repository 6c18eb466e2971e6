"""Attributes drawn by chance, in combinations that no list of cases has, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import epkit

pytestmark = pytest.mark.slow

Array = np.ndarray[Any, Any]
Drawn = tuple[str, list[Array | None], dict[str, Any], int, int]
"""Operator, inputs, attributes, number of outputs, opset."""

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def floats(draw: st.DrawFn, *shape: int) -> Array:
    """Normal numbers."""
    seed = draw(st.integers(0, 1 << 30))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windows(draw: st.DrawFn, axes: int) -> dict[str, Any]:
    """Kernel, strides, dilations and pads; pads less than the kernel."""
    kernel = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    found: dict[str, Any] = {"kernel_shape": kernel}
    for name, most in (("strides", 3), ("dilations", 2)):
        if draw(st.booleans()):
            found[name] = draw(st.lists(st.integers(1, most), min_size=axes, max_size=axes))
    if draw(st.booleans()):
        found["pads"] = [draw(st.integers(0, size - 1)) for size in kernel * 2]
    elif draw(st.booleans()):
        found["auto_pad"] = "VALID"
    return found


def plane(draw: st.DrawFn, channels: int, axes: int) -> Array:
    """One or two items, each axis long enough for every window."""
    sizes = draw(st.lists(st.integers(5, 9), min_size=axes, max_size=axes))
    return floats(draw, draw(st.integers(1, 2)), channels, *sizes)


@st.composite
def pools(draw: st.DrawFn) -> Drawn:
    """MaxPool, AveragePool, LpPool."""
    op, axes = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"])), draw(st.integers(1, 3))
    attributes = windows(draw, axes) | {"ceil_mode": draw(st.integers(0, 1))}
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    elif op == "LpPool":
        attributes["p"] = draw(st.integers(1, 3))
    x = plane(draw, 2, axes)
    return op, [x], attributes, 1 + (op == "MaxPool" and draw(st.booleans())), 22 if op != "LpPool" else 18


@st.composite
def convolutions(draw: st.DrawFn) -> Drawn:
    """Conv and ConvTranspose."""
    op, axes = draw(st.sampled_from(["Conv", "ConvTranspose"])), draw(st.integers(1, 3))
    groups, inner, outer = (draw(st.integers(1, 3)) for _ in range(3))
    attributes = windows(draw, axes) | {"group": groups}
    if op == "ConvTranspose":
        strides = attributes.get("strides", [1] * axes)
        attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in strides]
    rows = (groups * inner, outer) if op == "ConvTranspose" else (groups * outer, inner)
    w = floats(draw, *rows, *attributes["kernel_shape"])
    bias = floats(draw, groups * outer) if draw(st.booleans()) else None
    return op, [plane(draw, groups * inner, axes), w, bias], attributes, 1, 22


@st.composite
def slices(draw: st.DrawFn) -> Drawn:
    """Bounds far outside of the axis among them."""
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    bound = st.one_of(st.integers(-8, 8), st.sampled_from([1 << 62, -(1 << 62)]))
    step = st.sampled_from([1, 2, 3, -1, -2, -3])
    starts, ends, steps = ([draw(kind) for _ in axes] for kind in (bound, bound, step))
    columns = (starts, ends, axes, steps)
    return "Slice", [floats(draw, *shape), *(np.array(c, np.int64) for c in columns)], {}, 1, 13


@st.composite
def recurrents(draw: st.DrawFn) -> Drawn:
    """LSTM, GRU, RNN in all directions, with and without what is optional."""
    op = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d, rows = 1 + (direction == "bidirectional"), GATES[op]
    steps, batch, features, hidden = (draw(st.integers(1, most)) for most in (5, 3, 5, 18))
    x = [floats(draw, steps, batch, features), floats(draw, d, rows * hidden, features)]
    x.append(floats(draw, d, rows * hidden, hidden))
    lengths = np.array(draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)), np.int32)
    more: list[Array] = [floats(draw, d, 2 * rows * hidden), lengths, floats(draw, d, batch, hidden)]
    if op == "LSTM":
        more += [floats(draw, d, batch, hidden), floats(draw, d, 3 * hidden)]
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if op == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    inputs = [*x, *(array if draw(st.booleans()) else None for array in more)]
    return op, inputs, attributes, 3 if op == "LSTM" else 2, 14


def model_of(drawn: Drawn, constants: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """All sizes are names; inputs but the first may be constants."""
    op, inputs, attributes, outputs, opset = drawn
    given = {f"x{i}": array for i, array in enumerate(inputs) if array is not None}
    weights = {name: given.pop(name) for name in list(given)[1:]} if constants else {}
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **attributes)
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{i}" for i in range(x.ndim)]
        )
        for name, x in given.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([node], "drawn", infos, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), given


@given(drawn=st.one_of(pools(), convolutions(), slices(), recurrents()), constants=st.booleans())
@settings(max_examples=200, deadline=None)
def test_like_onnxruntime(drawn: Drawn, constants: bool) -> None:
    model, given = model_of(drawn, constants)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    peer = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    expected = peer.run(None, given)
    for level in ("none", "all"):
        with epkit.load(model, ["cpu"], optimise=level) as session:
            found = session.run(None, given)
        for name, array in zip(found, expected, strict=True):
            assert found[name].shape == array.shape
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-5)
