"""Sound providers, and the frame in which the others each have one fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np

import epkit
from epkit.backend import (
    Allocator,
    Claim,
    Device,
    Devices,
    Kernel,
    KernelProvider,
    KernelTable,
    Program,
    Refusal,
    RunContext,
    Stream,
    Subgraph,
    kernel,
    portable_kernels,
)
from epkit.backend.kernel_provider import KernelProgram
from epkit.testing.awkward import chains, claim_groups
from epkit.testing.device import KERNELS, FakeDeviceProvider
from epkit.testing.memory import FakeMemory
from epkit.testing.stream import LateStream, Queue, ThreadStream
from epkit_conformance.meanings import words
from epkit_conformance.result import State

OPERATORS = words(
    """Relu Neg Abs Add Sub Mul MatMul Softmax LogSoftmax Concat Transpose Pad Round Split Identity ReduceSum Sigmoid
    Tanh LeakyRelu TopK Max Sqrt Sign Reshape"""
)


@cache
def sound_kernels() -> tuple[Kernel, ...]:
    """The operators that the zoo knows, right."""
    return tuple(portable_kernels(np, only=OPERATORS))


class Sound(KernelProvider):
    """Works on the host, and has no fault."""

    name = "sound"
    version = "1.0"

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy", "of the zoo"),))

    @cached_property
    def table(self) -> KernelTable:
        return KernelTable((*self.kernels, *sound_kernels()))


class SoundDevice(FakeDeviceProvider):
    """Works on a device of its own, and has no fault."""

    name = "sound_device"
    memory: ClassVar[FakeMemory] = FakeMemory()
    kernels = KERNELS

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy", "of the zoo", host_memory=False),))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        return KernelProvider.claim(self, graph)

    @property
    def device(self) -> Any:  # type: ignore[override]
        return self

    def allocator(self, device: Device) -> Allocator:
        return self.memory

    def stream(self, device: Device) -> Stream:
        return LateStream(Queue())


class Unusual(SoundDevice):
    """Right, and odd in every choice: a late device whose memory is aligned to pages, claims in groups of three,
    saves, captures.
    """

    name = "unusual"
    memory = FakeMemory(alignment=4096)

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        return claim_groups(self, _threes_or_less, graph)

    def compile(self, subgraph: Subgraph) -> Program:
        return Capturing(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)

    def save(self, program: Program) -> bytes | None:
        return b"compiled: " + program.subgraph_digest.encode()  # type: ignore[attr-defined, no-any-return]

    def restore(self, saved: bytes, subgraph: Subgraph) -> Program:
        assert saved == b"compiled: " + subgraph.digest().encode()
        return Capturing(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)

    def fingerprint(self, device: Device) -> str:
        return "driver 7"


def _threes_or_less(graph: Subgraph) -> Iterable[Any]:
    """Threes of consecutive nodes that all have kernels; what is left, one by one."""
    table = KernelTable(KERNELS)
    for group in chains(3)(graph):
        taken = [not isinstance(table.find(node, graph), Refusal) for node in group]
        yield from [group] if all(taken) else [(node,) for node in group]


class Busy(SoundDevice):
    """Right, on a device that works in threads of its own, with memory for little."""

    name = "busy"
    memory = FakeMemory(alignment=8, limit=1 << 20)

    def stream(self, device: Device) -> Stream:
        return ThreadStream(Queue())


class _Backwards(Program):
    """One run at a time; wants contiguous inputs, and gives results whose strides are negative."""

    def __init__(self, inner: Program) -> None:
        self.inner = inner
        self.lock = threading.Lock()

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        with self.lock:
            results = self.inner.run(context, [np.array(x, order="C") for x in inputs])
        return [np.array(np.flip(x))[(slice(None, None, -1),) * x.ndim] for x in results]


class Contrary(Sound):
    """Right, on the host, with outputs that are views from the end to the start, and read-only weights copied."""

    name = "contrary"

    def constant(self, array: Any) -> Any:
        return np.array(array, order="F")

    def compile(self, subgraph: Subgraph) -> Program:
        return _Backwards(super().compile(subgraph))


class Capturing(KernelProgram):
    """A program that can be captured."""

    def __init__(self, subgraph: Subgraph, *rest: Any) -> None:
        super().__init__(subgraph, *rest)
        self.subgraph_digest = subgraph.digest()

    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        return Replay(self)


class Replay(Program):
    """Plays a program again, with the inputs of each run."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        return self.program.run(context, inputs)


# ---- the frame ----


@dataclass(frozen=True)
class Specimen:
    """A provider with one fault.

    Attributes:
        provider: its class.
        cases: what must report it, and in which state.
        may: patterns of cases in which it may show too, by chance.
        seconds: limit for each case.
    """

    provider: type[epkit.backend.Provider]
    cases: Mapping[str, State]
    may: tuple[str, ...] = ()
    seconds: float = 60.0


ZOO: list[Specimen] = []
Found = Callable[[type[Any]], type[Any]]


def reported_by(
    *names: str, state: State = State.FAILED, may: Sequence[str] = (), seconds: float = 60.0
) -> Found:
    """Put a class into the zoo; its docstring is its fault, ``names`` are the cases that must report it."""

    def add(found: type[Any]) -> type[Any]:
        found.name = "zoo_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in found.__name__).strip(
            "_"
        )
        ZOO.append(Specimen(found, dict.fromkeys(names, state), tuple(may), seconds))
        return found

    return add


def with_kernel(op_type: str, function: Callable[..., Any], **declared: Any) -> type[Sound]:
    """A sound provider with another kernel for one operator."""
    return type("Base", (Sound,), {"kernels": (kernel(op_type, **declared)(function),)})
