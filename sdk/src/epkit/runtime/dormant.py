"""The engine of a session that began from a snapshot: it sleeps until more is asked for than outputs by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..backend.blame import blame
from ..memory.arena import ArenaStatistics
from .memory_report import MemoryReport, with_program
from .snapshot import Snapshot

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..backend.bound import Bound
    from ..compiling import Compiled
    from ..partition.placement import Placement
    from .engine import Engine
    from .options import RunOptions


class DormantEngine:
    """Has an engine's members. ``feed`` is the snapshot's program; anything else wakes the real engine, once.

    Args:
        snapshot: what to run.
        waken: is given the model's engine, when there is one.
    """

    def __init__(self, snapshot: Snapshot, waken: Callable[[Engine], None]) -> None:
        self.running = 0
        self._snapshot = snapshot
        self._waken = waken
        self._lock = threading.Lock()
        self._awake: Engine | None = None
        self._closed = False

    def wake(self) -> Engine:
        """The real engine.

        Raises:
            EpkitError: as loading the model does.
        """
        with self._lock:
            if self._awake is None:
                from .engine import Engine

                self._awake = Engine(self._snapshot.complete())
                self._waken(self._awake)
                _close("the snapshot's program", self._snapshot.program.close, lambda problem: None)
                if self._closed:  # somebody looks at a closed session
                    self._awake.close(lambda problem: None)
            return self._awake

    @property
    def compiled(self) -> Compiled:
        return self.wake().compiled

    @property
    def placement(self) -> Placement:
        return self.wake().placement

    @property
    def graph_inputs(self) -> Sequence[ir.Value]:
        return self.wake().graph_inputs

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return self._snapshot.bounds if self._awake is None else self._awake.bounds

    def run(
        self, values: Sequence[Any], options: RunOptions, kept: frozenset[int] = frozenset()
    ) -> list[Any]:
        """As the engine does."""
        return self.wake().run(values, options, kept)

    def shortcut(self) -> Callable[[Any], Any] | None:
        """The program's ``feed``."""
        return self._snapshot.program.feed if self._awake is None else self._awake.shortcut()

    @property
    def memory(self) -> MemoryReport:
        """Asleep: of the program alone, which has no plan of the core's."""
        if self._awake is not None:
            return self._awake.memory
        nothing = ArenaStatistics("host", 0, 0, 0, 0, 0)
        held = self._snapshot.program.memory()
        weights = self._snapshot.weights
        if held is None:
            return MemoryReport((nothing,), (), weights)
        return MemoryReport((with_program(nothing, held),), (), weights, held.packed, held.mapped)

    def reset(self) -> None:
        """Start the devices again."""
        for bound in self.bounds:
            with blame(bound.name, "reset", "run"):
                bound.provider.reset()

    def close(self, problem: Callable[[str], None]) -> None:
        """Give everything back; the snapshot has instances of providers of its own."""
        with self._lock:
            self._closed = True
            if self._awake is not None:
                self._awake.close(problem)
            else:
                _close("the snapshot's program", self._snapshot.program.close, problem)
            for bound in self._snapshot.bounds:
                _close(f"provider {bound.name!r}", bound.provider.close, problem)


def _close(what: str, close: Callable[[], None], problem: Callable[[str], None]) -> None:
    try:
        close()
    except Exception as error:
        problem(f"{what} could not be closed: {type(error).__name__}: {error}")
