"""The pipeline: read -> check -> optimise -> claim -> partition -> plan -> compile.

Each stage is a function from one frozen value to the next; ``str()`` of each value is readable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import onnx
import onnx_ir as ir

from . import knobs
from .backend.bound import Bound
from .backend.custom import CustomOperator
from .backend.registry import Registry
from .binding import bind, close_all, known_operators
from .compiling import Compiled, compile_programs
from .errors import EpkitError, ModelError, Where
from .known import KnownFile
from .model.check import CheckedModel, check
from .model.custom_schemas import register_schemas
from .model.fix import fix_dimensions
from .model.read import ReadModel, read
from .model_cache import ModelCache, cache_key, settings_digest
from .optimize.optimise import Optimised, optimise
from .partition.claims import Claims, collect_claims
from .partition.costs import Costs, CostStore
from .partition.partitions import Partitioned, partition
from .planning import Plan, make_plan
from .settings import Settings, may_be_known
from .trace import Recorder

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

STAGES = ("read", "check", "optimise", "claim", "partition", "plan", "compile")


Stage = ReadModel | CheckedModel | Optimised | Claims | Partitioned | Plan | Compiled


def stages(
    source: Source,
    settings: Settings,
    registry: Registry,
    recorder: Recorder | None = None,
    keep: bool = True,
) -> Generator[tuple[str, Stage]]:
    """Run the pipeline step by step: yields each stage's name and value.

    With ``keep``, a stage's value stays as it was when later stages run; without, the optimiser works in place.
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
        unless_handed_over.callback(close_all, bounds)
        cache = _model_cache(raw, settings, registry, bounds)
        kept = None if cache is None else step("read", lambda: cache.load(raw.name, raw.path, raw.limits))
        if kept is None:
            checked = step("check", lambda: check(raw, operators=known_operators(custom, bounds)))
        else:
            checked = kept.checked
        yield "check", checked
        if kept is None:
            providers = [bound.provider for bound in bounds]
            optimised = step(
                "optimise",
                lambda: optimise(
                    checked.model, settings.optimise, registry.rewrites(), providers, in_place=not keep
                ),
            )
            if cache is not None:
                step("cache", lambda: cache.save(checked, optimised))
        else:
            optimised = kept.optimised
        yield "optimise", optimised
        origin = "" if cache is None else cache.key
        compiled = yield from _placed(step, optimised, checked.warnings, bounds, custom, settings, origin)
        unless_handed_over.pop_all()
    yield "compile", compiled


def _placed(
    step: _Stepper,
    optimised: Optimised,
    warnings: tuple[str, ...],
    bounds: tuple[Bound, ...],
    custom: tuple[CustomOperator, ...],
    settings: Settings,
    origin: str,
) -> Generator[tuple[str, Stage], None, Compiled]:
    """The stages between the optimised model and the compiled one, which is returned."""
    claims = step("claim", lambda: collect_claims(optimised.model, bounds, custom, settings.pins))
    yield "claim", claims
    partitioned = step("partition", lambda: partition(claims, _costs(settings, claims)))
    yield "partition", partitioned
    plan = step("plan", lambda: make_plan(partitioned))
    yield "plan", plan
    warnings += settings.pins.idle(node for graph in claims.offers for node in graph)
    programs = step("compile", lambda: compile_programs(plan.schedule, bounds, settings.cache, origin))
    return Compiled(step.model, warnings, plan, programs, origin)


def build(
    source: Source,
    settings: Settings,
    registry: Registry,
    recorder: Recorder | None = None,
    watch: Callable[[Stage], None] = lambda stage: None,
) -> Compiled:
    """The whole pipeline; of a model file that is in the cache and has not been written to since, the rest of it.

    ``watch`` is shown the value of each stage.
    """
    recorder = recorder or Recorder()
    compiled = _from_known_file(source, settings, registry, recorder, watch)
    if compiled is None:
        for _, value in stages(source, settings, registry, recorder, keep=False):
            watch(value)
            compiled = value if isinstance(value, Compiled) else None
    assert compiled is not None
    return compiled


def _from_known_file(
    source: Source,
    settings: Settings,
    registry: Registry,
    recorder: Recorder,
    watch: Callable[[Stage], None],
) -> Compiled | None:
    if settings.operators or not may_be_known(settings) or not isinstance(source, str | os.PathLike):
        return None
    assert settings.cache is not None
    path = Path(source)
    known = KnownFile(path, settings.cache)
    if not known.keys:
        return None
    step = _Stepper(recorder)
    step.model = path.name
    custom = _custom_operators(settings, registry)
    register_schemas(item.schema for item in custom if item.schema is not None)
    bounds = step("claim", lambda: bind(settings, registry, custom))
    with ExitStack() as unless_handed_over:
        unless_handed_over.callback(close_all, bounds)
        key = known.keys.get(settings_digest(settings, registry, bounds, version("epkit")).hexdigest())
        if key is None:
            return None
        compiled = _cached(step, path, key, settings, bounds, custom, watch)
        if compiled is not None:
            unless_handed_over.pop_all()
    return compiled


def build_cached(path: Path, key: str, settings: Settings, registry: Registry) -> Compiled:
    """The compiled model with this key in the cache; from its file, if that is still what it was.

    Raises:
        ModelError: if both are gone.
    """
    step = _Stepper(Recorder())
    step.model = path.name
    custom = _custom_operators(settings, registry)
    register_schemas(item.schema for item in custom if item.schema is not None)
    assert settings.cache is not None
    with ExitStack() as unless_handed_over:
        bounds = bind(settings, registry, custom)
        unless_handed_over.callback(close_all, bounds)
        compiled = _cached(step, path, key, settings, bounds, custom, lambda stage: None)
        if compiled is not None:
            unless_handed_over.pop_all()
            return compiled
    if key not in KnownFile(path, settings.cache).keys.values():
        raise ModelError(
            f"{path.name} has changed since it was loaded, and so has the cache: only its outputs are left",
            where=Where(stage="read", model=path.name, file=str(path)),
            remedy="load the model again",
        )
    return build(path, settings, registry)


def _cached(
    step: _Stepper,
    path: Path,
    key: str,
    settings: Settings,
    bounds: tuple[Bound, ...],
    custom: tuple[CustomOperator, ...],
    watch: Callable[[Stage], None],
) -> Compiled | None:
    """The stages after the optimiser, for an entry of the cache; None if it is not there whole."""
    assert settings.cache is not None
    cache = ModelCache(settings.cache, key)
    kept = step("read", lambda: cache.load(path.name, path, settings.limits))
    if kept is None:
        return None
    return _last(_placed(step, kept.optimised, kept.checked.warnings, bounds, custom, settings, key), watch)


def _last(placed: Generator[tuple[str, Stage], None, Compiled], watch: Callable[[Stage], None]) -> Compiled:
    while True:
        try:
            watch(next(placed)[1])
        except StopIteration as end:
            return cast(Compiled, end.value)


def _custom_operators(settings: Settings, registry: Registry) -> tuple[CustomOperator, ...]:
    """Where several have one name and version, the application's own counts, then the first package's."""
    found: dict[tuple[str, str, int], CustomOperator] = {}
    for item in (*settings.operators, *registry.operators()):
        found.setdefault((item.domain, item.name, item.since), item)
    return tuple(found.values())


def _costs(settings: Settings, claims: Claims) -> Costs | None:
    """What was measured on the session's devices, if the policy asks for it."""
    if settings.policy != "cost":
        return None
    store = CostStore(knobs.CACHE_DIR.get())
    tables = {rank: table for rank, bound in enumerate(claims.bounds) if (table := store.load(bound))}
    return Costs(tables, claims.model.opset_imports)


def _model_cache(
    raw: ReadModel, settings: Settings, registry: Registry, bounds: Sequence[Bound]
) -> ModelCache | None:
    """The entry of this model; operators of the application cannot be told apart, so with them there is none."""
    if settings.cache is None or settings.operators:
        return None
    return ModelCache(settings.cache, cache_key(raw, settings, registry, bounds, version("epkit")))


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
