"""The CUDA provider on a GPU: its tests, its conformance, and six models against named peers; a table last.

    python -m benchmarks cuda [--minutes N]

Everything fits in ten minutes: what has not begun by its deadline is left out, and the table says so. Without a GPU
nothing is measured: the models are made and counted, and what is missing is named.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from . import cuda_models
from .cuda_models import Work, feeds_of, work_of
from .measure import alternate, machine

MINUTES = 10
ROUNDS = 20
PRECISIONS = ("fp16", "fp32", "tf32", "bf16")
BATCHES = (1, 8, 64)
COMPILING = 60
"""Seconds that a compilation by a peer may take: none is begun later than that before the end."""

PYTEST = [sys.executable, "-m", "pytest", "-q"]
TESTS = (
    ("own tests", [*PYTEST, "plugins/cuda/tests/test_cuda_gpu.py", "-k", "not published"], 60),
    ("published node tests", [*PYTEST, "plugins/cuda/tests/test_cuda_gpu.py", "-k", "published"], 120),
    ("conformance", [sys.executable, "-m", "epkit.cli", "conformance", "run", "cuda"], 150),
)
"""What is run first: name, command, seconds at most."""

Maker = Callable[[Path, str, int], Path]
PICTURES_AND_TEXT: dict[str, Maker] = {
    "ResNet-50": cuda_models.resnet,
    "BERT-base, 128 tokens": cuda_models.bert,
    "ViT-B/16": cuda_models.vit,
    "MobileNet-v2": cuda_models.mobilenet,
}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: the model and its batch.
        precision: as the provider's option names it; of the elements where they have 16 bits.
        make: writes the model of an element type into a folder.
        peers: False where no peer has such weights.
    """

    name: str
    precision: str
    make: Callable[[Path, str], Path]
    peers: bool = True

    @property
    def kind(self) -> str:
        """The element type of the model."""
        return self.precision if self.precision in ("fp16", "bf16") else "fp32"

    @property
    def level(self) -> str:
        """Of the optimiser: strict float32 convolutions have their channels in front."""
        return "extended" if self.precision == "fp32" else "all"


def cases() -> Iterator[Case]:
    """The decoder first, then by precision, model and batch."""
    yield Case("Llama 1B, decode after 512", "fp16", lambda d, k: cuda_models.llama(d, k, 1, 512))
    yield Case("Llama 1B, prefill 512", "fp16", lambda d, k: cuda_models.llama(d, k, 512, 0))
    for name, length, past in (("decode after 512", 1, 512), ("prefill 512", 512, 0)):
        yield Case(
            f"Llama 1B int4, {name}",
            "fp16",
            lambda d, k, length=length, past=past: cuda_models.llama(d, k, length, past, bits=4),  # type: ignore[misc]
            peers=False,
        )
    for precision in PRECISIONS:
        for batch in BATCHES:
            for name, make in PICTURES_AND_TEXT.items():
                yield Case(
                    f"{name}, batch {batch}",
                    precision,
                    lambda d, k, make=make, batch=batch: make(d, k, batch),  # type: ignore[misc]
                )


def main() -> None:
    """Test, time, and print the table."""
    given = sys.argv[2:]
    minutes = float(given[given.index("--minutes") + 1]) if "--minutes" in given else MINUTES
    found = devices()
    if not found.found:
        dry_run(f"{found.reason} ({found.remedy})")
        return
    print(f"{machine()}; {found.found[0].description}")
    deadline = time.monotonic() + 60 * minutes
    rows = [(name, *tested(command, seconds)) for name, command, seconds in TESTS]
    timed = list(timings(deadline))
    print("\n| what | result | seconds |\n| --- | --- | --- |")
    for name, result, seconds in rows:
        print(f"| {name} | {result} | {seconds:.0f} |")
    print("\nPeers by their time over epkit's (over 1: epkit is faster); memory: epkit's over torch's.\n")
    print("| model | precision | ms | of the roofline | host µs | peers | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for line in timed:
        print(line)


def devices() -> Any:
    """The GPU, or why there is none."""
    from epkit_cuda.device import Options, find_devices

    return find_devices(Options())


def dry_run(missing: str) -> None:
    """Make and count the models; name what is missing."""
    print(f"{machine()}\n\nNo GPU here, nothing was measured: {missing}")
    peers = {name: bool(find_spec(name)) for name in ("cupy", "nvmath", "cudnn", "torch", "onnxruntime")}
    absent = [name for name, there in peers.items() if not there]
    print(f"Not installed here: {', '.join(absent) or 'nothing'}.\n")
    print(
        "| model | GFLOP | weights, MB | least traffic, MB | FLOP a byte |\n| --- | --- | --- | --- | --- |"
    )
    chosen = [case for case in cases() if case.precision == "fp16"]
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            work = counted(case.make(Path(folder), case.kind))
        sizes = f"{work.weights / 1e6:,.1f} | {work.moved / 1e6:,.1f} | {work.flop / work.moved:.0f}"
        print(f"| {case.name}, {case.kind} | {work.flop / 1e9:,.2f} | {sizes} |")


def counted(path: Path) -> Work:
    """The work of a model."""
    return work_of(onnx.load(path, load_external_data=False))


def tested(command: list[str], seconds: int) -> tuple[str, float]:
    """The last line of a test run, and how long it took."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds} s", float(seconds)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    return lines[-1].strip("= "), time.monotonic() - start


# ---- timing ----


@dataclass(frozen=True)
class Limits:
    """What the device can do, measured in this run.

    Attributes:
        flops: FLOP/s of a large product, by precision.
        bandwidth: bytes/s of a large copy, read and written.
    """

    flops: dict[str, float]
    bandwidth: float

    def seconds(self, work: Work, precision: str) -> float:
        """The least time for some work. Williams et al., "Roofline" (2009)."""
        return max(work.flop / self.flops[precision], work.moved / self.bandwidth)


def timings(deadline: float) -> Iterator[str]:
    """Rows of the table, until the deadline."""
    limits = Limits({name: measured_peak(name) for name in PRECISIONS}, measured_bandwidth())
    for case in cases():
        if time.monotonic() > deadline:
            yield f"| {case.name} | {case.precision} | not reached | | | | |"
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield timed(case, Path(folder), limits, deadline)
        except Exception as error:
            yield f"| {case.name} | {case.precision} | {type(error).__name__}: {str(error)[:200]} | | | | |"


def timed(case: Case, folder: Path, limits: Limits, deadline: float) -> str:
    """One row: every subject in turn, inputs and results on the device."""
    from .cuda_device import OnDevice, release

    release()
    path = case.make(folder, case.kind)
    model = onnx.load(path, load_external_data=False)
    work, feeds = work_of(model), feeds_of(model)
    ours = OnDevice(path, case.precision, case.level, feeds)
    memory, host = ours.memory(), ours.host_seconds(ROUNDS)
    subjects: dict[str, Callable[[], object]] = {"epkit": ours.run}
    notes: list[str] = []
    theirs = 0
    if case.peers and find_spec("torch"):
        found, theirs, notes = torch_peers(path, feeds, case.precision, deadline)
        subjects |= found
    if case.peers:
        subjects |= onnxruntime_peer(path, feeds, case.precision)
    for run in subjects.values():
        for _ in range(4):
            run()
    seconds = alternate(subjects, ROUNDS)
    ours.close()
    mine = seconds.pop("epkit")
    ratios = [f"{name} {found / mine:.2f}" for name, found in seconds.items()] + notes
    share = limits.seconds(work, case.precision) / mine
    held = f"{memory / theirs:.2f}" if theirs else ""
    numbers = f"{1e3 * mine:.3f} | {share:.0%} | {1e6 * host:.0f} | {', '.join(ratios) or 'no peer'} | {held}"
    return f"| {case.name} | {case.precision} | {numbers} |"


def measured_bandwidth() -> float:
    """Bytes/s of a copy on the device, those read and those written."""
    import cupy

    size = 1 << 30
    source, target = cupy.zeros(size, cupy.uint8), cupy.empty(size, cupy.uint8)
    return 2.0 * size / best_seconds(lambda: cupy.copyto(target, source))


def measured_peak(precision: str) -> float:
    """FLOP/s of the library's product of two large matrices, in this run, on this GPU."""
    import cupy

    from epkit_cuda.device import open_machine
    from epkit_cuda.kernels.products import ROUNDED

    size, gpu = 8192, open_machine(0)
    dtype = ROUNDED.get(precision, np.dtype(np.float32))
    a, b = (cupy.random.standard_normal((size, size), cupy.float32).astype(dtype) for _ in range(2))
    out = cupy.empty((size, size), dtype)
    return 2.0 * size**3 / best_seconds(lambda: gpu.multiply(a, b, out, precision))


def best_seconds(run: Callable[[], object]) -> float:
    """The least of ten, by events of the device, after two that do not count."""
    import cupy

    found = []
    for _ in range(12):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return float(min(found[2:]))


# ---- peers ----


def torch_peers(
    path: Path, feeds: dict[str, Any], precision: str, deadline: float
) -> tuple[dict[str, Callable[[], object]], int, list[str]]:
    """The same graph in PyTorch, eager and compiled with CUDA graphs; the eager one's bytes; what was left out."""
    import torch

    from .cuda_torch import Graph, as_torch

    if not torch.cuda.is_available():
        return {}, 0, ["torch sees no GPU"]
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Graph(path, "cuda").eval()
    given = [as_torch(feeds[name]).to("cuda") for name in model.inputs]
    if precision != "fp32":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        given = [
            x.to(memory_format=torch.channels_last) if x.ndim == 4 and x.shape[1] == 3 else x for x in given
        ]

    def runner(function: Any) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                result = function(*given)
            torch.cuda.synchronize()
            return result

        return run

    eager = runner(model)
    eager()
    found, memory = {"torch eager": eager}, int(torch.cuda.max_memory_reserved())
    if time.monotonic() > deadline - COMPILING:
        return found, memory, ["torch.compile not reached"]
    torch._dynamo.reset()
    return found | {"torch.compile": runner(torch.compile(model, mode="max-autotune"))}, memory, []


def onnxruntime_peer(path: Path, feeds: dict[str, Any], precision: str) -> dict[str, Callable[[], object]]:
    """onnxruntime's CUDA provider, where it is installed, with its inputs and results on the device."""
    if not find_spec("onnxruntime") or precision == "bf16":
        return {}
    import onnxruntime

    name = "CUDAExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        return {}
    providers = [(name, {"use_tf32": int(precision == "tf32")})]
    session = onnxruntime.InferenceSession(path, providers=providers)
    binding = session.io_binding()
    for key, value in feeds.items():
        binding.bind_ortvalue_input(key, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return {"onnxruntime": run}
