"""Softmax, and normalisations of channels: one work-item for each row, in three passes over it."""

from __future__ import annotations

import math
from typing import Any

from epkit.backend import Kernel, RunContext, element_type, kernel

from ..launch import c_type, launch, pragma
from ..memory import Tensor
from .formulas import FLOATS
from .mathematics import mathematics
from .movement import fresh
from .views import whole_axes

TYPES = {"T": FLOATS}


def softmax_rows(context: RunContext, node: Any, x: Tensor, sizes: tuple[int, int, int], log: bool) -> Tensor:
    """Along the middle of (outer, size, inner). float16 rounds the exponentials and their sum, as the operator's
    definition in steps does.
    """
    out = fresh(context, node, x.shape, x)
    outer, size, inner = sizes
    t = c_type(x.dtype)
    end = "q[oq + at] = p[op + at] - top - total;" if log else "q[oq + at] = q[oq + at] / s;"
    halves = element_type(node.outputs[0]) == "float16" and not log
    number = "as_half(exp(p[op + at] - top))" if halves else "exp(p[op + at] - top)"
    rounded = "if (s <= 65504) s = as_half(s);" if halves else ""
    source = f"""{pragma([t])}{mathematics(number)}
__kernel void softmax(const int size, const int inner, __global const {t}* p, const long op,
                      __global {t}* q, const long oq) {{
  const int i = get_global_id(0);
  const long start = (long)(i / inner) * size * inner + i % inner;
  {t} top = -INFINITY, s = 0;
  for (int j = 0; j < size; j++) {{ const {t} v = p[op + start + (long)j * inner]; top = v != v || v > top ? v : top; }}
  for (int j = 0; j < size; j++) {{
    const long at = start + (long)j * inner;
    const {t} e = {number};
    {"" if log else "q[oq + at] = e;"}
    s += e;
  }}
  {"const " + t + " total = log(s);" if log else rounded}
  for (int j = 0; j < size; j++) {{ const long at = start + (long)j * inner; {end} }}
}}
"""
    launch(
        context, source, "softmax", [outer * inner if size else 0], [size, max(1, inner), x, out], group=[1]
    )
    return out


def softmax_of(name: str, log: bool) -> list[Kernel]:
    """Until opset 12 everything from the axis on is one row."""

    @kernel(name, until=12, types=TYPES)
    def flattened(x: Tensor, *, axis: int = 1, context: RunContext, node: Any) -> Tensor:
        at = axis + x.ndim if axis < 0 else axis
        sizes = (math.prod(x.shape[:at]), math.prod(x.shape[at:]), 1)
        return softmax_rows(context, node, x, sizes, log)

    @kernel(name, since=13, types=TYPES)
    def along(x: Tensor, *, axis: int = -1, context: RunContext, node: Any) -> Tensor:
        (at,) = whole_axes([axis], x.ndim)
        sizes = (math.prod(x.shape[:at]), x.shape[at], math.prod(x.shape[at + 1 :]))
        return softmax_rows(context, node, x, sizes, log)

    return [flattened, along]


def normalized(
    context: RunContext,
    node: Any,
    x: Tensor,
    shape: tuple[int, int, int],
    scale: Tensor,
    bias: Tensor,
    epsilon: float,
) -> Tensor:
    """(x - mean) / sqrt(var + epsilon) scale + bias over rows.

    Args:
        context, node, x: as usual.
        shape: (rows, elements of a row, elements of a channel); a row is a channel, or a group of them.
        scale, bias: one number for each channel of a picture.
        epsilon: against division by zero.
    """
    out = fresh(context, node, x.shape, x)
    rows, size, each = shape
    t = c_type(x.dtype)
    source = f"""{pragma([t])}
__kernel void norm_channels(const int size, const int each, const int channels, const {t} epsilon,
                            __global const {t}* p, const long op, __global const {t}* g, const long og,
                            __global const {t}* b, const long ob, __global {t}* q, const long oq) {{
  const int i = get_global_id(0);
  const long start = (long)i * size;
  {t} mean = 0, s = 0;
  for (int j = 0; j < size; j++) mean += p[op + start + j];
  mean /= size;
  for (int j = 0; j < size; j++) {{ const {t} v = p[op + start + j] - mean; s += v * v; }}
  const {t} factor = 1 / sqrt(s / size + epsilon);
  for (int j = 0; j < size; j++) {{
    const int c = ((long)i * (size / each) + j / each) % channels;
    q[oq + start + j] = (p[op + start + j] - mean) * factor * g[og + c] + b[ob + c];
  }}
}}
"""
    arguments = [size, max(1, each), scale.size, x.dtype.type(epsilon), x, scale, bias, out]
    launch(context, source, "norm_channels", [rows if size else 0], arguments, group=[1])
    return out


@kernel("InstanceNormalization", since=6, types=TYPES)
def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, context: RunContext, node: Any
) -> Tensor:
    """Over the spatial axes of each channel of each picture."""
    inner = math.prod(x.shape[2:])
    shape = (x.shape[0] * x.shape[1], inner, inner)
    return normalized(context, node, x, shape, scale, bias, epsilon)


@kernel("GroupNormalization", since=21, types=TYPES)
def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Over groups of channels of each picture."""
    inner = math.prod(x.shape[2:])
    shape = (x.shape[0] * num_groups, x.shape[1] // num_groups * inner, inner)
    return normalized(context, node, x, shape, scale, bias, epsilon)


KERNELS = (
    *softmax_of("Softmax", log=False),
    *softmax_of("LogSoftmax", log=True),
    instance_normalization,
    group_normalization,
)
