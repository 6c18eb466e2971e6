"""Names the types of this repository's files with a real model, run by two providers, and shows who did what.

Run it with ``make demo``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
from content_types import REQUIREMENT, Answer, ContentTypes, load_content_types
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import epkit

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
TRACE = CACHE / "demo.trace.json"
PROVIDERS = ["acme", "cpu"]
BATCH = 16
TOP = 8
"""Rows of the profile."""
SHOWN, EACH = 25, 4
"""Files in the table, and of one type; the summary counts all."""

console = Console(highlight=False)


@dataclass(frozen=True)
class Run:
    """What a pass over all files gave: an answer for each, and the seconds of each batch."""

    answers: dict[Path, Answer]
    seconds: list[float]


def main() -> None:
    """Fetch, load, run, report."""
    CACHE.mkdir(exist_ok=True)
    try:
        with console.status("fetching the model"):
            content_types = load_content_types(CACHE / "models")
    except subprocess.CalledProcessError:
        sys.exit(
            f"{REQUIREMENT} could not be fetched. Is there a network? Else put its wheel in {CACHE}/models"
        )
    start = time.perf_counter()
    session = epkit.load(content_types.model, providers=PROVIDERS)
    load_seconds = time.perf_counter() - start
    found = run(session, content_types, repository_files())
    show_answers(found.answers)
    show_placement(session)
    show_times(load_seconds, found)
    show_profile(session, content_types, list(found.answers)[:BATCH])


def repository_files() -> list[Path]:
    """Everything below the repository's root but hidden folders and what tools left behind."""
    skipped = {"__pycache__", "build", "dist"}
    paths = (path for path in sorted(ROOT.rglob("*")) if path.is_file() and not path.is_symlink())
    inside = ((path, path.relative_to(ROOT).parts) for path in paths)
    return [path for path, parts in inside if not any(p in skipped or p.startswith(".") for p in parts[:-1])]


def run(session: epkit.Session, content_types: ContentTypes, paths: Sequence[Path]) -> Run:
    """Run the model over the files, a batch at a time. Files that are too short are left out."""
    rows = [(path, row) for path in paths if (row := content_types.features(path)) is not None]
    answers: dict[Path, Answer] = {}
    seconds = []
    batches = [rows[index : index + BATCH] for index in range(0, len(rows), BATCH)]
    for batch in track(batches, "running", console=console, transient=True):
        features = np.stack([row for _, row in batch])
        start = time.perf_counter()
        outputs = session(bytes=features)["target_label"]
        seconds.append(time.perf_counter() - start)
        for (path, _), output in zip(batch, outputs, strict=True):
            answers[path] = content_types.answer(output)
    return Run(answers, seconds)


def diverse(answers: dict[Path, Answer], count: int) -> list[Path]:
    """Some files, of as many types as there are: one of each type, then the second of each, and so on."""
    by_type: dict[str, list[Path]] = defaultdict(list)
    for path, answer in answers.items():
        by_type[answer.label].append(path)
    turns = zip_longest(*sorted(by_type.values(), key=len))
    chosen = islice((path for turn in islice(turns, EACH) for path in turn if path is not None), count)
    return sorted(chosen)


def show_answers(answers: dict[Path, Answer]) -> None:
    """The table of files, and the sum by type."""
    rows = [
        (str(path.relative_to(ROOT)), answers[path].description, f"{answers[path].probability:.1%}")
        for path in diverse(answers, SHOWN)
    ]
    show("What is in this repository?", ["file", "type", ">probability"], rows)
    counts = Counter(answer.label for answer in answers.values())
    console.print(f"{len(answers)} files: " + ", ".join(f"{n} {label}" for label, n in counts.most_common()))


def show_placement(session: epkit.Session) -> None:
    """Who runs which operators, and why the first provider does not run the rest."""
    placement = session.placement
    partitions = placement.partitions()
    rows = []
    for provider, count in placement.counts().items():
        operators = Counter(node.operator for node in placement.nodes if node.provider == provider)
        rows.append((provider, str(count), str(partitions[provider]), listed(operators)))
    show("Who runs what?", ["provider", ">nodes", ">partitions", "operators"], rows)
    refused: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for node in placement.nodes:
        for reason in node.refused:
            said = reason.reason.replace(f" {node.operator}", " the operator")
            refused[reason.provider, said][node.operator] += 1
    reasons = [(name, said, listed(operators)) for (name, said), operators in refused.items()]
    show("Why not elsewhere?", ["refused by", "reason", "operators"], reasons)


def show_times(load_seconds: float, found: Run) -> None:
    """Loading, the first batch, and the median of the warm ones."""
    warm = statistics.median(found.seconds[1:])
    rows = [
        ("load: read, check, optimise, place, compile", f"{load_seconds * 1e3:.0f} ms"),
        (f"first run, {BATCH} files", f"{found.seconds[0] * 1e3:.0f} ms"),
        (f"median of the next {len(found.seconds) - 1} runs", f"{warm * 1e3:.0f} ms"),
        ("each file", f"{warm * 1e3 / BATCH:.1f} ms"),
    ]
    show("How long did it take?", ["step", ">time"], rows)


def show_profile(session: epkit.Session, content_types: ContentTypes, paths: Sequence[Path]) -> None:
    """One more run with a profile: its first rows, and the file with all of it."""
    features = np.stack([row for path in paths if (row := content_types.features(path)) is not None])
    profile = epkit.Profile()
    session.run(None, {"bytes": features}, epkit.RunOptions(profile=profile))
    profile.save(TRACE)
    rows = [
        (row.provider, row.operator, str(row.calls), f"{row.total_ms:.2f} ms", f"{row.share:.0%}")
        for row in profile.rows()[:TOP]
    ]
    show("Where did the time go?", ["provider", "operator", ">calls", ">time", ">share"], rows)
    console.print(
        f"Every step of this run is in {TRACE.relative_to(ROOT)}; open it at https://ui.perfetto.dev"
    )


def listed(operators: Counter[str]) -> str:
    """``Mul×24, Add×11``."""
    return ", ".join(f"{name}×{count}" for name, count in operators.most_common())


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; columns whose name begins with ``>`` are set flush right."""
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=box.SIMPLE_HEAD)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        table.add_column(name.lstrip(">"), justify=justify, no_wrap=justify == "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print()
    console.print(table)


if __name__ == "__main__":
    main()
