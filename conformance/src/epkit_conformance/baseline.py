"""Comparing a run with an earlier one, so that only what became worse counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from epkit.errors import InputError

from . import certificate as certificates
from . import record
from .record import Report
from .result import State


@dataclass(frozen=True)
class Change:
    """A case whose state differs; ``before`` or ``after`` is None where one side does not have it."""

    name: str
    before: State | None
    after: State | None
    detail: str = ""

    @property
    def is_regression(self) -> bool:
        """True if it passed and does not any more, or ends in an error and did not."""
        if self.before is None or self.after is None:
            return False
        if self.before is State.PASSED:
            return self.after not in (State.PASSED, State.UNEXPECTED_PASS)
        return self.after.is_error and not self.before.is_error


def read_states(path: Path) -> dict[str, State]:
    """The states of a certificate or of a report.

    Raises:
        InputError: if it is neither.
    """
    schema = record.read_json(path).get("schema")
    if schema == certificates.SCHEMA:
        return certificates.states_of(certificates.read_certificate(path))
    if schema == record.SCHEMA:
        return states(record.read_report(path))
    raise InputError(
        f"{path} is neither a certificate nor a report of the suite: its schema is {schema!r}",
        remedy="give the certificate.json or report.json of an earlier run",
    )


def states(report: Report) -> dict[str, State]:
    """The state of each case of a report."""
    return {entry.name: entry.state for entry in report.entries}


def changes(before: Mapping[str, State], after: Report) -> list[Change]:
    """Every difference, in the order of the cases; those that only the earlier run has come last."""
    found = [
        Change(entry.name, before.get(entry.name), entry.state, entry.result.detail)
        for entry in after.entries
        if before.get(entry.name) is not entry.state
    ]
    now = {entry.name for entry in after.entries}
    gone = [Change(name, state, None) for name, state in before.items() if name not in now]
    return [*found, *gone] if after.complete else found


def regressions(before: Mapping[str, State], after: Report) -> list[Change]:
    """The differences that are for the worse."""
    return [change for change in changes(before, after) if change.is_regression]
