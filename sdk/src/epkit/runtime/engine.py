"""A compiled model with its executors and its memory: what a session runs, and may exchange for another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from ..backend.blame import blame
from ..compiling import Compiled
from ..errors import EpkitError
from ..kernels.attributes import STRING
from ..model.walk import all_graphs
from ..partition.placement import Placement
from ..partition.schedule import HOST_PLACE, RunPartition, all_schedules
from .context import RunState
from .executor import Executor, make_arenas
from .feeds import Foreign
from .memory_report import MemoryReport, with_program
from .on_device import placed
from .options import RunOptions
from .replay import Replays


class Engine:
    """Runs one compiled model. ``running`` counts the runs under way; the session minds it."""

    def __init__(
        self, compiled: Compiled, *, capture: bool = False, budgets: Mapping[str, int] | None = None
    ) -> None:
        plan = compiled.plan
        self.compiled = compiled
        self.bounds = plan.partitioned.bounds
        self.graph_inputs = tuple(plan.partitioned.model.graph.inputs)
        self.running = 0
        self._programs = compiled.programs
        self._arenas = make_arenas(self.bounds, budgets or {})
        self._replays = {name: Replays(p) for name, p in compiled.programs.items()} if capture else {}
        if budgets:
            self._limit_programs()
        self.main = Executor(
            plan.schedule, self.bounds, compiled.programs, plan.memory, self._arenas, self._replays
        )

    def _limit_programs(self) -> None:
        """Give each program the budget of its device; its weights count first.

        Raises:
            DeviceMemoryError: if they are too much already; everything is closed then.
        """
        for schedule in all_schedules(self.compiled.plan.schedule):
            for action in schedule.actions:
                if not isinstance(action, RunPartition):
                    continue
                budget = self._arenas[action.place].budget
                if budget is None:
                    continue
                program = self._programs[action.partition.name]
                program.limit(budget)
                own = 0 if (held := program.memory()) is None else held.packed - held.mapped
                if not budget.reserve(own, "packed weights") and (refusal := budget.refusal("compile")):
                    self.close(lambda problem: None)
                    raise refusal.at(model=self.compiled.name, partition=action.partition.name)

    @property
    def placement(self) -> Placement:
        """Who runs which node, and why not elsewhere."""
        return self.compiled.plan.placement

    def run(
        self, values: Sequence[Any], options: RunOptions, kept: frozenset[int] = frozenset()
    ) -> list[Any]:
        """Compute the model's outputs; ``kept``: indices of those that stay on the device that has them."""
        state = RunState(options, self.bounds)
        try:
            given = [placed(value, state) if isinstance(value, Foreign) else value for value in values]
            results = own(self.main.run(state, given, kept=kept), given)
        except BaseException:
            with suppress(EpkitError):  # the first error says what happened
                state.close()
            raise
        state.close()
        return results

    @property
    def memory(self) -> MemoryReport:
        """Memory of the values: planned, held and peak. What programs hold themselves counts too."""
        plans = tuple(plan for space in self.main.all_spaces() for plan in space.plans())
        arenas = {place: arena.statistics() for place, arena in self._arenas.items()}
        packed = mapped = 0
        for program in self._programs.values():
            if (held := program.memory()) is not None:
                arenas[HOST_PLACE] = with_program(arenas[HOST_PLACE], held)
                packed, mapped = packed + held.packed, mapped + held.mapped
        return MemoryReport(tuple(arenas.values()), plans, self._weights, packed, mapped)

    @cached_property
    def _weights(self) -> int:
        """Bytes of the model's initializers."""
        graphs = all_graphs(self.compiled.plan.partitioned.model.graph)
        tensors = [value.const_value for graph in graphs for value in graph.initializers.values()]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype != STRING)

    def shortcut(self) -> Callable[[Any], Any] | None:
        """The ``feed`` of the only program, if the whole model is that program on the host."""
        whole = None if self._replays else self.compiled.whole()
        return None if whole is None else whole[2].feed

    def reset(self) -> None:
        """Start the devices again.

        Raises:
            BrokenProviderError: if a provider raises in ``reset``.
        """
        for bound in self.bounds:
            with blame(bound.name, "reset", "run"):
                bound.provider.reset()

    def close(self, problem: Callable[[str], None]) -> None:
        """Give everything back; a plugin that raises here is told of, and keeps nothing else open."""
        for name, replays in self._replays.items():
            _close(f"the replays of {name}", replays.close, problem)
        for name, program in self._programs.items():
            _close(f"the program of {name}", program.close, problem)
        for arena in self._arenas.values():
            _close(f"the memory of {arena.device}", arena.close, problem)
        for bound in self.bounds:
            _close(f"provider {bound.name!r}", bound.provider.close, problem)


def _close(what: str, close: Callable[[], None], problem: Callable[[str], None]) -> None:
    try:
        close()
    except Exception as error:
        problem(f"{what} could not be closed: {type(error).__name__}: {error}")


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
