"""Conv, ConvTranspose and AveragePool. Padding is made explicit, so that sizes may be unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...backend.subgraph import static_shape
from .step import Grads, NoRule, Rule, Step
from .term import Term


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution; ``pads`` are all begins, then all ends."""

    rank: int
    group: int
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]


def _window(s: Step, kernel: Sequence[int] | None = None) -> Window:
    rank = s.rank() - 2
    strides, dilations = (list(s.attr(name, (1,) * rank)) for name in ("strides", "dilations"))
    pads = list(s.attr("pads", (0,) * (2 * rank)))
    auto = s.attr("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(s, kernel, strides, dilations, auto == "SAME_LOWER")
    return Window(rank, s.attr("group", 1), strides, dilations, pads)


def _same_pads(
    s: Step, kernel: Sequence[int] | None, strides: Sequence[int], dilations: Sequence[int], lower: bool
) -> list[int]:
    shape = static_shape(s.node.inputs[0])
    weight = static_shape(s.node.inputs[1]) if s.has(1) else None
    sizes = kernel or (weight[2:] if weight is not None else None)
    if shape is None or sizes is None:
        raise NoRule("its padding (auto_pad) depends on a shape that is unknown")
    begins, ends = [], []
    for length, size, stride, dilation in zip(shape[2:], sizes, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length)
        begins.append(total - total // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    return [*begins, *ends]


def input_gradient(g: Term, weight: Term, x: Term, w: Window) -> Term:
    """The transposed convolution, brought to the size of ``x``."""
    full = g.op("ConvTranspose", weight, group=w.group, strides=w.strides, dilations=w.dilations)
    begins = np.array([0, 0, *w.pads[: w.rank]], np.int64)
    start = x.build.constant(begins)
    # Rows that no window reached lie beyond the end: there the gradient is zero.
    ends = start + x.shape() - full.shape()
    return full.op("Pad", (-start).op("Concat", ends, axis=0))


def weight_gradient(x: Term, g: Term, weight: Term, w: Window) -> Term:
    """The convolution of the input with the gradient, where batch and channels have changed places.

    Each group of channels sees only its own: x becomes ``[C / group, group N, ...]``.
    """
    channels = list(range(2, 2 + w.rank))
    padding = [0, 0, *w.pads[: w.rank], 0, 0, *w.pads[w.rank :]]
    padded = x.op("Pad", padding) if any(padding) else x
    spatial = padded.shape().op("Slice", [2], [2**31])
    if w.group > 1:
        batch = x.shape().op("Slice", [0], [1])
        grouped = batch.op("Concat", x.build.constant(np.array([w.group, -1], np.int64)), spatial, axis=0)
        padded = padded.op("Reshape", grouped).op(
            "Transpose", perm=[2, 1, 0, *(axis + 1 for axis in channels)]
        )
        merged = x.build.constant(np.array([0, -1], np.int64)).op("Concat", spatial, axis=0)
        padded = padded.op("Reshape", merged)
    else:
        padded = padded.op("Transpose", perm=[1, 0, *channels])
    swapped = g.op("Transpose", perm=[1, 0, *channels])
    found = padded.op("Conv", swapped, group=w.group, strides=w.dilations, dilations=w.strides)
    found = found.op("Transpose", perm=[1, 0, *channels])
    # Strides may leave rows at the end that no window used.
    return found.op("Slice", [0] * w.rank, weight.shape().op("Slice", [2], [2**31]), channels)


def _conv(s: Step) -> Grads:
    x, weight, g, w = s.x(0), s.x(1), s.g(), _window(s)
    grads: list[Term | None] = [input_gradient(g, weight, x, w), weight_gradient(x, g, weight, w)]
    if s.has(2):
        grads.append(_over_channels(g, w.rank))
    return grads


def _conv_transpose(s: Step) -> Grads:
    """A convolution the other way round: input and gradient change places."""
    if s.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or s.attr("output_shape") is not None:
        raise NoRule("its padding is not explicit")
    x, weight, g, w = s.x(0), s.x(1), s.g(), _window(s)
    dx = g.op("Conv", weight, group=w.group, strides=w.strides, dilations=w.dilations, pads=w.pads)
    axes = list(range(2, 2 + w.rank))
    dx = dx.op("Slice", [0] * w.rank, x.shape().op("Slice", [2], [2**31]), axes)
    grads: list[Term | None] = [dx, weight_gradient(g, x, weight, w)]
    if s.has(2):
        grads.append(_over_channels(g, w.rank))
    return grads


def _over_channels(g: Term, rank: int) -> Term:
    return g.op("ReduceSum", [0, *range(2, 2 + rank)], keepdims=0)


def _average_pool(s: Step) -> Grads:
    """A convolution by ones, each result divided by the number of elements that counted."""
    kernel = list(s.attr("kernel_shape"))
    if s.attr("ceil_mode", 0):
        raise NoRule("its ceil_mode is not 0")
    w, x = _window(s, kernel), s.x()
    ones = s.build.constant(np.ones((1, 1, *kernel), np.float32)).like(x)
    one = s.build.constant(np.array([1], np.int64))
    images = s.build.constant(np.array([-1], np.int64)).op(
        "Concat", one, x.shape().op("Slice", [2], [2**31]), axis=0
    )
    filled = x.filled(1.0)
    averaged = s.build.term(s.build.copy(s.node, [filled.value]).outputs[0])
    summed = filled.op("Reshape", images).op(
        "Conv", ones, strides=w.strides, dilations=w.dilations, pads=w.pads
    )
    weighted = s.g() * averaged
    flat_shape = s.build.constant(np.array([-1], np.int64)).op(
        "Concat", one, weighted.shape().op("Slice", [2], [2**31]), axis=0
    )
    grad = input_gradient(weighted.op("Reshape", flat_shape) / summed, ones, x.op("Reshape", images), w)
    return [grad.reshape(x.shape())]


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose, "AveragePool": _average_pool}
