"""Watching a provider at its own contract: what it is given, what it does with it, what it returns.

A watched provider is a subclass of the one under test whose ``compile``, ``allocator`` and so on pass through
here. Nothing of the core is replaced, so what is seen is what happens in an application.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epkit.backend import Allocator, Device, MemoryStep, Program, Provider, RunContext, Stream, Subgraph
from epkit.backend.registry import Registry, default

POISON = 0xFF
"""Fresh memory is filled with it: not-a-number as floats, -1 as integers."""


@dataclass
class Watch:
    """What was seen of one provider.

    Attributes:
        registry: knows the watched provider under its own name; for ``epkit.load(registry=...)``.
        poison: fill the memory that the core hands out before the program sees it.
        faults: what broke the contract, in words.
        on_begin: called with each node that a program reports to begin.
        counts: how often each member was called: "compile", "restore", "capture", "replay", "allocate", "free",
            "copy_in", "copy_out".
        kept: host arrays that a copy may still read.
        lock, inside: for several threads.
    """

    registry: Registry
    poison: bool = False
    faults: list[str] = field(default_factory=list)
    on_begin: Callable[[Any], None] = lambda node: None
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: threading.local = field(default_factory=threading.local)

    def count(self, member: str) -> None:
        """One more call."""
        with self.lock:
            self.counts[member] = self.counts.get(member, 0) + 1

    def calls(self, *members: str) -> int:
        """Calls of the members so far."""
        return sum(self.counts.get(member, 0) for member in members)

    def fault(self, text: str) -> None:
        """Note a breach of the contract, once."""
        if text not in self.faults:
            self.faults.append(text)

    def assert_clean(self) -> None:
        """Raise AssertionError if the contract was broken."""
        assert not self.faults, "; ".join(self.faults)


def watched(provider: str, *, poison: bool = False, **members: Any) -> Watch:
    """A registry in which the provider is watched.

    Args:
        provider: its name.
        poison: see :class:`Watch`.
        members: class members to replace, such as ``version="other"``.
    """
    watch = Watch(Registry(), poison)
    base: type[Provider] = default.provider_type(provider)
    made = type(base.__name__, (_Watched, base), {"watch": watch, **members})
    watch.registry.register(made)
    return watch


class _Watched(Provider):
    """Goes in front of the provider's class."""

    watch: Watch

    def allocator(self, device: Device) -> Allocator:
        inner = super().allocator(device)
        return inner if device.host_memory else WatchedAllocator(inner, self.watch)

    def compile(self, subgraph: Subgraph) -> Program:
        if getattr(self.watch.inside, "restore", False):  # its way of restoring is its own affair
            return super().compile(subgraph)  # type: ignore[safe-super]
        self.watch.count("compile")
        return self._watch(super().compile(subgraph), subgraph)  # type: ignore[safe-super]

    def save(self, program: Program) -> bytes | None:
        return super().save(program.inner if isinstance(program, WatchedProgram) else program)

    def restore(self, saved: bytes, subgraph: Subgraph) -> Program:
        self.watch.count("restore")
        self.watch.inside.restore = True
        try:
            return self._watch(super().restore(saved, subgraph), subgraph)
        finally:
            self.watch.inside.restore = False

    def _watch(self, program: Program, subgraph: Subgraph) -> Program:
        if not isinstance(program, Program):
            return program
        steps = self.memory_steps(subgraph)
        device = self.devices().found[0]
        allocator = None if device.host_memory else super().allocator(device)
        return WatchedProgram(program, subgraph, steps, self.watch, allocator)


class WatchedProgram(Program):
    """Checks each run: inputs are left alone, the nodes reported are those that there are."""

    def __init__(
        self,
        inner: Program,
        subgraph: Subgraph,
        steps: Sequence[MemoryStep],
        watch: Watch,
        allocator: Allocator | None,
    ) -> None:
        self.inner = inner
        self.subgraph = subgraph
        self.watch = watch
        self.allocator = allocator
        self.steps = steps
        self.must_report = {step.node for step in steps if step.node is not None}

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        seen = WatchedContext(context, self)
        before = [self._snapshot(tensor, context.stream) for tensor in inputs]
        outputs = self.inner.run(seen, inputs)
        for value, tensor, was in zip(self.subgraph.inputs, inputs, before, strict=True):
            if was is not None and self._snapshot(tensor, context.stream) != was:
                self.watch.fault(f"{self.subgraph.name} wrote its input {value.name}")
        self._check_report(seen)
        return outputs

    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        self.watch.count("capture")
        replay = self.inner.capture(WatchedContext(context, self), inputs)
        return None if replay is None else WatchedReplay(replay, self)

    def close(self) -> None:
        self.inner.close()

    def _snapshot(self, tensor: Any, stream: Stream) -> bytes | None:
        """The tensor's present bytes; None where they cannot be compared.

        On a device, the plan may give an input's place to an output of a later node, once it has been read.
        """
        if isinstance(tensor, np.ndarray):
            return None if tensor.dtype.kind == "O" else tensor.tobytes()
        if self.allocator is None or not hasattr(tensor, "shape") or len(self.subgraph.nodes) > 1:
            return None
        array = np.empty(tuple(tensor.shape), tensor.dtype)
        self.allocator.copy_out(tensor, array, stream)
        stream.synchronize()
        return array.tobytes()

    def _check_report(self, seen: WatchedContext) -> None:
        name = self.subgraph.name
        if seen.begun != seen.ended:
            self.watch.fault(
                f"{name} began {_names(seen.begun)} and ended {_names(seen.ended)}: "
                "call context.begin(node) and context.end(node) around each node"
            )
        strangers = set(seen.begun) - set(self.subgraph.nodes)
        if strangers:
            self.watch.fault(f"{name} reported {_names(strangers)}, which are not its nodes")
        if len(set(seen.begun)) != len(seen.begun):
            self.watch.fault(f"{name} reported a node twice: {_names(seen.begun)}")
        missing = self.must_report - set(seen.begun)
        if missing:
            self.watch.fault(
                f"{name} did not report {_names(missing)}, which memory_steps names as steps of their own"
            )


class WatchedReplay(Program):
    """A replay; it need not report nodes."""

    def __init__(self, inner: Program, program: WatchedProgram) -> None:
        self.inner = inner
        self.program = program

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        self.program.watch.count("replay")
        return self.inner.run(WatchedContext(context, self.program), inputs)

    def close(self) -> None:
        self.inner.close()


class WatchedContext(RunContext):
    """The run's context, with a record of what the program reports."""

    def __init__(self, inner: RunContext, program: WatchedProgram) -> None:
        self.inner = inner
        self.device = inner.device
        self.stream = inner.stream
        self.program = program
        self.begun: list[Any] = []
        self.ended: list[Any] = []

    def empty(self, value: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        tensor = self.inner.empty(value, shape, dtype)
        if self.program.watch.poison:
            self._poison(tensor, tuple(shape), np.dtype(dtype))
        return tensor

    def begin(self, node: Any) -> None:
        self.begun.append(node)
        self.program.watch.on_begin(node)
        self.inner.begin(node)

    def end(self, node: Any) -> None:
        self.ended.append(node)
        self.inner.end(node)

    def _poison(self, tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        count = int(np.prod(shape, dtype=np.int64))
        fill = 1 if dtype == np.bool_ else POISON
        bad = np.frombuffer(bytes([fill]) * (count * dtype.itemsize), dtype).reshape(shape)
        if isinstance(tensor, np.ndarray):
            tensor[...] = bad
        elif self.program.allocator is not None:
            self.program.watch.kept.append(bad)
            self.program.allocator.copy_in(bad, tensor, self.stream)


class WatchedAllocator(Allocator):
    """Counts, and passes on."""

    def __init__(self, inner: Allocator, watch: Watch) -> None:
        self.inner = inner
        self.watch = watch
        self.alignment = inner.alignment

    def allocate(self, nbytes: int) -> Any:
        self.watch.count("allocate")
        return self.inner.allocate(nbytes)

    def free(self, buffer: Any) -> None:
        self.watch.count("free")
        self.inner.free(buffer)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        return self.inner.view(buffer, offset, shape, dtype)

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Any, stream: Stream) -> None:
        self.watch.count("copy_in")
        self.inner.copy_in(array, tensor, stream)

    def copy_out(self, tensor: Any, array: np.ndarray[Any, Any], stream: Stream) -> None:
        self.watch.count("copy_out")
        self.inner.copy_out(tensor, array, stream)


def _names(nodes: Any) -> str:
    return ", ".join(str(getattr(node, "name", node)) for node in nodes) or "nothing"
