"""JUnit XML: a suite for each level and group, for the readers that every CI has."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence

from ..advice import advise
from ..record import Entry, Report
from ..result import State
from .page import clean

ERRORS = (State.CRASHED, State.HUNG)
FAILURES = (State.FAILED, State.UNEXPECTED_PASS)


def junit_xml(report: Report) -> str:
    """The whole report. Only PASSED is a pass; what is neither pass nor error is skipped, with state and reason."""
    name = f"epkit conformance of {report.provider.name}"
    root = ET.Element("testsuites", {"name": name, **_sums(report.entries)})
    suites: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for entry in report.entries:
        suites[entry.level, entry.group].append(entry)
    for index, ((level, group), entries) in enumerate(suites.items()):
        skipped = {"skipped": str(sum(_kind(entry) == "skipped" for entry in entries)), "id": str(index)}
        head = {"name": f"level {level}: {group}", "timestamp": report.started[:19], **skipped}
        suite = ET.SubElement(root, "testsuite", {**head, **_sums(entries)})
        properties = ET.SubElement(suite, "properties")
        for key, value in {"provider": str(report.provider), **report.environment}.items():
            ET.SubElement(properties, "property", {"name": key, "value": clean(value)})
        for entry in entries:
            _case(suite, entry, report.provider.name)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _sums(entries: Sequence[Entry]) -> dict[str, str]:
    kinds = [_kind(entry) for entry in entries]
    return {
        "tests": str(len(entries)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "time": f"{sum(entry.result.seconds for entry in entries):.3f}",
    }


def _kind(entry: Entry) -> str:
    if entry.state in ERRORS:
        return "error"
    if entry.state in FAILURES:
        return "failure"
    return "" if entry.state is State.PASSED else "skipped"


def _case(suite: ET.Element, entry: Entry, provider: str) -> None:
    place = {"classname": f"{provider}.level{entry.level}.{entry.group}", "name": entry.name}
    case = ET.SubElement(suite, "testcase", {**place, "time": f"{entry.result.seconds:.3f}"})
    kind = _kind(entry)
    if not kind:
        return
    detail = clean(entry.result.detail)
    first = (detail.splitlines() or [""])[0]
    told = ET.SubElement(case, kind, {"message": f"{entry.state.value}: {first}"})
    if kind != "skipped":
        told.set("type", entry.state.value)
        told.text = f"{detail}\n\n{clean(advise(entry))}"
