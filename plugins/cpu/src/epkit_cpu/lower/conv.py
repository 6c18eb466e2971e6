"""Convolutions and pooling. Their results are in the blocked layout where ``layout`` finds that it pays."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..native import FORMS
from .epilogue import Epilogue, follow
from .integer import dequantised_conv
from .step import Image, Lowering, Step, View, longs
from .window import three, window
from .winograd import winograd_tile

if TYPE_CHECKING:
    import onnx_ir as ir

BLOCK = 16
"""Channels of one block of the blocked layout."""
NARROW = (FORMS.index("dot"), FORMS.index("half"))
"""The forms of 16-bit products that convolutions have."""
LEAST = 64
"""Filters, and products to each of their results, from which 16-bit products are faster."""
LEAST_READS = 192
"""Products with a number of the image, from which they pay for its conversion."""
MOST_PHASES = 4096
"""A transposed convolution has one phase for each place in a stride; those of more are the portable kernel's."""


def conv(view: View) -> Step | None:
    """Conv with constant weights: packed once, what follows is its epilogue."""
    return dequantised_conv(view) or lower_conv(view, None)


def lower_conv(view: View, epilogue: Epilogue | None) -> Step | None:
    """A convolution with a given epilogue, or with what follows it."""
    weights = _weights(view)
    group = int(view.attributes.get("group", 1))
    if weights is None or group < 1 or weights.shape[0] % group:
        return None
    return _conv(view, weights, weights.shape[1] * group, weights.shape[0], group, False, epilogue)


def conv_transpose(view: View) -> Step | None:
    """ConvTranspose whose padding is written out."""
    weights = _weights(view)
    attributes = view.attributes
    group = int(attributes.get("group", 1))
    if weights is None or group < 1:
        return None
    if attributes.get("auto_pad", "NOTSET") != "NOTSET" or attributes.get("output_shape"):
        return None
    strides = attributes.get("strides") or [1] * (weights.ndim - 2)
    padding = attributes.get("output_padding") or [0] * (weights.ndim - 2)
    if weights.shape[0] % group or len(padding) != len(strides) or math.prod(strides) > MOST_PHASES:
        return None
    if any(not 0 <= p < s for p, s in zip(padding, strides, strict=True)):
        return None
    return _conv(view, weights, weights.shape[0], weights.shape[1] * group, group, True)


def _weights(view: View) -> np.ndarray[Any, Any] | None:
    """Filters of one spatial axis or more, for float32 images."""
    weights = view.constant(1)
    if weights is None or weights.size == 0 or weights.ndim < 3 or view.type(0) != "float32":
        return None
    return weights


def _conv(
    view: View,
    weights: np.ndarray[Any, Any],
    channels: int,
    filters: int,
    group: int,
    transposed: bool,
    epilogue: Epilogue | None = None,
) -> Step | None:
    kernel, rank = weights.shape[2:], weights.ndim - 2
    padding_node, extra = (None, ()) if transposed else _zeros_before(view, rank)
    shape = window(view, kernel, extra)
    if shape is None or tuple(view.attributes.get("kernel_shape") or kernel) != tuple(kernel):
        return None
    if view.rank(0) not in (None, weights.ndim):
        return None
    bias = view.constant(2)
    if view.input(2) is not None and (bias is None or bias.shape != (filters,)):
        return None
    if epilogue is None:
        epilogue = follow(view, view.order, -1 - rank, filters if bias is None else None)
    if bias is None:
        bias = epilogue.bias
    finish = epilogue.pack()
    one = not transposed and group == 1
    tile = winograd_tile(view, weights.shape) if one else 0
    narrow = narrow_form(view, channels, filters, kernel) if one and not tile else 0  # the slower of the two
    padding = three(view.attributes.get("output_padding") if transposed else None, rank, 0)

    def attributes(in_blocked: int = 0, out_blocked: int = 0) -> bytes:
        numbers = longs(channels, filters, group, int(transposed), in_blocked, out_blocked, *padding)
        return shape + numbers + finish + struct.pack("<ii", tile, narrow)

    packed = view.prepare("conv_pack", attributes(), weights, bias)
    source = view.input(0) if padding_node is None else padding_node.inputs[0]
    nodes = (view.node, *(() if padding_node is None else (padding_node,)), *epilogue.nodes)
    step = Step("conv", (source, packed, epilogue.residual), (epilogue.result,), attributes(), nodes)
    few = filters < BLOCK and group == 1 and not narrow  # a block would be mostly idle lanes
    return replace(step, image=Image("conv", channels, filters, attributes, few))


def narrow_form(view: View, channels: int, filters: int, kernel: Sequence[int]) -> int:
    """ConvAttributes::narrow: 0 where float32 is faster, as where much of an image is converted for few products."""
    taps = math.prod(kernel)
    strides = (
        1 if taps == 1 else math.prod(view.attributes.get("strides") or [1])
    )  # single pixels are gathered
    if view.narrow not in NARROW or channels < BLOCK or channels * taps < LEAST:
        return 0
    return 1 + view.narrow if filters >= LEAST and filters * taps >= LEAST_READS * strides else 0


def _zeros_before(view: View, rank: int) -> tuple[ir.Node | None, tuple[int, ...]]:
    """The Pad that puts zeros around the image, and how many; the convolution can do that by itself."""
    value = view.input(0)
    node = None if value is None else value.producer()
    if node is None or node not in view.order or node.op_type != "Pad" or node.domain:
        return None, ()
    pad, auto_pad = View(node, view.graph), view.attributes.get("auto_pad", "NOTSET")
    pads, fill = pad.constant(1), pad.constant(2)
    if pad.opset < 11 or pads is None or pad.input(3) is not None or auto_pad not in ("NOTSET", "VALID"):
        return None, ()
    if pad.attributes.get("mode", "constant") != "constant" or (pad.input(2) is not None and fill is None):
        return None, ()
    numbers = [int(n) for n in pads]
    if len(numbers) != 2 * rank + 4 or min(numbers) < 0 or (fill is not None and np.any(fill != 0)):
        return None, ()
    half = rank + 2
    if any((*numbers[:2], *numbers[half : half + 2])):
        return None, ()
    return node, (*numbers[2:half], *numbers[half + 2 :])


def pool(view: View, average: int) -> Step | None:
    """MaxPool without indices, and AveragePool."""
    kernel = view.attributes["kernel_shape"]
    rank = view.rank(0)
    if view.type(0) != "float32" or len([v for v in view.outputs if v is not None]) != 1:
        return None
    if rank != len(kernel) + 2 or view.attributes.get("storage_order", 0):
        return None
    shape = window(view, kernel)
    pads = view.attributes.get("pads") or [0] * (2 * len(kernel))
    ceil = int(view.attributes.get("ceil_mode", 0))
    auto_pad = view.attributes.get("auto_pad", "NOTSET")
    dilations = view.attributes.get("dilations") or [1] * len(kernel)
    # windows that may lie wholly in the padding, and ceil_mode with padding of its own, are the portable kernel's
    if shape is None or (ceil and auto_pad != "NOTSET"):
        return None
    if any(
        pad >= (size - 1) * step + 1
        for pad, size, step in zip(pads, [*kernel] * 2, [*dilations] * 2, strict=True)
    ):
        return None
    count = int(view.attributes.get("count_include_pad", 0))

    def attributes(in_blocked: int = 0, out_blocked: int = 0) -> bytes:
        return shape + longs(average, count, in_blocked)

    channels = _channels(view)
    step = view.step("pool", attributes(), view.inputs[:1])
    step = replace(step, outputs=step.outputs[:1])
    return step if channels is None else replace(step, image=Image("pool", channels, channels, attributes))


def global_pool(view: View, average: int) -> Step | None:
    """One value for each channel."""
    if view.type(0) != "float32" or (view.rank(0) or 0) < 3:
        return None
    channels = _channels(view)
    step = view.step("global_pool", longs(average, 0))
    if channels is None or channels % BLOCK:
        return step
    return replace(
        step, image=Image("global", channels, channels, lambda in_blocked, _: longs(average, in_blocked))
    )


def _channels(view: View) -> int | None:
    value = view.input(0)
    if value is None or value.shape is None or not isinstance(value.shape[1], int):
        return None
    return int(value.shape[1])


CONV: dict[tuple[str, str], Lowering] = {
    ("", "Conv"): conv,
    ("", "ConvTranspose"): conv_transpose,
    ("", "MaxPool"): lambda view: pool(view, 0),
    ("", "AveragePool"): lambda view: pool(view, 1),
    ("", "GlobalMaxPool"): lambda view: global_pool(view, 0),
    ("", "GlobalAveragePool"): lambda view: global_pool(view, 1),
}
