"""Peak memory of one engine that loads a model and runs it: measured in a process of its own.

``python -m benchmarks.cpu_memory ENGINE THREADS MODEL FEEDS`` prints the peak in bytes. FEEDS is an ``.npz`` file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .engines import engines

if TYPE_CHECKING:
    from .cpu_models import Feeds


def peaks(model: str | bytes, feeds: Feeds, threads: int, names: tuple[str, ...]) -> dict[str, int]:
    """The peak of each engine, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        if isinstance(model, bytes):
            path.write_bytes(model)
        np.savez(data, **feeds)
        file = str(path) if isinstance(model, bytes) else model
        return {name: _measured(name, threads, file, data) for name in names}


def _measured(name: str, threads: int, model: str, feeds: Path) -> int:
    command = [sys.executable, "-m", "benchmarks.cpu_memory", name, str(threads), model, str(feeds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """The child's part."""
    name, threads, model, feeds = sys.argv[1:]
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
