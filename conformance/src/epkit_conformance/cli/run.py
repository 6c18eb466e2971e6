"""``epkit conformance NAME``: run the suite against a provider."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import exits
from .options import Debug, Json, console, emit

if TYPE_CHECKING:
    from ..baseline import Change
    from ..certification import Certification
    from ..record import Report

HIGHEST = 7


def run(
    provider: Annotated[str, typer.Argument(metavar="NAME", help="the provider under test")],
    level: Annotated[
        int, typer.Option(min=0, max=HIGHEST, metavar="N", help="run the levels up to this one")
    ] = HIGHEST,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="run the cases that match, such as 'generated/Conv/*'; repeat"),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, metavar="N", help="worker processes; 0: one a core")
    ] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="seconds that a case may take")] = 60.0,
    memory: Annotated[
        float, typer.Option(min=0, metavar="GB", help="memory that a case may take; 0: any")
    ] = 16.0,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="where reports go; if not given, conformance-NAME"),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="write no files")] = False,
    expect: Annotated[Path | None, typer.Option(metavar="FILE", help="declared exceptions, as TOML")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="an earlier certificate.json or report.json: fail on regressions only"
        ),
    ] = None,
    require: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST, metavar="N", help="the level that must be certified; else 1"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the suite: levels 0 to 7, each case in a worker process, with evidence that the provider did the work."""
    from ..baseline import read_states, regressions
    from ..certification import judge
    from ..expectations import Expectations, read_expectations
    from ..progress import Silent, watcher
    from ..run import Plan
    from ..run import run as run_plan
    from ..runner import Limits

    before = read_states(baseline) if baseline else None
    expectations = read_expectations(expect) if expect else Expectations()
    limits = Limits(timeout, int(memory * 1e9))
    plan = Plan(provider, level, tuple(only or ()), jobs or cores(), limits, expectations)
    cases = catalogue(provider)
    signal.signal(signal.SIGTERM, _interrupt)
    shown = Silent() if as_json else watcher(console(stderr=True))
    done = run_plan(plan, cases, shown)
    certification = judge(done)
    worse = regressions(before, done) if before is not None else None
    target = None if no_report else report or Path(f"conformance-{provider}")
    written = write(done, target) if target else []
    code = exit_code(done, certification, worse, require)
    if as_json:
        emit(summary(done, certification, worse, written, code))
    else:
        from .summary import show

        show(done, certification, worse, written)
    raise typer.Exit(code)


def _interrupt(number: int, frame: object) -> None:
    """A CI that cancels a job asks with SIGTERM: what was done is reported all the same."""
    raise KeyboardInterrupt


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def catalogue(provider: str) -> Any:
    """All cases of the suite; a misspelt provider is told before they are made, which takes seconds."""
    from epkit.backend.registry import default

    if provider not in default.names():
        default.provider_type(provider)
    from ..catalogue import all_cases

    return all_cases()


def write(report: Report, folder: Path) -> list[Path]:
    """Write every form of the report; the certificate only if the run was a whole one.

    Raises:
        InputError: if the folder cannot be written.
    """
    from ..report.files import write_all

    return write_all(report, folder)


def exit_code(
    report: Report, certification: Certification, worse: list[Change] | None, require: int | None
) -> int:
    """See :mod:`.exits`."""
    if report.stopped.startswith("interrupted"):
        return exits.INTERRUPTED
    if worse is not None:
        return exits.REGRESSED if worse else exits.CERTIFIED
    if report.errors():
        return exits.FAILED
    needed = min(1, report.level) if require is None else require
    if report.only:
        from ..result import State

        return exits.CERTIFIED if report.counts()[State.PASSED] else exits.NOT_SHOWN
    return exits.CERTIFIED if certification.reached >= needed else exits.NOT_SHOWN


def summary(
    report: Report, certification: Certification, worse: list[Change] | None, written: list[Path], code: int
) -> dict[str, Any]:
    """The run in a few lines, for programs; the whole is in report.json."""
    from ..record import state_counts

    errors = [
        {"case": entry.name, "state": entry.state.value, "detail": entry.result.detail}
        for entry in report.errors()
    ]
    return {
        "provider": report.provider.name,
        "version": report.provider.version,
        "complete": report.complete,
        "stopped": report.stopped,
        "reached": None if report.only else certification.reached,
        "levels": {str(v.level.number): v.status.value for v in certification.verdicts},
        "operator_sets": list(certification.sets),
        "counts": state_counts(report.counts()),
        "errors": errors,
        "regressions": None if worse is None else [change.name for change in worse],
        "seconds": round(report.seconds, 3),
        "files": [str(path) for path in written],
        "exit_code": code,
    }
