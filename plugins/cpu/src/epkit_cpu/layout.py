"""Keeps images in the channels-blocked layout from one convolution to the next.

Goes over the steps once: a convolution gives its result blocked; pooling, elementwise chains, Concat and residual
additions stay blocked where all of their images are, Split where it cuts between blocks; for any other reader the
value is reordered, once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from epkit.backend import Subgraph

from .lower.conv import BLOCK
from .lower.step import Operand, Step, counted, longs

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Blocked:
    """A value in the blocked layout."""

    value: ir.Value
    channels: int


def keep_blocked(steps: Sequence[Step], graph: Subgraph) -> list[Step]:
    """The steps with layouts chosen, and with steps that reorder where needed."""
    if not any(step.image is not None and step.image.kind == "conv" for step in steps):
        return list(steps)
    return list(_Layouts(steps, graph).run())


class _Layouts:
    def __init__(self, steps: Sequence[Step], graph: Subgraph) -> None:
        self._steps = steps
        self._graph = graph
        self._blocked: dict[ir.Value, Blocked] = {}
        self._planar: set[ir.Value] = set()  # blocked values that exist in the planar layout too

    def run(self) -> Iterator[Step]:
        for step in self._steps:
            if step.image is not None and step.image.kind == "conv":
                yield from self._conv(step)
            elif step.image is not None and step.inputs[0] in self._blocked:
                yield self._pool(step)
            elif (done := self._still_blocked(step)) is not None:
                yield done
            else:
                yield from self._as_planar(step)
        yield from self._reordered(self._graph.outputs)

    def _conv(self, step: Step) -> Iterator[Step]:
        x, weights, residual, *rest = step.inputs
        image, result = step.image, step.outputs[0]
        assert image is not None and result is not None
        source: Any = x
        in_blocked = 0
        if x in self._blocked and self._blocked[x].channels == image.channels:
            source, in_blocked = self._blocked[x], 1
        else:
            yield from self._reordered((x,))
        if image.planar:
            yield from self._reordered((residual,))
            inputs = (source, weights, residual, *rest)
            yield replace(step, inputs=inputs, attributes=image.attributes(in_blocked, 0))
            return
        made = Blocked(result, image.filters)
        if residual is not None and not isinstance(residual, np.ndarray):
            if residual not in self._blocked:
                there = Blocked(residual, image.filters)
                yield Step("to_blocked", (residual,), (there,), b"", step.nodes[:1])
                self._blocked[residual] = there
                self._planar.add(residual)
            residual = self._blocked[residual]
        self._blocked[result] = made
        yield replace(
            step,
            inputs=(source, weights, residual, *rest),
            outputs=(made,),
            attributes=image.attributes(in_blocked, 1),
        )

    def _pool(self, step: Step) -> Step:
        image, result = step.image, step.outputs[0]
        assert image is not None and result is not None
        source = self._blocked[step.inputs[0]]
        inputs = (source, *step.inputs[1:])
        if image.kind == "global":  # blocked, one pixel: the same memory as planar
            return replace(step, inputs=inputs, attributes=image.attributes(1, 0))
        made = self._blocked[result] = Blocked(result, source.channels)
        return replace(step, inputs=inputs, outputs=(made,), attributes=image.attributes(1, 1))

    def _still_blocked(self, step: Step) -> Step | None:
        """The step on blocked images, if it can be."""
        if step.kernel == "pointwise":
            return self._pointwise(step)
        if step.kernel == "split":
            return self._split(step)
        return self._concat(step) if step.kernel == "concat" else None

    def _pointwise(self, step: Step) -> Step | None:
        images = [self._blocked[v] for v in step.inputs if v in self._blocked]
        if not images or len({image.channels for image in images}) > 1 or images[0].channels % BLOCK:
            return None  # the lanes behind the last channel could become infinite
        ranks = {len(v.shape) for image in images if (v := image.value).shape is not None}
        if len(ranks) != 1:
            return None
        channels, (rank,) = images[0].channels, ranks
        inputs: list[Operand] = []
        for value in step.inputs:
            if value in self._blocked:
                inputs.append(self._blocked[value])
                continue
            array = value if isinstance(value, np.ndarray) else self._graph.constant(value)
            if array is None or (blocked := _spread(array, channels, rank)) is None:
                return None
            inputs.append(blocked if array.size > 1 else value)
        outputs = tuple(Blocked(value, channels) for value in step.outputs if value is not None)
        self._blocked.update((made.value, made) for made in outputs)
        return replace(step, inputs=tuple(inputs), outputs=outputs)

    def _concat(self, step: Step) -> Step | None:
        images = [self._blocked.get(value) for value in step.inputs]
        result = step.outputs[0]
        if step.attributes != longs(1) or result is None:
            return None
        found = [image for image in images if image is not None and image.channels % BLOCK == 0]
        if len(found) != len(images):
            return None
        made = self._blocked[result] = Blocked(result, sum(image.channels for image in found))
        return replace(step, inputs=tuple(found), outputs=(made,))

    def _split(self, step: Step) -> Step | None:
        image = self._blocked.get(step.inputs[0])
        shapes = [None if value is None else value.shape for value in step.outputs]
        channels = [shape[1] for shape in shapes if shape is not None and len(shape) > 2]
        parts = [dim for dim in channels if isinstance(dim, int) and dim % BLOCK == 0]
        axis = struct.unpack_from("<q", step.attributes)[0]
        if image is None or axis != 1 or len(parts) != len(step.outputs) or sum(parts) != image.channels:
            return None
        outputs = tuple(Blocked(value, part) for value, part in zip(step.outputs, parts, strict=True))
        self._blocked.update((made.value, made) for made in outputs)
        how = longs(1, 0) + counted([part // BLOCK for part in parts])
        return replace(step, inputs=(image,), outputs=outputs, attributes=how)

    def _as_planar(self, step: Step) -> Iterator[Step]:
        yield from self._reordered(step.inputs)
        yield step

    def _reordered(self, values: Sequence[Operand]) -> Iterator[Step]:
        for value in values:
            if value is None or isinstance(value, np.ndarray):
                continue
            image = self._blocked.get(value)
            if image is not None and image.value not in self._planar:
                self._planar.add(image.value)
                node = image.value.producer()
                nodes = () if node is None else (node,)
                yield Step("from_blocked", (image,), (image.value,), longs(image.channels), nodes)


def _spread(array: np.ndarray[Any, Any], channels: int, rank: int) -> np.ndarray[Any, Any] | None:
    """A constant that broadcasts along channels only, as it broadcasts with blocked images of a rank."""
    if array.size == 1:
        return array.reshape(()) if array.ndim <= rank else None
    full = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or full != (1, channels, *(1,) * (rank - 2)):
        return None
    return np.ascontiguousarray(array.reshape(channels // BLOCK, *(1,) * (rank - 2), BLOCK))
