"""Operators that only move elements: one kernel that copies between two strided walks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from epkit.backend import RunContext, element_type, kernel, static_shape
from epkit.dtypes import numpy_dtype

from .. import transfer
from ..launch import download, empty, enqueue, launch
from ..memory import ClStream, Tensor
from ..strides import collapsed, contiguous
from .formulas import ANY
from .views import whole_axes

TYPES = {"T": ANY}
GROUP = 64


def copy(
    context: RunContext,
    source: Tensor,
    target: Tensor,
    shape: Sequence[int],
    reads: Sequence[int],
    writes: Sequence[int],
    first: int = 0,
    start: int = 0,
) -> None:
    """target[start + writes . i] = source[first + reads . i] for every i below ``shape``."""
    dims, (walk, put) = collapsed(shape, [reads, writes])
    bits = {1: "uchar", 2: "ushort", 4: "uint", 8: "ulong"}[source.dtype.itemsize]
    count, rank = math.prod(shape), len(dims)
    arguments = [count, source, first, target, start, *dims, *walk, *put]
    stream = context.stream
    assert isinstance(stream, ClStream)
    if stream.gpu.is_cpu and rank and walk[-1] == put[-1] == 1 and dims[-1] >= LONG:
        size = [-(-dims[-1] // STRETCH), count // dims[-1]]
        launch(context, _stretch_source(rank, bits), "copy_stretches", size, arguments, group=[1, 1])
        return
    size = [-(-count // GROUP) * GROUP]
    launch(context, _copy_source(rank, bits), "copy", size, arguments, group=[GROUP])


LONG, STRETCH = 32, 1 << 14
"""Elements of a row from which on CPUs copy stretches, and the most that a work-item copies."""


def _parameters(rank: int, bits: str) -> str:
    sizes = "".join(f", const int {letter}{axis}" for letter in "drw" for axis in range(rank))
    return f"""const int n, __global const {bits}* restrict p, const long op, const int first,
                   __global {bits}* restrict q, const long oq, const int start{sizes}"""


def _walk(rank: int) -> str:
    """Statements that move ``from`` and ``to`` to the place ``rest`` in so many axes."""
    lines = []
    for axis in reversed(range(rank)):
        index = "rest" if axis == 0 else f"rest % d{axis}"
        step = "" if axis == 0 else f" rest /= d{axis};"
        lines.append(f"{{ const int c = {index}; from += c * r{axis}; to += c * w{axis};{step} }}")
    return "\n  ".join(lines)


@cache
def _copy_source(rank: int, bits: str) -> str:
    return f"""
__kernel void copy({_parameters(rank, bits)}) {{
  const int i = get_global_id(0);
  if (i >= n) return;
  int rest = i, from = first, to = start;
  {_walk(rank)}
  q[oq + to] = p[op + from];
}}
"""


@cache
def _stretch_source(rank: int, bits: str) -> str:
    return f"""
__kernel void copy_stretches({_parameters(rank, bits)}) {{
  int rest = get_global_id(1), from = first, to = start;
  {_walk(rank - 1)}
  const int begin = get_global_id(0) * {STRETCH}, end = min(d{rank - 1}, begin + {STRETCH});
  for (int i = begin; i < end; i++) q[oq + to + i] = p[op + from + i];
}}
"""


def fresh(context: RunContext, node: Any, shape: Sequence[int], like: Tensor, index: int = 0) -> Tensor:
    """Memory for an output."""
    return empty(context, node.outputs[index], tuple(shape), like.dtype)


def gathered(
    context: RunContext, node: Any, x: Tensor, shape: Sequence[int], reads: Sequence[int], first: int = 0
) -> Tensor:
    """A new dense tensor whose elements are found by strides."""
    out = fresh(context, node, shape, x)
    copy(context, x, out, shape, reads, contiguous(shape), first)
    return out


@kernel("Transpose", types=TYPES)
def transpose(x: Tensor, *, perm: Sequence[int] | None = None, context: RunContext, node: Any) -> Tensor:
    """Axes in another order."""
    order = list(range(x.ndim))[::-1] if perm is None else whole_axes(perm, x.ndim)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"perm {list(perm or ())} does not fit rank {x.ndim}")
    own = contiguous(x.shape)
    return gathered(context, node, x, [x.shape[a] for a in order], [own[a] for a in order])


def expanded(shape: Sequence[int], wanted: Sequence[int], own: Sequence[int]) -> tuple[list[int], list[int]]:
    """The broadcast shape and the strides under it."""
    target = list(np.broadcast_shapes(tuple(shape), tuple(wanted)))
    missing = len(target) - len(shape)
    walk = [0 if size == 1 else step for size, step in zip(shape, own, strict=True)]
    return target, [0] * missing + walk


@kernel("Expand", since=8, types=TYPES)
def expand(x: Tensor, shape: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """Broadcast to a shape."""
    wanted = [int(size) for size in download(context, shape)]
    target, reads = expanded(x.shape, wanted, contiguous(x.shape))
    return gathered(context, node, x, target, reads)


@kernel("Tile", since=6, types=TYPES)
def tile(x: Tensor, repeats: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """Repeated along every axis."""
    counts = [int(count) for count in download(context, repeats)]
    if len(counts) != x.ndim or min(counts, default=0) < 0:
        raise ValueError(f"repeats {counts} do not fit shape {x.shape}")
    own = contiguous(x.shape)
    split = [n for count, size in zip(counts, x.shape, strict=True) for n in (count, size)]
    reads = [step for each in own for step in (0, each)]
    out = fresh(context, node, [c * n for c, n in zip(counts, x.shape, strict=True)], x)
    copy(context, x, out, split, reads, contiguous(split))
    return out


@kernel("Concat", since=4, types=TYPES)
def concat(*tensors: Tensor, axis: int, context: RunContext, node: Any) -> Tensor:
    """Joined along an axis."""
    (at,) = whole_axes([axis], tensors[0].ndim)
    shape = list(tensors[0].shape)
    for other in tensors:
        if other.ndim != len(shape) or any(
            a != b for k, (a, b) in enumerate(zip(other.shape, shape, strict=True)) if k != at
        ):
            raise ValueError(f"shapes {[t.shape for t in tensors]} cannot be joined along axis {axis}")
    shape[at] = sum(tensor.shape[at] for tensor in tensors)
    out = fresh(context, node, shape, tensors[0])
    writes, start = contiguous(shape), 0
    for tensor in tensors:
        place = out.offset + start * out.dtype.itemsize
        if tensor.buffer is not out.buffer or tensor.offset != place:  # else it was made there
            copy(context, tensor, out, tensor.shape, contiguous(tensor.shape), writes, 0, start)
        start += tensor.shape[at] * writes[at]
    return out


def cuts(shape: Sequence[int], axis: int, starts: Sequence[int], itemsize: int, alignment: int) -> bool:
    """Whether pieces along an axis (from the front) lie in one piece of memory each, and begin at aligned bytes."""
    step = math.prod(shape[axis + 1 :]) * itemsize
    return all(size == 1 for size in shape[:axis]) and not any(start * step % alignment for start in starts)


def part(x: Tensor, shape: Sequence[int], first: int) -> Tensor:
    """A view of elements that follow each other."""
    host = None if x.host is None else x.host.reshape(-1)[first : first + math.prod(shape)].reshape(shape)
    return Tensor(x.buffer, x.offset + first * x.dtype.itemsize, tuple(shape), x.dtype, host)


def alignment(context: RunContext) -> int:
    """Of memory, in bytes."""
    assert isinstance(context.stream, ClStream)
    return context.stream.limits.alignment


def parts(context: RunContext, node: Any, x: Tensor, axis: int, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces of the given sizes along an axis: views, where they lie in one piece and aligned."""
    (at,) = whole_axes([axis], x.ndim)
    if sum(sizes) != x.shape[at] or min(sizes, default=0) < 0:
        raise ValueError(f"pieces {list(sizes)} do not make up {x.shape[at]}")
    starts = [0, *accumulate(sizes)][:-1]
    own, are_views = contiguous(x.shape), cuts(x.shape, at, starts, x.dtype.itemsize, alignment(context))
    result = []
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        shape = [size if k == at else n for k, n in enumerate(x.shape)]
        if are_views:
            result.append(part(x, shape, start * own[at]))
            continue
        out = fresh(context, node, shape, x, index)
        copy(context, x, out, shape, own, contiguous(shape), start * own[at])
        result.append(out)
    return tuple(result)


def gives_views(node: Any, bytes_apart: int) -> bool:
    """Whether all outputs of a Split are surely views of its input."""
    shape, kinds = static_shape(node.inputs[0]), element_type(node.inputs[0])
    sizes = [static_shape(value) for value in node.outputs]
    if shape is None or not kinds or None in sizes:
        return False
    (at,) = whole_axes([node.attributes.get_int("axis", 0)], len(shape))
    starts = [0, *accumulate(size[at] for size in sizes if size is not None)][:-1]
    return cuts(shape, at, starts, numpy_dtype(kinds).itemsize, bytes_apart)


@kernel("Split", since=2, until=12, types=TYPES)
def split_2(
    x: Tensor, *, axis: int = 0, split: Sequence[int] | None = None, context: RunContext, node: Any
) -> tuple[Tensor, ...]:
    """Pieces along an axis; sizes by attribute."""
    count = len(node.outputs)
    (at,) = whole_axes([axis], x.ndim)
    return parts(context, node, x, axis, split or [x.shape[at] // count] * count)


@kernel("Split", since=13, types=TYPES)
def split(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    context: RunContext,
    node: Any,
) -> tuple[Tensor, ...]:
    """Pieces along an axis; the last one is smaller where they cannot be equal."""
    if sizes is not None:
        return parts(context, node, x, axis, [int(n) for n in download(context, sizes)])
    (at,) = whole_axes([axis], x.ndim)
    count = num_outputs or len(node.outputs)
    chunk = -(-x.shape[at] // count)
    return parts(context, node, x, axis, [*[chunk] * (count - 1), x.shape[at] - chunk * (count - 1)])


def sliced(
    context: RunContext,
    node: Any,
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    """Ranges along axes, as Python slices them."""
    own, shape, walk, first = contiguous(x.shape), list(x.shape), contiguous(x.shape), 0
    chosen = whole_axes(range(len(starts)) if axes is None else axes, x.ndim)
    for axis, start, end, step in zip(chosen, starts, ends, steps or [1] * len(starts), strict=True):
        if step == 0:
            raise ValueError("a step of 0")
        picked = (
            range(x.shape[axis])[start:end:step] if step > 0 else _backwards(x.shape[axis], start, end, step)
        )
        shape[axis], walk[axis] = len(picked), own[axis] * step
        first += (picked[0] if len(picked) else 0) * own[axis]
    cut = [axis for axis, size in enumerate(shape) if size != x.shape[axis]] or [0]
    if x.ndim and walk == own and len(cut) == 1:
        start = first // max(1, own[cut[0]])
        if cuts(x.shape, cut[0], [start], x.dtype.itemsize, alignment(context)):
            return part(x, shape, first)
    return gathered(context, node, x, shape, walk, first)


def _backwards(size: int, start: int, end: int, step: int) -> range:
    """ONNX clamps a negative walk's bounds to [0, size - 1] and [-1, size - 1]."""
    begin = min(max(start + size if start < 0 else start, 0), size - 1)
    stop = min(max(end + size if end < 0 else end, -1), size - 1)
    return range(begin, stop, step)


@kernel("Slice", until=9, types=TYPES)
def slice_1(
    x: Tensor,
    *,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Ranges by attributes."""
    return sliced(context, node, x, starts, ends, axes, None)


@kernel("Slice", since=10, types=TYPES)
def slice_10(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
    *,
    context: RunContext,
    node: Any,
) -> Tensor:
    """Ranges by inputs."""
    given = [
        None if item is None else [int(n) for n in download(context, item).reshape(-1)]
        for item in (starts, ends, axes, steps)
    ]
    return sliced(context, node, x, given[0] or [], given[1] or [], given[2], given[3])


def constant_mode(node: Any) -> bool | str:
    """Padding with a value; also negative pads."""
    mode = node.attributes.get("mode")
    return mode is None or mode.value == "constant" or f"Pad with mode {mode.value!r} has no kernel"


def padded(context: RunContext, node: Any, x: Tensor, pads: Sequence[int], value: Any) -> Tensor:
    """Surrounded by a value; negative pads cut off."""
    before, after = pads[: x.ndim], pads[x.ndim :]
    shape = [n + a + b for n, a, b in zip(x.shape, before, after, strict=True)]
    if min(shape, default=0) < 0:
        raise ValueError(f"pads {list(pads)} remove more than shape {x.shape} has")
    out = fresh(context, node, shape, x)
    fill(context, out, value)
    low = [max(0, -a) for a in before]
    inner = [n - lo - max(0, -b) for n, lo, b in zip(x.shape, low, after, strict=True)]
    own, writes = contiguous(x.shape), contiguous(shape)
    first = sum(lo * step for lo, step in zip(low, own, strict=True))
    start = sum(max(0, a) * step for a, step in zip(before, writes, strict=True))
    if min(inner, default=1) > 0:
        copy(context, x, out, inner, own, writes, first, start)
    return out


def fill(context: RunContext, out: Tensor, value: Any) -> None:
    """Every element the same."""
    assert isinstance(context.stream, ClStream)
    if out.nbytes:
        pattern = np.asarray(value, out.dtype)
        enqueue(context.stream, lambda queue: transfer.fill(queue, out, pattern), [out])


@kernel("Pad", since=2, until=10, types=TYPES, when=constant_mode)
def pad_2(
    x: Tensor,
    *,
    pads: Sequence[int],
    value: float = 0.0,
    mode: str = "constant",
    context: RunContext,
    node: Any,
) -> Tensor:
    """Padding by attributes."""
    return padded(context, node, x, pads, value)


@kernel("Pad", since=11, types=TYPES, when=constant_mode)
def pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
    context: RunContext,
    node: Any,
) -> Tensor:
    """Padding by inputs."""
    given = [int(n) for n in download(context, pads)]
    if axes is not None:
        chosen = whole_axes([int(a) for a in download(context, axes).reshape(-1)], x.ndim)
        whole = [0] * (2 * x.ndim)
        for index, axis in enumerate(chosen):
            whole[axis], whole[axis + x.ndim] = given[index], given[index + len(chosen)]
        given = whole
    if len(given) != 2 * x.ndim:
        raise ValueError(f"{len(given)} pads for rank {x.ndim}")
    number = 0 if value is None else download(context, value).reshape(-1)[0]
    return padded(context, node, x, given, number)


@kernel("ConstantOfShape", since=9, types={"T2": ANY})
def constant_of_shape(shape: Tensor, *, value: Any = None, context: RunContext, node: Any) -> Tensor:
    """A tensor of one value."""
    sizes = tuple(int(n) for n in download(context, shape))
    number = np.zeros(1, np.float32) if value is None else np.asarray(value).reshape(-1)
    if min(sizes, default=0) < 0:
        raise ValueError(f"shape {sizes} has a negative size")
    out: Tensor = empty(context, node.outputs[0], sizes, number.dtype)
    fill(context, out, number[0])
    return out


@kernel("DepthToSpace", types=TYPES)
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR", context: RunContext, node: Any) -> Tensor:
    """Blocks of channels become blocks of the picture."""
    n, c, h, w = x.shape
    b = blocksize
    if b < 1 or c % (b * b):
        raise ValueError(f"{c} channels are no blocks of {b} x {b}")
    inner = (n, b, b, c // b**2, h, w) if mode == "DCR" else (n, c // b**2, b, b, h, w)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    own = contiguous(inner)
    shape = [inner[a] for a in order]
    out = fresh(context, node, (n, c // b**2, h * b, w * b), x)
    copy(context, x, out, shape, [own[a] for a in order], contiguous(shape))
    return out


@kernel("SpaceToDepth", types=TYPES)
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR", context: RunContext, node: Any) -> Tensor:
    """Blocks of the picture become channels."""
    n, c, h, w = x.shape
    b = blocksize
    if b < 1 or h % b or w % b:
        raise ValueError(f"a picture of {h} x {w} is not made of blocks of {b}")
    inner = (n, c, h // b, b, w // b, b)
    own, order = contiguous(inner), ((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    shape = [inner[a] for a in order]
    out = fresh(context, node, (n, c * b * b, h // b, w // b), x)
    copy(context, x, out, shape, [own[a] for a in order], contiguous(shape))
    return out


KERNELS = (
    transpose, expand, tile, concat, split_2, split, slice_1, slice_10, pad_2, pad, constant_of_shape,
    depth_to_space, space_to_depth,
)  # fmt: skip
