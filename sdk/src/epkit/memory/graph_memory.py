"""The memory of one graph on one device: lifetimes, the plan where shapes are known, what to give
back when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..backend.program import MemoryStep
from ..backend.subgraph import element_type, static_shape
from ..dtypes import numpy_dtype
from .joins import Join, joins_of
from .lifetimes import Lifetime, lifetimes
from .planner import MemoryPlan, plan_memory

Marker = ir.Node | int
"""What has just run: a node that its program reports, or a whole action (by index)."""


@dataclass(frozen=True)
class GraphMemory:
    """One graph's values in the core's memory on one device.

    Attributes:
        alive: their lifetimes.
        plan: offsets of those with static shapes.
        complete: True if ``plan`` holds them all, so that no shape key is needed.
        releases: values that nobody needs after a node or action.
        joins: values that may lie within others.
    """

    alive: tuple[Lifetime, ...]
    plan: MemoryPlan
    complete: bool
    releases: Mapping[Marker, tuple[ir.Value, ...]]
    alignment: int
    joins: tuple[Join, ...] = ()

    def replan(self, sizes: Mapping[ir.Value, int]) -> MemoryPlan:
        """The plan for sizes (bytes) that a run has shown."""
        return plan_memory(self.alive, sizes, self.alignment, self.joins)


def graph_memory(
    steps: Sequence[tuple[Marker, MemoryStep]], escaping: Iterable[ir.Value], alignment: int
) -> GraphMemory:
    """Plan one graph on one device; ``steps`` in the order in which they run."""
    alive = lifetimes([step for _, step in steps], escaping)
    sizes = {item.value: size for item in alive if (size := static_nbytes(item.value)) is not None}
    joins = joins_of(step for _, step in steps)
    releases: dict[Marker, list[ir.Value]] = {}
    for item in alive:
        releases.setdefault(steps[item.end][0], []).append(item.value)
    return GraphMemory(
        alive,
        plan_memory(alive, sizes, alignment, joins),
        len(sizes) == len(alive),
        {marker: tuple(values) for marker, values in releases.items()},
        alignment,
        joins,
    )


def static_nbytes(value: ir.Value) -> int | None:
    """Bytes of a value whose shape and type are known before it is computed, else None."""
    shape, kind = static_shape(value), element_type(value)
    if shape is None or not kind or kind == "string":
        return None
    return int(np.prod(shape, dtype=np.int64)) * numpy_dtype(kind).itemsize
