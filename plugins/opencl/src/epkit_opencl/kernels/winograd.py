"""Winograd convolution: kernels of 3 x 3 with fewer multiplications, as products of matrices between two transforms.

The result differs from the plain sums by roundings: F(4 x 4) loses about a decimal digit, F(2 x 2) hardly any.
"""

from __future__ import annotations

import math

import numpy as np

from epkit.backend import RunContext

from ..launch import launch
from ..memory import ClStream, Tensor
from .gemm import Side, finish, multiply, temporary
from .gemm_source import WIDTH, Finish
from .task import Task
from .winograd_source import Tile, data_source, result_source, weights_source

CHANNELS = 8
"""Channels of a panel whose data a work-item of a CPU transforms."""

HEAVY = 1 << 25
"""Multiplications of the plain sums from which on it pays to measure whether tiles are faster."""

LARGEST = 256 << 20
"""Bytes of the data between the transforms."""


def possible(tile: Tile, task: Task) -> bool:
    """True for large convolutions of float32 with dense 3 x 3 kernels in steps of one, whose weights are kept."""
    x, w, view = task.x, task.w, task.view
    if tuple(view.kernel) != (3, 3) or any(step != 1 for step in (*view.strides, *view.dilations)):
        return False
    if task.group != 1 or x.dtype != np.float32 or w.packed is None:
        return False
    places = x.shape[0] * math.prod(view.output)
    between = tile.points * places // tile.outputs**2 * max(w.shape[:2]) * x.dtype.itemsize
    return places * math.prod(w.shape) >= HEAVY and between <= LARGEST


def keep_only(w: Tensor, tile: Tile | None) -> None:
    """Forget the forms of the weights that were made to measure other ways than this one."""
    assert w.packed is not None
    others = "winograd" if tile is None else ""
    for key in list(w.packed):
        if key.startswith(others) and key != repr(tile):
            w.packed.pop(key, None)


def winograd(context: RunContext, tile: Tile, task: Task) -> None:
    """Compute a convolution by such tiles."""
    x, w, view = task.x, task.w, task.view
    stream = context.stream
    assert isinstance(stream, ClStream)
    lanes, each = (16, CHANNELS) if stream.gpu.is_cpu else (1, 1)
    images, channels, *sizes = x.shape
    results = w.shape[0]
    down, across = (-(-size // tile.outputs) for size in view.output)
    tiles = images * down * across
    panels = -(-tiles // WIDTH)
    wide = panels * WIDTH
    data = temporary(context, "panels", (tile.points, panels, channels, WIDTH), x, keep=False)
    places = [tiles, panels, channels, *sizes, down, across, *view.begin, each]
    group = [1, 1] if stream.gpu.is_cpu else [WIDTH, 1]
    size = [wide // lanes, -(-channels // each)]
    launch(context, data_source(tile, lanes), "data", size, [*places, x, data], group=group)
    product = temporary(context, "products", (tile.points, results, wide), x, keep=False)
    left = Side(transformed(context, tile, w), channels, 1, results * channels, tile.points)
    multiply(context, left, data, tile.points, product, (tile.points, results, wide, channels))
    more = [tensor for tensor in (task.bias, task.residual) if tensor is not None]
    places = [tiles, panels, results, *view.output, down, across]
    source = result_source(tile, lanes, task.bias is not None, task.end.text if task.end else Finish())
    size = [wide // lanes, results]
    launch(context, source, "result", size, [*places, product, task.out, *more], group=group)


def transformed(context: RunContext, tile: Tile, w: Tensor) -> Tensor:
    """The weights as (points, outputs, channels); made once."""
    assert w.packed is not None
    found = w.packed.get(repr(tile))
    if found is None:
        pairs = w.shape[0] * w.shape[1]
        found = temporary(context, repr(tile), (tile.points, *w.shape[:2]), w, keep=True)
        found.packed = {}
        size = [-(-pairs // 64) * 64]
        launch(context, weights_source(tile), "weights", size, [pairs, w, found], group=[64])
        finish(context)  # other queues may read it from now on
        w.packed[repr(tile)] = found
    return found
