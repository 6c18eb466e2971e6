"""The pytest plugin: the option ``--provider``, and a summary by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from .result import Result, State

STATES = pytest.StashKey[Counter[State]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--provider NAME``."""
    parser.addoption("--provider", default=None, help="the epkit provider under test (epkit_conformance)")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the counts."""
    config.stash[STATES] = Counter()


@pytest.fixture(scope="session")
def provider(request: pytest.FixtureRequest) -> str:
    """The name of the provider under test."""
    name = request.config.getoption("--provider")
    if not name:
        raise pytest.UsageError("name the provider under test: --provider acme")
    return str(name)


@pytest.fixture
def settle(request: pytest.FixtureRequest) -> Callable[[Result], None]:
    """Turns a Result into pytest's terms: PASSED passes, errors fail, everything else is a skip with its reason."""

    def decide(result: Result) -> None:
        request.config.stash[STATES][result.state] += 1
        if result.state.is_error:
            pytest.fail(f"{result.state.value}: {result.detail}", pytrace=False)
        if result.state is not State.PASSED:
            pytest.skip(f"{result.state.value}: {result.detail}")

    return decide


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many cases ended in each state (of this process; with pytest-xdist, none)."""
    counts = config.stash[STATES]
    if counts:
        name = config.getoption("--provider")
        text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
        terminalreporter.write_sep("-", f"conformance of {name}: {text}")
