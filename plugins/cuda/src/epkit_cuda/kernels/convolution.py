"""Convolution by cuDNN, where it has a plan; else the portable operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel, portable_kernels

from ..launch import stream_of
from ..machine import Machine
from ..memory import Tensor
from .products import TYPES, rounded


def padding(
    auto_pad: str,
    pads: Sequence[int] | None,
    sizes: Sequence[int],
    windows: Sequence[int],
    strides: Sequence[int],
) -> list[int]:
    """Elements of padding: at the beginning of each axis, then at the end of each.

    Args:
        auto_pad: as the standard's.
        pads: used with NOTSET; 0 by default.
        sizes: of the spatial axes.
        windows: sizes of the kernel, dilated.
        strides: steps.
    """
    if auto_pad in ("NOTSET", "", "VALID"):
        return list(pads) if pads and auto_pad != "VALID" else [0] * 2 * len(sizes)
    begins, ends = [], []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + window - size)
        less, more = total // 2, total - total // 2
        begins.append(more if auto_pad == "SAME_LOWER" else less)
        ends.append(less if auto_pad == "SAME_LOWER" else more)
    return [*begins, *ends]


def convolution_kernels(machine: Machine, precision: str) -> list[Kernel]:
    """Conv in a precision."""
    portable = portable_kernels(machine.xp, only={"Conv"})[-1]

    @kernel("Conv", types=TYPES)
    def conv(
        x: Tensor,
        w: Tensor,
        b: Tensor | None = None,
        *,
        auto_pad: str = "NOTSET",
        dilations: Sequence[int] | None = None,
        group: int = 1,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        context: RunContext,
        node: Any,
    ) -> Tensor:
        rank = x.ndim - 2
        steps, spread = list(strides or [1] * rank), list(dilations or [1] * rank)
        if rank < 1 or w.ndim != x.ndim or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
            raise ValueError(f"weights {w.shape} in {group} groups do not fit an input of shape {x.shape}")
        windows = [(size - 1) * each + 1 for size, each in zip(w.shape[2:], spread, strict=True)]
        edges = padding(auto_pad, pads, x.shape[2:], windows, steps)
        sizes = [
            (size + edges[axis] + edges[axis + rank] - windows[axis]) // steps[axis] + 1
            for axis, size in enumerate(x.shape[2:])
        ]
        if min(sizes) < 1:
            raise ValueError(f"an input of shape {x.shape} is smaller than the window {windows}")
        attributes = {"strides": steps, "pads": edges, "dilations": spread, "group": group}
        done = _by_library(context, (x, w), node, (x.shape[0], w.shape[0], *sizes), attributes, precision)
        if done is None:
            bias = None if b is None else b.array
            return Tensor(portable.function(x.array, w.array, bias, **attributes))
        if b is not None:
            done.array += b.array.reshape(-1, *[1] * rank)
        return done

    return [conv]


def _by_library(
    context: RunContext,
    operands: tuple[Tensor, Tensor],
    node: Any,
    shape: tuple[int, ...],
    attributes: dict[str, Any],
    precision: str,
) -> Tensor | None:
    """The product by the library, without the bias; None where it has no plan."""
    stream = stream_of(context)
    machine, dtype = stream.machine, operands[0].dtype
    x, w = (stream.dense(rounded(context, item, precision)) for item in operands)
    out: Tensor = context.empty(node.outputs[0], shape, dtype)
    narrow = x.dtype != out.array.dtype
    target = machine.xp.empty(shape, x.dtype) if narrow else out.array
    found = machine.convolve(
        x,
        w,
        target,
        strides=attributes["strides"],
        pads=attributes["pads"],
        dilations=attributes["dilations"],
        groups=attributes["group"],
        precision=precision,
        stream=stream.raw,
    )
    if not found:
        return None
    if narrow:
        out.array[...] = machine.xp.astype(target, np.float32)
    return out
