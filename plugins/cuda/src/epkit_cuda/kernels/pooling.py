"""Pooling over windows, one thread a number, channels first or last; sums in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels._window import Window, window

from ..launch import dense, launch
from ..memory import Tensor
from ..source import PRELUDE, computed, stored
from .convolution import LAST
from .rows import reduce_source, threads

FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})
BLOCK = 256

POOLS = {
    "Max": ("-INFINITY", "s = Top()(s, v);", "s"),
    "Average": ("0", "s += v;", "s / count"),
    "AverageAll": ("0", "s += v;", "s / all"),
}
"""By name: first value, what an element v does to it, the result of ``count`` elements (with padding: ``all``)."""


def pool_source(c_type: str, name: str, *, last: bool) -> str:
    """Windows over up to three axes; sizes, steps and padding by axis."""
    first, step, end = POOLS[name]
    place = (
        "((b * ID + d) * IH + h) * IW + w" if last else "((b * channels + c) * ID + d) * IH * IW + h * IW + w"
    )
    if last:
        where = "const int c = i % channels, ow = i / channels % W, oh = i / channels / W % H;\n"
        where += "  const int od = i / channels / W / H % D; const long long b = i / channels / W / H / D;"
        place = f"({place}) * channels + c"
    else:
        where = "const int ow = i % W, oh = i / W % H, od = i / W / H % D, c = i / W / H / D % channels;\n"
        where += "  const long long b = i / W / H / D / channels;"
    axes = ("D", "H", "W")
    numbers = [axes, ("ID", "IH", "IW"), ("KD", "KH", "KW"), ("sd", "sh", "sw"), ("dd", "dh", "dw")]
    numbers += [("pd", "ph", "pw"), ("ed", "eh", "ew")]
    parameters = ", ".join(f"int {name}" for group in numbers for name in group)
    return f"""{PRELUDE}
typedef {c_type} T; typedef {computed(c_type)} C;
extern "C" __global__ void pool(long long n, int channels, {parameters},
    const T* __restrict__ p, T* __restrict__ q) {{
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  {where}
  C s = {first};
  int count = 0, all = 0;
  for (int kd = 0; kd < KD; kd++) for (int kh = 0; kh < KH; kh++) for (int kw = 0; kw < KW; kw++) {{
    const int d = od * sd + kd * dd - pd, h = oh * sh + kh * dh - ph, w = ow * sw + kw * dw - pw;
    all += d < ID + ed && h < IH + eh && w < IW + ew;
    if (d < 0 || d >= ID || h < 0 || h >= IH || w < 0 || w >= IW) continue;
    const C v = widen(p[{place}]);
    {step}
    count++;
  }}
  narrow({end}, q[i]);
}}
"""


def three(numbers: Sequence[int], filler: int) -> list[np.int32]:
    """Numbers for three axes, the missing ones in front."""
    return [np.int32(number) for number in (*[filler] * (3 - len(numbers)), *numbers)]


def pooled(context: RunContext, node: Any, x: Tensor, view: Window, name: str, last: bool) -> Tensor:
    """Pool x [N, C, ...], or [N, ..., C], over windows."""
    channels, sizes = (x.shape[-1], x.shape[1:-1]) if last else (x.shape[1], x.shape[2:])
    shape = (x.shape[0], *view.output, channels) if last else (x.shape[0], channels, *view.output)
    out: Tensor = context.empty(node.outputs[0], shape, x.dtype)
    groups = [(view.output, 1), (sizes, 1), (view.kernel, 1), (view.strides, 1), (view.dilations, 1)]
    groups += [(view.begin, 0), (view.end, 0)]
    numbers = [number for values, filler in groups for number in three(values, filler)]
    arguments = [np.int64(out.size), np.int32(channels), *numbers, dense(context, x), out.array]
    source = pool_source(stored(x.dtype), name, last=last)
    launch(context, source, "pool", -(-out.size // BLOCK), BLOCK, arguments)
    return out


def one_output(node: Any) -> bool | str:
    """Without indices, over one to three axes of floats."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        return "indices as a result: the portable operator"
    rank = len(node.inputs[0].shape or ())
    found = element_type(node.inputs[0])
    if not 3 <= rank <= 5 or found not in FLOATS:
        return f"the kernel takes floats of 3 to 5 axes, found {found or 'an unknown type'} of {rank}"
    return True


def window_of(
    x: Tensor,
    last: bool,
    kernel_shape: Sequence[int],
    dilations: Sequence[int] | None,
    options: dict[str, Any],
) -> Window:
    """The window over the spatial axes."""
    sizes = x.shape[1:-1] if last else x.shape[2:]
    return window(sizes, kernel_shape, dilations=dilations, **options)


def declare(domain: str) -> list[Kernel]:
    """The pooling operators of a layout."""
    last = domain == LAST

    @kernel("MaxPool", domain=domain, when=one_output)
    def max_pool(
        x: Tensor,
        *,
        kernel_shape: Sequence[int],
        auto_pad: str = "NOTSET",
        ceil_mode: int = 0,
        dilations: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        context: RunContext,
        node: Any,
    ) -> Tensor:
        options = {"auto_pad": auto_pad, "ceil_mode": ceil_mode, "pads": pads, "strides": strides}
        return pooled(context, node, x, window_of(x, last, kernel_shape, dilations, options), "Max", last)

    @kernel("AveragePool", domain=domain, when=one_output)
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
        options = {"auto_pad": auto_pad, "ceil_mode": ceil_mode, "pads": pads, "strides": strides}
        name = "AverageAll" if count_include_pad else "Average"
        return pooled(context, node, x, window_of(x, last, kernel_shape, dilations, options), name, last)

    return [max_pool, average_pool, whole("Average", "Mean", domain), whole("Max", "Max", domain)]


def whole(name: str, reduction: str, domain: str) -> Kernel:
    """One window: by a block for each channel, or where they come last by a thread."""
    last = domain == LAST

    def pool(x: Tensor, *, context: RunContext, node: Any) -> Tensor:
        if last:
            sizes = x.shape[1:-1]
            options = {"strides": None, "dilations": None, "pads": None, "auto_pad": "VALID"}
            return pooled(context, node, x, window(sizes, sizes, **options), name, last)  # type: ignore[arg-type]
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))
        out: Tensor = context.empty(node.outputs[0], shape, x.dtype)
        size = math.prod(x.shape[2:])
        arguments = [np.int32(size), dense(context, x), out.array]
        source = reduce_source(stored(x.dtype), reduction)
        launch(context, source, "rows", out.size, threads(size), arguments)
        return out

    made: Callable[[Any], Kernel] = kernel(f"Global{name}Pool", domain=domain, when=one_output)
    return made(pool)


KERNELS: tuple[Kernel, ...] = (*declare(""), *declare(LAST))


def sources() -> list[str]:
    """Every source that these kernels launch."""
    types = ("float", "double", "f16", "bf16")
    return [pool_source(t, name, last=last) for t in types for name in POOLS for last in (False, True)]
