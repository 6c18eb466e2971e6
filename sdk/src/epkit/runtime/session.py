"""The session: a compiled model that runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np

from ..backend.blame import blame
from ..backend.hooks import Notice
from ..backend.program import Program, ProgramMemory
from ..backend.registry import Registry
from ..compiling import Compiled
from ..errors import EpkitError, InputError, RunError, Where
from ..memory.arena import ArenaStatistics
from ..memory.planner import MemoryPlan
from ..partition.placement import Placement
from ..partition.schedule import HOST_PLACE, RunPartition, Schedule
from ..trace import Recorder
from .context import RunState
from .executor import Executor, make_arenas
from .feeds import ValueInfo, check_feeds, value_info
from .options import RunOptions
from .replay import Replays


@dataclass(frozen=True)
class MemoryReport:
    """Memory of a session's values (weights apart).

    Attributes:
        arenas: what each device's arena holds, used at most, and how often it was reused.
        plans: the plans of all graphs, those learnt for shapes that came up included.
    """

    arenas: tuple[ArenaStatistics, ...]
    plans: tuple[MemoryPlan, ...]

    def __str__(self) -> str:
        lines = [
            f"{a.device}: peak {a.peak:,} bytes, in use {a.in_use:,}, {a.allocations} "
            f"allocations, {a.reused} reuses"
            for a in self.arenas
        ]
        return "\n".join([*lines, *(f"  {plan}" for plan in self.plans if plan.places)])


class Session:
    """A model ready to run. Safe to call from several threads at once.

    Make one with :func:`epkit.load`. Call it with inputs by name, get outputs by name:
    ``outputs = session(input_ids=ids)``.

    Attributes:
        placement: who runs which node, and why not elsewhere.
        inputs, outputs: the model's interface.
        warnings: what was odd about the model.
        load_trace: the stages of loading, as a recorder.
    """

    def __init__(
        self, compiled: Compiled, registry: Registry, load_trace: Recorder, *, capture: bool = False
    ) -> None:
        plan = compiled.plan
        self.name = compiled.name
        self.warnings = compiled.warnings
        self.placement: Placement = plan.placement
        self.load_trace = load_trace
        self._registry = registry
        self._bounds = plan.partitioned.bounds
        self._programs = compiled.programs
        self._arenas = make_arenas(self._bounds)
        self._replays = {name: Replays(p) for name, p in compiled.programs.items()} if capture else {}
        self._main = Executor(
            plan.schedule, self._bounds, compiled.programs, plan.memory, self._arenas, self._replays
        )
        graph = plan.partitioned.model.graph
        self._graph_inputs = tuple(graph.inputs)
        self.inputs: tuple[ValueInfo, ...] = tuple(map(value_info, graph.inputs))
        self.outputs: tuple[ValueInfo, ...] = tuple(map(value_info, graph.outputs))
        self._index = {info.name: index for index, info in enumerate(self.outputs)}
        self.metadata: dict[str, str] = dict(plan.partitioned.model.metadata_props)
        self._lock = threading.Lock()
        self._running = 0
        self._closing = False
        self._feed = None if capture else shortcut(plan.schedule, compiled.programs, self.outputs)

    # ---- running ----

    def __call__(self, /, **inputs: Any) -> dict[str, Any]:
        """Run with inputs by keyword; returns all outputs by name."""
        return self.run(None, inputs)

    def run(
        self, outputs: Iterable[str] | None, feeds: Mapping[str, Any], options: RunOptions | None = None
    ) -> dict[str, Any]:
        """Run the model.

        Args:
            outputs: names of the outputs wanted; None for all.
            feeds: inputs by name. Tensors are NumPy arrays (or anything with ``__array__`` or
                ``__dlpack__``),
                sequences are lists.
            options: tag, cancellation, profile.

        Returns:
            The outputs by name. The arrays belong to the caller.

        Raises:
            InputError: if a name, dtype, rank or dimension does not fit.
            RunError: if a partition or node failed; names provider, partition and node.
            CancelledError: if the run was cancelled.
        """
        if self._feed is not None and options is None and outputs is None and not self._registry.observed:
            with suppress(Exception):  # the long way says what is wrong
                outcome = self._feed(feeds)
                if outcome is not NotImplemented:
                    return outcome  # type: ignore[no-any-return]
        options = options or RunOptions()
        wanted = self._wanted(outputs)
        values = check_feeds(feeds, self._graph_inputs, self.inputs, self.name)
        self._enter()
        start = time.perf_counter()
        try:
            results = self._run(values, options)
        except EpkitError as error:
            self._registry.notify(
                Notice("error", self.name, time.perf_counter() - start, {"error": error.what})
            )
            error.at(model=self.name)
            raise
        finally:
            self._leave()
        self._registry.notify(Notice("run", self.name, time.perf_counter() - start, {"tag": options.tag}))
        return {name: results[index] for name, index in wanted.items()}

    def _run(self, values: Sequence[Any], options: RunOptions) -> list[Any]:
        state = RunState(options, self._bounds)
        try:
            results = own(self._main.run(state, values), values)
        except BaseException:
            with suppress(EpkitError):  # the first error says what happened
                state.close()
            raise
        state.close()
        return results

    def _wanted(self, outputs: Iterable[str] | None) -> Mapping[str, int]:
        """The outputs to return, with their places among all."""
        if outputs is None:
            return self._index
        chosen = list(outputs)
        for name in chosen:
            if name not in self._index:
                raise InputError(
                    f"the model has no output {name!r}",
                    where=Where(stage="run", model=self.name),
                    remedy="its outputs are: " + ", ".join(self._index),
                )
        return {name: self._index[name] for name in chosen}

    # ---- reports ----

    @property
    def memory(self) -> MemoryReport:
        """Memory of the session's values: planned, held and peak. What programs hold themselves counts too."""
        plans = tuple(plan for space in self._main.all_spaces() for plan in space.plans())
        arenas = {place: arena.statistics() for place, arena in self._arenas.items()}
        for program in self._programs.values():
            if (held := program.memory()) is not None:
                arenas[HOST_PLACE] = with_program(arenas[HOST_PLACE], held)
        return MemoryReport(tuple(arenas.values()), plans)

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the session's providers in order of preference, the fallback included."""
        return tuple(bound.name for bound in self._bounds)

    # ---- closing ----

    def reset(self) -> None:
        """Start the devices again after a failure; what was compiled stays.

        Raises:
            RunError: if a run is under way.
            BrokenProviderError: if a provider raises in ``reset``.
        """
        with self._lock:
            if self._running:
                raise RunError(
                    f"{self._running} run(s) are under way, so that the devices cannot be started again",
                    where=Where(stage="run", model=self.name),
                    remedy="wait for them, or cancel them with RunOptions(cancel=...)",
                )
            for bound in self._bounds:
                with blame(bound.name, "reset", "run"):
                    bound.provider.reset()

    def _enter(self) -> None:
        with self._lock:
            if self._closing:
                raise RunError(
                    "the session is closed",
                    where=Where(stage="run", model=self.name),
                    remedy="load the model again",
                )
            self._running += 1

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            last = self._closing and self._running == 0
        if last:
            self._release()

    def close(self) -> None:
        """Give everything back. Runs that are under way end first.

        Later ones are refused. May be called twice.

        A plugin that raises here keeps nothing else open: its fault goes to ``warnings`` and to the
            observers.
        """
        with self._lock:
            first = not self._closing
            self._closing = True
            self._feed = None
            idle = self._running == 0
        if first and idle:
            self._release()

    def _release(self) -> None:
        for name, replays in self._replays.items():
            self._close(f"the replays of {name}", replays.close)
        for name, program in self._programs.items():
            self._close(f"the program of {name}", program.close)
        for arena in self._arenas.values():
            self._close(f"the memory of {arena.device}", arena.close)
        for bound in self._bounds:
            self._close(f"provider {bound.name!r}", bound.provider.close)

    def _close(self, what: str, close: Callable[[], None]) -> None:
        try:
            close()
        except Exception as error:
            text = f"{what} could not be closed: {type(error).__name__}: {error}"
            self.warnings += (text,)
            self._registry.notify(Notice("error", self.name, 0.0, {"error": text}))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"<epkit session {self.name}: ({inputs}) -> ({outputs}) on {', '.join(self.providers)}>"


def shortcut(
    schedule: Schedule, programs: Mapping[str, Program], outputs: Sequence[ValueInfo]
) -> Callable[[Any], Any] | None:
    """The ``feed`` of the session's only program, if the whole model is that program on the host."""
    if len(schedule.actions) != 1 or not isinstance(action := schedule.actions[0], RunPartition):
        return None
    program = programs[action.partition.name]
    made = [str(value.name) for value in action.partition.subgraph.outputs]
    if program.feed is None or action.place != HOST_PLACE or made != [info.name for info in outputs]:
        return None
    return program.feed


def with_program(arena: ArenaStatistics, held: ProgramMemory) -> ArenaStatistics:
    """The statistics of an arena and of memory that a program manages beside it."""
    return replace(
        arena,
        held=arena.held + held.held,
        peak=arena.peak + held.peak,
        allocations=arena.allocations + held.allocations,
        reused=arena.reused + held.reused,
    )


def own(results: list[Any], inputs: Sequence[Any]) -> list[Any]:
    """Make sure that results share memory with no input, no weight and no other result: such are copied."""
    given = list(_arrays(inputs))
    finished: list[Any] = []
    for result in results:
        if isinstance(result, np.generic):
            result = np.asarray(result)
        if isinstance(result, np.ndarray):
            others = given + [other for other in finished if isinstance(other, np.ndarray)]
            shared = not result.flags.writeable or any(np.may_share_memory(result, other) for other in others)
            finished.append(result.copy() if shared else result)
        elif isinstance(result, list):
            finished.append([item.copy() if isinstance(item, np.ndarray) else item for item in result])
        else:
            finished.append(result)
    return finished


def _arrays(values: Iterable[Any]) -> Iterator[np.ndarray[Any, Any]]:
    """All arrays among values, those in sequences included."""
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list):
            yield from _arrays(value)
