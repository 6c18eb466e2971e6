"""Watching a provider at its own contract: what it is given, what it does with it, what it returns.

A watched provider is a subclass of the one under test whose ``compile``, ``allocator`` and so on pass through
here. Nothing of the core is replaced, so what is seen is what happens in an application.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from epkit.backend import (
    Allocator,
    Claim,
    Device,
    HostAllocator,
    HostStream,
    MemoryStep,
    Program,
    Provider,
    Refusal,
    RunContext,
    Stream,
    Subgraph,
)
from epkit.backend.registry import Registry, default

POISON = 0xFF
"""Fresh memory is filled with it: not-a-number as floats, -1 as integers."""

MARGIN = 0xA5
"""What margins hold."""


@dataclass
class Watch:
    """What was seen of one provider.

    Attributes:
        registry: knows the watched provider under its own name; for ``epkit.load(registry=...)``.
        poison: fill the memory that the core hands out before the program sees it.
        guard: hand out memory with guards before and behind it, see :meth:`check_guards`.
        faults: what broke the contract, in words.
        on_begin: called with each node that a program reports to begin.
        on_call: called with the name of each member before the provider's own is.
        counts: how often each member was called: "claim", "compile", "run", "stream", "save", "restore",
            "capture", "replay", "allocate", "free", "copy_in", "copy_out".
        kept: host arrays that a copy may still read.
        lock, inside: for several threads.
    """

    registry: Registry
    poison: bool = False
    guard: bool = False
    faults: list[str] = field(default_factory=list)
    on_begin: Callable[[Any], None] = lambda node: None
    on_call: Callable[[str], None] = lambda member: None
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: threading.local = field(default_factory=threading.local)

    def count(self, member: str) -> None:
        """One more call."""
        with self.lock:
            self.counts[member] = self.counts.get(member, 0) + 1
        self.on_call(member)

    def calls(self, *members: str) -> int:
        """Calls of the members so far."""
        return sum(self.counts.get(member, 0) for member in members)

    def fault(self, text: str) -> None:
        """Note a breach of the contract, once."""
        if text not in self.faults:
            self.faults.append(text)

    def check_guards(self) -> None:
        """After a run: note what was written outside of its memory, and spoil it."""
        guards, self.guards = self.guards, []
        for guard in guards:
            guard.check(self)


@dataclass
class Guard:
    """Memory with a margin on both sides.

    Attributes:
        name: of the value that it is for.
        whole: all of its bytes, as a NumPy array or a device's tensor.
        start, end: where the value's own bytes are.
        allocator, buffer, stream: for a device, whose memory it is, what to give back, and what makes a stream.
    """

    name: str
    whole: Any
    start: int
    end: int
    allocator: Allocator | None = None
    buffer: Any = None
    stream: Callable[[], Stream] = HostStream

    def check(self, watch: Watch) -> None:
        """Note a fault if a margin was written; then spoil the memory, which is nobody's any more, and give it back."""
        found = self._read().copy()
        before, behind = found[: self.start] != MARGIN, found[self.end :] != MARGIN
        for place, written in (("in front of", before), ("behind", behind)):
            if written.any():
                watch.fault(f"{int(written.sum())} bytes were written {place} the memory of {self.name}")
        self._spoil()
        if self.allocator is not None:
            self.allocator.free(self.buffer)

    def _spoil(self) -> None:
        if self.allocator is None:
            self.whole[...] = POISON
            return
        bad, stream = np.full(self.whole.shape, POISON, np.uint8), self.stream()
        self.allocator.copy_in(bad, self.whole, stream)
        stream.synchronize()
        stream.close()

    def _read(self) -> Any:
        if self.allocator is None:
            return self.whole
        found = np.empty(self.whole.shape, np.uint8)
        stream = self.stream()
        self.allocator.copy_out(self.whole, found, stream)
        stream.synchronize()
        stream.close()
        return found


def watched(provider: str, *, poison: bool = False, guard: bool = False, **members: Any) -> Watch:
    """A registry in which the provider is watched.

    Args:
        provider: its name.
        poison, guard: see :class:`Watch`.
        members: class members to replace, such as ``version="other"``.
    """
    watch = Watch(Registry(), poison, guard)
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

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        self.watch.count("claim")
        return super().claim(graph)  # type: ignore[safe-super]

    def stream(self, device: Device) -> Stream:
        self.watch.count("stream")
        return super().stream(device)

    def compile(self, subgraph: Subgraph) -> Program:
        if getattr(self.watch.inside, "restore", False):  # its way of restoring is its own affair
            return super().compile(subgraph)  # type: ignore[safe-super]
        self.watch.count("compile")
        return self._watch(super().compile(subgraph), subgraph)  # type: ignore[safe-super]

    def save(self, program: Program) -> bytes | Sequence[bytes | memoryview] | None:
        self.watch.count("save")
        return super().save(program.inner if isinstance(program, WatchedProgram) else program)

    def restore(self, saved: Any, subgraph: Subgraph) -> Program:
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
        new_stream = partial(super().stream, device)
        return WatchedProgram(program, subgraph, steps, self.watch, allocator, new_stream)


class WatchedProgram(Program):
    """Checks each run: inputs are left alone, the nodes reported are those that there are."""

    def __init__(
        self,
        inner: Program,
        subgraph: Subgraph,
        steps: Sequence[MemoryStep],
        watch: Watch,
        allocator: Allocator | None,
        new_stream: Callable[[], Stream],
    ) -> None:
        self.inner = inner
        self.new_stream = new_stream
        self.subgraph = subgraph
        self.watch = watch
        self.allocator = allocator
        self.steps = steps
        self.must_report = {step.node for step in steps if step.node is not None}

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        self.watch.count("run")
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
        inside = {node for owner in self.subgraph.nodes for node in _inside(self.subgraph, owner)}
        strangers = set(seen.begun) - set(self.subgraph.nodes) - inside
        if strangers:
            self.watch.fault(f"{name} reported {_names(strangers)}, which are not its nodes")
        once = [node for node in seen.begun if node not in inside]  # a body may run any number of times
        if len(set(once)) != len(once):
            self.watch.fault(f"{name} reported a node twice: {_names(once)}")
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
        if self.program.watch.guard:
            tensor = self._guarded(str(value.name), tuple(shape), np.dtype(dtype))
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

    def _guarded(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory of the value's own between two margins, in place of the arena's."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        allocator = self.program.allocator
        start = max(64, allocator.alignment if allocator is not None else 0)
        end = start + nbytes
        marked = HostAllocator().allocate(end + start)
        marked[:] = MARGIN
        if allocator is None:
            self.program.watch.guards.append(Guard(name, marked, start, end))
            return marked[start:end].view(dtype).reshape(shape)
        buffer = allocator.allocate(marked.size)
        whole = allocator.view(buffer, 0, marked.shape, marked.dtype)
        allocator.copy_in(marked, whole, self.stream)
        self.program.watch.kept.append(marked)
        guard = Guard(name, whole, start, end, allocator, buffer, self.program.new_stream)
        self.program.watch.guards.append(guard)
        return allocator.view(buffer, start, shape, dtype)

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


def _inside(graph: Subgraph, node: Any) -> list[Any]:
    """The nodes of a node's bodies, and of the bodies within those."""
    found = []
    for body in graph.bodies(node).values():
        for inner in body.nodes:
            found += [inner, *_inside(body, inner)]
    return found


def _names(nodes: Any) -> str:
    return ", ".join(str(getattr(node, "name", node)) for node in nodes) or "nothing"
