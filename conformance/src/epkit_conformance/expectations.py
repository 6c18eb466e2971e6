"""Declared exceptions: what is known to fail, with an owner and an end, and what will never be supported.

A TOML file; ``case`` is a name or a pattern of names, of which every case that matches must behave as declared::

    [[expected_failure]]
    case = "generated/Erf/13/float16"
    reason = "the table of the device has 10 bits"
    owner = "ana@acme.example"
    link = "https://acme.example/issues/12"
    expires = 2027-06-30

    [[unsupported]]
    case = "published/sequence_*"
    reason = "the device has no sequences, and never will"

An expected failure that passes, or that has expired, is an error. So is something "unsupported" that works, or that
is answered wrongly instead of being refused: a declaration never excuses a wrong answer without an owner and an end.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from epkit.errors import OptionError

from .result import Result, State

FIELDS = {
    "expected_failure": ("case", "reason", "owner", "link", "expires"),
    "unsupported": ("case", "reason"),
}
"""The tables of the file, and the fields that each must have."""


@dataclass(frozen=True)
class Expectation:
    """One declaration. ``expires`` is the last day on which it holds; None for what is permanent."""

    kind: str
    case: str
    reason: str
    owner: str = ""
    link: str = ""
    expires: date | None = None

    def __str__(self) -> str:
        if self.expires is None:
            return self.reason
        return f"{self.reason} (owner {self.owner}, {self.link}, until {self.expires})"

    def settle(self, result: Result, today: date) -> Result:
        """The result as this declaration sees it."""
        settle = self._expected if self.kind == "expected_failure" else self._unsupported
        state, detail = settle(result, today)
        return replace(result, state=state, detail=detail)

    def _expected(self, result: Result, today: date) -> tuple[State, str]:
        if result.state is State.PASSED:
            return State.UNEXPECTED_PASS, f"it passes: delete the expected failure {self.case!r}"
        if not result.state.is_error:
            return result.state, result.detail
        if self.expires is not None and today > self.expires:
            told = f"{result.detail} (the expected failure {self.case!r} expired on {self.expires}: {self})"
            return result.state, told
        return State.EXPECTED_FAILURE, f"{result.state.value}: {result.detail}; expected: {self}"

    def _unsupported(self, result: Result, today: date) -> tuple[State, str]:
        if result.state is State.PASSED:
            return State.UNEXPECTED_PASS, f"it passes: delete the declaration {self.case!r} as unsupported"
        if result.state in (State.REFUSED, State.UNSUPPORTED):
            return State.UNSUPPORTED, str(self)
        if result.state.is_error:
            told = f"{result.detail} (declared unsupported: refuse it in claim(), do not answer wrongly)"
            return result.state, told
        return result.state, result.detail


@dataclass(frozen=True)
class Expectations:
    """All declarations of a file; the first that matches a case counts."""

    items: tuple[Expectation, ...] = ()

    def settle(self, name: str, result: Result, today: date | None = None) -> tuple[Result, str]:
        """The result as declared, and the declaration in words if it changed the state."""
        for item in self.items:
            if fnmatchcase(name, item.case):
                settled = item.settle(result, today or date.today())
                return settled, str(item) if settled.state is not result.state else ""
        return result, ""

    def check_names(self, names: Iterable[str]) -> None:
        """Make sure that every declaration is about some case.

        Raises:
            OptionError: for one that is about none.
        """
        known = list(names)
        for item in self.items:
            if not any(fnmatchcase(name, item.case) for name in known):
                raise OptionError(
                    f"no case of the suite matches {item.case!r}, which is declared {item.kind}",
                    remedy="correct the name or delete the entry; epkit conformance list shows all names",
                )


def read_expectations(path: Path) -> Expectations:
    """Read the file.

    Raises:
        OptionError: if it is missing, no TOML, or says too little or too much.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read: {error}", remedy="check the path of --expect") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path} is no TOML: {error}", remedy="see docs/conformance.md") from None
    unknown = set(tables) - set(FIELDS)
    if unknown:
        raise _malformed(path, f"it has the tables {', '.join(sorted(unknown))}")
    return Expectations(
        tuple(_expectation(path, kind, item) for kind in FIELDS for item in _items(path, kind, tables))
    )


def _items(path: Path, kind: str, tables: Mapping[str, Any]) -> list[Any]:
    found = tables.get(kind, [])
    if not isinstance(found, list):
        raise _malformed(path, f"write [[{kind}]], not [{kind}]")
    return found


def _expectation(path: Path, kind: str, values: Mapping[str, Any]) -> Expectation:
    needed = FIELDS[kind]
    if set(values) != set(needed):
        found = ", ".join(values) or "nothing"
        raise _malformed(path, f"[[{kind}]] needs exactly {', '.join(needed)}; found {found}")
    for key, value in values.items():
        kind_of = date if key == "expires" else str
        if not isinstance(value, kind_of) or not value:
            wanted = "a date such as 2027-06-30, without quotes" if key == "expires" else "a text"
            raise _malformed(path, f"[[{kind}]] {key} = {value!r} must be {wanted}")
    return Expectation(kind, **values)


def _malformed(path: Path, what: str) -> OptionError:
    return OptionError(
        f"{path}: {what}",
        remedy="the tables are [[expected_failure]] and [[unsupported]]; "
        "epkit conformance --help and docs/conformance.md show one of each",
    )
