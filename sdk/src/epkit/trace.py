"""The event recorder, and its Chrome trace form that Perfetto opens.

Format: "Trace Event Format" of Chromium; complete events (``ph: X``) with microseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """One timed event; ``start`` and ``duration`` in nanoseconds of ``time.perf_counter_ns``.

    ``row`` names the part of a device that did it; "" for events of the thread.
    """

    name: str
    category: str
    start: int
    duration: int
    thread: int
    details: dict[str, object] = field(default_factory=dict)
    row: str = ""


class Recorder:
    """Collects events from any thread; appending to a list is atomic in CPython."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, name: str, category: str, start: int, **details: object) -> None:
        """Record an event that began at ``start`` (``time.perf_counter_ns``) and ends now."""
        now = time.perf_counter_ns()
        self.events.append(Event(name, category, start, now - start, threading.get_native_id(), details))

    def place(self, name: str, category: str, start: int, duration: int, row: str, **details: object) -> None:
        """Record an event of a device, with the device's own times."""
        self.events.append(Event(name, category, start, duration, 0, details, row))

    @contextmanager
    def span(self, name: str, category: str, **details: object) -> Iterator[None]:
        """Record the duration of a block, also when it raises."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add(name, category, start, **details)

    def chrome_trace(self) -> str:
        """The events as a JSON object that Perfetto and chrome://tracing open."""
        origin = min((event.start for event in self.events), default=0)
        parts = sorted({event.row for event in self.events if event.row})
        rows: list[dict[str, object]] = [
            {
                "name": "thread_name",
                "cat": "row",
                "ph": "M",
                "pid": os.getpid(),
                "tid": number,
                "args": {"name": row},
            }
            for number, row in enumerate(parts, 1)
        ]
        rows += [
            {
                "name": event.name,
                "cat": event.category,
                "ph": "X",
                "ts": (event.start - origin) / 1000,
                "dur": event.duration / 1000,
                "pid": os.getpid(),
                "tid": parts.index(event.row) + 1 if event.row else event.thread,
                "args": event.details,
            }
            for event in sorted(self.events, key=lambda event: event.start)
        ]
        return json.dumps({"traceEvents": rows, "displayTimeUnit": "ms"})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the Chrome trace to a file."""
        Path(path).write_text(self.chrome_trace(), encoding="utf-8")
