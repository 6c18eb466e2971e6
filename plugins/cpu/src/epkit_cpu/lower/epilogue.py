"""What a product or convolution can do before it stores its result: add a bias or a residual, then activate."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .step import View

if TYPE_CHECKING:
    import onnx_ir as ir

ACTIVATIONS = (
    *("none", "relu", "clip", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh"),
    *("hard_sigmoid", "hard_swish"),
)
"""In the order of EpkActivation in kernels/epilogue.h."""


@dataclass(frozen=True)
class Epilogue:
    """What follows a product.

    Attributes:
        activation: one of ACTIVATIONS; x, y: its parameters.
        bias: a constant to add per output channel, or None.
        residual: a value of the result's shape to add before the activation, or None.
        nodes: those that it stands for, in order.
        result: the value that the step makes in the end.
    """

    result: ir.Value
    activation: str = "none"
    x: float = 0.0
    y: float = 0.0
    bias: np.ndarray[Any, Any] | None = None
    residual: ir.Value | None = None
    nodes: tuple[ir.Node, ...] = ()

    def pack(self) -> bytes:
        """Activation and its parameters: int32, float, float."""
        return struct.pack("<iff", ACTIVATIONS.index(self.activation), self.x, self.y)


def activation_of(view: View) -> tuple[str, float, float] | None:
    """The activation that an elementwise node of one float32 value is, with its parameters."""
    attributes, op = view.attributes, view.op
    if view.node.domain not in ("", "com.microsoft"):
        return None
    plain = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hard_swish"}
    if op in plain:
        return plain[op], 0.0, 0.0
    if op == "LeakyRelu":
        return "leaky_relu", float(attributes.get("alpha", 0.009999999776482582)), 0.0
    if op == "HardSigmoid":
        alpha = float(attributes.get("alpha", 0.20000000298023224))
        return "hard_sigmoid", alpha, float(attributes.get("beta", 0.5))
    if op == "Swish" and float(attributes.get("alpha", 1.0)) == 1.0:
        return "silu", 0.0, 0.0
    if op == "QuickGelu" and float(attributes.get("alpha", 1.702)) == 1.0:
        return "silu", 0.0, 0.0
    if op == "Gelu":
        return ("gelu_tanh" if attributes.get("approximate", "none") == "tanh" else "gelu"), 0.0, 0.0
    return _clip(view) if op == "Clip" else None


def _clip(view: View) -> tuple[str, float, float] | None:
    bounds = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        if view.opset < 11:
            bounds.append(float(view.attributes.get(name, default)))
        elif view.input(index) is None:
            bounds.append(float(default))
        elif (constant := view.constant(index)) is not None and constant.size == 1:
            bounds.append(float(constant.reshape(())[()]))
        else:
            return None
    low, high = bounds
    return ("clip", low, high) if low <= high else None


def follow(view: View, order: Mapping[ir.Node, int], channel_axis: int, channels: int | None) -> Epilogue:
    """The bias, residual and activation that the float32 result of a node goes into, and nowhere else.

    Args:
        order: the positions of the partition's nodes.
        channel_axis: the axis of the result along which a bias lies, counted from the back (-1: the last).
        channels: its size, None where that is not known: then no bias is taken.
    """
    found = Epilogue(view.node.outputs[0])
    if (user := only_user(view, found.result, order)) is not None and user.op == "Add" and user.opset >= 7:
        found = addend(view, user, found.result, channel_axis, channels) or found
    user = only_user(view, found.result, order)
    if user is not None and (activation := activation_of(user)) is not None:
        name, x, y = activation
        found = Epilogue(
            user.node.outputs[0], name, x, y, found.bias, found.residual, (*found.nodes, user.node)
        )
    return found


def only_user(view: View, value: ir.Value, order: Mapping[ir.Node, int]) -> View | None:
    """The node that alone reads a value, as its first operand or as either one of Add."""
    uses = list(value.uses())
    if len(uses) != 1 or value in view.graph.outputs or uses[0].node not in order:
        return None
    user = View(uses[0].node, view.graph, halves=view.halves)
    if view.kind(value) != "float32" or len(user.outputs) != 1 or user.outputs[0] is None:
        return None
    return user if user.op == "Add" or user.node.inputs[0] is value else None


def addend(
    view: View, user: View, value: ir.Value, channel_axis: int, channels: int | None
) -> Epilogue | None:
    """What Add does to a value of a node: a bias, a residual, or None for anything else; arguments as above."""
    other = next((v for v in user.node.inputs if v is not value), None)
    if other is None or user.node.domain:
        return None
    constant, order = view.value_of(other), view.order
    if constant is not None:
        lead = constant.ndim + channel_axis
        fits = constant.size == channels and lead >= 0 and constant.shape[lead] == channels
        if not fits or view.rank_of_result() is None or constant.ndim > (view.rank_of_result() or 0):
            return None
        bias = np.ascontiguousarray(constant.reshape(-1))
        return Epilogue(user.node.outputs[0], bias=bias, nodes=(user.node,))
    producer = other.producer()
    earlier = producer is None or producer not in order or order[producer] < order[view.node]
    if not earlier or not _same_known_shape(other, value):
        return None
    return Epilogue(user.node.outputs[0], residual=other, nodes=(user.node,))


def _same_known_shape(a: ir.Value, b: ir.Value) -> bool:
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    dims = [(d if isinstance(d, int) else d.value) for shape in (a.shape, b.shape) for d in shape]
    half = len(dims) // 2
    return None not in dims and dims[:half] == dims[half:]
