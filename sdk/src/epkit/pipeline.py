"""The pipeline: read -> check -> optimise -> claim -> partition -> plan -> compile.

Each stage is a function from one frozen value to the next; ``str()`` of each value is readable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir

from .backend.blame import blame, close_quietly
from .backend.bound import Bound
from .backend.custom import CustomOperator
from .backend.program import MemoryStep, Program
from .backend.registry import Registry
from .errors import CompileError, EpkitError, OptionError, Where
from .memory.graph_memory import GraphMemory, Marker, graph_memory
from .model.check import CheckedModel, check
from .model.custom_schemas import register_schemas
from .model.fix import fix_dimensions
from .model.limits import Limits
from .model.read import ReadModel, read
from .optimize.optimise import Optimised, optimise
from .partition.claims import Claims, collect_claims
from .partition.partitions import Partition, Partitioned, partition
from .partition.placement import Placement, placement_of
from .partition.schedule import HOST_PLACE, RunControl, RunPartition, Schedule, Transfer, schedule
from .trace import Recorder

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
ProviderChoice = str | tuple[str, Mapping[str, Any]]

STAGES = ("read", "check", "optimise", "claim", "partition", "plan", "compile")


@dataclass(frozen=True)
class Settings:
    """What a load was asked for.

    Attributes:
        providers: names, or (name, options), in order of preference.
        fallback: the provider that takes what is left, or ``"error"`` to forbid that.
        optimise: the optimiser's level.
        fix: values for symbolic dimensions, by name.
        operators: custom operators of this load only.
        limits: what an untrusted model may ask for.
    """

    providers: tuple[ProviderChoice, ...]
    fallback: str
    optimise: str = "basic"
    fix: Mapping[str, int] = field(default_factory=dict)
    operators: tuple[CustomOperator, ...] = ()
    limits: Limits = field(default_factory=Limits)
    base_dir: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class Plan:
    """Order of work, transfers and memory, for the main graph and all bodies."""

    partitioned: Partitioned
    schedule: Schedule
    memory: Mapping[Schedule, Mapping[int, GraphMemory]]
    placement: Placement

    def __str__(self) -> str:
        lines = [str(self.schedule)]
        for graph, places in self.memory.items():
            for place, memory in places.items():
                owner = "host" if place == HOST_PLACE else self.partitioned.bounds[place].device.name
                state = "" if memory.complete else "; the rest is planned for each shape as it comes"
                lines.append(f"memory of {graph.graph.graph.name!r} on {owner}: {memory.plan}{state}")
        return "\n".join([*lines, str(self.placement)])


@dataclass(frozen=True)
class Compiled:
    """A model that is ready to run: the plan, and a program for each partition."""

    name: str
    warnings: tuple[str, ...]
    plan: Plan
    programs: Mapping[str, Program]

    def __str__(self) -> str:
        return f"{len(self.programs)} programs\n" + "\n".join(
            f"  {name}: {type(program).__module__}.{type(program).__name__}"
            for name, program in self.programs.items()
        )


Stage = ReadModel | CheckedModel | Optimised | Claims | Partitioned | Plan | Compiled


def stages(
    source: Source, settings: Settings, registry: Registry, recorder: Recorder | None = None
) -> Iterator[tuple[str, Stage]]:
    """Run the pipeline step by step: yields each stage's name and value.

    Whoever takes the last value closes its programs and providers; until then, they are closed here.

    Raises:
        EpkitError: with the stage and the model's name filled in.
    """
    step = _Stepper(recorder or Recorder())
    custom = _custom_operators(settings, registry)
    register_schemas(item.schema for item in custom if item.schema is not None)
    raw = step("read", lambda: _read(source, settings))
    yield "read", raw
    step.model = raw.name
    bounds = step("claim", lambda: bind(settings, registry, custom))
    with ExitStack() as unless_handed_over:
        unless_handed_over.callback(_close_all, bounds)
        checked = step("check", lambda: check(raw, operators=_known(custom, bounds)))
        yield "check", checked
        optimised = step("optimise", lambda: optimise(checked.model, settings.optimise, registry.rewrites()))
        yield "optimise", optimised
        claims = step("claim", lambda: collect_claims(optimised.model, bounds))
        yield "claim", claims
        partitioned = step("partition", lambda: partition(claims))
        yield "partition", partitioned
        plan = step("plan", lambda: make_plan(partitioned))
        yield "plan", plan
        programs = step("compile", lambda: compile_programs(plan))
        unless_handed_over.pop_all()
    yield "compile", Compiled(raw.name, (*raw.warnings, *checked.warnings), plan, programs)


def build(
    source: Source, settings: Settings, registry: Registry, recorder: Recorder | None = None
) -> Compiled:
    """The whole pipeline."""
    *_, (_, compiled) = stages(source, settings, registry, recorder)
    assert isinstance(compiled, Compiled)
    return compiled


def _custom_operators(settings: Settings, registry: Registry) -> tuple[CustomOperator, ...]:
    """Where several have one name and version, the application's own counts, then the first package's."""
    found: dict[tuple[str, str, int], CustomOperator] = {}
    for item in (*settings.operators, *registry.operators()):
        found.setdefault((item.domain, item.name, item.since), item)
    return tuple(found.values())


def _read(source: Source, settings: Settings) -> ReadModel:
    raw = read(source, limits=settings.limits, base_dir=settings.base_dir)
    fix_dimensions(raw, settings.fix)
    return raw


class _Stepper:
    """Runs one stage: times it, and tells its errors where they happened."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.model = ""

    def __call__(self, stage: str, function: Callable[[], Any]) -> Any:
        with self.recorder.span(stage, "load"):
            try:
                return function()
            except EpkitError as error:
                error.at(stage=stage, model=self.model)
                raise


def bind(settings: Settings, registry: Registry, custom: Sequence[CustomOperator] = ()) -> tuple[Bound, ...]:
    """Instances of the named providers, then of the fallback if it was not named.

    Raises:
        ProviderError, OptionError: as the registry does.
    """
    chosen: list[tuple[str, Mapping[str, Any]]] = []
    for choice in settings.providers:
        name, options = (choice, {}) if isinstance(choice, str) else choice
        if any(name == known for known, _ in chosen):
            raise OptionError(
                f"provider {name!r} is named twice", remedy="name each provider once, best first"
            )
        chosen.append((name, options))
    named = len(chosen)
    if settings.fallback != "error" and all(name != settings.fallback for name, _ in chosen):
        chosen.append((settings.fallback, {}))
    bounds: list[Bound] = []
    try:
        for index, (name, options) in enumerate(chosen):
            bounds.append(_bind(registry, name, options, index >= named, custom))
    except EpkitError:
        _close_all(bounds)
        raise
    return tuple(bounds)


def _close_all(bounds: Sequence[Bound]) -> None:
    for bound in bounds:
        close_quietly(bound.provider)


def _bind(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    fallback: bool,
    custom: Sequence[CustomOperator],
) -> Bound:
    provider, devices = registry.create(name, options)
    device = devices.found[0]
    try:
        with blame(name, "add_operators", "claim"):
            provider.add_operators(custom)
        with blame(name, "allocator", "claim"):
            return Bound(provider, device, provider.allocator(device), fallback)
    except EpkitError:
        close_quietly(provider)
        raise


def _known(custom: Sequence[CustomOperator], bounds: Sequence[Bound]) -> Callable[[str, str, int], bool]:
    """Says whether an operator outside the standard is known to a package or a provider."""
    names = {(item.domain, item.name) for item in custom}

    def known(domain: str, name: str, version: int) -> bool:
        return (domain, name) in names or any(_knows(bound, domain, name) for bound in bounds)

    return known


def _knows(bound: Bound, domain: str, name: str) -> bool:
    with blame(bound.name, "knows", "check"):
        return bool(bound.provider.knows(domain, name))


def make_plan(partitioned: Partitioned) -> Plan:
    """Order the work and plan the memory of every graph on every device."""
    main = schedule(partitioned.main, partitioned.bounds)
    memory = {graph: _memory_of(graph, partitioned.bounds) for graph in _schedules(main)}
    return Plan(partitioned, main, memory, placement_of(partitioned, main))


def _schedules(graph: Schedule) -> Iterator[Schedule]:
    yield graph
    for action in graph.actions:
        if isinstance(action, RunControl):
            for body in action.bodies.values():
                yield from _schedules(body)


def _memory_of(graph: Schedule, bounds: Sequence[Bound]) -> dict[int, GraphMemory]:
    steps: dict[int, list[tuple[Marker, MemoryStep]]] = {HOST_PLACE: []}
    results = [value for value in graph.graph.graph.outputs if value is not None]
    leaving: dict[int, list[ir.Value]] = {HOST_PLACE: results}
    for index, action in enumerate(graph.actions):
        for place, marker, step in _memory_steps(index, action, bounds):
            steps.setdefault(place, []).append((marker, step))
    # Copies to a device may be under way until the end of the graph, where the run waits for all streams.
    sent = tuple(a.value for a in graph.actions if isinstance(a, Transfer) and a.from_place == HOST_PLACE)
    if sent:
        steps[HOST_PLACE].append((len(graph.actions), MemoryStep(None, sent, (), ())))
    return {
        place: graph_memory(
            found, leaving.get(place, ()), 64 if place < 0 else bounds[place].allocator.alignment
        )
        for place, found in steps.items()
    }


def _memory_steps(
    index: int, action: RunPartition | Transfer | RunControl, bounds: Sequence[Bound]
) -> Iterator[tuple[int, Marker, MemoryStep]]:
    """(place, marker, step) of one action. What a transfer brings to the host, NumPy allocates."""
    if isinstance(action, Transfer):
        value = (action.value,)
        yield action.from_place, index, MemoryStep(None, value, (), ())
        if action.to_place != HOST_PLACE:
            yield action.to_place, index, MemoryStep(None, (), value, ())
    elif isinstance(action, RunControl):
        captured = tuple(value for body in action.bodies.values() for value in body.graph.captures)
        read = tuple(value for value in action.node.inputs if value is not None) + captured
        yield HOST_PLACE, index, MemoryStep(action.node, read, (), tuple(action.node.outputs))
    else:
        provider = action.partition.provider
        assert provider is not None
        with blame(bounds[provider].name, "memory_steps", "plan"):
            found = tuple(bounds[provider].provider.memory_steps(action.partition.subgraph))
        for step in found:
            yield action.place, index if step.node is None else step.node, step


def compile_programs(plan: Plan) -> dict[str, Program]:
    """Let each provider compile its partitions; if one fails, what was compiled is closed again.

    Raises:
        CompileError: naming provider and partition.
    """
    programs: dict[str, Program] = {}
    try:
        for graph in _schedules(plan.schedule):
            for action in graph.actions:
                if isinstance(action, RunPartition):
                    programs[action.partition.name] = _compile(action.partition, plan.partitioned.bounds)
    except BaseException:
        for program in programs.values():
            program.close()
        raise
    return programs


def _compile(part: Partition, bounds: Sequence[Bound]) -> Program:
    assert part.provider is not None
    name = bounds[part.provider].name
    where = Where(stage="compile", provider=name, partition=part.name)
    try:
        program = bounds[part.provider].provider.compile(part.subgraph)
    except EpkitError as error:
        error.at(stage="compile", provider=name, partition=part.name)
        raise
    except Exception as error:
        raise CompileError(
            f"provider {name!r} failed to compile {part.name}, which it had claimed: "
            f"{type(error).__name__}: {error}",
            where=where,
            remedy=f"report this to the maker of the plugin, or leave {name!r} out of providers",
        ) from error
    if not isinstance(program, Program):
        raise CompileError(
            f"provider {name!r} compiled {part.name} to a {type(program).__name__}, not a Program",
            where=where,
        )
    return program
