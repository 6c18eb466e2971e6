"""What is shown while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from epkit_conformance.case import Case
from epkit_conformance.progress import Bar, Lines, Silent, Tally, watcher
from epkit_conformance.record import entry_of
from epkit_conformance.result import Result, State


def case(index: int) -> Case:
    return Case(f"made/{index}", 2, "made", lambda provider: Result(State.PASSED))


CASES = [case(index) for index in range(10)]


def test_the_time_left_follows_the_work_done() -> None:
    now = 100.0
    tally = Tally(CASES, lambda: now)
    assert tally.left() == ""
    for one in CASES[:4]:
        tally.began(one)
        tally.ended(entry_of(one, Result(State.PASSED)))
    now = 140.0
    assert tally.left() == "1:00 left"
    assert (tally.done, tally.total, tally.states()) == (4, 10, "4 passed")


def test_lines_tell_the_size_the_errors_and_the_end() -> None:
    file = io.StringIO()
    shown = Lines(file)
    with shown.watching(CASES):
        shown.began(CASES[0])
        shown.ended(entry_of(CASES[0], Result(State.CRASHED, "signal SIGSEGV")))
        shown.ended(entry_of(CASES[1], Result(State.PASSED)))
    assert file.getvalue().splitlines() == [
        "10 cases",
        "crashed: made/0: signal SIGSEGV",
        "[2/10] 1 passed, 1 crashed",
    ]


def test_a_bar_shows_counts_and_the_cases_at_work() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    shown = Bar(console)
    with shown.watching(CASES):
        for one in CASES[:3]:
            shown.began(one)
        shown.ended(entry_of(CASES[0], Result(State.FAILED, "off by one")))
        with console.capture() as captured:
            console.print(shown.draw())
    text = captured.get()
    assert "1/10" in text and "1 failed" in text and "made/1 · made/2" in text
    assert "made/0: off by one" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("terminal", "kind"), [(True, Bar), (False, Lines)])
def test_a_bar_is_for_terminals(terminal: bool, kind: type) -> None:
    assert isinstance(watcher(Console(file=io.StringIO(), force_terminal=terminal)), kind)
    with Silent().watching(CASES):
        pass
