"""Providers that take memory in one method and give it back in the next, and nowhere else: an error loses it.

And two that take an error for none, and are useless from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
from sound import Replay, SoundDevice, Unusual, reported_by

from epkit.backend import Allocator, Device, Program, RunContext, Stream, Subgraph
from epkit.backend.kernel_provider import KernelProgram
from epkit.testing.memory import FakeMemory

# ---- around a session ----


class _Holds(Unusual):
    """Takes a buffer in one method, gives it back in another."""

    takes = ""
    gives: tuple[str, ...] = ()

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.held: list[Any] = []
        self.reach("__init__")

    def reach(self, method: str) -> None:
        """Come to a method."""
        allocator = self.allocator(self.devices().found[0])
        if method == self.takes:
            self.held.append(allocator.allocate(64))
        elif method in self.gives and self.held:
            allocator.free(self.held.pop())

    def claim(self, graph: Subgraph) -> Any:
        self.reach("claim")
        return super().claim(graph)

    def compile(self, subgraph: Subgraph) -> Program:
        self.reach("compile")
        return super().compile(subgraph)

    def save(self, program: Program) -> bytes | None:
        self.reach("save")
        return super().save(program)

    def restore(self, saved: bytes, subgraph: Subgraph) -> Program:
        self.reach("restore")
        return super().restore(saved, subgraph)


@reported_by("errors/in_claim", may=["contract/*", "device/*", "capture/*", "artifacts/*"])
class LosesMemoryInClaim(_Holds):
    """gives back in claim what it took when it was made"""

    takes, gives = "__init__", ("claim",)


@reported_by("errors/in_compile", may=["contract/*", "device/*", "capture/*", "artifacts/*", "errors/*"])
class LosesMemoryInCompile(_Holds):
    """gives back in compile what it took in claim"""

    takes, gives = "claim", ("compile",)


@reported_by("errors/in_save", may=["contract/*", "device/*", "capture/*", "artifacts/*", "errors/*"])
class LosesMemoryInSave(_Holds):
    """gives back in save what it took in compile"""

    takes, gives = "compile", ("save",)


@reported_by("errors/in_restore", may=["contract/*", "device/*", "capture/*", "artifacts/*"])
class LosesMemoryInRestore(_Holds):
    """gives back in restore what it took when it was asked in which form it wants the file"""

    takes, gives = "maps_saved", ("restore",)

    @property
    def maps_saved(self) -> bool:  # type: ignore[override]
        self.reach("maps_saved")
        return False


# ---- around a run ----


class _HoldsInRuns(SoundDevice):
    """Takes a buffer for a stream in one method, gives it back in another of the same run."""

    takes = ""
    gives: tuple[str, ...] = ()
    captures = False

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.held: dict[Stream, Any] = {}
        self.results: WeakSet[Any] = WeakSet()
        self.has_run = False

    def reach(self, method: str, stream: Stream) -> None:
        """Come to a method."""
        allocator = self.allocator(self.devices().found[0])
        if method in self.gives and stream in self.held:
            allocator.free(self.held.pop(stream))
        elif method == self.takes and stream not in self.held:
            self.held[stream] = allocator.allocate(64)

    def allocator(self, device: Device) -> Allocator:
        return _Telling(self.memory, self)

    def stream(self, device: Device) -> Stream:
        stream = super().stream(device)
        self.reach("stream", stream)
        return stream

    def compile(self, subgraph: Subgraph) -> Program:
        made = _TellingCapturing if self.captures else _TellingProgram
        return made(self, subgraph)


class _Telling(Allocator):
    """Tells the provider of copies: of what goes in, and of results that come out."""

    def __init__(self, memory: FakeMemory, provider: _HoldsInRuns) -> None:
        self.memory = memory
        self.provider = provider
        self.alignment = memory.alignment

    def allocate(self, nbytes: int) -> Any:
        return self.memory.allocate(nbytes)

    def free(self, buffer: Any) -> None:
        self.memory.free(buffer)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        return self.memory.view(buffer, offset, shape, dtype)

    def copy_in(self, array: np.ndarray[Any, Any], tensor: Any, stream: Stream) -> None:
        self.memory.copy_in(array, tensor, stream)
        self.provider.reach("copy_in", stream)

    def copy_out(self, tensor: Any, array: np.ndarray[Any, Any], stream: Stream) -> None:
        self.memory.copy_out(tensor, array, stream)
        if tensor in self.provider.results:
            self.provider.reach("copy_out", stream)


class _TellingProgram(KernelProgram):
    """Tells the provider of runs."""

    def __init__(self, provider: _HoldsInRuns, subgraph: Subgraph) -> None:
        super().__init__(subgraph, lambda node: provider.kernel_for(node, subgraph), provider.constant)
        self.provider = provider

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        self.provider.reach("run", context.stream)
        results = super().run(context, inputs)
        self.provider.has_run = True
        self.provider.results.update(results)
        self.provider.reach("end of run", context.stream)
        return results


class _TellingCapturing(_TellingProgram):
    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        self.provider.reach("capture", context.stream)
        return _TellingReplay(self)


class _TellingReplay(Replay):
    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        assert isinstance(self.program, _TellingProgram)
        self.program.provider.reach("replay", context.stream)
        return super().run(context, inputs)


@reported_by("errors/in_copy_in", may=["contract/*", "device/*"])
class LosesMemoryInCopyIn(_HoldsInRuns):
    """gives back when the first input is copied what it took with the stream"""

    takes, gives = "stream", ("copy_in",)


@reported_by("errors/in_run", may=["contract/*", "device/*"])
class LosesMemoryInRun(_HoldsInRuns):
    """gives back in run what it took when an input was copied"""

    takes, gives = "copy_in", ("run",)


@reported_by("errors/in_copy_out", may=["contract/*", "device/*"])
class LosesMemoryInCopyOut(_HoldsInRuns):
    """gives back when a result is copied what it took at the end of run"""

    takes, gives = "end of run", ("copy_out",)


@reported_by("errors/in_capture", may=["contract/*", "device/*", "capture/*"])
class LosesMemoryInCapture(_HoldsInRuns):
    """prepares a recording when inputs are copied to what has run before, and ends it in the program's methods"""

    takes, gives, captures = "copy_in", ("run", "capture"), True

    def reach(self, method: str, stream: Stream) -> None:
        if method != self.takes or self.has_run:
            super().reach(method, stream)


@reported_by("errors/in_replay", may=["contract/*", "device/*", "capture/*"])
class LosesMemoryInReplay(_HoldsInRuns):
    """gives back in the first replay what it took in capture"""

    takes, gives, captures = "capture", ("replay",), True


# ---- errors that are taken for none ----


class _GoesOn(SoundDevice):
    """Needs something to compile; if that fails, compiles none the less."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.ready = True

    def prepare(self, device: Device) -> None:
        """Get what is needed."""
        raise NotImplementedError

    def compile(self, subgraph: Subgraph) -> Program:
        try:
            self.prepare(self.devices().found[0])
        except Exception:
            self.ready = False
        return _Needy(self, subgraph)


class _Needy(KernelProgram):
    def __init__(self, provider: _GoesOn, subgraph: Subgraph) -> None:
        super().__init__(subgraph, lambda node: provider.kernel_for(node, subgraph), provider.constant)
        self.provider = provider

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        if not self.provider.ready:
            raise RuntimeError("acme error 4: not ready")
        return super().run(context, inputs)


@reported_by("errors/in_allocate")
class GoesOnWithoutMemory(_GoesOn):
    """compiles although it got no workspace, and then cannot run"""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.workspaces: list[Any] = []

    def prepare(self, device: Device) -> None:
        self.workspaces.append(self.allocator(device).allocate(64))

    def close(self) -> None:
        for workspace in self.workspaces:
            self.allocator(self.devices().found[0]).free(workspace)
        super().close()


@reported_by("errors/in_stream")
class GoesOnWithoutAStream(_GoesOn):
    """compiles although its stream for setting up did not open, and then cannot run"""

    def prepare(self, device: Device) -> None:
        stream = self.stream(device)
        stream.synchronize()
        stream.close()
