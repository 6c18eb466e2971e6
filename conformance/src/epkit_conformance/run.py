"""One run of the suite: a plan goes in, a report comes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from epkit.errors import OptionError

from . import __version__
from .case import Case
from .environment import candidate, environment
from .expectations import Expectations
from .progress import Silent, Watcher
from .record import Entry, Report, entry_of
from .result import Result
from .runner import Limits, run_cases

DOOR = "describe/is_ready"
"""The case without which no other can say anything."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        provider: the name of the provider under test.
        level: the highest level; lower ones are run too.
        only: patterns of case names; empty for all.
        jobs: worker processes.
        limits: of each case.
        expectations: declared exceptions.
    """

    provider: str
    level: int = 7
    only: tuple[str, ...] = ()
    jobs: int = 1
    limits: Limits = field(default_factory=Limits)
    expectations: Expectations = field(default_factory=Expectations)


def choose(plan: Plan, cases: Sequence[Case]) -> list[Case]:
    """The cases of the plan, in their order.

    Raises:
        OptionError: if a pattern matches no case.
    """
    for pattern in plan.only:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            raise OptionError(
                f"no case matches {pattern!r}",
                remedy="patterns are like 'generated/Conv/*' or '*float16*'; epkit conformance list shows all",
            )
    return [
        case
        for case in cases
        if case.level <= plan.level
        and (not plan.only or any(fnmatchcase(case.name, pattern) for pattern in plan.only))
    ]


def run(plan: Plan, cases: Sequence[Case], watcher: Watcher | None = None) -> Report:
    """Run the plan's cases. Level 0 goes first: a provider that is not ready is not asked for more.

    An interrupted run (KeyboardInterrupt) gives a report of what was done; its ``stopped`` says so.

    Raises:
        UnknownProviderError: if no plugin has this name.
        OptionError: if the plan is about no case.
    """
    plan.expectations.check_names(case.name for case in cases)
    chosen = choose(plan, cases)
    provider = candidate(plan.provider)
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.monotonic()
    done, stopped = _run_in_order(plan, chosen, watcher or Silent())
    order = {case.name: index for index, case in enumerate(chosen)}
    return Report(
        provider,
        tuple(sorted(done, key=lambda entry: order[entry.name])),
        plan.level,
        plan.only,
        stopped,
        begun,
        time.monotonic() - start,
        __version__,
        environment(),
    )


def _run_in_order(plan: Plan, chosen: Sequence[Case], watcher: Watcher) -> tuple[list[Entry], str]:
    done: list[Entry] = []

    def ended(case: Case, result: Result) -> None:
        entry = settle(case, result, plan.expectations)
        done.append(entry)
        watcher.ended(entry)

    def run_some(some: Sequence[Case]) -> None:
        if some:
            run_cases(
                some,
                plan.provider,
                jobs=plan.jobs,
                limits=plan.limits,
                progress=ended,
                started=watcher.began,
            )

    with watcher.watching(chosen):
        try:
            run_some([case for case in chosen if case.level == 0])
            closed = [entry for entry in done if entry.name == DOOR and entry.state.is_error]
            if closed and len(chosen) > len(done):
                return done, f"the provider cannot be used: {closed[0].result.detail}"
            run_some([case for case in chosen if case.level > 0])
        except KeyboardInterrupt:
            return done, f"interrupted after {len(done)} of {len(chosen)} cases"
    return done, ""


def settle(case: Case, result: Result, expectations: Expectations) -> Entry:
    """The entry of a result, with declared exceptions applied."""
    settled, waiver = expectations.settle(case.name, result)
    return entry_of(case, settled, waiver)
