"""``epkit.load``: from a model to a session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, knobs
from .aliases import DEFAULT_FALLBACK, resolve
from .backend.custom import CustomOperator
from .backend.hooks import Notice
from .backend.registry import Registry, default
from .collector import paused
from .errors import EpkitError, OptionError
from .model.limits import Limits
from .partition.pins import Pins, pins_of
from .runtime.session import Session
from .runtime.snapshot import Snapshot, load_snapshot, may_have, save_snapshot
from .settings import POLICIES, ProviderChoice, Settings
from .trace import Recorder

if TYPE_CHECKING:
    from .compiling import Compiled
    from .pipeline import Source, Stage
    from .runtime.recovery import Recovery


def load(
    model: Source,
    providers: Sequence[ProviderChoice] | None = None,
    *,
    fallback: str = DEFAULT_FALLBACK,
    optimise: str = "all",
    fix: Mapping[str, int] | None = None,
    operators: Iterable[CustomOperator | Callable[..., Any]] = (),
    limits: Limits | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    policy: str = "priority",
    placement: Mapping[str, str] | str | os.PathLike[str] | None = None,
    capture: bool = False,
    on_failure: str = "error",
    verify: str = "never",
    memory: Mapping[str, int] | None = None,
    registry: Registry | None = None,
) -> Session:
    """Load a model for the given providers.

    Args:
        model: a path, the bytes of an ONNX file, a ``ModelProto`` or an ``onnx_ir.Model``.
        providers: names or ``(name, options)`` in order of preference; by default the fallback alone.
            Names that applications use elsewhere (``"CPUExecutionProvider"``) are understood.
        fallback: the provider that takes what the named ones refuse; ``"error"`` forbids that.
        optimise: ``"none"``, ``"basic"``, ``"extended"`` or ``"all"``: how far, see ``docs/optimiser.md``.
        fix: values for symbolic dimensions by name, such as ``{"batch": 1}``.
        operators: custom operators, see :func:`epkit.operator`.
        limits: what an untrusted model may ask for.
        base_dir: the folder of external data, if the model is not given by its path.
        cache: a folder for optimised models, and for the programs of providers that save them; a later load
            of the same model with the same plugins begins there.
        policy: who gets a node that several providers claim: ``"priority"``, the first one named, or ``"cost"``,
            whoever makes the least total time, transfers included, by the times that ``epkit tune`` measured,
            else by those that providers state, else by an estimate.
        placement: nodes pinned to providers: ``{"op:Conv": "acme", "encoder/*": "cpu"}``, or the file of a
            placement saved by ``epkit explain --save``.
        capture: let providers record the work of a run and replay it for inputs of the same shapes.
        on_failure: ``"fallback"`` moves a partition whose provider fails in a run, or to compile it, to the
            fallback, and tries again; placement and warnings say so. By default the failure is raised.
        verify: ``"first-run"`` computes each partition's first results by the fallback as well, and moves a
            partition whose results are wrong.
        memory: budgets in bytes by provider (or ``"host"``) for what a session holds there: values of runs, and
            weights that programs packed into memory of their own; the model's file and files of the cache are pages
            that the system can take back, and do not count. A load or a run that needs more is an error that says
            what holds how much; after a run's, the session is usable.
        registry: the plugins to choose from; by default those installed.

    Raises:
        ModelError: if the model cannot be used.
        ProviderError, OptionError: if a provider cannot.
        PlacementError: if a node has no provider.
    """
    registry = registry or default
    settings = make_settings(
        providers, fallback, optimise, fix, operators, limits, base_dir, cache, policy, placement
    )
    _check_budgets(memory or {}, settings)
    recovery = _recovery(model, settings, registry, on_failure, verify)
    recorder = Recorder()
    start = time.perf_counter()
    file = _snapshot_file(model, settings, capture or recovery is not None or bool(memory))
    try:
        snapshot = None if file is None else _snapshot(file, settings, registry, recorder)
        moved: tuple[str, ...] = ()
        compiled: Compiled | None = None
        if snapshot is None:
            with paused():
                compiled, moved = _compiled(model, settings, registry, recorder, recovery)
    except EpkitError as error:
        registry.notify(
            Notice("error", error.where.model, time.perf_counter() - start, {"error": error.what})
        )
        raise
    found = snapshot if compiled is None else compiled
    assert found is not None
    session = Session(found, registry, recorder, capture=capture, recovery=recovery, budgets=memory)
    session.warnings += moved
    if file is not None and compiled is not None:
        with recorder.span("cache", "load"):
            face = session.inputs, session.outputs, session.metadata, session.memory.weights
            save_snapshot(file, settings, registry, __version__, compiled, face)
    if registry.observed:
        registry.notify(Notice("partition", session.name, 0.0, dict(session.placement.counts())))
        registry.notify(
            Notice("load", session.name, time.perf_counter() - start, {"providers": session.providers})
        )
    return session


def _snapshot_file(model: Source, settings: Settings, unlike: bool) -> Path | None:
    """The model's file, if the cache may hold a snapshot of such a session."""
    if unlike or not isinstance(model, str | os.PathLike) or not may_have(settings):
        return None
    return Path(model)


def _snapshot(file: Path, settings: Settings, registry: Registry, recorder: Recorder) -> Snapshot | None:
    def complete(key: str) -> Compiled:
        from .pipeline import build_cached

        return build_cached(file, key, settings, registry)

    with recorder.span("snapshot", "load"):
        return load_snapshot(file, settings, registry, __version__, complete)


def _compiled(
    model: Source, settings: Settings, registry: Registry, recorder: Recorder, recovery: Recovery | None
) -> tuple[Compiled, tuple[str, ...]]:
    """The whole pipeline, and what is to be said of partitions that their providers could not compile."""
    from .partition.partitions import Partitioned
    from .pipeline import build

    said: tuple[str, ...] = ()
    while True:
        seen: list[Stage] = []
        try:
            return build(model, settings, registry, recorder, seen.append), said
        except EpkitError as error:
            partitioned = next((stage for stage in seen if isinstance(stage, Partitioned)), None)
            faults = recovery.faults(error, partitioned) if recovery and partitioned else {}
            if recovery is None or partitioned is None or not faults:
                raise
            recovery.pin(partitioned, faults)
            settings = replace(settings, pins=recovery.pins)
            said += recovery.told(faults)


def _check_budgets(budgets: Mapping[str, int], settings: Settings) -> None:
    names = {choice if isinstance(choice, str) else choice[0] for choice in settings.providers}
    known = {"host", settings.fallback, *names} - {"error"}
    for name, nbytes in budgets.items():
        if name not in known or not isinstance(nbytes, int) or nbytes < 0:
            raise OptionError(
                f"memory={{{name!r}: {nbytes!r}}} is no budget of this session",
                remedy=f"give bytes as whole numbers for {', '.join(sorted(known))}",
            )


def _recovery(
    model: Source, settings: Settings, registry: Registry, on_failure: str, verify: str
) -> Recovery | None:
    """What the session does about faulty partitions; None if it only raises."""
    if on_failure == "error" and verify == "never":
        return None
    from .pipeline import build
    from .runtime.recovery import ON_FAILURE, VERIFY, Recovery

    for name, value, known in (("on_failure", on_failure, ON_FAILURE), ("verify", verify, VERIFY)):
        if value not in known:
            raise OptionError(f"unknown {name} {value!r}", remedy=f"choose one of {', '.join(known)}")
    if settings.fallback == "error":
        raise OptionError(
            'a fallback is needed to move or to verify partitions, and fallback="error" forbids it',
            remedy="name a fallback, or leave on_failure and verify out",
        )

    def load_with(pins: Pins) -> Compiled:
        return build(model, replace(settings, pins=pins), registry)

    return Recovery(
        settings.fallback, on_failure == "fallback", verify == "first-run", settings.pins, load_with
    )


def make_settings(
    providers: Sequence[ProviderChoice] | None,
    fallback: str,
    optimise: str,
    fix: Mapping[str, int] | None,
    operators: Iterable[CustomOperator | Callable[..., Any]],
    limits: Limits | None,
    base_dir: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str] | None = None,
    policy: str = "priority",
    placement: Mapping[str, str] | str | os.PathLike[str] | None = None,
) -> Settings:
    """The settings of a load, with aliases resolved.

    Raises:
        OptionError: for an unknown policy, or a file that is no saved placement.
    """
    if policy not in POLICIES:
        raise OptionError(f"unknown policy {policy!r}", remedy=f"the policies are {', '.join(POLICIES)}")
    chosen = knobs.PROVIDERS.get() if providers is None else providers
    if not chosen and fallback != "error":
        chosen = (fallback,)
    return Settings(
        tuple(resolve(item) if isinstance(item, str) else (resolve(item[0]), item[1]) for item in chosen),
        resolve(fallback),
        optimise,
        dict(fix or {}),
        tuple(as_operator(item) for item in operators),
        limits or Limits(),
        base_dir,
        cache,
        policy,
        pins_of(placement),
    )


def operator(
    domain: str, name: str, *, since: int = 1, schema: Any = None
) -> Callable[[Callable[..., Any]], CustomOperator]:
    """Declare a Python function as a custom operator, for ``load(operators=[...])``.

    The function takes the array namespace, the inputs by position and the attributes by keyword:
    ``def my_op(xp, x, *, alpha=1.0)``.
    """

    def declare(function: Callable[..., Any]) -> CustomOperator:
        return CustomOperator(domain, name, function, since, schema)

    return declare


def as_operator(item: CustomOperator | Callable[..., Any]) -> CustomOperator:
    """Accept only what ``epkit.operator`` made."""
    if isinstance(item, CustomOperator):
        return item
    raise OptionError(
        f"{getattr(item, '__name__', item)!r} is not a custom operator",
        remedy="decorate the function with @epkit.operator(domain, name)",
    )
