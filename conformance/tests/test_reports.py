"""The forms of a report: JSON that comes back, XML that readers take, a badge, pages."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from epkit.errors import InputError
from epkit_conformance.baseline import changes, regressions, states
from epkit_conformance.certification import certify
from epkit_conformance.record import SCHEMA, Candidate, Entry, Report, read_report
from epkit_conformance.report.badge import badge_of
from epkit_conformance.report.comparison import comparison_page, pair_data
from epkit_conformance.report.files import json_text
from epkit_conformance.report.html import report_page
from epkit_conformance.report.junit import junit_xml
from epkit_conformance.result import Result, State

HOSTILE = '<script>alert(1)</script> \x00\x1b[31m & "quotes" ]]> </style> \ud800 ä'
VOID = {"meta", "input", "br", "link"}


def made(name: str = "acme", flip: str = "") -> Report:
    """A report with every state; the case named by ``flip`` fails."""
    entries = []
    for index, state in enumerate(State):
        case = f"generated/Add/13/float{index}"
        result = Result(
            State.FAILED if case == flip else state,
            HOSTILE if state is not State.PASSED else "",
            seconds=0.1 * index,
            latency=1e-5,
            copied_bytes=index * 1000,
            peak_bytes=0,
            error=float("inf") if state is State.FAILED else 0.75,
            budget=4.0,
        )
        entries.append(Entry(case, 2, "generated", "Add", 13, f"float{index}", result, "known"))
    entries.append(Entry("describe/is_ready", 0, "describe", "", 0, "", Result(State.PASSED)))
    return Report(
        Candidate(name, "1.0", f"epkit-{name}", "1.0", "ready", ("acme:0: <b>One</b>",)),
        tuple(entries),
        started="2030-01-01T00:00:00+00:00",
        environment={"system": "x < y"},
    )


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    report = made()
    path = tmp_path / "report.json"
    path.write_text(json_text(report.to_json()), encoding="utf-8")
    again = read_report(path)
    assert json.loads(path.read_text())["schema"] == SCHEMA
    assert states(again) == states(report)
    assert again.provider == report.provider
    finite = [entry.result for entry in report.entries if entry.state is not State.FAILED]
    assert [entry.result for entry in again.entries if entry.state is not State.FAILED] == finite


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "other/1"}', f'{{"schema": "{SCHEMA}", "entries": 3}}']
)
def test_what_is_no_report_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_report(path)


def test_junit_counts_and_kinds() -> None:
    report = made()
    root = ET.fromstring(junit_xml(report))
    cases = list(root.iter("testcase"))
    kinds = Counter(child.tag for case in cases for child in case)
    assert len(cases) == int(root.get("tests", "")) == len(report.entries)
    assert kinds["error"] == int(root.get("errors", "")) == 2  # crashed, hung
    assert kinds["failure"] == int(root.get("failures", "")) == 2  # failed, unexpected pass
    assert kinds["skipped"] == 4  # fallback, refused, unsupported, expected failure
    assert sum(not list(case) for case in cases) == 2  # passed
    for suite in root.iter("testsuite"):
        assert int(suite.get("tests", "")) == len(list(suite.iter("testcase")))
    assert "alert(1)" in (cases[1][0].get("message") or "")
    (failed,) = [case[0] for case in cases if case[0:1] and case[0].get("type") == "failed"]
    assert '@ep.kernel("Add"' in (failed.text or "")


class Tags(HTMLParser):
    """Checks that elements are closed in order, and notes what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.problems += [f"{tag} {key}={value}" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")


@pytest.mark.parametrize(
    "page", [report_page(made()), comparison_page(made(), made("other"))], ids=["one", "two"]
)
def test_pages_are_well_formed_load_nothing_and_escape(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.problems == []
    assert tags.open == []
    assert tags.scripts <= 2
    assert "<script>alert" not in page
    assert "http://" not in page and "https://" not in page and "@import" not in page


def test_the_page_holds_every_case() -> None:
    page = report_page(made())
    text = page.split('id="data">')[1].split("</script>")[0]
    data = json.loads(zlib.decompress(base64.b64decode(text)))
    assert [row[0] for row in data["rows"]] == [entry.name for entry in made().entries]
    assert (
        HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
        in data["details"]
    )


def test_the_comparison_holds_both_states_of_every_case() -> None:
    one, other = made("one"), made("other", flip="generated/Add/13/float0")
    other = replace(
        other, entries=other.entries[1:] + (Entry("new", 1, "g", "", 0, "", Result(State.PASSED)),)
    )
    data = pair_data(one, other)
    assert data["sides"] == ["one", "other"]
    known = [state.value for state in State]
    told = {row[0]: tuple("" if index < 0 else known[index] for index in row[2:4]) for row in data["rows"]}
    assert told["generated/Add/13/float0"] == ("passed", "")
    assert told["new"] == ("", "passed")
    assert told["generated/Add/13/float1"] == ("passed on fallback", "passed on fallback")
    assert set(told) == {entry.name for entry in (*one.entries, *other.entries)}
    assert "became worse" not in comparison_page(one, other)
    flipped = made("one", flip="generated/Add/13/float0")
    assert "1 became worse" in comparison_page(one, flipped)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([Entry("a", 0, "g", "", 0, "", Result(State.PASSED))], "level 0"),
        ([Entry("a", 0, "g", "", 0, "", Result(State.FAILED))], "failing"),
        ([Entry("a", 0, "g", "", 0, "", Result(State.REFUSED))], "not certified"),
    ],
)
def test_the_badge_says_how_far_it_is(entries: list[Entry], text: str) -> None:
    root = ET.fromstring(badge_of(certify(entries)))
    assert root.tag.endswith("svg")
    assert text in "".join(root.itertext())


def test_differences_and_regressions() -> None:
    flipped = "generated/Add/13/float0"  # passed before
    before, after = made(), made(flip=flipped)
    assert changes(states(before), before) == []
    (change,) = changes(states(before), after)
    assert (change.name, change.before, change.after) == (flipped, State.PASSED, State.FAILED)
    assert regressions(states(before), after) == [change]
    assert regressions(states(after), before) == []


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (State.PASSED, State.REFUSED, True),
        (State.PASSED, State.FALLBACK, True),
        (State.PASSED, State.UNEXPECTED_PASS, False),
        (State.REFUSED, State.FAILED, True),
        (State.REFUSED, State.PASSED, False),
        (State.FAILED, State.HUNG, False),
        (State.FAILED, State.REFUSED, False),
    ],
)
def test_what_a_regression_is(before: State, after: State, worse: bool) -> None:
    entry = Entry("a", 0, "g", "", 0, "", Result(after))
    report = Report(Candidate("acme"), (entry,))
    assert bool(regressions({"a": before}, report)) is worse
    assert regressions({}, report) == []  # a new case is none
