"""LSTM, GRU and RNN with constant weights and the default activations."""

from __future__ import annotations

import struct
from functools import partial

from .step import Lowering, Step, View

CELLS = {"LSTM": 0, "GRU": 1, "RNN": 2}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def recurrent(view: View, cell: str) -> Step | None:
    """X, W, R, B, lengths, initial state, initial cell, peepholes."""
    attributes = view.attributes
    w, r = view.constant(1), view.constant(2)
    if w is None or r is None or view.type(0) != "float32" or attributes.get("layout", 0):
        return None
    if w.ndim != 3 or r.ndim != 3 or w.dtype != "float32" or attributes.get("input_forget", 0):
        return None
    direction = str(attributes.get("direction", "forward"))
    directions, hidden = w.shape[0], r.shape[2]
    if directions != (2 if direction == "bidirectional" else 1) or view.opset < 7:
        return None
    if w.shape[1] != GATES[cell] * hidden or r.shape[:2] != w.shape[:2] or 0 in (w.size, r.size):
        return None
    relu = _relu(attributes.get("activations"), cell, directions)
    if relu is None or attributes.get("activation_alpha") or attributes.get("activation_beta"):
        return None
    if view.input(4) is not None and view.type(4) != "int32":
        return None
    packed_attributes = struct.pack(
        "<7qfi",
        CELLS[cell],
        directions,
        int(direction == "reverse"),
        int(not attributes.get("linear_before_reset", 0)),
        relu,
        w.shape[2],
        hidden,
        float(attributes.get("clip", 0.0)),
        0,
    )
    weights = view.prepare("recurrent_pack", packed_attributes, w, r)
    inputs = (view.input(0), weights, *(view.input(index) for index in range(3, 8)))
    outputs = (*view.outputs, None, None)[: 3 if cell == "LSTM" else 2]
    return Step("recurrent", inputs, outputs, packed_attributes, (view.node,))


def _relu(names: list[str] | None, cell: str, directions: int) -> int | None:
    """0 for the default activations, 1 for an RNN with Relu, None for others."""
    given = [str(name).lower() for name in names or ()]
    if not given or given == ACTIVATIONS[cell] * directions:
        return 0
    return 1 if cell == "RNN" and given == ["relu"] * directions else None


RECURRENT: dict[tuple[str, str], Lowering] = {("", cell): partial(recurrent, cell=cell) for cell in CELLS}
