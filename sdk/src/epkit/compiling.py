"""The last stage: each provider compiles its partitions, or gets back what it compiled before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from .backend.artifact import ArtifactStore
from .backend.bound import Bound
from .backend.program import Program
from .backend.provider import Provider
from .backend.subgraph import Subgraph
from .errors import CompileError, EpkitError, Where
from .partition.schedule import HOST_PLACE, RunPartition, Schedule, all_schedules
from .planning import Plan


@dataclass(frozen=True)
class Compiled:
    """A model that is ready to run: the plan, and a program for each partition.

    Attributes:
        origin: the key of the model in the cache, if it has one.
    """

    name: str
    warnings: tuple[str, ...]
    plan: Plan
    programs: Mapping[str, Program]
    origin: str = ""

    def whole(self) -> tuple[Bound, Subgraph, Program] | None:
        """The only program, if the model is that program on the host and nothing else."""
        plan = self.plan
        if len(plan.schedule.actions) != 1 or not isinstance(
            action := plan.schedule.actions[0], RunPartition
        ):
            return None
        part = action.partition
        made = list(part.subgraph.outputs) == list(plan.partitioned.model.graph.outputs)
        if action.place != HOST_PLACE or part.provider is None or not made:
            return None
        return plan.partitioned.bounds[part.provider], part.subgraph, self.programs[part.name]

    def __str__(self) -> str:
        return f"{len(self.programs)} programs\n" + "\n".join(
            f"  {name}: {type(program).__module__}.{type(program).__name__}"
            for name, program in self.programs.items()
        )


def compile_programs(
    schedule: Schedule,
    bounds: tuple[Bound, ...],
    cache: str | os.PathLike[str] | None = None,
    origin: str = "",
) -> dict[str, Program]:
    """A program for each partition, by the partition's name; if one fails, the others are closed again.

    Args:
        schedule: of the main graph.
        bounds: the session's providers.
        cache: a folder for the programs of providers that save them.
        origin: the key of the model in the cache, if it has one.

    Raises:
        CompileError: naming provider and partition.
    """
    store = None if cache is None else ArtifactStore(cache, origin)
    programs: dict[str, Program] = {}
    try:
        for graph in all_schedules(schedule):
            for action in graph.actions:
                if isinstance(action, RunPartition):
                    part = action.partition
                    assert part.provider is not None
                    programs[part.name] = _program(bounds[part.provider], part.subgraph, store)
    except BaseException:
        for program in programs.values():
            program.close()
        raise
    return programs


def _program(bound: Bound, subgraph: Subgraph, store: ArtifactStore | None) -> Program:
    if store is None or type(bound.provider).save is Provider.save:
        return _compile(bound, subgraph)
    program = store.load(bound, subgraph)
    if program is None:
        program = _compile(bound, subgraph)
        store.save(bound, subgraph, program)
    return program


def _compile(bound: Bound, subgraph: Subgraph) -> Program:
    where = Where(stage="compile", provider=bound.name, partition=subgraph.name)
    try:
        program = bound.provider.compile(subgraph)
    except EpkitError as error:
        error.at(stage="compile", provider=bound.name, partition=subgraph.name)
        raise
    except Exception as error:
        raise CompileError(
            f"provider {bound.name!r} failed to compile {subgraph.name}, which it had claimed: "
            f"{type(error).__name__}: {error}",
            where=where,
            remedy=f"report this to the maker of the plugin, or leave {bound.name!r} out of providers",
        ) from error
    if not isinstance(program, Program):
        raise CompileError(
            f"provider {bound.name!r} compiled {subgraph.name} to a {type(program).__name__}, not a Program",
            where=where,
            remedy=f"report this to the maker of the plugin, or leave {bound.name!r} out of providers",
        )
    return program
