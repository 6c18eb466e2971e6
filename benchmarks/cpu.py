"""The CPU provider against onnxruntime (and OpenVINO where it is installed), model by model, in turn."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from .cpu_memory import peaks
from .cpu_models import QUICK, SUBJECTS, Feeds, Subject, bert, hidden, packaged
from .cpu_picture import picture
from .engines import CannotRun, OpenvinoChild, Run, engines, epkit_run
from .measure import PAUSE, Seconds, alternate, machine

RESULTS = Path(__file__).parent / "results" / "cpu.md"
PICTURE = RESULTS.with_suffix(".svg")
SECONDS = 4.0
"""About how long one model is measured at one number of threads."""
WITH_OPENVINO = ("ResNet-50", "MobileNet-v2", "BERT-base S=128")
"""What else the names begin with is measured beside onnxruntime only."""


@dataclass(frozen=True)
class Row:
    """One model at one number of threads.

    Attributes:
        seconds: medians of a round, by engine; loading: seconds to a session; memory: bytes at the peak.
        peak: GFLOP/s of one thread of the machine.
    """

    name: str
    threads: int
    seconds: dict[str, float]
    loading: dict[str, float]
    gflop: float | None
    error: float
    peak: float
    memory: dict[str, int]

    @property
    def ratio(self) -> float:
        """epkit's time over onnxruntime's."""
        return self.ratio_to("onnxruntime")

    def ratio_to(self, peer: str) -> float:
        """epkit's time over a peer's."""
        return self.seconds["epkit"] / self.seconds[peer]


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and (unless ``--quick`` or ``--only``) write the table.

    ``--openvino=PYTHON``: the Python of an environment with OpenVINO, where it is not importable here.
    ``--only=TEXT``: the models with that in their name.
    """
    parser = argparse.ArgumentParser("python -m benchmarks cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--openvino", default="")
    parser.add_argument("--only", default="")
    given = parser.parse_args(arguments)
    quick = given.quick
    subjects = [s for s in SUBJECTS if s.name in QUICK] if quick else [*SUBJECTS, *packaged()]
    subjects = [s for s in subjects if given.only in s.name]
    rows = []
    for subject in subjects:
        model = subject.model()
        for threads in (1,) if quick else (1, 2):
            rows.append(
                measure(
                    subject, model, threads, given.openvino if subject.name.startswith(WITH_OPENVINO) else ""
                )
            )
            print(line(rows[-1], peers_of(rows)), flush=True)
    text = table(rows) + ("" if given.only else new_lengths())
    if not quick and not given.only:
        RESULTS.write_text(text, encoding="utf-8")
        bars = [(f"{row.name}, {row.threads} thread{'s' * (row.threads > 1)}", row.ratio) for row in rows]
        PICTURE.write_text(picture("Time of epkit where onnxruntime takes 1", bars), encoding="utf-8")
    print(text)


LENGTHS = (61, 113, 97, 45, 150, 77, 33)


def new_lengths() -> str:
    """BERT-base: the first run with a length never seen against later ones."""
    run = epkit_run(bert(), 1)
    run(hidden(128)()[0])
    ratios = []
    for (feed,) in (hidden(length)() for length in LENGTHS):
        start = time.perf_counter()
        run(feed)
        first = time.perf_counter() - start
        ratios.append(first / alternate({"warm": partial(run, feed)}, 3)["warm"])
    ratio = statistics.median(ratios)
    return f"\nBERT-base, the first run with a new length against later runs with it: {ratio:.2f}.\n"


def measure(subject: Subject, model: str | bytes, threads: int, openvino: str = "") -> Row:
    """Alternate the engines; their results must agree."""
    feeds = subject.feeds()
    runs: dict[str, Run] = {}
    loading: dict[str, float] = {}
    for name, load in engines(threads, subject.precision, openvino).items():
        start = time.perf_counter()
        try:
            run = load(model)
            loading[name] = run.loading if isinstance(run, OpenvinoChild) else time.perf_counter() - start
            many(run, feeds, 1)
        except CannotRun:
            continue
        runs[name] = run
    error = max(difference(runs["epkit"](f), runs["onnxruntime"](f)) for f in feeds)
    start = time.perf_counter()
    rounds(runs, feeds)
    once = time.perf_counter() - start
    repeat = max(1, int(0.002 / max(once, 1e-7)))  # a round of a tiny model is many runs
    seconds = alternate(
        {name: partial(many, run, feeds, repeat) for name, run in runs.items()},
        max(5, min(20, int(SECONDS / (len(runs) * PAUSE + 4 * once * repeat)))),
        pause=PAUSE,
        turn=3,
    )
    here = tuple(name for name, run in runs.items() if not isinstance(run, OpenvinoChild))
    for run in runs.values():
        if isinstance(run, OpenvinoChild):
            run.close()
    return Row(
        subject.name,
        threads,
        {name: value / repeat for name, value in seconds.items()},
        loading,
        subject.gflop,
        error,
        peak(),
        peaks(model, feeds[0], threads, here) if threads == 1 and subject.precision == "fp32" else {},
    )


def rounds(runs: dict[str, Run], feeds: list[Feeds]) -> None:
    """Each engine once."""
    for run in runs.values():
        many(run, feeds, 1)


def many(run: Run, feeds: list[Feeds], repeat: int) -> Seconds | None:
    """All feeds, several times; the time if the engine has told it."""
    if isinstance(run, OpenvinoChild):
        return run.many(feeds, repeat)
    for _ in range(repeat):
        for feed in feeds:
            run(feed)
    return None


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest difference of any output, relative to the output's largest value."""
    worst = 0.0
    for name, value in wanted.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            scale = float(np.abs(value).max()) or 1.0
            worst = max(worst, float(np.abs(found[name] - value).max()) / scale)
    return worst


def peak() -> float:
    """GFLOP/s of fused multiply-adds in registers on one thread, the best of a few short runs."""
    from epkit_cpu.lower.step import longs
    from epkit_cpu.native import chosen_isa, engine, kernels

    module: Any = engine()
    step: tuple[object, ...] = (kernels(chosen_isa())["peak"], longs(2_000_000), [], [0], [])
    program = module.Program([(0, 64, np.dtype(np.int64), True)], [], [], [step], [("n", 0)], 1)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        (done,) = program.run([], None, None, None)
        best = max(best, int(done[0]) / (time.perf_counter() - start) / 1e9)
    return best


def line(row: Row, peers: Sequence[str]) -> str:
    """One row of the table; a peer that does not run the model has no entry."""
    times = [f"{row.seconds[name] * 1e3:.4g}" if name in row.seconds else "" for name in ("epkit", *peers)]
    speed = "" if row.gflop is None else f"{row.gflop / row.seconds['epkit']:.0f}"
    share = "" if row.gflop is None else f"{row.gflop / row.seconds['epkit'] / row.peak / row.threads:.0%}"
    loads = f"{row.loading['epkit']:.2f} / {row.loading['onnxruntime']:.2f}"
    memory = " / ".join(
        f"{row.memory[name] >> 20}" for name in ("epkit", "onnxruntime") if name in row.memory
    )
    cells = (
        row.name,
        row.threads,
        *times,
        *(f"{row.ratio_to(peer):.2f}" if peer in row.seconds else "" for peer in peers),
        speed,
        share,
        loads,
        memory,
        f"{row.error:.0e}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def peers_of(rows: Sequence[Row]) -> list[str]:
    """Those that ran any of the models."""
    return [name for name in ("onnxruntime", "OpenVINO") if any(name in row.seconds for row in rows)]


def table(rows: list[Row]) -> str:
    """The results as Markdown."""
    peers = peers_of(rows)
    heads = ("epkit ms", *(f"{name} ms" for name in peers))
    columns = (
        "model",
        "threads",
        *heads,
        *(f"epkit / {name}" for name in peers),
        "GFLOP/s",
        "of peak",
        "load s",
        "peak MB",
        "difference",
    )
    peaks = [row.peak for row in rows]
    means = [
        f"epkit / {peer} {exp(statistics.fmean(log(row.ratio_to(peer)) for row in rows if peer in row.seconds)):.2f}"
        for peer in peers
    ]
    return "\n".join(
        [
            "# CPU",
            "",
            "`python -m benchmarks cpu`; medians of alternating rounds, float32 where nothing else is said, batch 1. "
            f"{machine()}.",
            f"Peak of one thread, measured after each model: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s. "
            "Load: seconds to a session, epkit / onnxruntime; peak: of a process of its own, in the same order. "
            "Difference: from onnxruntime, relative to the largest value. GFLOP/s count direct sums, of which Winograd "
            "needs fewer. [What was not reached, and why](cpu_notes.md).",
            "",
            "| " + " | ".join(columns) + " |",
            "|" + "---|" * len(columns),
            *(line(row, peers) for row in rows),
            "",
            f"Geometric means over the rows: {', '.join(means)}.",
            "",
        ]
    )
