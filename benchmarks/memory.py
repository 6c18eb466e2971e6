"""Peak memory of a process that loads a model and runs it, beside onnxruntime's.

``python -m benchmarks memory [PART OF A NAME ...]``. Other work on the machine does not change these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .cpu_memory import CACHED, peaks
from .cpu_models import SUBJECTS, packaged
from .load import chosen
from .measure import machine

RESULTS = Path(__file__).parent / "results" / "memory.md"
NAMES = ("epkit", CACHED, "onnxruntime")


def main(arguments: Sequence[str] = ()) -> None:
    """Measure, print and write the table; arguments choose models, and then nothing is written."""
    rows = []
    for subject in (*SUBJECTS, *packaged()):
        if subject.precision == "fp32" and chosen(subject.name, arguments):
            found = peaks(subject.model(), subject.feeds()[0], 1, NAMES)
            rows.append(row(subject.name, found))
            print(rows[-1], flush=True)
    if not arguments:
        RESULTS.write_text(table(rows), encoding="utf-8")


def row(name: str, found: dict[str, int]) -> str:
    """One line of the table."""
    sizes = " | ".join(f"{found[engine] / 1e6:.0f}" for engine in NAMES)
    ours, cached, theirs = (found[engine] for engine in NAMES)
    return f"| {name} | {sizes} | {ours / theirs:.2f} | {cached / theirs:.2f} |"


def table(rows: list[str]) -> str:
    """The results as Markdown."""
    lines = [
        "# Peak memory",
        "",
        "`python -m benchmarks memory`: the most that a process of its own held, in MB (10^6 bytes), which imports the",
        "engine, loads the model from a file and runs it three times, one thread. Pages of mapped files count, and of",
        f"libraries. {machine()}.",
        "",
        "| model | epkit | from the cache | onnxruntime | epkit / onnxruntime | from the cache |",
        "|" + "---|" * 6,
        *rows,
        "",
    ]
    return "\n".join(lines)
