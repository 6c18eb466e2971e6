"""The streams of the stand-in, which are late, and its graphs, which touch recorded memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cuda_standin import StandIn


class Event:
    """A point in a pretended stream: reached once everything before it was run."""

    def __init__(self, stream: LateStream) -> None:
        self.stream, self.place = stream, stream.enqueued

    def wait(self) -> None:
        self.stream.flush()


class Graph:
    """Recorded work; running it touches what was recorded, and nothing else."""

    def __init__(self, machine: StandIn) -> None:
        self.machine = machine
        self.work: list[Callable[[], None]] = []

    def launch(self, stream: LateStream) -> None:
        self.machine.graph_launches += 1
        for work in self.work:
            stream.put(work)


class LateStream:
    """Copies and kernels wait until somebody waits for them; array operations happen at once, after a flush."""

    def __init__(self, machine: StandIn, address: int) -> None:
        self.machine, self.address = machine, address
        self.pending: list[Callable[[], None]] = []
        self.enqueued = 0
        self.graph: Graph | None = None

    def put(self, work: Callable[[], None]) -> None:
        if self.graph is not None:
            self.graph.work.append(work)
            return
        self.enqueued += 1
        self.pending.append(work)

    def flush(self) -> None:
        work, self.pending = self.pending, []
        for item in work:
            item()

    def record(self) -> Event:
        return Event(self)

    def wait(self, event: Event) -> None:
        self.put(event.stream.flush if event.stream is not self else lambda: None)

    def synchronize(self) -> None:
        if self.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.flush()
        self.machine.synchronizations += 1

    @contextmanager
    def capture(self) -> Iterator[list[Graph]]:
        graphs: list[Graph] = []
        self.graph = Graph(self.machine)
        try:
            yield graphs
            graphs.append(self.graph)
        finally:
            self.graph = None
