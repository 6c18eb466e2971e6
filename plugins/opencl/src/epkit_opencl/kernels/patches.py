"""What the outputs of a convolution read, laid out as the right side of a product.

Panels of WIDTH output positions: row (channel, kernel position), column output position; zeros where the padding is
read. One and two spatial axes are treated as three, of which the first have size 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from epkit.backend import RunContext
from epkit.kernels._window import Window

from ..launch import c_type, launch, pragma
from ..memory import ClStream, Tensor
from .gemm import PACKING, padded, temporary
from .gemm_source import WIDTH

ROWS = 64
"""Rows of a panel that a work-item of a CPU fills, about."""

PARAMETERS = """const int D, const int H, const int W, const int ID, const int IH, const int IW,
                  const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                  const int dd, const int dh, const int dw, const int pd, const int ph, const int pw"""
"""Output, input and kernel sizes; strides, dilations, padding before."""


def in_three(values: Sequence[int], missing: int) -> list[int]:
    """Per-axis values with so many more axes in front."""
    return [*[missing] * (3 - len(values)), *values]


def laid_out(
    context: RunContext, x: Tensor, view: Window, group: int, k: int, n: int, count: int, start: int
) -> Tensor:
    """The panels of ``count`` groups of pictures, from picture ``start`` on: (count, panels, k, WIDTH)."""
    panels = -(-n // WIDTH)
    out = temporary(context, "panels", (count, panels, k, WIDTH), x, keep=False)
    plain = all(v == 1 for v in (*view.kernel, *view.strides)) and not any((*view.begin, *view.end))
    sizes = [
        *in_three(view.output, 1), *in_three(x.shape[2:], 1), *in_three(view.kernel, 1),
        *in_three(view.strides, 1), *in_three(view.dilations, 1), *in_three(view.begin, 0),
    ]  # fmt: skip
    channels = x.shape[1] // group
    arguments = [k, n, panels, channels, start * x.shape[1], x, out, *sizes]
    stream = context.stream
    assert isinstance(stream, ClStream)
    if stream.gpu.is_cpu:
        each = max(1, ROWS // math.prod(view.kernel))
        size, local = [-(-channels // each), panels, count], [1, 1, 1]
        launch(context, by_lines(c_type(x.dtype), plain), "lay", size, [*arguments, each], group=local)
    else:
        size = padded(k, panels, count)
        launch(context, by_elements(c_type(x.dtype), plain), "lay", size, arguments, group=PACKING)
    return out


@cache
def by_lines(t: str, plain: bool) -> str:
    """For CPUs: a work-item copies stretches of lines for some channels of a panel.

    Args:
        t: the C type.
        plain: every output reads the input of its own place only.
    """
    whole = f"""if (run == {WIDTH}) {{
        vstore16(vload16(0, line), 0, to);
        vstore16(vload16(1, line), 1, to);
      }} else for (int t = 0; t < run; t++) to[t] = line[t];"""
    body = (
        f"""const int run = min({WIDTH}, n - first);
    for (int c = channel; c < last; c++) {{
      __global const {t}* restrict line = p + (long)(c - channel) * n + first;
      __global {t}* restrict to = q + (long)c * {WIDTH};
      {whole}
      for (int t = run; t < {WIDTH}; t++) to[t] = 0;
    }}"""
        if plain
        else f"""const int end = min(first + {WIDTH}, n);
  for (int c = channel; c < last; c++, p += (long)ID * IH * IW)
    for (int place = first, run; place < end; place += run) {{
      const int ow = place % W, oh = place / W % H, od = place / W / H;
      run = min(W - ow, end - place);
      __global {t}* restrict to = q + (long)c * KD * KH * KW * {WIDTH} + (place - first);
      for (int kd = 0; kd < KD; kd++)
      for (int kh = 0; kh < KH; kh++)
      for (int kw = 0; kw < KW; kw++, to += {WIDTH}) {{
        const int d = od * sd + kd * dd - pd, h = oh * sh + kh * dh - ph, w = ow * sw + kw * dw - pw;
        const bool inside = d >= 0 && d < ID && h >= 0 && h < IH;
        const int low = inside ? min(run, w >= 0 ? 0 : (sw - 1 - w) / sw) : run;
        const int high = inside ? max(low, min(run, (IW - w + sw - 1) / sw)) : run;
        for (int t = 0; t < low; t++) to[t] = 0;
        for (int t = high; t < run; t++) to[t] = 0;
        __global const {t}* restrict line = p + ((long)d * IH + h) * IW + w;
        if (high - low == {WIDTH} && sw == 1) {{
          vstore16(vload16(0, line), 0, to);
          vstore16(vload16(1, line), 1, to);
        }} else if (sw == 1) for (int t = low; t < high; t++) to[t] = line[t];
        else for (int t = low; t < high; t++) to[t] = line[t * sw];
      }}
    }}
  if (end < first + {WIDTH}) for (int row = channel * KD * KH * KW; row < last * KD * KH * KW; row++)
    for (int t = end - first; t < {WIDTH}; t++) q[(long)row * {WIDTH} + t] = 0;"""
    )
    return f"""{pragma([t])}
__kernel void lay(const int k, const int n, const int panels, const int channels, const int start,
                  __global const {t}* p, const long op, __global {t}* q, const long oq,
                  {PARAMETERS}, const int each) {{
  const int channel = get_global_id(0) * each, panel = get_global_id(1), z = get_global_id(2);
  const int last = min(channels, channel + each), first = panel * {WIDTH};
  p += op + ((long)start + (long)z * channels + channel) * ID * IH * IW;
  q += oq + ((long)z * panels + panel) * k * {WIDTH};
  {body}
}}
"""


@cache
def by_elements(t: str, plain: bool) -> str:
    """Elsewhere: a work-item fills a row of a panel."""
    inner = (
        "q[to + j] = p[from + c];"
        if plain
        else """
      const int ow = c % W, oh = c / W % H, od = c / W / H;
      const int d = od * sd + kd * dd - pd, h = oh * sh + kh * dh - ph, w = ow * sw + kw * dw - pw;
      q[to + j] = d >= 0 && d < ID && h >= 0 && h < IH && w >= 0 && w < IW ? p[from + (d * IH + h) * IW + w] : 0;"""
    )
    taps = "" if plain else "const int kw = i % KW, kh = i / KW % KH, kd = i / KW / KH % KD;"
    return f"""{pragma([t])}
__kernel void lay(const int k, const int n, const int panels, const int channels, const int start,
                  __global const {t}* p, const long op, __global {t}* q, const long oq,
                  {PARAMETERS}) {{
  const int i = get_global_id(0), panel = get_global_id(1), z = get_global_id(2);
  if (i >= k) return;
  const int channel = i / (KD * KH * KW);
  {taps}
  const long from = op + ((long)start + (long)z * channels + channel) * ID * IH * IW;
  const long to = oq + (((long)z * panels + panel) * k + i) * {WIDTH};
  for (int j = 0; j < {WIDTH}; j++) {{
    const int c = panel * {WIDTH} + j;
    if (c >= n) {{ q[to + j] = 0; continue; }}
    {inner}
  }}
}}
"""
