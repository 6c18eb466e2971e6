"""The memory that one run takes beyond what is held after loading, in a process of its own.

``python -m benchmarks.peak ENGINE MODEL INPUTS.npz`` prints the bytes; ENGINE is epkit or onnxruntime.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def run_bytes(engine: str, model: Path, feeds: Path) -> int:
    """Measured in a child; -1 where the model does not run."""
    command = [sys.executable, "-m", "benchmarks.peak", engine, str(model), str(feeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else -1


def main(engine: str, model: str, inputs: str) -> None:
    """Load, run once, print by how much the memory rose at most."""
    with np.load(inputs, allow_pickle=False) as file:
        feeds = dict(file)
    run = runner(engine, model)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = _status("VmRSS")
    run(feeds)
    print(max(0, _status("VmHWM") - before))


def runner(engine: str, model: str) -> Callable[[Mapping[str, Any]], object]:
    """A loaded model."""
    if engine == "epkit":
        import epkit

        session = epkit.load(model, ["cpu"])
        return lambda feeds: session.run(None, feeds)
    import onnxruntime

    other = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda feeds: other.run(None, feeds)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:4])
