"""Running the cases: outputs, times, comparisons with what was expected."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.options import RunOptions
from ..runtime.profile import Profile
from ..runtime.session import Session
from ..trace import Recorder
from . import _render
from ._compare import Comparison, compare
from ._inputs import Case


@dataclass(frozen=True)
class Outcome:
    """What came of one case: the last run's outputs, the seconds of each run, the comparison."""

    case: Case
    outputs: dict[str, Any]
    seconds: tuple[float, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool | None:
        """None if there was nothing to compare with."""
        return all(item.passed for item in self.comparisons) if self.comparisons else None


def run_cases(
    session: Session, found: Sequence[Case], repeat: int, rtol: float, atol: float
) -> list[Outcome]:
    """Run every case ``repeat`` times."""
    outcomes = []
    with _render.progress() as bar:
        task = bar.add_task("running", total=len(found) * repeat)
        for case in found:
            seconds = []
            for _ in range(repeat):
                start = time.perf_counter()
                outputs = session.run(None, case.feeds)
                seconds.append(time.perf_counter() - start)
                bar.advance(task)
            outcomes.append(Outcome(case, outputs, tuple(seconds), compare_all(case, outputs, rtol, atol)))
    return outcomes


def compare_all(case: Case, outputs: dict[str, Any], rtol: float, atol: float) -> tuple[Comparison, ...]:
    """Each expected output with what came out."""
    return tuple(compare(name, outputs[name], value, rtol, atol) for name, value in case.expected.items())


def trace(session: Session, case: Case, path: Path) -> Profile:
    """Run once more with a profile; the file shows the stages of loading too."""
    recorded = Profile()
    session.run(None, case.feeds, RunOptions(profile=recorded))
    whole = Recorder()
    whole.events = [*session.load_trace.events, *recorded.recorder.events]
    whole.save(path)
    return recorded
