"""Convolution: what each output reads is laid out as panels, and the rest is a product of matrices. Where they are
faster, Winograd's tiles take its place.

Depthwise convolution and transposed convolution are computed directly, one work-item an element. One and two
spatial axes are treated as three, of which the first have size 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epkit.backend import RunContext, kernel
from epkit.kernels._window import window

from ..launch import c_type, launch, pragma
from ..memory import ClStream, Tensor
from ..tuning import fastest
from .activations import MICROSOFT, activated, single
from .formulas import FLOATS
from .gemm import Side, multiply
from .gemm_source import WIDTH, End
from .indexing import rows
from .movement import fresh
from .patches import in_three, laid_out
from .task import Task
from .winograd import keep_only, possible, winograd
from .winograd_source import FOUR, TWO, Tile

TYPES = {"T": FLOATS}
LARGEST_PANELS = 256 << 20
"""Bytes; where all pictures together need more, they are done one by one."""


def spatial(node: Any) -> bool | str:
    """One to three spatial axes."""
    shape = node.inputs[0].shape
    return shape is None or 3 <= len(shape) <= 5 or f"convolution over rank {len(shape)} has no kernel"


@dataclass(frozen=True)
class Shape:
    """The attributes of a convolution that say what each output reads, as the standard has them."""

    auto_pad: str
    dilations: Sequence[int] | None
    group: int
    pads: Sequence[int] | None
    strides: Sequence[int] | None


def single_spatial(node: Any) -> bool | str:
    """One to three spatial axes of float32."""
    verdict = spatial(node)
    return single(node) if verdict is True else verdict


@kernel("Conv", types=TYPES, when=spatial)
def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
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
    """Sums over channels and kernel positions; bias for each output channel."""
    shape = Shape(auto_pad, dilations, group, pads, strides)
    return convolved(context, node, x, w, bias, shape, None)


@kernel("FusedConv", domain=MICROSOFT, when=single_spatial)
def fused_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """activation(Conv(x, w, bias) + residual)."""
    shape = Shape(auto_pad, dilations, group, pads, strides)
    return convolved(context, node, x, w, bias, shape, End(activation, activation_params, residual))


def convolved(
    context: RunContext,
    node: Any,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    shape: Shape,
    end: End | None,
) -> Tensor:
    """end(Conv(x, w, bias))."""
    group = shape.group
    if x.ndim != w.ndim or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ValueError(f"weights {w.shape} in {group} groups do not fit {x.shape}")
    view = window(
        x.shape[2:],
        w.shape[2:],
        strides=shape.strides,
        dilations=shape.dilations,
        pads=shape.pads,
        auto_pad=shape.auto_pad,
    )
    out = fresh(context, node, (x.shape[0], w.shape[0], *view.output), x)
    task = Task(x, w, bias, out, view, group, end)
    if task.residual is not None and task.residual.shape != out.shape:
        raise ValueError(f"a residual of shape {task.residual.shape} does not fit the result, {out.shape}")
    if not out.size:
        return out
    if group == x.shape[1] and w.shape[1] == 1:
        depthwise(context, task)
    else:
        go(context, task, way_of(context, task))
    return out


def way_of(context: RunContext, task: Task) -> Tile | None:
    """The tiles that were the fastest for a convolution of about this size; None for one product."""
    ways = [None, *(tile for tile in (TWO, FOUR) if possible(tile, task))]
    if len(ways) == 1:
        return None
    stream = context.stream
    assert isinstance(stream, ClStream)
    sizes = (*task.w.shape[:2], task.x.shape[0], *task.view.output)
    key = f"conv 3 3 {' '.join(str(size.bit_length()) for size in sizes)}"
    measured = []

    def run(tile: Tile | None) -> None:
        measured.append(tile)
        go(context, task, tile)

    way = fastest(stream, key, ways, run)
    if measured:
        keep_only(task.w, way)
    return way


def go(context: RunContext, task: Task, way: Tile | None) -> None:
    """Compute it by Winograd's tiles, or by one product for each group."""
    if way is None:
        by_panels(context, task)
    else:
        winograd(context, way, task)


def by_panels(context: RunContext, task: Task) -> None:
    """What the outputs read is laid out as the right side of a product."""
    x, w, out, group = task.x, task.w, task.out, task.group
    k, n = math.prod(w.shape[1:]), math.prod(task.view.output)
    per_image = -(-n // WIDTH) * WIDTH * k * group * x.dtype.itemsize
    together = max(1, min(x.shape[0], LARGEST_PANELS // max(1, per_image)))
    per_group = w.shape[0] // group
    left = Side(w, k, 1, per_group * k, group)
    addend = None if task.bias is None else Side(task.bias, 1, 0, per_group, group)
    for start in range(0, x.shape[0], together):
        count = min(together, x.shape[0] - start) * group
        panels = laid_out(context, x, task.view, group, k, n, count, start)
        sizes, first = (count, per_group, n, k), start * w.shape[0] * n
        multiply(context, left, panels, count, out, sizes, first=first, addend=addend, end=task.end)


def depthwise(context: RunContext, task: Task) -> None:
    """Each channel by its own kernels; a work-item computes one row of the result."""
    x, w, bias, out, view, end = task.x, task.w, task.bias, task.out, task.view, task.end
    t = c_type(x.dtype)
    b = f", __global const {t}* b, const long ob" if bias is not None else ""
    finish = ""
    if end is not None:
        more = ""
        if end.residual is not None:
            b += f", __global const {t}* e, const long oe"
            more = " + e[oe + (long)i * W + ow]"
        value = activated(end.activation, end.numbers, "x", t) if end.activation else "x"
        finish = f"for (int ow = 0; ow < W; ow++) {{ const {t} x = o[ow]{more}; o[ow] = {value}; }}"
    source = f"""{pragma([t])}
__kernel void depthwise(const int lines, const int C, const int M,
                        __global const {t}* p, const long op, __global const {t}* f, const long of,
                        __global {t}* q, const long oq,
                        const int D, const int H, const int W, const int ID, const int IH, const int IW,
                        const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                        const int dd, const int dh, const int dw, const int pd, const int ph, const int pw{b}) {{
  const int i = get_global_id(0);
  if (i >= lines) return;
  const int oh = i % H, od = i / H % D, m = i / H / D % (C * M), z = i / H / D / (C * M);
  const int c = m / M;
  __global {t}* o = q + oq + (long)i * W;
  const {t} first = {"b[ob + m]" if bias is not None else "0"};
  for (int ow = 0; ow < W; ow++) o[ow] = first;
  for (int kd = 0; kd < KD; kd++) {{
    const int d = od * sd + kd * dd - pd;
    if (d < 0 || d >= ID) continue;
    for (int kh = 0; kh < KH; kh++) {{
      const int h = oh * sh + kh * dh - ph;
      if (h < 0 || h >= IH) continue;
      __global const {t}* line = p + op + ((((long)z * C + c) * ID + d) * IH + h) * IW;
      for (int kw = 0; kw < KW; kw++) {{
        const {t} v = f[of + (((long)m * KD + kd) * KH + kh) * KW + kw];
        const int shift = kw * dw - pw;
        const int low = shift >= 0 ? 0 : (-shift + sw - 1) / sw;
        const int high = min(W, (IW - shift + sw - 1) / sw);
        if (sw == 1) for (int ow = low; ow < high; ow++) o[ow] += v * line[ow + shift];
        else for (int ow = low; ow < high; ow++) o[ow] += v * line[ow * sw + shift];
      }}
    }}
  }}
  {finish}
}}
"""
    lines = out.size // view.output[-1]
    sizes = [
        *in_three(view.output, 1), *in_three(x.shape[2:], 1), *in_three(view.kernel, 1),
        *in_three(view.strides, 1), *in_three(view.dilations, 1), *in_three(view.begin, 0),
    ]  # fmt: skip
    extra = [] if bias is None else [bias]
    extra += [] if end is None or end.residual is None else [end.residual]
    arguments = [lines, x.shape[1], w.shape[0] // x.shape[1], x, w, out, *sizes, *extra]
    launch(context, source, "depthwise", [lines], arguments, group=[1])


@kernel("ConvTranspose", types=TYPES, when=spatial)
def conv_transpose(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """The transpose of a convolution; each output gathers what would have read it."""
    rank = x.ndim - 2
    steps, spread = list(strides or [1] * rank), list(dilations or [1] * rank)
    more = list(output_padding or [0] * rank)
    full = [
        (n - 1) * s + (kk - 1) * d + 1 + e
        for n, s, kk, d, e in zip(x.shape[2:], steps, w.shape[2:], spread, more, strict=True)
    ]
    begin, sizes = transposed_padding(full, x.shape[2:], steps, pads, output_shape, auto_pad, rank)
    if x.shape[1] != w.shape[0] or x.shape[1] % group or min(sizes, default=1) < 1:
        raise ValueError(f"weights {w.shape} in {group} groups do not fit {x.shape}")
    per = w.shape[1]
    out = fresh(context, node, (x.shape[0], per * group, *sizes), x)
    t = c_type(x.dtype)
    b = f", __global const {t}* b, const long ob" if bias is not None else ""
    source = f"""{pragma([t])}
__kernel void spread(const int n, const int C, const int M, const int G,
                     __global const {t}* p, const long op, __global const {t}* f, const long of,
                     __global {t}* q, const long oq,
                     const int D, const int H, const int W, const int ID, const int IH, const int IW,
                     const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                     const int dd, const int dh, const int dw, const int pd, const int ph, const int pw{b}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const int ow = i % W, oh = i / W % H, od = i / W / H % D, m = i / W / H / D % (M * G), z = i / W / H / D / (M * G);
  const int g = m / M;
  {t} s = {"b[ob + m]" if bias is not None else "0"};
  for (int kd = 0; kd < KD; kd++) {{
    const int d = od + pd - kd * dd;
    if (d < 0 || d % sd || d / sd >= ID) continue;
    for (int kh = 0; kh < KH; kh++) {{
      const int h = oh + ph - kh * dh;
      if (h < 0 || h % sh || h / sh >= IH) continue;
      for (int kw = 0; kw < KW; kw++) {{
        const int w = ow + pw - kw * dw;
        if (w < 0 || w % sw || w / sw >= IW) continue;
        for (int c = g * C; c < (g + 1) * C; c++)
          s += p[op + ((((long)z * C * G + c) * ID + d / sd) * IH + h / sh) * IW + w / sw]
             * f[of + ((((long)c * M + m % M) * KD + kd) * KH + kh) * KW + kw];
      }}
    }}
  }}
  q[oq + i] = s;
}}
"""
    numbers = [
        *in_three(sizes, 1), *in_three(x.shape[2:], 1), *in_three(w.shape[2:], 1),
        *in_three(steps, 1), *in_three(spread, 1), *in_three(begin, 0),
    ]  # fmt: skip
    size, local = rows(out.size)
    extra = [] if bias is None else [bias]
    arguments = [out.size, x.shape[1] // group, per, group, x, w, out, *numbers, *extra]
    launch(context, source, "spread", size if out.size else [0], arguments, group=local)
    return out


def transposed_padding(
    full: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    auto_pad: str,
    rank: int,
) -> tuple[list[int], list[int]]:
    """What is cut off at the begin of each axis, and the sizes that remain."""
    wanted = list(output_shape or ())[-rank:]
    if auto_pad.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(sizes, strides, strict=True)]
    if wanted:
        totals = [max(0, f - n) for f, n in zip(full, wanted, strict=True)]
        begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in totals]
        return begin, wanted
    both = list(pads or [0] * 2 * rank) if auto_pad in ("", "NOTSET") else [0] * 2 * rank
    return both[:rank], [f - b - e for f, b, e in zip(full, both[:rank], both[rank:], strict=True)]


KERNELS = (conv, fused_conv, conv_transpose)
