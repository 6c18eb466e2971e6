"""The CUDA provider on a GPU: its tests, its conformance, and BERT-base against named peers; a table last.

Everything fits in ten minutes: what has not begun by its deadline is left out, and the table says so. Without a GPU
nothing is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import epkit

from .bert import HEADS, HIDDEN, INNER, save_bert
from .measure import alternate, machine

MINUTES = 10
SEQUENCE, LAYERS, ROUNDS = 128, 12, 30
BATCHES = (1, 8, 64)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
TESTS = (
    ("own tests", ["plugins/cuda/tests", "-m", "not slow", "-q"], 150),
    ("conformance", ["--pyargs", "epkit_conformance", "--provider", "cuda", "-q"], 180),
)
"""What is run first: name, arguments of pytest, seconds at most."""


def main() -> None:
    """Test, time, and print the table."""
    found = gpu()
    print(f"{machine()}; {found.description}")
    deadline = time.monotonic() + 60 * MINUTES
    rows = [(name, *tested(arguments, seconds)) for name, arguments, seconds in TESTS]
    timed = list(timings(deadline))
    print("\n| what | result | seconds |\n| --- | --- | --- |")
    for name, result, seconds in rows:
        print(f"| {name} | {result} | {seconds:.0f} |")
    print("\n| model | epkit ms | against (peer / epkit; over 1: epkit is faster) | share of peak |")
    print("| --- | --- | --- | --- |")
    for line in timed:
        print(line)


def gpu() -> Any:
    """The device.

    Raises:
        SystemExit: without one, with the reason and what to do.
    """
    from epkit_cuda.device import Options, find_devices

    devices = find_devices(Options())
    if not devices.found:
        raise SystemExit(f"no GPU here, nothing was measured: {devices.reason} ({devices.remedy})")
    return devices.found[0]


def tested(arguments: list[str], seconds: int) -> tuple[str, float]:
    """The last line of a test run, and how long it took."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds} s", float(seconds)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    return lines[-1].strip("= "), time.monotonic() - start


def timings(deadline: float) -> Iterator[str]:
    """Rows of the table, until the deadline."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert.onnx"
        save_bert(path, LAYERS)
        for precision in PRECISIONS:
            peak = measured_peak(precision)
            for batch in BATCHES:
                if time.monotonic() > deadline:
                    yield f"| BERT-base, batch {batch}, {precision} | not reached in {MINUTES} minutes | | |"
                    continue
                yield timed(path, batch, precision, peak)


def timed(path: Path, batch: int, precision: str, peak: float) -> str:
    """One row: every subject in turn, medians."""
    x = np.random.default_rng(0).standard_normal((batch, SEQUENCE, HIDDEN), np.float32)
    options = {"precision": precision}
    with epkit.load(path, [("cuda", options)], fallback="error", capture=True) as session:
        subjects: dict[str, Callable[[], object]] = {"epkit": lambda: session(x=x)}
        subjects |= torch_peers(x, precision)
        subjects |= onnxruntime_peer(path, x, precision)
        for run in subjects.values():  # recordings and compilations are not part of a run
            for _ in range(4):
                run()
        seconds = alternate(subjects, ROUNDS)
    ours = seconds.pop("epkit")
    ratios = ", ".join(f"{name} {found / ours:.2f}" for name, found in seconds.items()) or "no peer installed"
    share = flops(batch) / ours / peak
    return f"| BERT-base, batch {batch}, {precision} | {1e3 * ours:.3f} | {ratios} | {share:.0%} |"


def flops(batch: int) -> float:
    """Floating-point operations of the products of one run."""
    tokens = batch * SEQUENCE
    weights = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER
    return 2.0 * LAYERS * tokens * (weights + 2 * SEQUENCE * HIDDEN)


def measured_peak(precision: str) -> float:
    """FLOP/s of the library's product of two large matrices, in this run, on this GPU."""
    import cupy

    from epkit_cuda.device import open_machine
    from epkit_cuda.kernels.products import ROUNDED

    size, gpu_ = 8192, open_machine(0)
    dtype = ROUNDED.get(precision, np.dtype(np.float32))
    a = cupy.ones((size, size), cupy.float32).astype(dtype)
    out = cupy.empty((size, size), cupy.float32)
    best = float("inf")
    for _ in range(6):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        gpu_.multiply(a, a, out, precision)
        end.record()
        end.synchronize()
        best = min(best, cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return 2.0 * size**3 / best


def torch_peers(x: np.ndarray[Any, Any], precision: str) -> dict[str, Callable[[], object]]:
    """An encoder of the same sizes in PyTorch, eager and compiled with CUDA graphs, copies included as in ours."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    layer = torch.nn.TransformerEncoderLayer(
        HIDDEN, HEADS, INNER, dropout=0.0, activation="gelu", batch_first=True
    )
    model = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval().to("cuda", dtype)
    compiled = torch.compile(model, mode="max-autotune")
    given = torch.from_numpy(x)

    def runner(function: Any) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return function(given.to("cuda", dtype)).float().cpu()

        return run

    return {"torch eager": runner(model), "torch.compile": runner(compiled)}


def onnxruntime_peer(path: Path, x: np.ndarray[Any, Any], precision: str) -> dict[str, Callable[[], object]]:
    """onnxruntime's CUDA provider, where it is installed; it computes this model in fp32 or tf32."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    name = "CUDAExecutionProvider"
    if name not in onnxruntime.get_available_providers() or precision not in ("fp32", "tf32"):
        return {}
    providers = [(name, {"use_tf32": int(precision == "tf32")})]
    session = onnxruntime.InferenceSession(path, providers=providers)
    return {"onnxruntime": lambda: session.run(None, {"x": x})}
