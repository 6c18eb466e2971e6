"""Normalisation after a residual, as com.microsoft has it: the sum, its normalisation, in one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch
from ..memory import Tensor
from ..source import stored
from .rows import normalized, output, row_source, split_at, threads

FLOATS = frozenset({"float32", "float16", "bfloat16"})
EPSILON = 9.999999960041972e-13
"""The float32 nearest to 1e-12, the default."""


def skip_source(c_type: str, *, centred: bool, beta: bool, bias: bool, total: bool) -> str:
    """s = x + skip + bias; (s - mean) / sqrt(var + epsilon) gamma + beta; and s itself."""
    value = "(C)widen(x[j]) + (C)widen(r[j])" + (" + (C)widen(bias[j])" if bias else "")
    mean = f"""
  for (int j = threadIdx.x; j < size; j += blockDim.x) mean += {value};
  mean = over_block(Sum(), mean) / size;"""
    body = f"""
  const T *x = p + row * size, *r = skip + row % skips * size;
  C mean = 0, squares = 0;
  {mean if centred else ""}
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const C v = {value} - mean;
    squares += v * v;
  }}
  const C factor = 1 / sqrt(over_block(Sum(), squares) / size + (C)epsilon);
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const C s = {value};
    {"narrow(s, total[row * size + j]);" if total else ""}
    narrow((s - mean) * factor * (C)widen(gamma[j]){" + (C)widen(beta[j])" if beta else ""}, q[row * size + j]);
  }}"""
    names = ["skip", "gamma", "beta", "bias"]
    given = "".join(f", const T* __restrict__ {name}" for name in names)
    return row_source(c_type, f", long long skips, double epsilon{given}, T* __restrict__ total", body)


def whole_statistics(node: Any) -> bool | str:
    """Mean and deviation are no results here; vectors are of the data's type."""
    if any(len(node.outputs) > index and node.outputs[index].name for index in (1, 2)):
        return "mean and deviation as results: the host's operator"
    kinds = {element_type(value) for value in node.inputs if value is not None and value.name}
    return (
        kinds <= FLOATS
        and len(kinds) == 1
        or f"the kernel takes one of {sorted(FLOATS)}, found {sorted(kinds)}"
    )


def after_skip(
    context: RunContext,
    node: Any,
    x: Tensor,
    skip: Tensor,
    vectors: list[Tensor | None],
    epsilon: float,
    centred: bool,
) -> Any:
    """The normalised sum; and the sum where it is wanted.

    Args:
        vectors: gamma, beta and bias, each as long as the last axis.
    """
    size = x.shape[-1]
    skips = skip.size // max(1, size)
    if (
        x.ndim not in (2, 3)
        or skip.shape[-1] != size
        or skips not in (1, x.shape[-2], x.size // max(1, size))
    ):
        raise ValueError(f"a skip of shape {skip.shape} does not fit an input of shape {x.shape}")
    if any(item is not None and item.shape != (size,) for item in vectors):
        raise ValueError(f"gamma, beta and bias should have {size} elements")
    out = output(context, node, x)
    wanted = len(node.outputs) > 3 and bool(node.outputs[3].name)
    total: Tensor = context.empty(node.outputs[3], x.shape, x.dtype) if wanted else out
    gamma, beta, bias = (None if item is None else dense(context, item) for item in vectors)
    options = {"centred": centred, "beta": beta is not None, "bias": bias is not None, "total": wanted}
    given = dense(context, x)
    places = [given if item is None else item for item in (dense(context, skip), gamma, beta, bias)]
    arguments = [
        np.int32(size),
        given,
        out.array,
        np.int64(max(1, skips)),
        np.float64(epsilon),
        *places,
        total.array,
    ]
    rows = x.size // size if size else 0
    launch(context, skip_source(stored(x.dtype), **options), "rows", rows, threads(size), arguments)
    return (out, None, None, total) if wanted else out


@kernel("SkipLayerNormalization", domain="com.microsoft", when=whole_statistics)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = EPSILON,
    context: RunContext,
    node: Any,
) -> Any:
    """LayerNormalization(x + skip + bias)."""
    return after_skip(context, node, x, skip, [gamma, beta, bias], epsilon, True)


@kernel("SkipSimplifiedLayerNormalization", domain="com.microsoft", when=whole_statistics)
def skip_simplified_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = EPSILON,
    context: RunContext,
    node: Any,
) -> Any:
    """(x + skip + bias) / root mean square."""
    return after_skip(context, node, x, skip, [gamma, None, bias], epsilon, False)


def one_vector(node: Any) -> bool | str:
    """A scale over the last axis, of the data's type, and one result."""
    shape = node.inputs[0].shape
    last = attribute_values(node).get("axis", -1) in (-1, len(shape or ()) - 1)
    if len(node.outputs) > 1 and node.outputs[1].name:
        return "the inverse deviation as a result: the host's operator"
    scale = node.inputs[1].shape
    if not last or shape is None or scale is None or len(scale) != 1 or scale[0] != shape[-1]:
        return "the scale is no vector along the last axis for certain"
    kinds = {element_type(value) for value in node.inputs[:2]}
    return (
        kinds <= FLOATS
        and len(kinds) == 1
        or f"the kernel takes one of {sorted(FLOATS)}, found {sorted(kinds)}"
    )


@kernel("SimplifiedLayerNormalization", when=one_vector)
def simplified_layer_normalization(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    context: RunContext,
    node: Any,
) -> Tensor:
    """x / root mean square times scale."""
    rows = split_at(x, axis)
    return normalized(context, node, x, *rows, scale, None, epsilon, centred=False)


KERNELS: tuple[Kernel, ...] = (
    skip_layer_normalization,
    skip_simplified_layer_normalization,
    simplified_layer_normalization,
)


def sources() -> list[str]:
    """Every source that these kernels launch."""
    both = (False, True)
    return [
        skip_source(t, centred=centred, beta=centred, bias=bias, total=total)
        for t in ("float", "f16", "bf16")
        for centred in both
        for bias in both
        for total in both
    ]
