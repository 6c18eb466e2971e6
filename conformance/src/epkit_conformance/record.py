"""What a run of the suite leaves behind: one plain value that every report is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from epkit.errors import InputError

from .case import Case
from .result import Result, State

SCHEMA = "epkit.conformance.report/1"
"""Name and version of the JSON form. The number rises when a field changes its meaning or goes."""


@dataclass(frozen=True)
class Entry:
    """One case and its result.

    Attributes:
        waiver: the reason of the expectation that changed its state.
        oracle: who said what must come out.
    """

    name: str
    level: int
    group: str
    operator: str
    version: int
    dtype: str
    result: Result
    waiver: str = ""
    oracle: str = ""

    @property
    def state(self) -> State:
        """The result's state."""
        return self.result.state


def entry_of(case: Case, result: Result, waiver: str = "") -> Entry:
    """A case with what became of it."""
    place = (case.operator, case.version, case.dtype)
    return Entry(case.name, case.level, case.group, *place, result, waiver, case.oracle)


@dataclass(frozen=True)
class Candidate:
    """The provider under test, as discovery sees it."""

    name: str
    version: str = ""
    package: str = ""
    package_version: str = ""
    state: str = ""
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        package = f" ({self.package} {self.package_version})" if self.package else ""
        return f"{self.name} {self.version}{package}".strip()


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        level: the highest level that was asked for.
        only: the patterns that cases were chosen by; empty if all were.
        stopped: why the run ended early; empty if it did not.
        started: UTC, ISO 8601.
        seconds: wall time of the run.
        environment: versions of packages, host, driver.
    """

    provider: Candidate
    entries: tuple[Entry, ...]
    level: int = 7
    only: tuple[str, ...] = ()
    stopped: str = ""
    started: str = ""
    seconds: float = 0.0
    suite: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if every case of the levels asked for was run."""
        return not self.only and not self.stopped

    def counts(self) -> Counter[State]:
        """How many cases ended in each state."""
        return count(self.entries)

    def errors(self) -> list[Entry]:
        """The entries whose state must not be left."""
        return [entry for entry in self.entries if entry.state.is_error]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; see ``docs/conformance.md`` for the fields."""
        head = {"schema": SCHEMA, **asdict(replace(self, entries=()))}
        return {**head, "counts": state_counts(self.counts()), "entries": list(map(plain, self.entries))}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Report:
        """The inverse of :meth:`to_json`."""
        given = {key: value for key, value in values.items() if key not in ("schema", "counts")}
        given["provider"] = Candidate(
            **{**given["provider"], "devices": tuple(given["provider"].get("devices", ()))}
        )
        given["entries"] = tuple(map(entry_from, given["entries"]))
        given["only"] = tuple(given.get("only", ()))
        return Report(**given)


def count(entries: Iterable[Entry]) -> Counter[State]:
    """How many entries are in each state."""
    return Counter(entry.state for entry in entries)


def state_counts(counts: Mapping[State, int]) -> dict[str, int]:
    """Counts by the state's name, in the order of the states; zeros are left out."""
    return {state.value: counts[state] for state in State if counts.get(state)}


def read_report(path: Path) -> Report:
    """Read a report's JSON file.

    Raises:
        InputError: if it is missing, damaged or of another kind.
    """
    values = read_json(path)
    if values.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is no conformance report: its schema is {values.get('schema')!r}, not {SCHEMA!r}",
            remedy="give the report.json of a run; write one with: epkit conformance NAME --report DIR",
        )
    try:
        return Report.from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}", remedy="run again") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: if it is missing or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="check the path") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}", remedy="check the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object", remedy="check the file")
    return values


def plain(entry: Entry) -> dict[str, Any]:
    """An entry as plain values for JSON."""
    result = entry.result.to_dict()
    place = {"operator": entry.operator, "version": entry.version, "dtype": entry.dtype}
    told = {**place, "oracle": entry.oracle, "waiver": entry.waiver}
    kept = {key: value for key, value in told.items() if value}
    return {"name": entry.name, "level": entry.level, "group": entry.group, **kept, "result": result}


def entry_from(values: Mapping[str, Any]) -> Entry:
    """The inverse of :func:`plain`."""
    optional = {"operator": "", "version": 0, "dtype": "", **values}
    return Entry(**{**optional, "result": Result.from_dict(values["result"])})
