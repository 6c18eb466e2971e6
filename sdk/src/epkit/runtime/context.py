"""The state of one run, and the context that programs see of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.bound import Bound
from ..backend.memory import HostStream, Stream, Tensor
from ..backend.program import RunContext
from ..backend.subgraph import operator_name
from ..errors import CancelledError, EpkitError, RunError, Where
from ..model.names import join_parts, parts_of
from ..model.walk import nodes_inside
from .options import RunOptions
from .space import Lease


class RunState:
    """One ``Session.run``: its options and its streams, one for each device used."""

    def __init__(self, options: RunOptions, bounds: Sequence[Bound]) -> None:
        self.options = options
        self.bounds = bounds
        self._streams: dict[int, Stream] = {}
        self._kept: list[Any] = []

    def stream(self, provider: int) -> Stream:
        """The run's stream on a provider's device, made when first needed."""
        if provider not in self._streams:
            bound = self.bounds[provider]
            host = bound.device.host_memory
            self._streams[provider] = HostStream() if host else bound.provider.stream(bound.device)
        return self._streams[provider]

    def keep(self, array: Any) -> None:
        """Keep a host array alive for a copy that may still be under way."""
        self._kept.append(array)

    def synchronize(self) -> None:
        """Wait for all work of this run; every stream is waited for, also after one has failed."""
        self._each(self._streams, lambda stream: stream.synchronize())
        self._kept.clear()

    def close(self) -> None:
        """Give the streams back."""
        streams, self._streams = self._streams, {}
        self._each(streams, lambda stream: stream.close())
        self._kept.clear()

    def _each(self, streams: Mapping[int, Stream], action: Callable[[Stream], None]) -> None:
        errors = []
        for provider, stream in streams.items():
            try:
                action(stream)
            except Exception as error:
                errors.append(located(error, self.bounds[provider].name))
        if errors:
            raise errors[0]

    def check_cancelled(self) -> None:
        """Raise CancelledError if the caller threw the switch."""
        if self.options.cancel is not None and self.options.cancel.cancelled:
            tag = f" {self.options.tag!r}" if self.options.tag else ""
            raise CancelledError(f"the run{tag} was cancelled by its caller", where=Where(stage="run"))


class Context(RunContext):
    """What one partition's program sees of a run."""

    def __init__(self, state: RunState, bound: Bound, stream: Stream, lease: Lease, partition: str) -> None:
        self.device = bound.device
        self.stream = stream
        self.node: ir.Node | None = None
        self._state = state
        self._lease = lease
        self._provider = bound.name
        self._partition = partition
        self._profile = state.options.profile
        self.observed = self._profile is not None or state.options.cancel is not None
        self._started = 0
        self._counters: dict[str, float] = {}

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        return self._lease.empty(value, shape, dtype)

    def begin(self, node: ir.Node) -> None:
        self.node = node
        if self._state.options.cancel is not None:
            self._state.check_cancelled()
        if self._profile is not None:
            self._started = time.perf_counter_ns()

    def measure(self, **counters: float) -> None:
        self._counters.update(counters)

    def event(self, name: str, row: str, start: int, duration: int, **details: object) -> None:
        if self._profile is not None:
            details = {"provider": self._provider, "partition": self._partition, **details}
            self._profile.recorder.place(name, "device", start, duration, row, **details)

    def end(self, node: ir.Node) -> None:
        self._lease.release(node)
        if self._profile is not None:
            self._profile.recorder.add(
                str(node.name),
                "node",
                self._started,
                provider=self._provider,
                partition=self._partition,
                operator=operator_name(node),
                **({"parts": parts} if (parts := parts_of(node)) else {}),
                **({"counters": self._counters} if self._counters else {}),
            )
        self.node, self._counters = None, {}


def located(error: Exception, provider: str, partition: str = "", node: str = "") -> EpkitError:
    """What a provider raised during a run, as an error that says where."""
    place = {"stage": "run", "provider": provider, "partition": partition, "node": node}
    if isinstance(error, EpkitError):
        return error.at(**place)
    failed = RunError(
        f"provider {provider!r} failed{f' in {partition}' if partition else ''}: "
        f"{type(error).__name__}: {error}",
        where=Where(**place),
        remedy=f"run it elsewhere by leaving {provider!r} out of providers, and report this "
        "to the plugin's maker",
    )
    failed.__cause__ = error
    return failed


def name_parts(error: EpkitError, nodes: Iterable[ir.Node]) -> None:
    """Where an error happened in a fused node, or in several that ran as one, name the model's nodes."""
    named = {str(each.name): each for node in nodes for each in (node, *nodes_inside(node))}
    told = error.where.parts.splitlines() or [error.where.node]
    found = join_parts(named[name] for name in told if name in named)
    if found not in ("", error.where.node):
        error.where = replace(error.where, parts=", ".join(found.splitlines()))
