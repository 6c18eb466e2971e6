"""The pytest plugin: ``pytest --pyargs epkit_conformance --provider acme``, with the results of the command.

Cases run level by level in worker processes when the first test of a level is reached; each test then tells its
case's result. Under pytest-xdist, each of its workers keeps one such process and gives it the cases that it gets; the
results go to the process that pytest was started in, which makes the report.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from .advice import advise
from .case import Case
from .catalogue import all_cases
from .environment import candidate, environment
from .expectations import Expectations, read_expectations
from .record import Entry, Report, entry_from, plain
from .result import Result, State
from .run import DOOR, settle
from .runner import Limits, OneByOne, run_cases

PROPERTY = "epkit_conformance"
"""The property of a test's report by which a result travels from a worker of pytest-xdist."""


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
    group.addoption(
        "--conformance-timeout", type=float, default=60.0, metavar="S", help="seconds that a case may take"
    )
    group.addoption("--conformance-report", metavar="DIR", help="where to write the reports")


class Door:
    """The results of a session's cases, made when they are asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.entries: dict[str, Entry] = {}
        self.cases: list[Case] = []
        self.alone: OneByOne | None = None
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.start = monotonic()
        self.limits = Limits(config.getoption("--conformance-timeout"))
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
                self._run_alone(case)
            elif not self._is_closed():
                self._run([other for other in self.cases if other.level == case.level] or [case])
        return self.entries.get(case.name)

    def _is_closed(self) -> bool:
        first = self.entries.get(DOOR)
        return first is not None and first.state.is_error

    def _run_alone(self, case: Case) -> None:
        """In the process of this worker of pytest-xdist; before the first case, see whether the provider is ready."""
        if self.alone is None:
            candidate(self.provider)
            self.alone = OneByOne(self.provider, self.limits)
            door = next(other for other in all_cases() if other.name == DOOR)
            self._keep(door, self.alone.run(door))
        if case.name not in self.entries and not self._is_closed():
            self._keep(case, self.alone.run(case))

    def _run(self, cases: list[Case]) -> None:
        candidate(self.provider)  # raises for an unknown name, once and not in every case
        jobs = self.config.getoption("--conformance-jobs") or os.cpu_count() or 1
        run_cases(cases, self.provider, jobs=jobs, limits=self.limits, progress=self._keep)

    def _keep(self, case: Case, result: Result) -> None:
        self.entries[case.name] = settle(case, result, self.expectations)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the results that come from workers of pytest-xdist."""
        told = dict(report.user_properties).get(PROPERTY)
        if report.when == "call" and isinstance(told, str):
            entry = entry_from(json.loads(told))
            self.entries[entry.name] = entry

    def report(self) -> Report:
        """The session as a report."""
        highest = self.config.getoption("--conformance-level")
        asked = [case for case in all_cases() if case.level <= highest]
        entries = tuple(self.entries[case.name] for case in asked if case.name in self.entries)
        return Report(
            candidate(self.provider),
            entries,
            highest,
            () if len(entries) == len(asked) else ("a selection by pytest",),
            "",
            self.started,
            monotonic() - self.start,
            environment().get("epkit-conformance", ""),
            environment(),
        )


DOOR_KEY = pytest.StashKey[Door]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the results."""
    config.stash[DOOR_KEY] = Door(config)
    config.pluginmanager.register(config.stash[DOOR_KEY], "epkit_conformance_door")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process of a worker of pytest-xdist."""
    door = config.stash.get(DOOR_KEY, None)
    if door is not None and door.alone is not None:
        door.alone.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the levels that were not asked for."""
    highest = config.getoption("--conformance-level")
    above = [item for item in items if (case := case_of(item)) is not None and case.level > highest]
    if above:
        items[:] = [item for item in items if item not in set(above)]
        config.hook.pytest_deselected(items=above)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which cases will be asked for."""
    door = session.config.stash[DOOR_KEY]
    door.cases = [case for item in session.items if (case := case_of(item)) is not None]


def case_of(item: pytest.Item) -> Case | None:
    """The case of a test of the suite; None for any other test."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    case = parameters.get("case")
    return case if isinstance(case, Case) else None


@pytest.fixture(scope="session")
def conformance_door(request: pytest.FixtureRequest) -> Door:
    """The results."""
    return request.config.stash[DOOR_KEY]


@pytest.fixture
def settled(request: pytest.FixtureRequest, conformance_door: Door) -> Entry | None:
    """What became of the test's case."""
    case = case_of(request.node)
    entry = conformance_door.entry(case) if case is not None else None
    if entry is not None and hasattr(request.config, "workerinput"):
        request.node.user_properties.append((PROPERTY, json.dumps(plain(entry))))
    return entry


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
    """Print how many cases ended in each state."""
    counts = Counter(entry.state for entry in config.stash[DOOR_KEY].entries.values())
    if counts:
        name = config.getoption("--provider")
        text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        terminalreporter.write_sep("-", f"conformance of {name}: {text}")
