"""Queues of work that run late, on purpose.

``LateStream`` runs nothing until somebody waits for it: what a core forgets to wait for is then not done, every
time. ``ThreadStream`` has a worker thread, as drivers do. Both know which bytes each piece of work touches, and
so notice a race: work of two streams on the same bytes, at least one of it writing, with nothing between them.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..backend.memory import Event, Stream


class Spanned(Protocol):
    """What lies in a device's memory."""

    @property
    def span(self) -> tuple[int, int]:
        """First address, and the one after the last."""


@dataclass(eq=False)
class Work:
    """One piece of work, and the bytes that it touches."""

    action: Callable[[], None]
    reads: tuple[tuple[int, int], ...] = ()
    writes: tuple[tuple[int, int], ...] = ()
    done: threading.Event = field(default_factory=threading.Event)

    def races_with(self, other: Work) -> bool:
        """True if one writes what the other touches."""
        mine, theirs = (*self.reads, *self.writes), (*other.reads, *other.writes)
        return _overlap(self.writes, theirs) or _overlap(mine, other.writes)


def _overlap(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)


class Queue:
    """What all streams of one device have still to do."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: set[FakeStream] = set()
        self.pending: dict[FakeStream, list[Work]] = {}
        self.faults: list[str] = []

    def add(self, stream: FakeStream, work: Work) -> None:
        """Note new work, and whether it races with what other streams have pending."""
        with self.lock:
            for other, works in self.pending.items():
                if other is not stream and any(work.races_with(item) for item in works):
                    self.faults.append("two streams work on the same bytes, and neither waits for the other")
            self.pending.setdefault(stream, []).append(work)

    def finish(self, stream: FakeStream, work: Work) -> None:
        """Forget work that is done."""
        with self.lock:
            self.pending[stream].remove(work)

    def close(self, stream: FakeStream) -> None:
        """Forget a stream, which must have nothing left to do."""
        with self.lock:
            self.open.discard(stream)
            if self.pending.pop(stream, []):
                self.faults.append("a stream was closed before its work was done")


class FakeStream(Stream):
    """What both kinds of stream have in common."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        queue.open.add(self)
        self.closed = False
        self.error: BaseException | None = None

    def enqueue(
        self,
        action: Callable[[], None],
        reads: Sequence[Spanned] = (),
        writes: Sequence[Spanned] = (),
    ) -> Work:
        """Let the device do something after everything that was enqueued before."""
        if self.closed:
            self.queue.faults.append("work was enqueued on a closed stream")
        work = Work(action, tuple(t.span for t in reads), tuple(t.span for t in writes))
        self.queue.add(self, work)
        self._put(work)
        return work

    def execute(self, work: Work) -> None:
        """Do one piece; after an error, nothing more is done, as on real devices."""
        try:
            if self.error is None:
                work.action()
        except BaseException as error:
            self.error = error
        finally:
            self.queue.finish(self, work)
            work.done.set()

    def record(self) -> Event:
        return FakeEvent(self, self.enqueue(lambda: None))

    def synchronize(self) -> None:
        self.record().wait()

    def close(self) -> None:
        if self.closed:
            self.queue.faults.append("a stream was closed twice")
        self.closed = True
        self.queue.close(self)

    @abstractmethod
    def _put(self, work: Work) -> None:
        """Take one piece of work."""

    @abstractmethod
    def wait_for(self, work: Work) -> None:
        """Return when it is done."""


@dataclass(frozen=True)
class FakeEvent:
    """A point in a stream."""

    stream: FakeStream
    work: Work

    def wait(self) -> None:
        """Wait until the stream has come to this point; raises what went wrong on the way."""
        self.stream.wait_for(self.work)
        if self.stream.error is not None:
            raise self.stream.error


class LateStream(FakeStream):
    """Does its work in the thread that waits, and only then."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self._works: deque[Work] = deque()

    def _put(self, work: Work) -> None:
        self._works.append(work)

    def wait_for(self, work: Work) -> None:
        while not work.done.is_set():
            self.execute(self._works.popleft())


class ThreadStream(FakeStream):
    """Does its work in a thread of its own."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self._works: deque[Work | None] = deque()
        self._ready = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, name="toy device", daemon=True)
        self._thread.start()

    def _put(self, work: Work | None) -> None:
        self._works.append(work)
        self._ready.release()

    def _serve(self) -> None:
        while self._ready.acquire() and (work := self._works.popleft()) is not None:
            self.execute(work)

    def wait_for(self, work: Work) -> None:
        work.done.wait()

    def close(self) -> None:
        super().close()
        self._put(None)
        self._thread.join()
