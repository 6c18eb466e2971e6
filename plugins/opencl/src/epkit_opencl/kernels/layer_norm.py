"""Normalisations of rows: LayerNormalization, its RMS form, and both with the residual added before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from epkit.backend import RunContext, kernel

from ..launch import c_type, launch, pragma
from ..memory import Tensor
from .activations import MICROSOFT, single
from .formulas import FLOATS
from .movement import fresh
from .views import whole_axes


def normalized_rows(
    context: RunContext,
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    size: int,
    epsilon: float,
    *,
    centred: bool = True,
    added: Sequence[Tensor] = (),
    total: Tensor | None = None,
) -> None:
    """out = (s - mean) / sqrt(mean of (s - mean)² + epsilon) scale + bias for rows of ``size``, s = x + added.

    Args:
        context, x: as usual.
        scale, bias: of ``size`` elements.
        out: of x's shape.
        size: elements of a row.
        epsilon: against division by zero.
        centred: False leaves the mean out (RMS normalisation).
        added: tensors whose sizes divide x's, and are multiples of ``size``.
        total: where s goes, if there is something added.
    """
    source = _source(c_type(x.dtype), centred, bias is not None, len(added))
    arguments: list[Any] = [size, x.dtype.type(epsilon), x, scale, out]
    arguments += [] if bias is None else [bias]
    for item in added:
        arguments += [item, item.size]
    arguments += [out if total is None else total] if added else []
    group = [1]
    launch(context, source, "norm_rows", [x.size // size if size else 0], arguments, group=group)


def _source(t: str, centred: bool, has_bias: bool, added: int) -> str:
    extra = f", __global const {t}* b, const long ob" if has_bias else ""
    extra += "".join(f", __global const {t}* k{i}, const long ok{i}, const int n{i}" for i in range(added))
    extra += f", __global {t}* s, const long os" if added else ""
    terms = [f"k{i} + j" for i in range(added)]
    wide = " + ".join(["vload16(0, x + j)", *(f"vload16(0, {term})" for term in terms)])
    narrow = " + ".join(["x[j]", *(f"k{i}[j]" for i in range(added))])
    begin = "".join(f"k{i} += ok{i} + start % n{i};\n  " for i in range(added))
    add = f"""{begin}s += os + start;
  for (j = 0; j + 16 <= size; j += 16) vstore16({wide}, 0, s + j);
  for (; j < size; j++) s[j] = {narrow};
  x = s;""" if added else ""  # fmt: skip
    average = """for (j = 0; j + 16 <= size; j += 16) w += vload16(0, x + j);
  for (; j < size; j++) mean += x[j];
  mean = (mean + sum16(w)) / size;"""
    return f"""{pragma([t])}
inline {t} sum16(const {t}16 w) {{
  const {t}8 a = w.lo + w.hi;
  const {t}4 b = a.lo + a.hi;
  return b.s0 + b.s1 + b.s2 + b.s3;
}}
__kernel void norm_rows(const int size, const {t} epsilon, __global const {t}* x, const long ox,
                        __global const {t}* g, const long og, __global {t}* q, const long oq{extra}) {{
  const long start = (long)get_global_id(0) * size;
  int j;
  x += ox + start;
  g += og;
  q += oq + start;
  {"b += ob;" if has_bias else ""}
  {add}
  {t}16 w = 0;
  {t} mean = 0, squares = 0;
  {average if centred else ""}
  w = 0;
  for (j = 0; j + 16 <= size; j += 16) {{ const {t}16 v = vload16(0, x + j) - mean; w += v * v; }}
  for (; j < size; j++) squares += (x[j] - mean) * (x[j] - mean);
  const {t} factor = 1 / sqrt((squares + sum16(w)) / size + epsilon);
  for (j = 0; j + 16 <= size; j += 16) {{
    const {t}16 v = (vload16(0, x + j) - mean) * factor * vload16(0, g + j);
    vstore16(v{" + vload16(0, b + j)" if has_bias else ""}, 0, q + j);
  }}
  for (; j < size; j++) q[j] = (x[j] - mean) * factor * g[j]{" + b[j]" if has_bias else ""};
}}
"""


def trailing(x: Tensor, axis: int, *vectors: Tensor | None) -> int:
    """Elements from the axis on; scale and bias must have as many.

    Raises:
        ValueError: if they have not.
    """
    (at,) = whole_axes([axis], x.ndim)
    size = math.prod(x.shape[at:])
    if any(item is not None and item.size != size for item in vectors):
        found = [item.shape for item in vectors if item is not None]
        raise ValueError(f"scale and bias of shapes {found} do not fit {size} normalised elements")
    return size


def alone(node: Any) -> bool | str:
    """Mean and deviation are not asked for, and scale and bias are not broadcast."""
    if any(value.name for value in node.outputs[1:3]):
        return f"{node.op_type} with mean and deviation has no kernel"
    x = node.inputs[0].shape
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    for value in node.inputs[1:3]:
        if value is None or value.shape is None or x is None:
            continue
        tail = list(x)[axis + len(x) if axis < 0 else axis :]
        pairs = zip(tail, value.shape, strict=False)
        differs = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
        if differs or len(value.shape) != len(tail):
            return f"{node.op_type} with scale or bias broadcast has no kernel"
    return True


def fused_alone(node: Any) -> bool | str:
    """The same for fused operators, and only float32."""
    if any(value.name for value in node.outputs[1:3]):
        return f"{node.op_type} with mean and deviation has no kernel"
    return single(node)


@kernel("LayerNormalization", since=17, types={"T": FLOATS, "U": FLOATS}, when=alone)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Over all axes from ``axis`` on."""
    out = fresh(context, node, x.shape, x)
    normalized_rows(context, x, scale, bias, out, trailing(x, axis, scale, bias), epsilon)
    return out


@kernel("RMSNormalization", since=23, types={"T": FLOATS, "V": FLOATS}, when=alone)
def rms_normalization(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """x / sqrt(mean of squares + epsilon) scale."""
    out = fresh(context, node, x.shape, x)
    normalized_rows(context, x, scale, None, out, trailing(x, axis, scale), epsilon, centred=False)
    return out


@kernel("SimplifiedLayerNormalization", when=fused_alone)
def simplified(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """RMSNormalization by its older name."""
    out = fresh(context, node, x.shape, x)
    normalized_rows(context, x, scale, None, out, trailing(x, axis, scale), epsilon, centred=False)
    return out


def after_skip(
    context: RunContext,
    node: Any,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    epsilon: float,
    centred: bool,
) -> tuple[Tensor | None, ...]:
    """Outputs of the Skip forms: the result, two that have no kernel, and the sum where it is asked for."""
    x, skip, gamma, beta, bias = tensors
    size = trailing(x, -1, gamma, beta, bias)
    if x.size and (not skip.size or x.size % skip.size or skip.size % size):
        raise ValueError(f"skip of shape {skip.shape} does not fit {x.shape}")
    out = fresh(context, node, x.shape, x)
    wanted = len(node.outputs) > 3 and bool(node.outputs[3].name)
    total = fresh(context, node, x.shape, x, 3) if wanted else None
    added = [skip] if bias is None else [skip, bias]
    normalized_rows(context, x, gamma, beta, out, size, epsilon, centred=centred, added=added, total=total)
    return out, None, None, total


@kernel("SkipLayerNormalization", domain=MICROSOFT, when=fused_alone)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    context: RunContext,
    node: Any,
) -> tuple[Tensor | None, ...]:
    """LayerNormalization of x + skip + bias, and the sum."""
    return after_skip(context, node, (x, skip, gamma, beta, bias), epsilon, True)


@kernel("SkipSimplifiedLayerNormalization", domain=MICROSOFT, when=fused_alone)
def skip_simplified(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    context: RunContext,
    node: Any,
) -> tuple[Tensor | None, ...]:
    """RMS normalisation of x + skip + bias, and the sum."""
    return after_skip(context, node, (x, skip, gamma, None, bias), epsilon, False)


KERNELS = (
    layer_normalization, rms_normalization, simplified, skip_layer_normalization, skip_simplified,
)  # fmt: skip
