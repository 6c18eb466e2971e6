"""Pooling over windows, one work-item an element; the largest of each window, on CPUs, one work-item a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epkit.backend import RunContext, kernel
from epkit.kernels._window import Window, window

from ..launch import c_type, launch, pragma
from ..memory import ClStream, Tensor
from .convolution import spatial
from .formulas import FLOATS
from .indexing import rows
from .movement import fresh
from .patches import in_three

TYPES = {"T": FLOATS}


def pooled(
    context: RunContext, node: Any, x: Tensor, view: Window, start: str, step: str, end: str
) -> Tensor:
    """``step`` for every element v that a window covers; ``end`` says the result, of ``count`` elements."""
    out = fresh(context, node, (*x.shape[:2], *view.output), x)
    t = c_type(x.dtype)
    source = f"""{pragma([t])}
__kernel void pool(const int n, __global const {t}* p, const long op, __global {t}* q, const long oq,
                   const int D, const int H, const int W, const int ID, const int IH, const int IW,
                   const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                   const int dd, const int dh, const int dw, const int pd, const int ph, const int pw,
                   const int ed, const int eh, const int ew) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int ow = i % W, oh = i / W % H, od = i / W / H % D;
  const long plane = op + (long)(i / W / H / D) * ID * IH * IW;
  {t} s = {start};
  int count = 0, all = 0;
  for (int kd = 0; kd < KD; kd++) {{
    const int d = od * sd + kd * dd - pd;
    for (int kh = 0; kh < KH; kh++) {{
      const int h = oh * sh + kh * dh - ph;
      for (int kw = 0; kw < KW; kw++) {{
        const int w = ow * sw + kw * dw - pw;
        all += d < ID + ed && h < IH + eh && w < IW + ew;
        if (d < 0 || d >= ID || h < 0 || h >= IH || w < 0 || w >= IW) continue;
        const {t} v = p[plane + ((long)d * IH + h) * IW + w];
        {step}
        count++;
      }}
    }}
  }}
  q[oq + i] = {end};
}}
"""
    sizes = [*sizes_of(x, view), *in_three(view.end, 0)]
    size, group = rows(out.size)
    launch(context, source, "pool", size if out.size else [0], [out.size, x, out, *sizes], group=group)
    return out


def sizes_of(x: Tensor, view: Window) -> list[int]:
    """Output, input, kernel, strides, dilations, padding before; of three axes each."""
    return [
        *in_three(view.output, 1), *in_three(x.shape[2:], 1), *in_three(view.kernel, 1),
        *in_three(view.strides, 1), *in_three(view.dilations, 1), *in_three(view.begin, 0),
    ]  # fmt: skip


LARGER = "{v} != {v} || {v} > {s} ? {v} : {s}"
"""NaN wins."""


def largest(context: RunContext, node: Any, x: Tensor, view: Window) -> Tensor:
    """The largest element of every window."""
    stream = context.stream
    assert isinstance(stream, ClStream)
    if not stream.gpu.is_cpu:
        return pooled(context, node, x, view, "-INFINITY", f"s = {LARGER.format(v='v', s='s')};", "s")
    out = fresh(context, node, (*x.shape[:2], *view.output), x)
    t = c_type(x.dtype)
    step = f"{{ const {t} v = line[ow * sw + shift], s = o[ow]; o[ow] = {LARGER.format(v='v', s='s')}; }}"
    source = f"""{pragma([t])}
__kernel void pool_lines(__global const {t}* restrict p, const long op, __global {t}* restrict q, const long oq,
                         const int D, const int H, const int W, const int ID, const int IH, const int IW,
                         const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                         const int dd, const int dh, const int dw, const int pd, const int ph, const int pw) {{
  const int i = get_global_id(0), oh = i % H, od = i / H % D;
  __global {t}* restrict o = q + oq + (long)i * W;
  for (int ow = 0; ow < W; ow++) o[ow] = -INFINITY;
  for (int kd = 0; kd < KD; kd++) {{
    const int d = od * sd + kd * dd - pd;
    if (d < 0 || d >= ID) continue;
    for (int kh = 0; kh < KH; kh++) {{
      const int h = oh * sh + kh * dh - ph;
      if (h < 0 || h >= IH) continue;
      __global const {t}* restrict line = p + op + (((long)(i / H / D) * ID + d) * IH + h) * IW;
      for (int kw = 0; kw < KW; kw++) {{
        const int shift = kw * dw - pw;
        const int low = shift >= 0 ? 0 : (-shift + sw - 1) / sw;
        const int high = min(W, (IW - shift + sw - 1) / sw);
        if (sw == 1) for (int ow = low; ow < high; ow++) {step.replace(" * sw", "")}
        else if (sw == 2) for (int ow = low; ow < high; ow++) {step.replace("sw", "2")}
        else for (int ow = low; ow < high; ow++) {step}
      }}
    }}
  }}
}}
"""
    lines = out.size // view.output[-1] if out.size else 0
    launch(context, source, "pool_lines", [lines], [x, out, *sizes_of(x, view)], group=[1])
    return out


def one_output(node: Any) -> bool | str:
    """Without indices, over one to three axes."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        return "MaxPool with Indices has no kernel"
    return spatial(node)


@kernel("MaxPool", types=TYPES, when=one_output)
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """The largest element; NaN wins."""
    view = window(
        x.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )  # fmt: skip
    return largest(context, node, x, view)


@kernel("AveragePool", types=TYPES, when=spatial)
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """The mean; of what is padded too with count_include_pad."""
    view = window(
        x.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )  # fmt: skip
    return pooled(context, node, x, view, "0", "s += v;", "s / all" if count_include_pad else "s / count")


@kernel("GlobalAveragePool", types=TYPES, when=spatial)
def global_average_pool(x: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """The mean over all spatial axes."""
    return pooled(context, node, x, whole(x), "0", "s += v;", "s / count")


@kernel("GlobalMaxPool", types=TYPES, when=spatial)
def global_max_pool(x: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """The maximum over all spatial axes."""
    return largest(context, node, x, whole(x))


def whole(x: Tensor) -> Window:
    """One window over everything."""
    return window(x.shape[2:], x.shape[2:], strides=None, dilations=None, pads=None, auto_pad="NOTSET")


KERNELS = (max_pool, average_pool, global_average_pool, global_max_pool)
