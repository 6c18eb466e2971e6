"""Convolutions and pooling. Their results are in the blocked layout where ``layout`` finds that it pays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .epilogue import follow
from .step import Image, Lowering, Step, View, longs

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
BLOCK = 16
"""Channels of one block of the blocked layout."""


def _three(numbers: Sequence[int] | None, rank: int, fill: int) -> list[int]:
    """Numbers of the last ``rank`` of three dimensions."""
    found = [fill] * rank if numbers is None else [int(n) for n in numbers]
    return [fill] * (3 - rank) + found


def window(view: View, kernel: Sequence[int], *, padding_matters: bool = True) -> bytes | None:
    """Window in ops/conv.cpp; None for what it cannot say."""
    rank, attributes = len(kernel), view.attributes
    auto_pad = attributes.get("auto_pad", "NOTSET")
    pads = attributes.get("pads") or [0] * (2 * rank)
    if auto_pad not in AUTO_PADS or not 1 <= rank <= 3 or len(pads) != 2 * rank or min(pads) < 0:
        return None
    strides, dilations = attributes.get("strides"), attributes.get("dilations")
    if any(n is not None and (len(n) != rank or min(n) < 1) for n in (strides, dilations)) or min(kernel) < 1:
        return None
    if auto_pad != "NOTSET":
        pads = [0] * (2 * rank)
    return longs(
        rank,
        AUTO_PADS.index(auto_pad),
        int(attributes.get("ceil_mode", 0)),
        *_three(kernel, rank, 1),
        *_three(strides, rank, 1),
        *_three(dilations, rank, 1),
        *_three(pads[:rank], rank, 0),
        *_three(pads[rank:], rank, 0),
    )


def conv(view: View) -> Step | None:
    """Conv with constant weights: packed once, what follows is its epilogue."""
    weights = view.constant(1)
    group = int(view.attributes.get("group", 1))
    if weights is None or weights.size == 0 or view.type(0) != "float32" or group < 1:
        return None
    if weights.shape[0] % group:
        return None
    return _conv(view, weights, weights.shape[1] * group, weights.shape[0], group, False)


def conv_transpose(view: View) -> Step | None:
    """ConvTranspose whose padding is written out."""
    weights = view.constant(1)
    attributes = view.attributes
    group = int(attributes.get("group", 1))
    if weights is None or weights.size == 0 or view.type(0) != "float32" or group < 1:
        return None
    if attributes.get("auto_pad", "NOTSET") != "NOTSET" or attributes.get("output_shape"):
        return None
    strides = attributes.get("strides") or [1] * (weights.ndim - 2)
    padding = attributes.get("output_padding") or [0] * (weights.ndim - 2)
    if weights.shape[0] % group or len(padding) != len(strides):
        return None
    if any(not 0 <= p < s for p, s in zip(padding, strides, strict=True)):
        return None
    return _conv(view, weights, weights.shape[0], weights.shape[1] * group, group, True)


def _conv(
    view: View,
    weights: np.ndarray[Any, Any],
    channels: int,
    filters: int,
    group: int,
    transposed: bool,
) -> Step | None:
    kernel, rank = weights.shape[2:], weights.ndim - 2
    shape = window(view, kernel)
    if shape is None or tuple(view.attributes.get("kernel_shape") or kernel) != tuple(kernel):
        return None
    if view.rank(0) != weights.ndim:
        return None
    bias = view.constant(2)
    if view.input(2) is not None and (bias is None or bias.shape != (filters,)):
        return None
    epilogue = follow(view, view.order, -1 - rank, filters if bias is None else None)
    if bias is None:
        bias = epilogue.bias
    padding = _three(view.attributes.get("output_padding") if transposed else None, rank, 0)

    def attributes(in_blocked: int = 0, out_blocked: int = 0) -> bytes:
        numbers = longs(channels, filters, group, int(transposed), in_blocked, out_blocked, *padding)
        return shape + numbers + epilogue.pack() + struct.pack("<i", 0)

    packed = view.prepare("conv_pack", attributes(), weights, bias)
    inputs = (view.input(0), packed, epilogue.residual)
    step = Step("conv", inputs, (epilogue.result,), attributes(), (view.node, *epilogue.nodes))
    return replace(step, image=Image("conv", channels, filters, attributes))


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
