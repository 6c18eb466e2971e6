"""Capture: once a partition has run a few times under the same shapes, its provider may record a replay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from ..backend.memory import Tensor
from ..backend.program import Program, RunContext

RUNS_BEFORE = 2
"""Ordinary runs under a shape key before its provider is asked for a replay."""

REPLAYS_KEPT = 16
"""Replays kept for each partition."""


class Replays:
    """The replays of one partition, by the shapes of its inputs. Safe from several threads."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._replays: OrderedDict[Hashable, Program] = OrderedDict()
        self._retired: list[Program] = []

    def choose(self, context: RunContext, inputs: Sequence[Tensor]) -> Program:
        """The program to run for these inputs: a replay if there is one, else the partition's own."""
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs if hasattr(tensor, "shape"))
        with self._lock:
            if key in self._replays:
                self._replays.move_to_end(key)
                return self._replays[key]
            runs = self._seen.pop(key, 0)
            self._seen[key] = runs + 1
            if len(self._seen) > 4 * REPLAYS_KEPT:
                self._seen.popitem(last=False)
            if runs != RUNS_BEFORE:
                return self.program
            replay = self.program.capture(context, inputs)
            if replay is None:
                return self.program
            self._keep(key, replay)
            return replay

    def _keep(self, key: Hashable, replay: Program) -> None:
        self._replays[key] = replay
        if len(self._replays) > REPLAYS_KEPT:
            self._retired.append(self._replays.popitem(last=False)[1])  # another run may still be in it

    def close(self) -> None:
        """Close all replays."""
        with self._lock:
            for replay in (*self._replays.values(), *self._retired):
                replay.close()
            self._replays.clear()
            self._retired.clear()
