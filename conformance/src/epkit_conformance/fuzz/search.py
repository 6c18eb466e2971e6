"""The loop: Hypothesis proposes trials, a worker judges them, and what is wrong is made small."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ..result import State
from ..runner import Limits
from .finds import Find
from .graphs import graphs
from .judge import Judge, Verdict
from .nodes import nodes, operators
from .trial import Trial, expected

ROUND = 200
"""Trials between two looks at what the provider refuses."""

PATIENCE = 8
"""Refusals in a row after which an operator is not tried again in this type."""


@dataclass
class Progress:
    """What a search has seen.

    Attributes:
        trials: how many were judged, by state.
        refused: refusals in a row, by (operator, element type).
        finds: what is wrong, each as small as it could be made.
    """

    trials: Counter[State] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Trials judged."""
        return sum(self.trials.values())


class Wrong(Exception):
    """Tells Hypothesis that a trial is worth making smaller."""


def search(
    provider: str,
    *,
    seconds: float | None = None,
    examples: int | None = None,
    start: int = 0,
    only: Sequence[str] = (),
    limits: Limits | None = None,
    report: Callable[[Find | None, Progress], None] = lambda find, progress: None,
) -> Progress:
    """Look for faults until the time or the number of trials is used up, or until interrupted.

    Args:
        provider: the provider under test.
        seconds: how long; None for no end.
        examples: how many trials; None for no end.
        start: the first round's seed; each round counts on from it.
        only: operators to try, each in a node of its own; empty for all, and graphs.
        limits: of one trial.
        report: called with each find, and after each round with None.
    """
    progress = Progress()
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    most = examples if examples is not None else float("inf")

    def over() -> bool:
        return time.monotonic() >= end or progress.total >= most

    with Judge(provider, limits or Limits(seconds=20)) as judge:
        for number in itertools.count(start):
            if over():
                return progress
            for find in _round(judge, number, progress, only, over):
                progress.finds.append(find)
                report(find, progress)
            report(None, progress)
    raise AssertionError("unreachable")


def _round(
    judge: Judge, number: int, progress: Progress, only: Sequence[str], over: Callable[[], bool]
) -> Iterator[Find]:
    """Some trials; yields a find if there was one."""
    wrong: list[Find] = []

    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(_trials(progress, only))
    def attempt(trial: Trial) -> None:
        if over() and not wrong:
            return
        found = _judged(judge, trial, progress)
        if found is not None:
            wrong.append(found)
            raise Wrong

    try:
        attempt()
    except Wrong:
        yield wrong[-1]  # Hypothesis tries the smallest once more at the end


def _trials(progress: Progress, only: Sequence[str]) -> Any:
    """Nodes of what is not known to be refused; graphs every fourth time."""
    chosen = [place for place in operators() if progress.refused[place] < PATIENCE]
    if only:
        return nodes([place for place in operators() if place[0] in only])
    some = graphs(("float32", "float64"))
    return st.one_of(nodes(chosen), nodes(chosen), nodes(chosen), some) if chosen else some


def _judged(judge: Judge, trial: Trial, progress: Progress) -> Find | None:
    wanted = expected(trial)
    if wanted is None:
        return None
    verdict = judge.verdict(trial, wanted)
    progress.trials[verdict.state] += 1
    _note_refusal(trial, verdict, progress)
    if not verdict.state.is_error or any(find.is_like(trial, verdict) for find in progress.finds):
        return None
    return Find(trial, wanted, verdict)


def _note_refusal(trial: Trial, verdict: Verdict, progress: Progress) -> None:
    if len(trial.model.graph.node) == 1:
        place = (trial.model.graph.node[0].op_type, trial.dtype)
        progress.refused[place] = progress.refused[place] + 1 if verdict.state is State.REFUSED else 0
