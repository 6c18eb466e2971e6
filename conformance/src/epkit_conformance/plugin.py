"""The pytest plugin: ``pytest --pyargs epkit_conformance --provider acme``, with the results of the command.

Cases run level by level in worker processes when the first test of a level is reached; each test then tells its
case's result. Under pytest-xdist, whose workers are processes already, each test runs its case in its own.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from .advice import advise
from .case import Case
from .environment import candidate, environment
from .expectations import Expectations, read_expectations
from .record import Entry, Report
from .result import Result, State
from .run import DOOR, settle
from .runner import run_cases, run_here


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--provider NAME`` and what the command has too."""
    group = parser.getgroup("epkit conformance")
    group.addoption("--provider", default=None, help="the epkit provider under test (epkit_conformance)")
    group.addoption(
        "--conformance-level", type=int, default=7, metavar="N", help="run the levels up to this one"
    )
    group.addoption("--conformance-expect", metavar="FILE", help="declared exceptions, as TOML")
    group.addoption(
        "--conformance-jobs", type=int, default=0, metavar="N", help="worker processes; 0: one a core"
    )
    group.addoption("--conformance-report", metavar="DIR", help="where to write the reports")


class Door:
    """The results of a session's cases, made when they are asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.entries: dict[str, Entry] = {}
        self.cases: list[Case] = []
        self.whole = True
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.start = monotonic()
        path = config.getoption("--conformance-expect")
        self.expectations = read_expectations(Path(path)) if path else Expectations()

    @property
    def provider(self) -> str:
        """The provider under test.

        Raises:
            UsageError: if none was named.
        """
        name = self.config.getoption("--provider")
        if not name:
            raise pytest.UsageError("name the provider under test: --provider acme")
        return str(name)

    def entry(self, case: Case) -> Entry | None:
        """What became of the case; None if it was not run because the provider cannot be used."""
        if case.name not in self.entries:
            if hasattr(self.config, "workerinput"):
                self._keep(case, run_here(case, self.provider))
            elif not self._is_closed():
                self._run([other for other in self.cases if other.level == case.level] or [case])
        return self.entries.get(case.name)

    def _is_closed(self) -> bool:
        first = self.entries.get(DOOR)
        return first is not None and first.state.is_error

    def _run(self, cases: list[Case]) -> None:
        candidate(self.provider)  # raises for an unknown name, once and not in every case
        jobs = self.config.getoption("--conformance-jobs") or os.cpu_count() or 1
        run_cases(cases, self.provider, jobs=jobs, progress=self._keep)

    def _keep(self, case: Case, result: Result) -> None:
        self.entries[case.name] = settle(case, result, self.expectations)

    def report(self) -> Report:
        """The session as a report."""
        return Report(
            candidate(self.provider),
            tuple(self.entries[case.name] for case in self.cases if case.name in self.entries),
            self.config.getoption("--conformance-level"),
            () if self.whole else ("a selection by pytest",),
            "" if len(self.entries) == len(self.cases) else "not all cases were run",
            self.started,
            monotonic() - self.start,
            environment().get("epkit-conformance", ""),
            environment(),
        )


DOOR_KEY = pytest.StashKey[Door]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the results."""
    config.stash[DOOR_KEY] = Door(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the levels that were not asked for."""
    highest = config.getoption("--conformance-level")
    above = [item for item in items if (case := case_of(item)) is not None and case.level > highest]
    if above:
        items[:] = [item for item in items if item not in set(above)]
        config.hook.pytest_deselected(items=above)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which cases will be asked for, and whether they are all of their levels."""
    door = session.config.stash[DOOR_KEY]
    door.cases = [case for item in session.items if (case := case_of(item)) is not None]
    if door.cases:
        from .catalogue import all_cases

        highest = session.config.getoption("--conformance-level")
        door.whole = len(door.cases) == sum(case.level <= highest for case in all_cases())


def case_of(item: pytest.Item) -> Case | None:
    """The case of a test of the suite; None for any other test."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    case = parameters.get("case")
    return case if isinstance(case, Case) else None


@pytest.fixture(scope="session")
def conformance_door(request: pytest.FixtureRequest) -> Door:
    """The results."""
    return request.config.stash[DOOR_KEY]


def tell(entry: Entry | None) -> None:
    """A result in pytest's terms: PASSED passes, errors fail, everything else is a skip with its reason."""
    if entry is None:
        pytest.skip("not run: the provider cannot be used, see level 0")
    told = f"{entry.state.value}: {entry.result.detail}"
    if entry.state.is_error:
        pytest.fail(f"{told}\n\n{advise(entry)}", pytrace=False)
    if entry.state is not State.PASSED:
        pytest.skip(told)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports, if asked to."""
    door = session.config.stash[DOOR_KEY]
    folder = session.config.getoption("--conformance-report")
    if folder and door.entries and not hasattr(session.config, "workerinput"):
        from .report.files import write_all

        write_all(door.report(), Path(folder))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many cases ended in each state (with pytest-xdist, nothing)."""
    counts = Counter(entry.state for entry in config.stash[DOOR_KEY].entries.values())
    if counts:
        name = config.getoption("--provider")
        text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        terminalreporter.write_sep("-", f"conformance of {name}: {text}")
