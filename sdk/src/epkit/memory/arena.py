"""The arena of one device: blocks for planned runs, buffers for values whose size came as a surprise.

Runs take a block and give it back; a later run of equal or smaller size takes it again. So a session
that is run by one thread at a time holds one block, and no run allocates after the first. What lies idle
never exceeds what was in use at the busiest moment, however many sizes come by.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..backend.budget import Budget
from ..backend.memory import Allocator
from ..errors import DeviceMemoryError, Where

VALUES = "values of runs"
"""What an arena's bytes are called in a budget."""


@dataclass(frozen=True)
class ArenaStatistics:
    """Bytes of one device's arena.

    Attributes:
        held: what the arena holds now.
        in_use: what runs are using now.
        peak: the most that it ever held.
        allocations: calls of the vendor's ``allocate``.
        reused: requests that were served without one.
        lower_bound: of what programs manage by themselves: the most bytes of values alive at once in the latest run.
        spared: of theirs, too: bytes that needed no memory of their own in it (views, parts written into a Concat's
            result, results in the place of an input).
    """

    device: str
    held: int
    in_use: int
    peak: int
    allocations: int
    reused: int
    lower_bound: int = 0
    spared: int = 0


def fits(held: int, wanted: int) -> bool:
    """True if a buffer of ``held`` bytes may serve a request, without too much waste."""
    return wanted <= held <= 2 * wanted + 4096


class Arena:
    """Raw memory of a device, reused between runs. Safe from several threads."""

    def __init__(self, device: str, allocator: Allocator, budget: Budget | None = None) -> None:
        self.device = device
        self.allocator = allocator
        self.budget = budget
        self._lock = threading.Lock()
        self._free: list[tuple[int, Any]] = []
        self._used: dict[int, tuple[int, Any]] = {}
        self._held = self._idle = self._peak = self._busiest = self._allocations = self._reused = 0
        self._closed = False
        self._late: deque[Any] = deque()

    def take(self, nbytes: int) -> Any:
        """A buffer of at least ``nbytes``.

        Raises:
            DeviceMemoryError: if the device has too little memory, also after unused buffers were given back.
        """
        nbytes = max(nbytes, 1)
        with self._lock:
            self._collect()
            fitting = [item for item in self._free if fits(item[0], nbytes)]
            if fitting:
                item = min(fitting, key=lambda item: item[0])
                self._free.remove(item)
                self._idle -= item[0]
                self._reused += 1
            else:
                item = (nbytes, self._allocate(nbytes))
            self._used[id(item[1])] = item
            self._busiest = max(self._busiest, self._held - self._idle)
            return item[1]

    def give(self, buffer: Any) -> None:
        """Give back what ``take`` returned, for reuse."""
        with self._lock:
            self._give(buffer)

    def give_later(self, buffer: Any) -> None:
        """The same from a finalizer, which may run in the middle of anything: at once only if nobody is in here."""
        self._late.append(buffer)
        if self._lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self._lock.release()

    def leave(self, buffer: Any) -> None:
        """Forget a buffer: another library has its memory, which goes with the last reference there."""
        with self._lock:
            nbytes = self._used.pop(id(buffer))[0]
            self._held -= nbytes
            if self.budget is not None:
                self.budget.release(nbytes, VALUES)

    def _collect(self) -> None:
        while self._late:
            self._give(self._late.popleft())

    def _give(self, buffer: Any) -> None:
        item = self._used.pop(id(buffer))
        if self._closed:
            self._release(item)
        else:
            self._free.append(item)
            self._idle += item[0]
            self._trim(self._busiest)

    def _allocate(self, nbytes: int) -> Any:
        if self.budget is not None and not self.budget.reserve(nbytes, VALUES):
            self._trim(0)
            if not self.budget.reserve(nbytes, VALUES):
                refusal = self.budget.refusal()
                assert refusal is not None
                raise refusal
        try:
            buffer = self.allocator.allocate(nbytes)
        except MemoryError:
            self._trim(0)
            try:
                buffer = self.allocator.allocate(nbytes)
            except MemoryError as error:
                if self.budget is not None:
                    self.budget.release(nbytes, VALUES)
                raise DeviceMemoryError(
                    f"{self.device} has no {nbytes:,} bytes left (this session holds "
                    f"{self._held:,}): {error}",
                    where=Where(stage="run"),
                    remedy="use smaller inputs, close other sessions, or run fewer at once",
                ) from error
        self._allocations += 1
        self._held += nbytes
        self._peak = max(self._peak, self._held)
        return buffer

    def _trim(self, keep: int) -> None:
        """Free the buffers that have been idle longest, down to ``keep`` bytes."""
        while self._idle > keep:
            item = self._free.pop(0)
            self._idle -= item[0]
            self._release(item)

    def _release(self, item: tuple[int, Any]) -> None:
        self._held -= item[0]
        if self.budget is not None:
            self.budget.release(item[0], VALUES)
        self.allocator.free(item[1])

    def statistics(self) -> ArenaStatistics:
        """A snapshot."""
        with self._lock:
            self._collect()
            in_use = self._held - self._idle
            return ArenaStatistics(
                self.device, self._held, in_use, self._peak, self._allocations, self._reused
            )

    def close(self) -> None:
        """Free what no run uses; what a run still uses is freed when it is given back."""
        with self._lock:
            self._closed = True
            self._collect()
            self._trim(0)
