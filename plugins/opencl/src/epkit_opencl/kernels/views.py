"""Operators that give the same bytes another shape, or only say what a shape is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from epkit.backend import RunContext, kernel

from ..launch import download, empty, upload
from ..memory import Tensor
from .formulas import ANY

TYPES = {"T": ANY}


def whole_axes(values: Any, rank: int) -> list[int]:
    """Axes counted from the front.

    Raises:
        ValueError: if one is outside the rank, or named twice.
    """
    axes = [int(axis) + rank if axis < 0 else int(axis) for axis in values]
    if any(not 0 <= axis < rank for axis in axes) or len(set(axes)) != len(axes):
        raise ValueError(f"axes {list(values)} do not fit rank {rank}")
    return axes


def holds_a_tensor(node: Any) -> bool | str:
    """No sequence, no optional."""
    found = node.inputs[0].type
    return found is None or isinstance(found, ir.TensorType) or f"Identity has no kernel for {found}"


@kernel("Identity", types={"T": ANY, "V": ANY}, when=holds_a_tensor)
def identity(x: Tensor, *, context: RunContext) -> Tensor:
    """The same tensor."""
    return x.reshaped(x.shape)


@kernel("Reshape", since=5, types=TYPES)
def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0, context: RunContext) -> Tensor:
    """Another shape; 0 keeps a size (unless allowzero), -1 is what is left."""
    wanted = [int(size) for size in download(context, shape)]
    if not allowzero:
        wanted = [x.shape[axis] if size == 0 and axis < x.ndim else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        if wanted.count(-1) > 1 or rest == 0 or x.size % rest:
            raise ValueError(f"shape {x.shape} cannot become {wanted}")
        wanted[wanted.index(-1)] = x.size // rest
    if math.prod(wanted) != x.size or min(wanted, default=0) < 0:
        raise ValueError(f"shape {x.shape} cannot become {wanted}")
    return x.reshaped(wanted)


@kernel("Flatten", types=TYPES)
def flatten(x: Tensor, *, axis: int = 1, context: RunContext) -> Tensor:
    """A matrix: axes before ``axis``, and those from it on."""
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"axis {axis} does not fit rank {x.ndim}")
    at = axis + x.ndim if axis < 0 else axis
    return x.reshaped((math.prod(x.shape[:at]), math.prod(x.shape[at:])))


def squeezed(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Without the axes, which have size 1; without all such axes by default."""
    gone = [a for a, n in enumerate(x.shape) if n == 1] if axes is None else whole_axes(axes, x.ndim)
    if any(x.shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {gone} of shape {x.shape} are not all of size 1")
    return x.reshaped([size for axis, size in enumerate(x.shape) if axis not in gone])


@kernel("Squeeze", until=12, types=TYPES)
def squeeze_1(x: Tensor, *, axes: Sequence[int] | None = None, context: RunContext) -> Tensor:
    """Axes of size 1 removed; axes by attribute."""
    return squeezed(x, axes)


@kernel("Squeeze", since=13, types=TYPES)
def squeeze(x: Tensor, axes: Tensor | None = None, *, context: RunContext) -> Tensor:
    """Axes of size 1 removed."""
    return squeezed(x, None if axes is None else [int(a) for a in download(context, axes).reshape(-1)])


def unsqueezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    """With axes of size 1 where ``axes`` says."""
    rank = x.ndim + len(axes)
    fresh, sizes = whole_axes(axes, rank), iter(x.shape)
    return x.reshaped([1 if axis in fresh else next(sizes) for axis in range(rank)])


@kernel("Unsqueeze", until=12, types=TYPES)
def unsqueeze_1(x: Tensor, *, axes: Sequence[int], context: RunContext) -> Tensor:
    """Axes of size 1 inserted; axes by attribute."""
    return unsqueezed(x, axes)


@kernel("Unsqueeze", since=13, types=TYPES)
def unsqueeze(x: Tensor, axes: Tensor, *, context: RunContext) -> Tensor:
    """Axes of size 1 inserted."""
    return unsqueezed(x, [int(a) for a in download(context, axes).reshape(-1)])


def told(context: RunContext, node: Any, values: Sequence[int], scalar: bool = False) -> Tensor:
    """A small result that the host knows."""
    array = np.asarray(values[0] if scalar else values, np.int64)
    return upload(context, array, empty(context, node.outputs[0], array.shape, array.dtype))


@kernel("Shape", types=TYPES)
def shape(x: Tensor, *, start: int = 0, end: int | None = None, context: RunContext, node: Any) -> Tensor:
    """The sizes of the axes."""
    return told(context, node, x.shape[start:end])


@kernel("Size", types=TYPES)
def size(x: Tensor, *, context: RunContext, node: Any) -> Tensor:
    """The number of elements."""
    return told(context, node, [x.size], scalar=True)


def in_inference(node: Any) -> bool | str:
    """Dropout that keeps everything: no mask is asked for, and training_mode is not set."""
    masked = len(node.outputs) > 1 and bool(node.outputs[1].name)
    training = len(node.inputs) > 2 and node.inputs[2] is not None
    return not (masked or training) or "only Dropout in inference is supported"


@kernel("Dropout", since=7, types=TYPES, when=in_inference)
def dropout(x: Tensor, *rest: Any, context: RunContext) -> Tensor:
    """In inference, the same tensor."""
    return x.reshaped(x.shape)


KERNELS = (
    identity, reshape, flatten, squeeze_1, squeeze, unsqueeze_1, unsqueeze, shape, size, dropout,
)  # fmt: skip
NAMES = frozenset(item.op_type for item in KERNELS)
ALIASES = NAMES - {"Shape", "Size"}
"""What only gives its input another shape: no memory is asked for."""
