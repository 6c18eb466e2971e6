"""Softmax, normalisations and reductions: one block for each row, sums and statistics in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, element_type, kernel
from epkit.dtypes import numpy_dtype
from epkit.kernels.attributes import attribute_values

from ..launch import dense, launch, on_host
from ..memory import Tensor
from ..source import NARROW, PRELUDE, computed, stored

WIDE = frozenset({"float32", "float64"})
FLOATS = WIDE | {"float16", "bfloat16"}
NARROWEST, WIDEST = 32, 512


def threads(size: int) -> int:
    """Threads of a block for a row of ``size`` elements: whole warps, about four elements a thread."""
    wanted = 1 << max(0, (size // 4 - 1).bit_length()) if size > 4 else 1
    return min(WIDEST, max(NARROWEST, wanted))


def row_source(c_type: str, parameters: str, body: str) -> str:
    """A kernel named ``rows`` whose block handles row ``blockIdx.x`` of ``size`` elements."""
    return (
        f"{PRELUDE}\ntypedef {c_type} T; typedef {computed(c_type)} C;\n"
        f'extern "C" __global__ void rows(int size, const T* __restrict__ p, T* __restrict__ q{parameters}) {{\n'
        f"  const long long row = blockIdx.x;\n{body}\n}}\n"
    )


def softmax_source(c_type: str, *, log: bool) -> str:
    """Along rows of (rows, size, inner): block r handles outer r / inner, inner r % inner.

    Exponentials and their sum are rounded to narrow types, as in the function body of the standard.
    """
    narrow = c_type in NARROW and not log
    power = "widen(stored_as<T>(exp({0} - top)))" if narrow else "exp({0} - top)"
    end = "narrow(x - top - total, q[at]);" if log else f"narrow({power.format('x')} / total, q[at]);"
    value = power.format("(C)widen(p[start + (long long)j * inner])")
    body = f"""
  const long long start = row / inner * size * inner + row % inner;
  C top = -INFINITY, total = 0;
  for (int j = threadIdx.x; j < size; j += blockDim.x) top = Top()(top, (C)widen(p[start + (long long)j * inner]));
  top = over_block(Top(), top);
  for (int j = threadIdx.x; j < size; j += blockDim.x) total += {value};
  total = over_block(Sum(), total);
  {"total = log(total);" if log else "total = widen(stored_as<T>(total));" if narrow else ""}
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const long long at = start + (long long)j * inner;
    const C x = widen(p[at]);
    {end}
  }}"""
    return row_source(c_type, ", long long inner", body)


def norm_source(c_type: str, *, centred: bool, bias: bool, each: bool) -> str:
    """(x - mean) / sqrt(var + epsilon) scale + bias; with ``each``, scale and bias are by channel."""
    place = "(row * (size / each) + j / each) % channels" if each else "j"
    mean = """
  for (int j = threadIdx.x; j < size; j += blockDim.x) mean += (C)widen(x[j]);
  mean = over_block(Sum(), mean) / size;"""
    body = f"""
  const T* x = p + row * size;
  C mean = 0, squares = 0;
  {mean if centred else ""}
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const C v = (C)widen(x[j]) - mean;
    squares += v * v;
  }}
  const C factor = 1 / sqrt(over_block(Sum(), squares) / size + (C)epsilon);
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const long long c = {place};
    const C v = ((C)widen(x[j]) - mean) * factor;
    narrow(v * (C)widen(g[c]){" + (C)widen(b[c])" if bias else ""}, q[row * size + j]);
  }}"""
    parameters = ", int each, int channels, double epsilon, const T* __restrict__ g"
    return row_source(c_type, parameters + (", const T* __restrict__ b" if bias else ""), body)


REDUCTIONS = {
    "Sum": ("Sum", "x", "r"),
    "Mean": ("Sum", "x", "r / size"),
    "Max": ("Top", "x", "r"),
    "Min": ("Low", "x", "r"),
    "Prod": ("Product", "x", "r"),
    "L1": ("Sum", "fabs(x)", "r"),
    "L2": ("Sum", "x * x", "sqrt(r)"),
    "SumSquare": ("Sum", "x * x", "r"),
}
"""By operator: how two values join, what is joined of an element, and what becomes of the result."""


def reduce_source(c_type: str, name: str) -> str:
    """Each row becomes one number."""
    join, element, end = REDUCTIONS[name]
    body = f"""
  C r = {join}::none<C>();
  for (int j = threadIdx.x; j < size; j += blockDim.x) {{
    const C x = widen(p[row * size + j]);
    r = {join}()(r, (C)({element}));
  }}
  r = over_block({join}(), r);
  if (threadIdx.x == 0) narrow({end}, q[row]);"""
    return row_source(c_type, "", body)


# ---- kernels ----


def output(context: RunContext, node: Any, like: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Memory for the first result, of the type of an input."""
    result: Tensor = context.empty(node.outputs[0], tuple(like.shape if shape is None else shape), like.dtype)
    return result


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        ValueError: if it is outside the rank.
    """
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return axis + rank if axis < 0 else axis


def softmax_rows(context: RunContext, node: Any, x: Tensor, sizes: tuple[int, int, int], log: bool) -> Tensor:
    """Along the middle of (outer, size, inner)."""
    outer, size, inner = sizes
    out = output(context, node, x)
    arguments = [np.int32(size), dense(context, x), out.array, np.int64(inner)]
    grid = outer * inner if size else 0
    launch(context, softmax_source(stored(x.dtype), log=log), "rows", grid, threads(size), arguments)
    return out


def softmax_of(name: str, types: frozenset[str], log: bool) -> list[Kernel]:
    """Until opset 12 everything from the axis on is one row."""

    @kernel(name, until=12, types={"T": types})
    def flattened(x: Tensor, *, axis: int = 1, context: RunContext, node: Any) -> Tensor:
        at = x.ndim if axis == x.ndim else axis_of(axis, x.ndim)
        sizes = (math.prod(x.shape[:at]), math.prod(x.shape[at:]), 1)
        return softmax_rows(context, node, x, sizes, log)

    @kernel(name, since=13, types={"T": types})
    def along(x: Tensor, *, axis: int = -1, context: RunContext, node: Any) -> Tensor:
        at = axis_of(axis, x.ndim)
        sizes = (math.prod(x.shape[:at]), math.prod(x.shape[at:][:1]), math.prod(x.shape[at + 1 :]))
        return softmax_rows(context, node, x, sizes, log)

    return [flattened, along]


def normalized(
    context: RunContext,
    node: Any,
    x: Tensor,
    rows: int,
    size: int,
    scale: Tensor,
    bias: Tensor | None,
    epsilon: float,
    *,
    centred: bool = True,
    each: int = 0,
) -> Tensor:
    """Rows of ``size`` elements; ``each`` elements in turn share a number of ``scale`` (0: one for each place)."""
    out = output(context, node, x)
    source = norm_source(stored(x.dtype), centred=centred, bias=bias is not None, each=bool(each))
    counts = [np.int32(max(1, each)), np.int32(max(1, scale.size)), np.float64(epsilon)]
    arguments = [np.int32(size), dense(context, x), out.array, *counts, dense(context, scale)]
    if bias is not None:
        arguments.append(dense(context, bias))
    launch(context, source, "rows", rows if size else 0, threads(size), arguments)
    return out


def plain_scale(node: Any) -> bool | str:
    """One result, and a scale (and bias) of the shape of the normalised axes."""
    if [value for value in node.outputs[1:] if value.name]:
        return "mean and deviation as results: the portable operator"
    rank = len(node.inputs[0].shape or ())
    axis = attribute_values(node).get("axis", -1)
    wanted = list(node.inputs[0].shape or ())[axis if axis >= 0 else axis + rank :]
    for value in node.inputs[1:]:
        if value is not None and value.name and list(value.shape or ()) != wanted:
            return "scale or bias is broadcast: the portable operator"
    kinds = {element_type(value) for value in node.inputs if value is not None and value.name}
    return len(kinds) == 1 or "scale and data have different element types: the portable operator"


def split_at(x: Tensor, axis: int) -> tuple[int, int]:
    """Rows before the axis, elements of a row from it on."""
    at = axis_of(axis, x.ndim)
    return math.prod(x.shape[:at]), math.prod(x.shape[at:])


@kernel("LayerNormalization", since=17, types={"T": FLOATS, "U": WIDE}, when=plain_scale)
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
    return normalized(context, node, x, *split_at(x, axis), scale, bias, epsilon)


@kernel("RMSNormalization", since=23, types={"T": FLOATS, "V": FLOATS}, when=plain_scale)
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
    return normalized(context, node, x, *split_at(x, axis), scale, None, epsilon, centred=False)


@kernel("InstanceNormalization", since=6, types={"T": WIDE})
def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, context: RunContext, node: Any
) -> Tensor:
    """Over the spatial axes of each channel of each picture."""
    inner = math.prod(x.shape[2:])
    return normalized(
        context, node, x, x.shape[0] * x.shape[1], inner, scale, bias, epsilon, each=max(1, inner)
    )


def reduction(name: str, since: int, by_input: bool) -> Kernel:
    """Over the axes; those that are not the last ones are moved there first."""

    def run(x: Tensor, axes: Any, keepdims: int, noop: int, context: RunContext, node: Any) -> Tensor:
        if axes is None or len(axes) == 0:
            axes = [] if noop else range(x.ndim)
        gone = sorted({axis_of(int(axis), x.ndim) for axis in axes})
        kept = [axis for axis in range(x.ndim) if axis not in gone]
        shape = [1 if axis in gone else x.shape[axis] for axis in range(x.ndim) if keepdims or axis in kept]
        size = math.prod(x.shape[axis] for axis in gone)
        out = output(context, node, x, shape)
        moved = Tensor(x.array.transpose((*kept, *gone)))
        arguments = [np.int32(size), dense(context, moved), out.array]
        launch(context, reduce_source(stored(x.dtype), name), "rows", out.size, threads(size), arguments)
        return out

    if by_input:

        @kernel(f"Reduce{name}", since=since, types={"T": WIDE})
        def reduced(
            x: Tensor,
            axes: Tensor | None = None,
            *,
            keepdims: int = 1,
            noop_with_empty_axes: int = 0,
            context: RunContext,
            node: Any,
        ) -> Tensor:
            values = None if axes is None else on_host(context, axes).reshape(-1).tolist()
            return run(x, values, keepdims, noop_with_empty_axes, context, node)

        return reduced

    @kernel(f"Reduce{name}", until=since - 1, types={"T": WIDE})
    def reduced_1(
        x: Tensor, *, axes: Any = None, keepdims: int = 1, context: RunContext, node: Any
    ) -> Tensor:
        return run(x, axes, keepdims, 0, context, node)

    return reduced_1


KERNELS: tuple[Kernel, ...] = (
    *softmax_of("Softmax", FLOATS, log=False),
    *softmax_of("LogSoftmax", FLOATS, log=True),
    layer_normalization,
    rms_normalization,
    instance_normalization,
    *(
        reduction(name, 13 if name == "Sum" else 18, by_input)
        for name in REDUCTIONS
        for by_input in (True, False)
    ),
)
"""Narrow floats are computed in float32 and, softmax apart, rounded once."""


def sources() -> list[str]:
    """Every source that these kernels launch."""
    found = []
    for dtype in sorted(FLOATS):
        t = stored(numpy_dtype(dtype))
        found += [softmax_source(t, log=log) for log in (False, True)]
        found += [reduce_source(t, name) for name in REDUCTIONS]
        for centred in (False, True):
            found += [
                norm_source(t, centred=centred, bias=b, each=e) for b in (False, True) for e in (False, True)
            ]
    return found
