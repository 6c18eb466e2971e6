"""What is asked of CuPy, by a module that pretends to be it: captures that fail, streams of the right GPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

current: list[int] = [0]


class Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> None:
        current.append(self.id)

    def __exit__(self, *rest: Any) -> None:
        current.pop()


class Queue:
    """A stream of CuPy's: one that captures, and whose capture an error may have made invalid."""

    def __init__(self, ptr: int = 7, non_blocking: bool = False) -> None:
        self.ptr, self.device, self.capturing, self.invalid = ptr, current[-1], False, False
        assert non_blocking or ptr != 7

    @classmethod
    def from_external(cls, stream: Any) -> Queue:
        return cls(stream.__cuda_stream__()[1])

    def begin_capture(self, mode: int) -> None:
        self.capturing = True

    def is_capturing(self) -> bool:
        if self.invalid:
            raise RuntimeError("an error has invalidated the capture sequence")
        return self.capturing

    def end_capture(self) -> str:
        self.capturing = False
        if self.invalid:
            self.invalid = False
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return "graph"


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module ``cupy_machine`` over a pretended CuPy."""
    runtime = SimpleNamespace(streamCaptureModeRelaxed=2)
    fake = ModuleType("cupy")
    fake.cuda = SimpleNamespace(runtime=runtime, Stream=Queue, Device=Device)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, "epkit_cuda.cupy_machine", raising=False)
    yield importlib.import_module("epkit_cuda.cupy_machine")
    sys.modules.pop("epkit_cuda.cupy_machine", None)


@contextmanager
def nothing() -> Iterator[None]:
    yield


def test_a_capture_that_failed_is_ended_and_its_error_is_the_one_that_is_heard(machines: Any) -> None:
    for invalid in (False, True):
        stream = machines.CupyStream(Queue(non_blocking=True), nothing())
        with pytest.raises(ZeroDivisionError), stream.capture():
            stream.raw.invalid = invalid
            raise ZeroDivisionError
        assert not stream.raw.capturing and not stream.raw.invalid
        with stream.capture() as graphs:  # the stream is as good as new
            pass
        assert graphs[0].raw == "graph"


def test_every_stream_belongs_to_the_gpu_of_its_machine(machines: Any) -> None:
    machine = object.__new__(machines.CupyMachine)
    machine.device = Device(3)
    assert machine.stream().raw.device == 3
    found = machine.stream(1234)
    assert (found.address, found.raw.device) == (1234, 3)
