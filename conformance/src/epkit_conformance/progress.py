"""Showing how far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from .case import Case
from .record import Entry
from .result import State

STYLES = {
    State.PASSED: "green",
    State.FALLBACK: "blue",
    State.REFUSED: "yellow",
    State.UNSUPPORTED: "bright_black",
    State.EXPECTED_FAILURE: "magenta",
    State.UNEXPECTED_PASS: "red",
    State.FAILED: "red",
    State.CRASHED: "bold red",
    State.HUNG: "bold red",
}

SECONDS = {0: 0.05, 1: 2.0, 2: 0.02, 3: 0.4, 4: 0.3, 5: 0.5, 6: 2.0, 7: 1.0}
"""Rough seconds of a case by level, so that the time left does not jump when the dearer levels come."""

SETTLED = 0.02
"""The part of the work that must be done before an estimate of the rest is worth showing."""

BEAT = 10.0
"""Seconds between plain lines."""


class Watcher(Protocol):
    """Is told what a run does."""

    def watching(self, cases: Sequence[Case]) -> AbstractContextManager[None]:
        """The run of these cases."""

    def began(self, case: Case) -> None:
        """A worker is at it."""

    def ended(self, entry: Entry) -> None:
        """It is over."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def watching(self, cases: Sequence[Case]) -> Iterator[None]:
        """Nothing."""
        yield

    def began(self, case: Case) -> None:
        """Nothing."""

    def ended(self, entry: Entry) -> None:
        """Nothing."""


class Tally:
    """What is known of a run while it runs; the clock can be replaced."""

    def __init__(self, cases: Sequence[Case], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.total = len(cases)
        self.done = 0
        self.work = sum(SECONDS[case.level] for case in cases) or 1.0
        self.worked = 0.0
        self.running: dict[str, None] = {}
        self.counts: Counter[State] = Counter()
        self.start = clock()

    def began(self, case: Case) -> None:
        """It is running now."""
        self.running[case.name] = None

    def ended(self, entry: Entry) -> None:
        """It is not any more."""
        self.running.pop(entry.name, None)
        self.done += 1
        self.worked += SECONDS[entry.level]
        self.counts[entry.state] += 1

    def left(self) -> str:
        """The time left, by the work done so far: ``1:23 left``; empty while nothing can be said."""
        if self.worked < SETTLED * self.work:
            return ""
        elapsed = self.clock() - self.start
        seconds = round(elapsed * (self.work - self.worked) / self.worked)
        return f"{seconds // 60}:{seconds % 60:02d} left"

    def states(self) -> str:
        """``12 passed, 3 refused``."""
        return ", ".join(f"{self.counts[state]} {state.value}" for state in State if self.counts[state])


class Lines:
    """A line at the start, every few seconds, and for each error; for logs."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr
        self.tally = Tally(())
        self.last = 0.0

    @contextmanager
    def watching(self, cases: Sequence[Case]) -> Iterator[None]:
        """Print how many cases there are."""
        self.tally = Tally(cases)
        self.last = self.tally.start
        self._print(f"{len(cases)} cases")
        yield
        self._print(f"[{self.tally.done}/{self.tally.total}] {self.tally.states()}")

    def began(self, case: Case) -> None:
        """Remember what runs."""
        self.tally.began(case)

    def ended(self, entry: Entry) -> None:
        """Print an error at once, everything else now and then."""
        self.tally.ended(entry)
        if entry.state.is_error:
            self._print(f"{entry.state.value}: {entry.name}: {entry.result.detail}")
        if self.tally.clock() - self.last >= BEAT:
            self.last = self.tally.clock()
            tally = self.tally
            now = next(iter(tally.running), entry.name)
            told = [f"[{tally.done}/{tally.total}]", tally.left(), f"{tally.states()}; now {now}"]
            self._print(" ".join(filter(None, told)))

    def _print(self, text: str) -> None:
        print(text, file=self.file, flush=True)


class Bar:
    """A bar, the counts, the cases at work and the time left, drawn anew a few times a second."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tally = Tally(())
        self.live: Live | None = None

    @contextmanager
    def watching(self, cases: Sequence[Case]) -> Iterator[None]:
        """Draw until the run is over, then leave nothing behind."""
        self.tally = Tally(cases)
        with Live(
            get_renderable=self.draw, console=self.console, refresh_per_second=5, transient=True
        ) as self.live:
            yield
        self.live = None

    def began(self, case: Case) -> None:
        """Remember what runs."""
        self.tally.began(case)

    def ended(self, entry: Entry) -> None:
        """Errors stay on the screen."""
        self.tally.ended(entry)
        if entry.state.is_error:
            told = Text.assemble(
                (entry.state.value, STYLES[entry.state]), f" {entry.name}: ", entry.result.detail
            )
            told.truncate(4 * self.console.width, overflow="ellipsis")
            self.console.print(told)

    def draw(self) -> Group:
        """The present picture."""
        tally = self.tally
        counts = Text("  ").join(
            Text(f"{tally.counts[state]} {state.value}", STYLES[state])
            for state in State
            if tally.counts[state]
        )
        head = Text.assemble((f"{tally.done}/{tally.total} ", "bold"), (tally.left(), "cyan"), "  ", counts)
        now = Text(" · ".join(list(tally.running)[:4]), "bright_black", no_wrap=True, overflow="ellipsis")
        return Group(head, now, ProgressBar(tally.work, tally.worked, width=min(60, self.console.width)))


def watcher(console: Console) -> Watcher:
    """A bar where the console is a terminal, else lines."""
    return Bar(console) if console.is_terminal else Lines()
