"""The end of a run on the terminal: levels, errors, what to write next, the files."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..advice import Advice, advise, next_step
from ..baseline import Change
from ..certification import Certification, Status
from ..operator_sets import standings
from ..progress import STYLES
from ..record import Report
from ..result import State
from .options import console

STATUS_STYLES = {
    Status.CERTIFIED: "bold green",
    Status.HELD: "green",
    Status.FAILING: "bold red",
    Status.NOT_SHOWN: "yellow",
    Status.NOT_APPLICABLE: "bright_black",
    Status.NOT_RUN: "bright_black",
    Status.PART: "bright_black",
}
SHOWN = 10
"""Errors and regressions listed; the rest is in the report."""


def show(
    report: Report, certification: Certification, worse: list[Change] | None, written: list[Path]
) -> None:
    """Print it."""
    out = console()
    out.print()
    devices = f" on {', '.join(report.provider.devices)}" if report.provider.devices else ""
    out.print(Text.assemble((str(report.provider), "bold"), devices))
    if report.stopped:
        out.print(Text(report.stopped, "bold red"))
    _levels(out, certification)
    _errors(out, report)
    if worse is not None:
        _regressions(out, worse)
    advice = next_step(report, certification)
    if advice is not None and not report.only:
        _advice(out, "write next", advice)
    _conclusion(out, report, certification)
    if written:
        out.print(Text.assemble(("written  ", "bright_black"), _listing(written)))


def _levels(out: Console, certification: Certification) -> None:
    table = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 2, 0, 0))
    for name in ("level", "", "status", "cases"):
        table.add_column(name, overflow="fold")
    ran_all = all(verdict.status is not Status.PART for verdict in certification.verdicts)
    for verdict in certification.verdicts:
        if verdict.status is Status.NOT_RUN and not ran_all:
            continue
        counts = Text(", ").join(
            Text(f"{verdict.counts[state]} {state.value}", STYLES[state])
            for state in State
            if verdict.counts[state]
        )
        reason = Text(f"\n{verdict.reason}" if verdict.reason else "", "bright_black")
        status = Text.assemble((verdict.status.value, STATUS_STYLES[verdict.status]))
        table.add_row(str(verdict.level.number), verdict.level.title, status, counts + reason)
    with out.capture() as captured:
        out.print(table)
    for text in captured.get().splitlines():
        out.file.write(text.rstrip() + "\n")


def _errors(out: Console, report: Report) -> None:
    errors = report.errors()
    for entry in errors[:SHOWN]:
        out.print()
        out.print(Text.assemble((f"{entry.state.value} ", STYLES[entry.state]), (entry.name, "bold")))
        out.print(Text(f"  {entry.result.detail}"), soft_wrap=True)
        advice = advise(entry)
        out.print(Text.assemble(("  look at: ", "cyan"), advice.write, ". ", advice.why), soft_wrap=True)
    if len(errors) > SHOWN:
        out.print(f"\n... and {len(errors) - SHOWN} more errors; the report has all")


def _regressions(out: Console, worse: list[Change]) -> None:
    out.print()
    out.print(Text(f"{len(worse)} regressions against the baseline", "bold red" if worse else "green"))
    for change in worse[:SHOWN]:
        before, after = (state.value if state else "-" for state in (change.before, change.after))
        out.print(Text(f"  {change.name}: {before} -> {after}: {change.detail}"), soft_wrap=True)


def _advice(out: Console, label: str, advice: Advice) -> None:
    out.print()
    out.print(Text.assemble((f"{label}: ", "cyan"), (advice.write, "bold")), soft_wrap=True)
    out.print(Text(f"  {advice.why}"), soft_wrap=True)
    for line in advice.example.splitlines():
        out.print(Text(f"      {line}", "bright_black"), soft_wrap=True)


def _conclusion(out: Console, report: Report, certification: Certification) -> None:
    out.print()
    if not report.complete:
        passed = report.counts()[State.PASSED]
        told = f"{passed} of {len(report.entries)} cases passed; a part of the suite certifies nothing"
        out.print(Text(told, "bold"), soft_wrap=True)
        return
    reached = certification.reached
    verdict = f"certified: level {reached}" if reached >= 0 else "not certified"
    out.print(Text(verdict, "bold green" if reached >= 0 else "bold red"))
    for label, dtypes in by_set(certification.sets).items():
        out.print(Text.assemble(("operators  ", "bright_black"), f"{label:20} ", (dtypes, "bright_black")))
    open_ = [item for item in standings(report.entries) if item.passed and item.missing and not item.failing]
    for item in sorted(open_, key=lambda item: len(item.missing))[:3]:
        told = f"{item.label} lacks {', '.join(item.missing[:6])}{' ...' if len(item.missing) > 6 else ''}"
        out.print(Text.assemble(("nearly     ", "bright_black"), told), soft_wrap=True)


def by_set(labels: tuple[str, ...]) -> dict[str, str]:
    """``("dense float32", "dense float16")`` as ``{"dense": "float32 float16"}``."""
    found: dict[str, str] = {}
    for label in labels:
        name, _, dtype = label.partition(" ")
        found[name] = f"{found.get(name, '')} {dtype}".strip()
    return found


def _listing(paths: list[Path]) -> str:
    folder = paths[0].parent
    return f"{folder}/: {', '.join(path.name for path in paths)}"
