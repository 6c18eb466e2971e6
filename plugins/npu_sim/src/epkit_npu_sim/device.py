"""The device: memory, streams with a thread each, and the faults that can be ordered."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from epkit.backend import Event, Stream
from epkit.knobs import Knob

from .machine import Machine
from .memory import Dram


class Resident(Protocol):
    """What keeps an image in the device's memory."""

    def upload(self) -> None:
        """Write it anew."""


class DeviceError(Exception):
    """The device reports a failure."""


class Faults:
    """Faults on demand: ``KIND`` or ``KIND@N``; N counts commands, or says how slow."""

    KINDS = (
        *("bit-flip", "timeout", "device-lost", "slow", "out-of-dram", "out-of-scratchpad"),
        "artifact-refused",
    )

    def __init__(self, text: str) -> None:
        self.kind, _, number = text.partition("@")
        if self.kind and self.kind not in self.KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {', '.join(self.KINDS)}")
        self.at = int(number) if number else 0
        self._left = self.at

    def due(self, kind: str) -> bool:
        """True once, when the command that was named is reached."""
        if self.kind != kind or self._left < 0:
            return False
        self._left -= 1
        return self._left < 0

    def lasting(self, kind: str) -> bool:
        """True from the time on that was named, until a reset."""
        if self.kind == kind:
            self._left -= 1
        return self.kind == kind and self._left < 0

    def end(self) -> None:
        """A reset ends the shortage of memory; other faults are over by themselves, or stay (a slow device)."""
        if self.kind == "out-of-dram":
            self.kind = ""


def _fault(text: str) -> str:
    Faults(text)
    return text


FAULT: Knob[str] = Knob(
    "EPKIT_NPU_SIM_FAULT",
    "",
    _fault,
    "the fault to order where the option fault names none, such as bit-flip@20",
)


class NpuDevice:
    """One chip; belongs to one provider instance."""

    def __init__(self, machine: Machine, faults: Faults, timeout_s: float) -> None:
        self.machine = machine
        self.dram = Dram(machine.dram)
        self.faults = faults
        self.timeout_s = timeout_s
        self.programs: set[Resident] = set()
        self.failure = ""

    def check(self) -> None:
        """Raise DeviceError if the device is gone."""
        if self.failure:
            raise DeviceError(self.failure)

    def before_command(self) -> None:
        """Let ordered faults happen."""
        self.check()
        if self.faults.kind == "slow":
            time.sleep(max(1, self.faults.at) / 1e6)
        if self.faults.due("device-lost"):
            self.failure = "the device was lost: it does not answer any more"
        elif self.faults.due("timeout"):
            time.sleep(self.timeout_s)
            self.failure = f"a command did not end within {self.timeout_s * 1e3:g} ms"
        self.check()

    def reset(self) -> None:
        """Start again: memory is empty, so that every program's image is written anew."""
        self.failure = ""
        self.faults.end()
        for program in self.programs:
            program.upload()


class NpuStream(Stream):
    """A queue with a thread of its own. After an error nothing more is done, as on real devices."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "npu_sim")
        self._error: BaseException | None = None

    def submit(self, action: Callable[[], None]) -> Future[None]:
        """Enqueue work."""
        return self._thread.submit(self._do, action)

    def _do(self, action: Callable[[], None]) -> None:
        if self._error is None:
            try:
                action()
            except BaseException as error:
                self._error = error

    def raise_error(self) -> None:
        """Raise what the device reported, if it did."""
        if self._error is not None:
            raise self._error

    def record(self) -> Event:
        return NpuEvent(self)

    def synchronize(self) -> None:
        self.record().wait()

    def close(self) -> None:
        self._thread.shutdown()


class NpuEvent:
    """A point in a stream."""

    def __init__(self, stream: NpuStream) -> None:
        self._stream = stream
        self._reached = stream.submit(lambda: None)

    def wait(self) -> None:
        """Until the stream has come here; raises what went wrong on the way."""
        self._reached.result()
        self._stream.raise_error()
