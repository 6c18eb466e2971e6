"""The CUDA provider on a GPU: its tests, its conformance, and six models against named peers; a table last.

    python -m benchmarks cuda [--minutes N]

Everything fits in ten minutes: what has not begun by its deadline is left out, and the table says so. Every row is
measured without ``torch.compile`` first, then with it for as long as there is time. Rows are printed and kept in
``results/cuda.md`` as they come. Without a GPU nothing is measured: the models are made and counted, and
what is missing is named.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from .cuda_cases import cases
from .cuda_models import Work, work_of
from .cuda_watch import Watch
from .measure import machine

MINUTES = 10
SPARE = 15
"""Seconds at the end for the tables."""

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "cuda.md"
PYTEST = [sys.executable, "-m", "pytest", "-q", "plugins/cuda/tests/test_cuda_gpu.py"]
CONFORMANCE = [sys.executable, "-m", "epkit.cli", "conformance", "run", "cuda"]
TESTS = (
    ("own tests", [*PYTEST, "-k", "not published"], 75),
    ("published node tests", [*PYTEST, "-k", "published"], 100),
    ("conformance", [*CONFORMANCE, "--jobs", "8", "--memory", "0", "--no-report"], 125),
)
"""What is run first: name, command, seconds at most. The driver reserves addresses without end, so that a limit on a
worker's memory would be one on them: conformance has none. The device's memory is measured in the rows."""

TITLES = ("model", "precision", "ms", "session ms", "of the roofline", "host µs", "peers", "memory")
LEGEND = (
    "ms: of the captured graph, waited for; session ms: of a run through the session. Peers by their time over "
    "epkit's ms (over 1: epkit is faster); memory: bytes of the device for weights, inputs and values, epkit's over "
    "those of torch, eager."
)


def main() -> None:
    """Test, time, and print the table."""
    given = sys.argv[2:]
    minutes = float(given[given.index("--minutes") + 1]) if "--minutes" in given else MINUTES
    end = time.monotonic() + 60 * minutes - SPARE
    found = devices()
    if not found.found:
        dry_run(f"{found.reason} ({found.remedy})")
        return
    head = f"{machine()}; {found.found[0].description}"
    print(head, flush=True)
    tests = []
    for name, command, seconds in TESTS:
        result, took = tested(command, seconds)
        tests.append([name, result, f"{took:.0f}"])
        print(f"{name}: {result} ({took:.0f} s)", flush=True)
    watch = Watch([(case.name, case.precision) for case in cases()], end, 15 * minutes, lambda cells: None)

    def tell(cells: list[str]) -> None:
        print(line(cells), flush=True)
        keep(head, tests, list(watch.rows.values()))

    watch.tell = tell
    print("\n".join(table(TITLES)), flush=True)
    print("\n" + keep(head, tests, watch.run()))


def line(cells: Any) -> str:
    """One of a table; what an error says may not break it."""
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def table(titles: Any) -> list[str]:
    """Its beginning."""
    return [line(titles), line(["---"] * len(titles))]


def keep(head: str, tests: list[list[str]], rows: list[list[str]]) -> str:
    """The report so far, kept in a file."""
    parts = [
        head,
        "",
        *table(("what", "result", "seconds")),
        *map(line, tests),
        "",
        LEGEND,
        "",
        *table(TITLES),
    ]
    text = "\n".join([*parts, *map(line, rows), ""])
    try:
        RESULTS.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"the report was not kept: {error}")
    return text


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
    print("\n".join(table(("model", "GFLOP", "weights, MB", "least traffic, MB", "FLOP a byte"))))
    for case in cases():
        if case.precision != "fp16":
            continue
        with tempfile.TemporaryDirectory() as folder:
            work = counted(case.make(Path(folder), case.kind))
        sizes = f"{work.weights / 1e6:,.1f}", f"{work.moved / 1e6:,.1f}", f"{work.flop / work.moved:.0f}"
        print(line((f"{case.name}, {case.kind}", f"{work.flop / 1e9:,.2f}", *sizes)), flush=True)


def counted(path: Path) -> Work:
    """The work of a model."""
    return work_of(onnx.load(path, load_external_data=False))


def tested(command: list[str], seconds: int) -> tuple[str, float]:
    """The last line of a test run, and how long it took. What it has started ends with it."""
    start = time.monotonic()
    environment = {**os.environ, "EPKIT_EXPECT_CUDA": "1"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        options: dict[str, Any] = {"stdout": out, "stderr": errors, "cwd": ROOT, "env": environment}
        with subprocess.Popen(command, start_new_session=True, **options) as process:
            try:
                process.wait(seconds)
                problem = ""
            except subprocess.TimeoutExpired:
                problem = f"stopped after {seconds} s; before: "
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        texts = [(stream.seek(0), stream.read())[1] for stream in (out, errors)]
    return problem + (last(texts[0]) or last(texts[1]) or "no output"), time.monotonic() - start


def last(text: str) -> str:
    """The last line that says something."""
    found = [item.strip("= ") for item in text.splitlines() if item.strip("= ")]
    return found[-1].replace("|", "/")[:160] if found else ""
