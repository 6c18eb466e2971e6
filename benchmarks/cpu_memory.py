"""Peak memory of one engine that loads a model and runs it: measured in a process of its own.

``python -m benchmarks.cpu_memory ENGINE THREADS MODEL FEEDS`` prints the peak in bytes. FEEDS is an ``.npz`` file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .engines import Run, engines

if TYPE_CHECKING:
    from .cpu_models import Feeds

CACHED = "epkit, cached"
"""The engine that loads from the cache what a process before it has left there."""


def peaks(model: str | bytes, feeds: Feeds, threads: int, names: tuple[str, ...]) -> dict[str, int]:
    """The peak of each engine, in bytes."""
    from .measure import settle

    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        if isinstance(model, bytes):
            path.write_bytes(model)
        np.savez(data, **feeds)
        file = path if isinstance(model, bytes) else Path(model)
        if CACHED in names:
            settle(file)
            _measured(CACHED, threads, file, data)
        return {name: _measured(name, threads, file, data) for name in names}


def _measured(name: str, threads: int, model: Path, feeds: Path) -> int:
    """Modules are compiled beforehand, as those of an installed package are: the compiler's memory is not counted."""
    command = [sys.executable, "-m", "benchmarks.cpu_memory", name, str(threads), str(model), str(feeds)]
    compiled = Path(tempfile.gettempdir()) / "benchmarks-bytecode"
    ours = {"PYTHONPYCACHEPREFIX": str(compiled), "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(1 if (compiled / name).exists() else 2):
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ours})
    (compiled / name).mkdir(parents=True, exist_ok=True)
    return int(done.stdout.split()[-1])


def _cached(model: str, threads: int, folder: Path) -> Run:
    import epkit

    session = epkit.load(model, [("cpu", {"threads": threads})], cache=folder)
    return lambda feeds: session.run(None, feeds)


def main() -> None:
    """The child's part."""
    name, threads, model, feeds = sys.argv[1:]
    if name == CACHED:
        run = _cached(model, int(threads), Path(feeds).with_name("cache"))
    else:
        run = engines(int(threads))[name](model)
    given = dict(np.load(feeds))
    for _ in range(3):
        run(given)
    lines = (
        Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    )  # getrusage counts the parent too
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))


if __name__ == "__main__":
    main()
