"""The certificate: what was proved, of which files, by which suite. It is void when any of them changes.

It is evidence, not a signature: whoever has the plugin, the suite and the device can check every part of it again
(``epkit conformance verify``), down to running the cases anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from epkit.errors import InputError

from .case import Case
from .certification import Certification, certify
from .digests import core_digest, corpus_digest, digest_of, plugin_files, suite_digest
from .operator_sets import passed_operators
from .record import Entry, Report, entry_of, read_json, state_counts
from .result import Result, State

SCHEMA = "epkit.conformance.certificate/1"

SEEDS = "CRC-32 of each case's name"

PERISHABLE = ("onnx", "numpy", "ml_dtypes")
"""Packages of the environment that decide the cases' data; another version makes another corpus."""


def make_certificate(report: Report, cases: Sequence[Case]) -> dict[str, Any]:
    """The certificate of a complete run.

    Args:
        report: of every case of its levels.
        cases: all cases of the suite.

    Raises:
        InputError: if the report is not of a whole run.
    """
    if not report.complete:
        raise InputError(
            "only a whole run can be certified; this one was of a part of the cases",
            remedy="run again without --only, to the end",
        )
    files = plugin_files(report.provider.name)
    made = {
        "schema": SCHEMA,
        "issued": report.started,
        "provider": {
            "name": report.provider.name,
            "version": report.provider.version,
            "package": report.provider.package,
            "package_version": report.provider.package_version,
            "digest": digest_of(files),
            "files": files,
        },
        "suite": {"version": report.suite, "digest": suite_digest()},
        "core": {"version": report.environment.get("epkit", ""), "digest": core_digest()},
        "corpus": {
            "cases": len(cases),
            "digest": corpus_digest(cases),
            "seeds": SEEDS,
            **{name: report.environment.get(name, "") for name in PERISHABLE},
        },
        "driver": list(report.provider.devices),
        "host": dict(report.environment),
        "level": report.level,
        **conclusions(report.entries),
        "waivers": waivers(report.entries),
        "results": results(report.entries),
    }
    return {**made, "digest": digest_of(made)}


def conclusions(entries: Sequence[Entry]) -> dict[str, Any]:
    """What follows from the results by counting: the part of a certificate that ``verify`` computes again."""
    found: Certification = certify(entries)
    return {
        "reached": found.reached,
        "levels": [
            {
                "level": verdict.level.number,
                "title": verdict.level.title,
                "status": verdict.status.value,
                "counts": state_counts(verdict.counts),
            }
            for verdict in found.verdicts
        ],
        "operator_sets": list(found.sets),
        "operators": passed_operators(entries),
    }


def waivers(entries: Iterable[Entry]) -> list[dict[str, str]]:
    """Cases whose state a declaration changed, and the declaration."""
    return [
        {"case": entry.name, "state": entry.state.value, "declared": entry.waiver}
        for entry in entries
        if entry.waiver
    ]


def results(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """The names of the cases in each state."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        found[entry.state.value].append(entry.name)
    return {state.value: sorted(found[state.value]) for state in State if state.value in found}


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a certificate's file.

    Raises:
        InputError: if it is missing, damaged or of another kind.
    """
    values = read_json(path)
    if values.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is no certificate: its schema is {values.get('schema')!r}, not {SCHEMA!r}",
            remedy="a whole run writes one: epkit conformance NAME --report DIR",
        )
    return values


def states_of(certificate: Mapping[str, Any]) -> dict[str, State]:
    """The state of each case.

    Raises:
        InputError: if the results are damaged.
    """
    try:
        return {name: State(state) for state, names in certificate["results"].items() for name in names}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the certificate's results are damaged: {error}", remedy="run again") from None


def entries_of(certificate: Mapping[str, Any], cases: Iterable[Case]) -> list[Entry]:
    """The results as entries, so that they can be counted again; cases that the suite lacks are left out."""
    states = states_of(certificate)
    return [entry_of(case, Result(states[case.name])) for case in cases if case.name in states]
