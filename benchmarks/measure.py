"""Alternating measurements, medians, and the machine's description."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

PAUSE = 0.06
"""Seconds after which the threads of an engine that has just run have stopped spinning."""


class Seconds(float):
    """What a subject gives that has timed itself."""


def alternate(
    subjects: Mapping[str, Callable[[], object]], rounds: int, *, pause: float = 0.0, turn: int = 1
) -> dict[str, float]:
    """Median seconds of each subject: A B C A B C ...; a turn is one uncounted run, then ``turn`` counted ones.

    Args:
        subjects: what to run, by name; one that gives ``Seconds`` has timed itself.
        rounds: how often each of them has its turn.
        pause: seconds before a turn. Give ``PAUSE`` where several threads compute: those of the subject before go on
            spinning for a while after its run, and would take a core from the next.
        turn: counted runs in a turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            time.sleep(pause)
            run()
            for _ in range(turn):
                start = time.perf_counter()
                told = run()
                seconds[name].append(told if isinstance(told, Seconds) else time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def settle(path: Path) -> None:
    """Wait until a file is so old that the cache knows it by its times."""
    time.sleep(max(0.0, 2.1 - (time.time() - path.stat().st_ctime)))


def machine() -> str:
    """Processor, cores, Python and the versions of what is compared, on one line."""
    names = ("epkit", "onnx", "onnx-ir", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        family = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
        return f"{model} (family {family.get('cpu family')}, model {family.get('model')})"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
