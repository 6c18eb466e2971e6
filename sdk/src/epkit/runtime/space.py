"""One graph's memory on one device during a run."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.memory import HostAllocator, Stream, Tensor
from ..memory.arena import Arena, fits
from ..memory.graph_memory import GraphMemory, Marker
from ..memory.planner import MemoryPlan

PLANS_KEPT = 32
"""Shape keys for which a plan is remembered, per graph and device."""


class Space:
    """Plans of one graph on one device; shared by all runs of a session.

    Where a shape is not known in advance, the first run under a shape key allocates as it goes and its
    sizes are remembered; from the second on, the key has a plan.
    """

    def __init__(self, memory: GraphMemory, arena: Arena) -> None:
        self.memory = memory
        self.arena = arena
        # Only values in the host's memory leave a graph, so whatever is not managed is NumPy's.
        self.managed = frozenset(item.value for item in memory.alive)
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Hashable, dict[ir.Value, int]] = OrderedDict()
        self._plans: dict[Hashable, MemoryPlan] = {}

    def open(self, key: Hashable, kept: frozenset[ir.Value] = frozenset()) -> Lease:
        """The memory for one run under a shape key; ``kept``: values that outlive it."""
        if self.memory.complete:
            return Lease(self, self.memory.plan, None, kept)
        with self._lock:
            known = key in self._sizes
            if known:
                self._sizes.move_to_end(key)
            plan = self._plan(key) if known else self.memory.plan
            return Lease(self, plan, None if known else key, kept)

    def learn(self, key: Hashable, sizes: dict[ir.Value, int]) -> None:
        """Remember the sizes that a whole run under the key has shown.

        They are planned when the key comes again: shapes that never do cost next to nothing.
        """
        with self._lock:
            self._sizes[key] = sizes
            self._plans.pop(key, None)
            if len(self._sizes) > PLANS_KEPT:
                oldest, _ = self._sizes.popitem(last=False)
                self._plans.pop(oldest, None)

    def _plan(self, key: Hashable) -> MemoryPlan:
        if key not in self._plans:
            self._plans[key] = self.memory.replan(self._sizes[key])
        return self._plans[key]

    def plans(self) -> list[MemoryPlan]:
        """The static plan, and those for the shapes seen."""
        with self._lock:
            return [self.memory.plan, *map(self._plan, self._sizes)]


class Lease:
    """Memory of one run of one graph on one device. Not shared between threads.

    A buffer that is not needed any more serves this run only: a device that works late orders what one stream
    does, and nothing keeps another run's stream from being earlier.
    """

    def __init__(
        self,
        space: Space,
        plan: MemoryPlan,
        learning: Hashable | None,
        kept: frozenset[ir.Value] = frozenset(),
    ) -> None:
        self.space = space
        self.kept = kept
        self.plan = plan
        self.learning = learning
        self._block: Any = None
        self._buffers: dict[ir.Value, tuple[int, Any]] = {}
        self._spare: list[tuple[int, Any]] = []
        self._sizes: dict[ir.Value, int] = {}
        self._own: dict[ir.Value, tuple[Tensor, int, Any]] = {}
        self._strayed: set[ir.Value] = set()
        self._wholes = frozenset(plan.within.values())

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """Memory for a value: its planned place, else a buffer of its own.

        A result's memory is nobody else's.
        """
        arena = self.space.arena
        if value not in self.space.managed:
            return self._unmanaged(value, shape, dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if self.learning is not None:
            self._sizes[value] = nbytes
        if value in self.kept:
            return self._of_its_own(value, shape, dtype)
        place = self.plan.places.get(value)
        if place is not None and self._fits(value, nbytes, place.nbytes):
            if self._block is None:
                self._block = arena.take(self.plan.size)
            return arena.allocator.view(self._block, place.offset, shape, dtype)
        if value in self._buffers:
            self._spare.append(self._buffers.pop(value))
        self._buffers[value] = self._buffer(nbytes)
        return arena.allocator.view(self._buffers[value][1], 0, shape, dtype)

    def _of_its_own(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """Memory that no plan and no other value has."""
        if value in self._own:
            self._spare.append(self._own.pop(value)[1:])
        arena, nbytes = self.space.arena, math.prod(shape) * dtype.itemsize
        buffer = arena.take(nbytes)
        tensor = arena.allocator.view(buffer, 0, tuple(shape), dtype)
        self._own[value] = (tensor, nbytes, buffer)
        return tensor

    def hand_over(self, value: ir.Value, tensor: Tensor, stream: Stream) -> tuple[Tensor, Any]:
        """A kept value in memory of its own, which is the caller's from now on; copied if it lies elsewhere.

        With the tensor comes the arena's buffer, or None where the provider minds the memory.
        """
        if self.space.arena.allocator.lasts(tensor):
            return tensor, None
        if value not in self._own or self._own[value][0] is not tensor:
            target = self._of_its_own(value, tuple(tensor.shape), tensor.dtype)
            self.space.arena.allocator.copy(tensor, target, stream)
        found, _, buffer = self._own.pop(value)
        return found, buffer

    def _fits(self, value: ir.Value, nbytes: int, planned: int) -> bool:
        """True if a value may lie where it is planned.

        One that lies within another, of which it is a part, must have its planned size; else the whole moves away.
        """
        within = self.plan.within
        if nbytes == planned and value not in self._strayed:
            return True
        while value in within:
            value = within[value]
            self._strayed.add(value)
        return nbytes < planned and value not in self._wholes and value not in self._strayed

    def _buffer(self, nbytes: int) -> tuple[int, Any]:
        """A spare buffer of about the size, else one of the arena's."""
        fitting = [item for item in self._spare if fits(item[0], nbytes)]
        if not fitting:
            return nbytes, self.space.arena.take(nbytes)
        item = min(fitting, key=lambda item: item[0])
        self._spare.remove(item)
        return item

    def _unmanaged(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        if isinstance(self.space.arena.allocator, HostAllocator):
            return np.empty(shape, dtype)
        raise ValueError(
            f"memory was asked for {value.name}, which the provider's memory_steps do not "
            "name among the writes"
        )

    def release(self, marker: Marker) -> None:
        """A node or action is done: give back what only it still needed."""
        if self._buffers:
            for value in self.space.memory.releases.get(marker, ()):
                if value in self._buffers:
                    self._spare.append(self._buffers.pop(value))

    def close(self, complete: bool) -> None:
        """End of the run. ``complete``: it ended well, so its sizes are worth a plan."""
        own = [item[1:] for item in self._own.values()]
        for _, buffer in (*self._buffers.values(), *self._spare, *own):
            self.space.arena.give(buffer)
        self._own.clear()
        self._buffers.clear()
        self._spare.clear()
        if self._block is not None:
            self.space.arena.give(self._block)
            self._block = None
        if complete and self.learning is not None:
            self.space.learn(self.learning, self._sizes)
