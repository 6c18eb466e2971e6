"""Checking a certificate: its digests, its arithmetic, and on request a random sample of its cases."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epkit.errors import EpkitError

from .case import Case
from .certificate import PERISHABLE, conclusions, entries_of, states_of
from .digests import Hashes, core_digest, corpus_digest, digest_of, plugin_files, suite_digest, wheel_files
from .environment import environment
from .result import State
from .runner import Limits, run_cases


@dataclass(frozen=True)
class Finding:
    """One check: ``holds`` is None where it could not be made here, which voids nothing and proves nothing."""

    what: str
    holds: bool | None
    detail: str = ""


def check_offline(
    certificate: Mapping[str, Any], cases: Sequence[Case], wheel: Path | None = None
) -> list[Finding]:
    """Every check that runs nothing.

    Args:
        certificate: as read.
        cases: all cases of the installed suite.
        wheel: the plugin's wheel file, if it is not the installed plugin that is asked about.
    """
    try:
        return _check(certificate, cases, wheel)
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # parts are missing or of another kind
        return [Finding("form of the certificate", False, f"{type(error).__name__}: {error}")]


def _check(certificate: Mapping[str, Any], cases: Sequence[Case], wheel: Path | None) -> list[Finding]:
    found = [_own_digest(certificate), _plugin(certificate, wheel)]
    same = {
        "suite": certificate["suite"]["digest"] == suite_digest(),
        "core": certificate["core"]["digest"] == core_digest(),
        "corpus": certificate["corpus"]["digest"] == corpus_digest(cases),
    }
    for part, holds in same.items():
        version = certificate[part].get("version", "")
        told = (
            "" if holds else f"not the {part} that is installed here; certified with {version or 'another'}"
        )
        found.append(Finding(f"{part} unchanged", holds, told))
    found += list(_versions(certificate))
    found.append(_arithmetic(certificate, cases, known=same["corpus"]))
    return found


def _own_digest(certificate: Mapping[str, Any]) -> Finding:
    values = {key: value for key, value in certificate.items() if key != "digest"}
    holds = digest_of(values) == certificate.get("digest")
    return Finding(
        "digest of the certificate", holds, "" if holds else "the file was changed after it was made"
    )


def _plugin(certificate: Mapping[str, Any], wheel: Path | None) -> Finding:
    provider = certificate["provider"]
    what = f"files of {provider['package'] or provider['name']}"
    if digest_of(provider["files"]) != provider["digest"]:
        return Finding(what, False, "the list of files and its digest differ")
    try:
        files = wheel_files(wheel) if wheel else plugin_files(provider["name"])
    except EpkitError as error:
        return Finding(what, None, error.what)
    changed = _changed(provider["files"], files)
    return Finding(what, not changed, f"changed: {changed}" if changed else "")


def _changed(then: Hashes, now: Hashes) -> str:
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _versions(certificate: Mapping[str, Any]) -> Iterator[Finding]:
    """Packages that decide the data void it; the rest of the host is for information."""
    here = environment()
    for name in PERISHABLE:
        then, now = certificate["corpus"].get(name, ""), here.get(name, "")
        yield Finding(
            f"{name} {then}", then == now, "" if then == now else f"{now or 'none'} is installed here"
        )
    other = {key for key, value in certificate["host"].items() if here.get(key) != value} - set(PERISHABLE)
    if other:
        yield Finding("same host", None, f"another {', '.join(sorted(other))}: results may differ here")


def _arithmetic(certificate: Mapping[str, Any], cases: Sequence[Case], known: bool) -> Finding:
    what = "levels, operators and sets follow from the results"
    if not known:
        return Finding(what, None, "the cases of another suite cannot be counted")
    states = states_of(certificate)
    wanted = {case.name for case in cases if case.level <= certificate["level"]}
    if set(states) != wanted:
        return Finding(what, False, f"{len(set(states) ^ wanted)} cases are missing or too many")
    computed = conclusions(entries_of(certificate, cases))
    wrong = [key for key, value in computed.items() if certificate.get(key) != value]
    listed = {item["case"]: item["state"] for item in certificate["waivers"]}
    waived = {name: state.value for name, state in states.items() if state is State.EXPECTED_FAILURE}
    if not waived.items() <= listed.items():
        wrong.append("waivers")
    return Finding(what, not wrong, f"counted again, these differ: {', '.join(wrong)}" if wrong else "")


def rerun(
    certificate: Mapping[str, Any], cases: Sequence[Case], count: int, seed: int, jobs: int = 1
) -> list[Finding]:
    """Run a random sample again; each case must end as certified.

    Args:
        certificate: as read.
        cases: all cases of the installed suite.
        count: how many; passed ones first, because they are what is claimed.
        seed: of the choice.
        jobs: worker processes.
    """
    states = states_of(certificate)
    provider = certificate["provider"]["name"]
    claimed = [case for case in cases if states.get(case.name) is State.PASSED]
    chosen = random.Random(seed).sample(claimed, min(count, len(claimed)))
    again = run_cases(chosen, provider, jobs=jobs, limits=Limits()) if chosen else {}
    wrong = [
        Finding(f"rerun of {name}", False, f"certified as passed, now {result.state.value}: {result.detail}")
        for name, result in again.items()
        if result.state is not State.PASSED
    ]
    told = f"{len(again) - len(wrong)} of {len(again)} passed again (seed {seed})"
    return [*wrong, Finding(f"random sample of {len(chosen)} passed cases", not wrong and bool(chosen), told)]
