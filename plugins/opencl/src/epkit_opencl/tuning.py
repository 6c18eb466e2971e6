"""Which of several ways is the fastest on a device: measured once, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from epkit.knobs import CACHE_DIR

from .device import Gpu
from .memory import ClStream

T = TypeVar("T")
ROUNDS = 3


def fastest(stream: ClStream, key: str, ways: Sequence[T], run: Callable[[T], None]) -> T:
    """The way that took the least time for a task like this one; the first where nothing may be measured.

    Args:
        stream: of the run; a recording measures nothing.
        key: names the task; what is known of it is used again, by later processes too.
        ways: values with a readable ``repr``, which names them in the cache.
        run: goes a way; all ways give the same result but for roundings, so it may be done again and again.
    """
    gpu = stream.gpu
    with gpu.lock:
        if gpu.choices is None:
            gpu.choices = _read(gpu)
        known = gpu.choices.get(key)
    for way in ways:
        if repr(way) == known:
            return way
    if stream.recording is not None or not stream.limits.tune:
        return ways[0]
    with gpu.lock:  # one measurement at a time
        chosen = ways[_measured(stream, ways, run)]
        gpu.choices[key] = repr(chosen)
        _write(gpu)
    return chosen


def _measured(stream: ClStream, ways: Sequence[T], run: Callable[[T], None]) -> int:
    """The index of the way with the smallest time; rounds alternate, the first is for compiling."""
    least = [float("inf")] * len(ways)
    for turn in range(ROUNDS + 1):
        for index, way in enumerate(ways):
            stream.queue.finish()
            start = time.perf_counter()
            run(way)
            stream.queue.finish()
            if turn:
                least[index] = min(least[index], time.perf_counter() - start)
    return least.index(min(least))


def _path(gpu: Gpu) -> Path:
    digest = hashlib.sha256(gpu.driver.encode()).hexdigest()[:16]
    return Path(CACHE_DIR.get()) / f"opencl-{digest}.json"


def _read(gpu: Gpu) -> dict[str, str]:
    """What was measured before; nothing, if that cannot be read."""
    try:
        found = json.loads(_path(gpu).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _write(gpu: Gpu) -> None:
    """Keep it, whole or not at all; a cache that cannot be written costs time only."""
    path = _path(gpu)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
            json.dump(gpu.choices, part, indent=1, sort_keys=True)
        os.replace(part.name, path)
