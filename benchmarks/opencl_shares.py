"""What a run's time goes into, by the device's clock: kernels, copies, and neither."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

import epkit

RUNS = 7


class Shares(NamedTuple):
    """Parts of the wall time of a run, and how many kernels it launched."""

    kernels: float
    copies: float
    overhead: float
    launches: int


def shares_of(path: Path, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Shares:
    """Medians of some runs, the first ones not counted."""
    found = []
    with noted() as events, epkit.load(path, ["opencl"]) as session:
        for _ in range(RUNS + 2):
            events.clear()
            start = time.perf_counter()
            session.run(None, dict(feeds))
            whole = time.perf_counter() - start
            kernels, copies = (_seconds(events, kind) for kind in ("kernel", "copy"))
            launches = sum(kind == "kernel" for kind, _ in events)
            found.append(Shares(kernels / whole, copies / whole, 1 - (kernels + copies) / whole, launches))
    return sorted(found[2:], key=lambda item: abs(item.overhead - _middle(found[2:])))[0]


def _middle(found: list[Shares]) -> float:
    return statistics.median(item.overhead for item in found)


def _seconds(events: list[tuple[str, Any]], wanted: str) -> float:
    return float(sum(e.profile.end - e.profile.start for kind, e in events if kind == wanted)) / 1e9


@contextmanager
def noted() -> Iterator[list[tuple[str, Any]]]:
    """Inside, queues measure their commands, and every command is noted with its kind."""
    import pyopencl as cl

    events: list[tuple[str, Any]] = []

    def noting(kind: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def command(*arguments: Any, **named: Any) -> Any:
            event = plain(*arguments, **named)
            events.append((kind, event))
            return event

        return command

    queue = cl.CommandQueue

    def measuring(context: Any) -> Any:
        return queue(context, properties=cl.command_queue_properties.PROFILING_ENABLE)

    with (
        patch.object(cl, "CommandQueue", measuring),
        patch.object(cl, "enqueue_nd_range_kernel", noting("kernel", cl.enqueue_nd_range_kernel)),
        patch.object(cl, "enqueue_copy", noting("copy", cl.enqueue_copy)),
    ):
        yield events
