"""How long loading takes beside onnxruntime's session creation, and reading and checking beside ``onnx.load``.

``python -m benchmarks load [PART OF A NAME ...]``. Seconds are those of the wall clock; where other work shares the
machine, the processor's own time (the last column) says more. A second table has the shares of the stages, as the
session's own trace tells them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.pipeline import STAGES

from .bert import save_bert
from .cpu_models import SUBJECTS, packaged
from .measure import machine, settle
from .optimiser import unrolled

RESULTS = Path(__file__).parent / "results" / "load.md"
ROUNDS = 7

Times = dict[str, tuple[float, float]]
"""By name: the medians of the wall clock's seconds and of the processor's."""


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and write the table; arguments choose models, and then nothing is written."""
    rows, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder), arguments):
            rows.append(row(name, measured(path)))
            shares.append(stage_row(name, path))
            print(rows[-1], shares[-1], sep="\n", flush=True)
    if not arguments:
        RESULTS.write_text(table(rows, shares), encoding="utf-8")


def models(folder: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """BERT-base with its weights in the file and beside it, a network of 6,000 nodes, those of the CPU benchmark."""
    made: list[tuple[str, Callable[[Path], object]]] = [
        ("BERT-base", save_bert),
        ("BERT-base, external weights", lambda path: save_bert(path, external=True)),
        ("recurrent, 6,000 nodes", lambda path: onnx.save(unrolled(), path)),
    ]
    for name, save in made:
        if chosen(name, wanted):
            save(folder / "made.onnx")
            yield name, folder / "made.onnx"
    for subject in (*SUBJECTS, *packaged()):
        if subject.precision == "fp32" and "BERT" not in subject.name and chosen(subject.name, wanted):
            model = subject.model()
            if isinstance(model, bytes):
                (folder / "subject.onnx").write_bytes(model)
            yield subject.name, folder / "subject.onnx" if isinstance(model, bytes) else Path(model)


def chosen(name: str, wanted: Sequence[str]) -> bool:
    """Whether a model was asked for."""
    return not wanted or any(part in name for part in wanted)


def measured(path: Path) -> Times:
    """What loading a model takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    settle(path)
    with tempfile.TemporaryDirectory() as cache:
        epkit.load(path, cache=cache).close()
        return alternate(
            {
                "read + check": lambda: check(read(path)),
                "onnx.load": lambda: onnx.load(path),
                "session": lambda: epkit.load(path).close(),
                "cached": lambda: epkit.load(path, cache=cache).close(),
                "onnxruntime": lambda: onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]),
            }
        )


def alternate(subjects: Mapping[str, Callable[[], object]]) -> Times:
    """Medians of alternating rounds after one that is not counted: the modules are imported then."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
    for turn in range(ROUNDS + 1):
        for name, run in subjects.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            if turn:
                found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for name, times in found.items()
    }


def stage_row(name: str, path: Path) -> str:
    """Where the time of a load goes: medians of the stages' spans, in shares of the whole."""
    found: dict[str, list[int]] = {stage: [] for stage in (*STAGES, "all")}
    for turn in range(ROUNDS + 1):
        start = time.perf_counter_ns()
        with epkit.load(path) as session:
            spent = time.perf_counter_ns() - start
            events = session.load_trace.events
        if turn:
            found["all"].append(spent)
            for stage in STAGES:
                found[stage].append(sum(event.duration for event in events if event.name == stage))
    whole = statistics.median(found["all"])
    return f"| {name} | " + " | ".join(f"{statistics.median(found[s]) / whole:.0%}" for s in STAGES) + " |"


def row(name: str, times: Times) -> str:
    """One line of the table."""
    seconds = " | ".join(f"{times[key][0]:.4f}" for key in times)
    (ours, cpu), (theirs, their_cpu) = times["session"], times["onnxruntime"]
    reading = times["read + check"][0] / times["onnx.load"][0]
    cached, cached_cpu = (
        ours / theirs for ours, theirs in zip(times["cached"], times["onnxruntime"], strict=True)
    )
    ratios = (reading, ours / theirs, cpu / their_cpu, cached, cached_cpu)
    return f"| {name} | {seconds} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |"


def table(rows: list[str], shares: list[str]) -> str:
    """The results as Markdown."""
    head = (
        "| model | read + check | onnx.load | session | cached | onnxruntime | read / onnx.load "
        "| session / onnxruntime | CPU time | cached / onnxruntime | CPU time |"
    )
    lines = [
        "# Loading",
        "",
        f"`python -m benchmarks load`; medians of {ROUNDS} alternating rounds in one process, in seconds; cached is",
        f"the second load from the cache; CPU time is the ratio before it in processor time. {machine()}.",
        "",
        head,
        "|" + "---|" * 11,
        *rows,
        "",
        "Where the time of a session goes, by the spans of its trace:",
        "",
        f"| model | {' | '.join(STAGES)} |",
        "|" + "---|" * (1 + len(STAGES)),
        *shares,
        "",
    ]
    return "\n".join(lines)
