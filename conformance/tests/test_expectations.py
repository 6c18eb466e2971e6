"""Declared exceptions: what they excuse, and what they do not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from epkit.errors import OptionError
from epkit_conformance.expectations import Expectations, read_expectations
from epkit_conformance.result import Result, State

FILE = """
[[expected_failure]]
case = "generated/Erf/*/float16"
reason = "a table of 10 bits"
owner = "ana@acme.example"
link = "https://acme.example/12"
expires = 2030-06-30

[[unsupported]]
case = "published/sequence_*"
reason = "the device has no sequences"
"""
ERF, SEQUENCE = "generated/Erf/13/float16", "published/sequence_insert_at_back"
BEFORE, LAST, AFTER = date(2030, 1, 1), date(2030, 6, 30), date(2030, 7, 1)


@pytest.fixture
def declared(tmp_path: Path) -> Expectations:
    path = tmp_path / "expected.toml"
    path.write_text(FILE)
    return read_expectations(path)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (ERF, State.FAILED, State.EXPECTED_FAILURE),
        (ERF, State.CRASHED, State.EXPECTED_FAILURE),
        (ERF, State.HUNG, State.EXPECTED_FAILURE),
        (ERF, State.PASSED, State.UNEXPECTED_PASS),
        (ERF, State.REFUSED, State.REFUSED),
        (ERF, State.FALLBACK, State.FALLBACK),
        (SEQUENCE, State.REFUSED, State.UNSUPPORTED),
        (SEQUENCE, State.PASSED, State.UNEXPECTED_PASS),
        (SEQUENCE, State.FAILED, State.FAILED),
        (SEQUENCE, State.CRASHED, State.CRASHED),
        ("published/abs", State.FAILED, State.FAILED),
        ("published/abs", State.PASSED, State.PASSED),
    ],
)
def test_what_becomes_of_a_state(declared: Expectations, name: str, before: State, after: State) -> None:
    settled, waiver = declared.settle(name, Result(before, "off by 3 ULP"), BEFORE)
    assert settled.state is after
    assert bool(waiver) == (before is not after)


def test_a_waiver_names_owner_link_and_end(declared: Expectations) -> None:
    settled, waiver = declared.settle(ERF, Result(State.FAILED, "off by 3 ULP"), LAST)
    assert settled.state is State.EXPECTED_FAILURE
    for text in (
        "off by 3 ULP",
        "a table of 10 bits",
        "ana@acme.example",
        "https://acme.example/12",
        "2030-06-30",
    ):
        assert text in settled.detail
    assert waiver in settled.detail


def test_what_has_expired_is_a_failure_again(declared: Expectations) -> None:
    settled, waiver = declared.settle(ERF, Result(State.FAILED, "off by 3 ULP"), AFTER)
    assert settled.state is State.FAILED
    assert "expired on 2030-06-30" in settled.detail
    assert waiver == ""


def test_a_declaration_about_nothing_is_an_error(declared: Expectations) -> None:
    declared.check_names([ERF, SEQUENCE])
    with pytest.raises(OptionError, match="no case of the suite matches 'published/sequence"):
        declared.check_names([ERF])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nonsense", "is no TOML"),
        ("[[expected]]\ncase = 'a'", "tables expected"),
        ("[unsupported]\ncase = 'a'", r"write \[\[unsupported\]\]"),
        ("[[unsupported]]\ncase = 'a'", "needs exactly case, reason"),
        ("[[unsupported]]\ncase = 'a'\nreason = ''", "must be a text"),
        ("[[unsupported]]\ncase = 'a'\nreason = 'b'\nowner = 'c'", "needs exactly"),
        (FILE.replace("2030-06-30", "'soon'"), "must be a date"),
        (FILE.replace('owner = "ana@acme.example"', ""), "needs exactly"),
    ],
)
def test_a_file_that_says_too_little_or_too_much(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=word):
        read_expectations(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        read_expectations(tmp_path / "none.toml")
