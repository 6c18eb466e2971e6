"""Products of 8-bit integers, exact in 32 bits: MatMulInteger, ConvInteger and the QLinear forms.

The right side is packed into panels as in ``gemm``, four rows together where the device multiplies four bytes at
once (cl_khr_integer_dot_product), else one. Convolution lays out what each output reads as the right side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epkit.backend import RunContext, element_type, kernel
from epkit.kernels._window import window

from ..launch import c_type, empty, launch, pragma
from ..memory import ClStream, Tensor
from .convolution import spatial
from .gemm import PACKING, padded, temporary
from .gemm_source import WIDTH
from .indexing import rows
from .matmul import batch_offsets
from .patches import in_three

BYTES = frozenset({"int8", "uint8"})
ROWS = 8
"""Rows of a block of the result."""

DOT = """
#ifdef __opencl_c_integer_dot_product_input_4x8bit
#define DOT(a, b) dot(a, b)
#else
#define DOT(a, b) ((int)(a).x * (b).x + (int)(a).y * (b).y + (int)(a).z * (b).z + (int)(a).w * (b).w)
#endif
"""


@dataclass(frozen=True)
class Zero:
    """A zero point: None is 0, one number serves all, or there is one for each row (column)."""

    tensor: Tensor | None

    def read(self, name: str, at: str) -> str:
        """The C expression for the row or column ``at``."""
        if self.tensor is None:
            return "0"
        return f"{name}[o_{name} + {'0' if self.tensor.size == 1 else at}]"

    def parameter(self, name: str) -> str:
        """The kernel's parameters."""
        if self.tensor is None:
            return ""
        return f", __global const {c_type(self.tensor.dtype)}* {name}, const long o_{name}"


def depth_of(context: RunContext) -> int:
    """How many products the device makes at once."""
    assert isinstance(context.stream, ClStream)
    return 4 if context.stream.gpu.dots_of_four else 1


def panels_of(context: RunContext, b: Tensor, k: int, n: int, count: int) -> Tensor:
    """``count`` dense matrices K x N of bytes as panels; rows beyond K are 0. A weight's are kept."""
    depth = depth_of(context)
    deep, panels, t = -(-k // depth), -(-n // WIDTH), c_type(b.dtype)
    kept, key = b.packed, f"bytes {k} {n} {count} {depth}"
    if kept is not None and key in kept:
        return kept[key]
    source = f"""
__kernel void pack(const int k, const int n, const int deep, const int panels, __global const {t}* p, const long op,
                   __global {t}* q, const long oq) {{
  const int i = get_global_id(0), panel = get_global_id(1), z = get_global_id(2);
  if (i >= deep) return;
  p += op + (long)z * k * n;
  q += oq + (((long)z * panels + panel) * deep + i) * {WIDTH * depth};
  for (int j = 0; j < {WIDTH}; j++) for (int s = 0; s < {depth}; s++) {{
    const int c = panel * {WIDTH} + j, r = i * {depth} + s;
    q[j * {depth} + s] = c < n && r < k ? p[(long)r * n + c] : 0;
  }}
}}
"""
    shape = (count, panels, deep, WIDTH * depth)
    out = temporary(context, "bytes", shape, b, keep=kept is not None)
    launch(context, source, "pack", padded(deep, panels, count), [k, n, deep, panels, b, out], group=PACKING)
    if kept is not None:
        context.stream.synchronize()
        kept[key] = out
    return out


def product_source(ta: str, tb: str, depth: int, block: int, zeros: tuple[Zero, Zero]) -> str:
    """q[i, j] = sum over k of (a[i, k] - za[i]) (b[k, j] - zb[j]) for one block of rows and one panel."""
    za, zb = zeros
    if depth == 1:
        steps = f"""
    int v[{WIDTH}];
    for (int j = 0; j < {WIDTH}; j++) v[j] = (int)b[(long)s * {WIDTH} + j] - y[j];
    for (int r = 0; r < {block}; r++) {{
      const int x = (int)a[(long)min(i + r, m - 1) * k + s] - w[r];
      for (int j = 0; j < {WIDTH}; j++) sum[r][j] += x * v[j];
    }}"""
        end = "sum[r][j]"
    else:
        steps = f"""
    {tb}4 v[{WIDTH}];
    for (int j = 0; j < {WIDTH}; j++) {{
      v[j] = vload4(0, b + ((long)s * {WIDTH} + j) * 4);
      below[j] += DOT(v[j], ({tb}4)1);
    }}
    for (int r = 0; r < {block}; r++) {{
      {ta} some[4];
      for (int e = 0; e < 4; e++) some[e] = s * 4 + e < k ? a[(long)min(i + r, m - 1) * k + s * 4 + e] : 0;
      const {ta}4 x = vload4(0, some);
      beside[r] += DOT(x, ({ta}4)1);
      for (int j = 0; j < {WIDTH}; j++) sum[r][j] += DOT(x, v[j]);
    }}"""
        end = "sum[r][j] - w[r] * below[j] - y[j] * beside[r] + k * w[r] * y[j]"
    return f"""{DOT}
__kernel void product(const int m, const int n, const int k, const int deep, const int panels, const int from,
                      const int panel_from, const int first, __global const {ta}* a, const long oa,
                      __global const {tb}* b, const long ob, __global int* q, const long oq,
                      const int each{za.parameter("za")}{zb.parameter("zb")}) {{
  const int i = get_global_id(0) * {block}, panel = get_global_id(1), z = get_global_id(2);
  a += oa + from;
  b += ob + (((long)panel_from + z) * panels + panel) * deep * {WIDTH * depth};
  q += oq + first + (long)z * each;
  int sum[{block}][{WIDTH}], w[{block}], y[{WIDTH}], beside[{block}], below[{WIDTH}];
  for (int r = 0; r < {block}; r++) {{
    w[r] = {za.read("za", "min(i + r, m - 1)")};
    beside[r] = 0;
    for (int j = 0; j < {WIDTH}; j++) sum[r][j] = 0;
  }}
  for (int j = 0; j < {WIDTH}; j++) {{ y[j] = {zb.read("zb", f"min(panel * {WIDTH} + j, n - 1)")}; below[j] = 0; }}
  for (int s = 0; s < deep; s++) {{ {steps}
  }}
  for (int r = 0; r < {block} && i + r < m; r++)
    for (int j = 0; j < {WIDTH} && panel * {WIDTH} + j < n; j++)
      q[(long)(i + r) * n + panel * {WIDTH} + j] = {end};
}}
"""


def multiply(
    context: RunContext,
    a: Tensor,
    panels: Tensor,
    out: Tensor,
    sizes: tuple[int, int, int, int],
    zeros: tuple[Zero, Zero],
    places: tuple[int, int, int, int],
) -> None:
    """``sizes`` = (count, M, N, K); ``places`` = where a, the panels and the result start, and the result's step."""
    count, m, n, k = sizes
    depth, block = depth_of(context), min(ROWS, m)
    types = c_type(a.dtype), c_type(panels.dtype)
    source = product_source(*types, depth, block, zeros)
    start, panel, first, each = places
    arguments = [m, n, k, -(-k // depth), -(-n // WIDTH), start, panel, first, a, panels, out, each]
    arguments += [zero.tensor for zero in zeros if zero.tensor is not None]
    launch(context, source, "product", [-(-m // block), -(-n // WIDTH), count], arguments, group=[1, 1, 1])


def matrix_product(context: RunContext, a: Tensor, b: Tensor, zeros: tuple[Zero, Zero], out: Tensor) -> None:
    """out = (a - za) @ (b - zb) over the broadcast batch."""
    left = (1, *a.shape) if a.ndim == 1 else a.shape
    right = (*b.shape, 1) if b.ndim == 1 else b.shape
    m, k, n = left[-2], left[-1], right[-1]
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    if not out.size:
        return
    panels = panels_of(context, b, k, n, math.prod(right[:-2]))
    at_a, at_b = (batch_offsets(shape[:-2], batch) for shape in (left, right))
    for index in range(math.prod(batch)):
        places = int(at_a[index]) * m * k, int(at_b[index]), index * m * n, 0
        multiply(context, a, panels, out, (1, m, n, k), zeros, places)


def product_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The shape of a @ b.

    Raises:
        ValueError: if they cannot be multiplied.
    """
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[0 if b.ndim == 1 else -2]:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return (*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))


def by_vectors(node: Any) -> bool | str:
    """Bytes; zero points and scales are single numbers or one for each row or column."""
    plain = node.op_type in ("MatMulInteger", "ConvInteger")
    data = (node.inputs[0], node.inputs[1 if plain else 3])
    if any(element_type(value) not in BYTES for value in data):
        return f"{node.op_type} has a kernel for int8 and uint8"
    parameters = node.inputs[2:] if plain else [node.inputs[i] for i in (1, 2, 4, 5, 6, 7)]
    if any(value is not None and (value.shape is None or len(value.shape) > 1) for value in parameters):
        return f"{node.op_type} with zero points or scales of more than one axis has no kernel"
    if not plain and element_type(node.inputs[1]) != "float32":
        return f"{node.op_type} has a kernel for scales of float32"
    return spatial(node) if "Conv" in node.op_type else True


def checked(name: str, tensor: Tensor | None, size: int) -> Zero:
    """A zero point that fits ``size`` rows, columns or filters.

    Raises:
        ValueError: if it does not.
    """
    if tensor is not None and tensor.size not in (1, size):
        raise ValueError(f"{name} of shape {tensor.shape} is neither one number nor {size}")
    return Zero(tensor)


def matrix_zeros(a: Tensor, b: Tensor, za: Tensor | None, zb: Tensor | None) -> tuple[Zero, Zero]:
    """Zero points of rows and of columns."""
    m = a.shape[-2] if a.ndim > 1 else 1
    return checked("a_zero_point", za, m), checked("b_zero_point", zb, b.shape[-1] if b.ndim > 1 else 1)


@kernel("MatMulInteger", since=10, when=by_vectors)
def matmul_integer(
    a: Tensor,
    b: Tensor,
    za: Tensor | None = None,
    zb: Tensor | None = None,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """(a - za) @ (b - zb) in int32."""
    out: Tensor = empty(context, node.outputs[0], product_shape(a, b), np.dtype(np.int32))
    matrix_product(context, a, b, matrix_zeros(a, b, za, zb), out)
    return out


@dataclass(frozen=True)
class Scale:
    """Numbers of which the element i of the result has the one at (i / step) % size."""

    tensor: Tensor
    step: int

    def read(self, name: str) -> str:
        """The C expression."""
        return f"{name}[o_{name} + i / {name}_step % {name}_size]"


def requantised(
    context: RunContext, total: Tensor, out: Tensor, scales: Sequence[Scale], bias: Scale | None = None
) -> None:
    """out = saturate(round((total + bias) sa sb / sy) + zy) for ``scales`` = (sa, sb, sy, zy)."""
    names = ["sa", "sb", "sy", "zy"]
    given = [*zip(names, scales, strict=True), *([] if bias is None else [("b", bias)])]
    parameters = "".join(
        f", __global const {c_type(s.tensor.dtype)}* {name}, const long o_{name}, const int {name}_step"
        f", const int {name}_size"
        for name, s in given
    )
    sa, sb, sy, zy = (s.read(name) for name, s in zip(names, scales, strict=True))
    assert isinstance(context.stream, ClStream)
    t = "double" if context.stream.limits.fp64 else "float"
    y = c_type(out.dtype)
    source = f"""{pragma([t])}
__kernel void requantise(const int n, __global const int* p, const long op,
                         __global {y}* q, const long oq{parameters}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  const {t} whole = p[op + i] {"" if bias is None else "+ " + bias.read("b")};
  const {t} factor = ({t}){sa} * ({t}){sb} / ({t}){sy};
  q[oq + i] = convert_{y}_sat(rint(whole * factor) + {zy});
}}
"""
    arguments: list[Any] = [out.size, total, out]
    for _, scale in given:
        arguments += [scale.tensor, max(1, scale.step), max(1, scale.tensor.size)]
    extent, group = rows(out.size)
    launch(context, source, "requantise", extent if out.size else [0], arguments, group=group)


def int_memory(context: RunContext, shape: tuple[int, ...]) -> Tensor:
    """Scratch memory for 32-bit sums."""
    like = Tensor(None, 0, (), np.dtype(np.int32))
    return temporary(context, "sums", shape, like, keep=False)


@kernel("QLinearMatMul", since=10, when=by_vectors)
def qlinear_matmul(
    a: Tensor,
    sa: Tensor,
    za: Tensor,
    b: Tensor,
    sb: Tensor,
    zb: Tensor,
    sy: Tensor,
    zy: Tensor,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """saturate(round((a - za) @ (b - zb) sa sb / sy) + zy)."""
    shape = product_shape(a, b)
    out: Tensor = empty(context, node.outputs[0], shape, zy.dtype)
    total = int_memory(context, shape)
    matrix_product(context, a, b, matrix_zeros(a, b, za, zb), total)
    n = b.shape[-1] if b.ndim > 1 else 1
    requantised(context, total, out, [Scale(sa, n), Scale(sb, 1), Scale(sy, n), Scale(zy, n)])
    return out


def laid_bytes(context: RunContext, x: Tensor, zero: Zero, view: Any, sizes: tuple[int, int, int]) -> Tensor:
    """Matrices (channel, kernel position) x (output position) of bytes for each picture and group; in the padding
    the zero point is read.
    """
    k, n, count = sizes
    t = c_type(x.dtype)
    source = f"""
__kernel void lay(const int k, const int n, const int channels, __global const {t}* p, const long op,
                  __global {t}* q, const long oq,
                  const int D, const int H, const int W, const int ID, const int IH, const int IW,
                  const int KD, const int KH, const int KW, const int sd, const int sh, const int sw,
                  const int dd, const int dh, const int dw, const int pd, const int ph,
                  const int pw{zero.parameter("zx")}) {{
  const int c = get_global_id(0), i = get_global_id(1), z = get_global_id(2);
  if (c >= n) return;
  const int kw = i % KW, kh = i / KW % KH, kd = i / KW / KH % KD, channel = i / KW / KH / KD;
  const int d = c / W / H * sd + kd * dd - pd, h = c / W % H * sh + kh * dh - ph, w = c % W * sw + kw * dw - pw;
  const bool inside = d >= 0 && d < ID && h >= 0 && h < IH && w >= 0 && w < IW;
  q[oq + ((long)z * k + i) * n + c] =
    inside ? p[op + ((((long)z * channels + channel) * ID + d) * IH + h) * IW + w] : {zero.read("zx", "0")};
}}
"""
    out = temporary(context, "laid", (count, k, n), x, keep=False)
    channels = k // max(1, math.prod(view.kernel))
    numbers = [
        *in_three(view.output, 1), *in_three(x.shape[2:], 1), *in_three(view.kernel, 1),
        *in_three(view.strides, 1), *in_three(view.dilations, 1), *in_three(view.begin, 0),
    ]  # fmt: skip
    arguments = [k, n, channels, x, out, *numbers, *([] if zero.tensor is None else [zero.tensor])]
    extent, group = rows(n)
    launch(context, source, "lay", [extent[0], k, count], arguments, group=[*group, 1, 1])
    return out


def convolved(
    context: RunContext, x: Tensor, w: Tensor, zeros: tuple[Tensor | None, Tensor | None], view: Any, group: int,
    out: Tensor,
) -> None:  # fmt: skip
    """out = conv(x - zx, w - zw) in int32."""
    k, n = math.prod(w.shape[1:]), math.prod(view.output)
    per_group = w.shape[0] // group
    zx, zw = checked("x_zero_point", zeros[0], 1), checked("w_zero_point", zeros[1], w.shape[0])
    laid = laid_bytes(context, x, zx, view, (k, n, x.shape[0] * group))
    panels = panels_of(context, laid, k, n, x.shape[0] * group)
    for index in range(x.shape[0] * group):
        g = index % group
        own = zw
        if zw.tensor is not None and zw.tensor.size > 1:
            at = zw.tensor
            own = Zero(Tensor(at.buffer, at.offset + g * per_group, (per_group,), at.dtype))
        places = g * per_group * k, index, index * per_group * n, 0
        multiply(context, w, panels, out, (1, per_group, n, k), (own, zx), places)


def view_of(x: Tensor, w: Tensor, group: int, attributes: Any) -> Any:
    """What each output reads.

    Raises:
        ValueError: if the weights do not fit.
    """
    if x.ndim != w.ndim or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ValueError(f"weights {w.shape} in {group} groups do not fit {x.shape}")
    return window(
        x.shape[2:],
        w.shape[2:],
        strides=attributes["strides"],
        dilations=attributes["dilations"],
        pads=attributes["pads"],
        auto_pad=attributes["auto_pad"],
    )


@kernel("ConvInteger", since=10, when=by_vectors)
def conv_integer(
    x: Tensor,
    w: Tensor,
    zx: Tensor | None = None,
    zw: Tensor | None = None,
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
    """conv(x - zx, w - zw) in int32."""
    view = view_of(x, w, group, locals())
    shape = (x.shape[0], w.shape[0], *view.output)
    out: Tensor = empty(context, node.outputs[0], shape, np.dtype(np.int32))
    if out.size:
        convolved(context, x, w, (zx, zw), view, group, out)
    return out


@kernel("QLinearConv", since=10, when=by_vectors)
def qlinear_conv(
    x: Tensor,
    sx: Tensor,
    zx: Tensor,
    w: Tensor,
    sw: Tensor,
    zw: Tensor,
    sy: Tensor,
    zy: Tensor,
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
    """saturate(round((conv(x - zx, w - zw) + bias) sx sw / sy) + zy)."""
    view = view_of(x, w, group, locals())
    shape = (x.shape[0], w.shape[0], *view.output)
    out: Tensor = empty(context, node.outputs[0], shape, zy.dtype)
    if not out.size:
        return out
    total, n = int_memory(context, shape), math.prod(view.output)
    convolved(context, x, w, (zx, zw), view, group, total)
    scales = [Scale(sx, 1), Scale(sw, n), Scale(sy, 1), Scale(zy, 1)]
    requantised(context, total, out, scales, None if bias is None else Scale(bias, n))
    return out


KERNELS = (matmul_integer, qlinear_matmul, conv_integer, qlinear_conv)
