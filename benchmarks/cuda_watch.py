"""Watches the process that measures rows: takes what it prints, and goes on with another where one fails.

There are two jobs a row: all rows without the peer that compiles for minutes, then all rows with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

DEVICE_LOST = 3
"""What a process ends with that has told its row, and wants another process to go on."""

SILENT = 3
"""Processes in succession that bring no row: then none will."""

WORKER = (sys.executable, "-m", "benchmarks.cuda_rows")


@dataclass
class Watch:
    """Rows as they come.

    Attributes:
        names: model and precision of every row, in order.
        end: by :func:`time.monotonic`.
        patience: seconds without a word after which a process is ended.
        tell: called with a row whenever there is more of it.
        worker: the command; it gets the first job and the seconds that are left.
        rows: the cells found so far, by number.
        heard: how often a process has told a row.
    """

    names: Sequence[tuple[str, str]]
    end: float
    patience: float
    tell: Callable[[list[str]], None]
    worker: Sequence[str] = WORKER
    rows: dict[int, list[str]] = field(default_factory=dict)
    heard: int = 0

    def run(self) -> list[list[str]]:
        """Measure until all rows are there or the time is over; what was not reached says so."""
        first = silent = 0
        while first < self.jobs and silent < SILENT and time.monotonic() < self.end:
            before = self.heard
            first = self._process(first)
            silent = 0 if self.heard > before else silent + 1
        return [self.rows.get(n, [*name, "not reached", *[""] * 5]) for n, name in enumerate(self.names)]

    @property
    def jobs(self) -> int:
        """How many there are."""
        return 2 * len(self.names)

    def _process(self, first: int) -> int:
        """One process, from a job on; the job to go on with."""
        left = self.end - time.monotonic()
        command = [*self.worker, str(first), f"{left:.0f}"]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            ) as process,
        ):
            lines: queue.Queue[str | None] = queue.Queue()
            reader = threading.Thread(target=_drain, args=(process.stdout, lines), daemon=True)
            reader.start()
            at, problem = self._listen(lines, first)
            code = process.wait() if problem == "" else None
            with suppress(ProcessLookupError):  # the compilers that it has started, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
            if problem is None or code == 0:  # all is done, or it found no time for more
                return self.jobs
            if code == DEVICE_LOST:
                return at
            if time.monotonic() < self.end:
                self._note(at, problem or last_line(errors))
            return at + 1

    def _listen(self, lines: queue.Queue[str | None], first: int) -> tuple[int, str | None]:
        """The job that is under way at the end, and what went wrong: None for nothing, "" for an end unasked."""
        at = first
        while at < self.jobs:
            wait = min(self.patience, self.end - time.monotonic())
            try:
                line = lines.get(timeout=max(0.0, wait))
            except queue.Empty:
                return at, f"ended after {wait:.0f} s without a word"
            if line is None:
                return at, ""
            with suppress(ValueError, TypeError, KeyError):  # whatever else libraries print
                found = json.loads(line)
                at = found["job"] + 1
                self.heard += 1
                if found["cells"]:
                    self.rows[found["job"] % len(self.names)] = found["cells"]
                    self.tell(found["cells"])
        return at, None

    def _note(self, job: int, problem: str) -> None:
        """Say what became of a job; what is known of its row stays."""
        row = job % len(self.names)
        cells = self.rows.get(row)
        if cells is None:
            cells = [*self.names[row], problem, *[""] * 5]
        else:
            cells = [*cells[:6], f"{cells[6]}, with torch.compile: {problem}", *cells[7:]]
        self.rows[row] = cells
        self.tell(cells)


def _drain(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    for line in stream or ():
        lines.put(line)
    lines.put(None)


def last_line(errors: IO[str]) -> str:
    """Of what a process wrote before it ended."""
    errors.seek(0)
    found = [line.strip() for line in errors.read().splitlines() if line.strip()]
    return f"the process ended: {found[-1][:160] if found else 'without a word'}"
