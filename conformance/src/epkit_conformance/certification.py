"""Which levels a run proves.

A level is certified if all lower ones that apply are, if none of its cases ended in an error, and if something was
shown: at least one case passed, and for level 2 a whole operator set. Refusals, fallbacks and waivers show nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .levels import LEVELS, Level
from .operator_sets import standings
from .record import Entry, Report, count
from .result import State


class Status(Enum):
    """What a run says about a level."""

    CERTIFIED = "certified"
    HELD = "held back"
    FAILING = "failing"
    NOT_SHOWN = "not shown"
    NOT_APPLICABLE = "does not apply"
    NOT_RUN = "not run"
    PART = "in part"


@dataclass(frozen=True)
class Verdict:
    """A level, what it comes to, why, and the counts by state."""

    level: Level
    status: Status
    reason: str
    counts: Counter[State]


@dataclass(frozen=True)
class Certification:
    """The verdicts of all levels, and the operator sets that are complete."""

    verdicts: tuple[Verdict, ...]
    sets: tuple[str, ...]

    @property
    def reached(self) -> int:
        """The highest certified level; -1 if there is none."""
        return max((v.level.number for v in self.verdicts if v.status is Status.CERTIFIED), default=-1)

    @property
    def next(self) -> Verdict | None:
        """The lowest level that was run and is not certified, though it applies."""
        open_ = (Status.FAILING, Status.NOT_SHOWN)
        return next((verdict for verdict in self.verdicts if verdict.status in open_), None)


def judge(report: Report) -> Certification:
    """The verdicts on a report. Of chosen cases nothing follows for a level, but that it fails."""
    found = certify(report.entries)
    if not report.only:
        return found
    kept = (Status.FAILING, Status.NOT_RUN)
    return Certification(
        tuple(v if v.status in kept else replace(v, status=Status.PART, reason="") for v in found.verdicts),
        (),
    )


def certify(entries: Sequence[Entry]) -> Certification:
    """The verdicts that follow from the entries and nothing else."""
    sets = tuple(item.label for item in standings(entries) if item.complete)
    verdicts: list[Verdict] = []
    blocker = ""
    for level in LEVELS:
        own = [entry for entry in entries if entry.level == level.number]
        status, reason = _alone(level, own, sets)
        if status is Status.CERTIFIED and blocker:
            status, reason = Status.HELD, f"nothing is wrong here; {blocker}"
        if status not in (Status.CERTIFIED, Status.NOT_APPLICABLE, Status.HELD):
            blocker = blocker or f"level {level.number} comes first"
        verdicts.append(Verdict(level, status, reason, count(own)))
    return Certification(tuple(verdicts), sets)


def _alone(level: Level, own: Sequence[Entry], sets: Sequence[str]) -> tuple[Status, str]:
    """The level by itself."""
    counts = count(own)
    errors = sum(number for state, number in counts.items() if state.is_error)
    if not own:
        return Status.NOT_RUN, ""
    if errors:
        return Status.FAILING, f"{errors} of {len(own)} cases ended in an error"
    if not counts[State.PASSED]:
        if level.optional and counts[State.UNSUPPORTED] and not counts[State.EXPECTED_FAILURE]:
            told = Counter(entry.result.detail for entry in own if entry.state is State.UNSUPPORTED)
            return Status.NOT_APPLICABLE, told.most_common(1)[0][0]
        return Status.NOT_SHOWN, "no case ran on the provider"
    if level.number == 2 and not sets:
        return Status.NOT_SHOWN, "nothing is wrong, but no operator set is complete"
    waived = counts[State.EXPECTED_FAILURE]
    return Status.CERTIFIED, f"with {waived} waived" if waived else ""
