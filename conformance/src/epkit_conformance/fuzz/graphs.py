"""A strategy for small graphs: values of one shape that meet anywhere, with dead ends and several outputs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from onnx import helper

from .nodes import arrays
from .trial import Trial, make_model

UNARY = ("Relu", "Neg", "Abs", "Tanh", "Sigmoid", "Identity", "Softmax")
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "MatMul")
MOST = 6


@st.composite
def graphs(draw: Any, dtypes: tuple[str, ...]) -> Trial:
    """Up to six nodes over square matrices; every value that nobody reads is an output."""
    dtype = draw(st.sampled_from(dtypes))
    side = draw(st.integers(1, 4))
    feeds = {name: draw(arrays(dtype, (side, side))) for name in ("x0", "x1")}
    values, nodes, read = list(feeds), [], set()
    for index in range(draw(st.integers(2, MOST))):
        op = draw(st.sampled_from(UNARY + BINARY))
        inputs = [draw(st.sampled_from(values)) for _ in range(1 if op in UNARY else 2)]
        nodes.append(helper.make_node(op, inputs, [f"v{index}"], f"n{index}"))
        read.update(inputs)
        values.append(f"v{index}")
    outputs = [value for value in values[2:] if value not in read]
    constants: dict[str, Any] = {}
    if draw(st.booleans()):
        constants["x1"] = feeds.pop("x1")
    model = make_model(nodes, feeds, constants, outputs, symbolic=draw(st.booleans()))
    return Trial(model, feeds, dtype)
