"""The session: a compiled model that runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..backend.hooks import Notice
from ..backend.registry import Registry
from ..errors import EpkitError, InputError, RunError, Where
from ..trace import Recorder
from .dormant import DormantEngine
from .memory_report import MemoryReport
from .snapshot import Snapshot
from .value_info import ValueInfo

if TYPE_CHECKING:
    from ..compiling import Compiled
    from ..partition.placement import Placement
    from .engine import Engine
    from .options import RunOptions
    from .recovery import Recovery
    from .shadow import Shadow


class Session:
    """A model ready to run. Safe to call from several threads at once.

    Make one with :func:`epkit.load`. Call it with inputs by name, get outputs by name:
    ``outputs = session(input_ids=ids)``.

    Attributes:
        inputs, outputs: the model's interface.
        warnings: what was odd about the model.
        load_trace: the stages of loading, as a recorder.
    """

    def __init__(
        self,
        compiled: Compiled | Snapshot,
        registry: Registry,
        load_trace: Recorder,
        *,
        capture: bool = False,
        recovery: Recovery | None = None,
        budgets: Mapping[str, int] | None = None,
    ) -> None:
        self.name = compiled.name
        self.warnings = compiled.warnings
        self.load_trace = load_trace
        self._registry = registry
        self._capture = capture
        self._recovery = recovery
        self._budgets = budgets
        self._lock = threading.Lock()
        self._moving = threading.Lock()
        self._closing = False
        self._engine: Engine | DormantEngine
        self._shadow: Shadow | None = None
        self.inputs: tuple[ValueInfo, ...]
        self.outputs: tuple[ValueInfo, ...]
        if isinstance(compiled, Snapshot):
            self._engine = DormantEngine(compiled, self._woken)
            self._feed = self._engine.shortcut()
            self.inputs, self.outputs = compiled.inputs, compiled.outputs
            self.metadata = dict(compiled.metadata)
        else:
            from .feeds import value_info

            self._use(compiled)
            model = compiled.plan.partitioned.model
            self.inputs = tuple(map(value_info, model.graph.inputs))
            self.outputs = tuple(map(value_info, model.graph.outputs))
            self.metadata = dict(model.metadata_props)
        self._index = {info.name: index for index, info in enumerate(self.outputs)}

    def _woken(self, engine: Engine) -> None:
        """The snapshot's program is closed next: the engine's takes its place."""
        with self._lock:
            self._feed = None if self._closing else engine.shortcut()

    def _use(self, compiled: Compiled) -> None:
        """Run this from now on."""
        from .engine import Engine
        from .shadow import shadow_programs

        recovery = self._recovery
        shadow = shadow_programs(compiled, recovery.fallback) if recovery and recovery.verifies else None
        watched = compiled if shadow is None else shadow.compiled
        self._engine = Engine(watched, capture=self._capture, budgets=self._budgets)
        self._shadow = shadow
        self._feed = None if self._recovery is not None else self._engine.shortcut()

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
                ``__dlpack__``; what lies on a device of this session is read there),
                sequences are lists.
            options: tag, cancellation, profile, what stays on its device.

        Returns:
            The outputs by name. The arrays belong to the caller.

        Raises:
            InputError: if a name, dtype, rank or dimension does not fit.
            RunError: if a partition or node failed; names provider, partition and node.
            CancelledError: if the run was cancelled.
        """
        outputs = None if outputs is None else tuple(outputs)
        if self._feed is not None and options is None and not self._registry.observed:
            with suppress(Exception):  # the long way says what is wrong
                outcome = self._feed(feeds)
                if outcome is not NotImplemented:
                    return outcome if outputs is None else {name: outcome[name] for name in outputs}
        from .feeds import check_feeds
        from .options import RunOptions

        if self._closing:
            raise self._is_closed()
        options = options or RunOptions()
        wanted = self._wanted(outputs)
        values = check_feeds(feeds, self._engine.graph_inputs, self.inputs, self.name)
        start = time.perf_counter()
        try:
            results = self._run(values, options, self._kept(options))
        except EpkitError as error:
            self._registry.notify(
                Notice("error", self.name, time.perf_counter() - start, {"error": error.what})
            )
            error.at(model=self.name)
            raise
        self._registry.notify(Notice("run", self.name, time.perf_counter() - start, {"tag": options.tag}))
        return {name: results[index] for name, index in wanted.items()}

    def _kept(self, options: RunOptions) -> frozenset[int]:
        """Places of the outputs that stay on their device."""
        chosen = options.on_device
        if isinstance(chosen, bool):
            return frozenset(self._index.values()) if chosen else frozenset()
        return frozenset(self._wanted(chosen).values())

    def _run(self, values: Sequence[Any], options: RunOptions, kept: frozenset[int]) -> list[Any]:
        """Run; where the application wants it, move a partition that failed, and run again."""
        while True:
            engine = self._enter()
            shadow = self._shadow
            try:
                results = engine.run(values, options, kept)
                if shadow is None or not shadow.wrong:
                    return results
                faults = dict(shadow.wrong)
            except EpkitError as error:
                partitioned = engine.compiled.plan.partitioned
                if self._recovery is None or not (faults := self._recovery.faults(error, partitioned)):
                    raise
            finally:
                self._leave(engine)
            self._move(engine, faults)

    def _move(self, engine: Engine | DormantEngine, faults: Mapping[str, str]) -> None:
        """Exchange the engine for one in which the nodes of these partitions are the fallback's."""
        assert self._recovery is not None
        with self._moving:
            if self._engine is not engine:
                return  # another run has done it
            compiled = self._recovery.without(engine.compiled.plan.partitioned, faults)
            with self._lock:
                self._use(compiled)
                idle = engine.running == 0
            if idle:
                engine.close(self._problem)
        for partition, text in zip(faults, self._recovery.told(faults), strict=True):
            self.warnings += (text,)
            self._registry.notify(Notice("error", self.name, 0.0, {"error": text, "moved": partition}))

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
    def placement(self) -> Placement:
        """Who runs which node, and why not elsewhere."""
        return self._engine.placement

    @property
    def memory(self) -> MemoryReport:
        """Memory of the session: values planned, held and at most, and weights; what programs hold counts too."""
        return self._engine.memory

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the session's providers in order of preference, the fallback included."""
        return tuple(bound.name for bound in self._engine.bounds)

    # ---- starting again, closing ----

    def reset(self) -> None:
        """Start the devices again after a failure; what was compiled stays.

        Raises:
            RunError: if a run is under way.
            BrokenProviderError: if a provider raises in ``reset``.
        """
        with self._lock:
            if self._engine.running:
                raise RunError(
                    f"{self._engine.running} run(s) are under way, so that the devices cannot be started again",
                    where=Where(stage="run", model=self.name),
                    remedy="wait for them, or cancel them with RunOptions(cancel=...)",
                )
            self._engine.reset()

    def _enter(self) -> Engine | DormantEngine:
        with self._lock:
            if self._closing:
                raise self._is_closed()
            self._engine.running += 1
            return self._engine

    def _is_closed(self) -> RunError:
        where = Where(stage="run", model=self.name)
        return RunError("the session is closed", where=where, remedy="load the model again")

    def _leave(self, engine: Engine | DormantEngine) -> None:
        with self._lock:
            engine.running -= 1
            last = engine.running == 0 and (self._closing or engine is not self._engine)
        if last:
            engine.close(self._problem)

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
            idle = self._engine.running == 0
        if first and idle:
            self._engine.close(self._problem)

    def _problem(self, text: str) -> None:
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
