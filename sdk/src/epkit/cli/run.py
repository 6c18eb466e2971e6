"""``epkit run``: runs a model, compares with expected outputs, shows the time and where it went."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _render
from ._options import (
    FALLBACK,
    OPTIMISE,
    Debug,
    Dim,
    Fallback,
    Fix,
    Json,
    Model,
    Optimise,
    Providers,
    Seed,
    make_settings,
    parse_sizes,
)

if TYPE_CHECKING:
    from .. import Profile, Session
    from ._compare import Comparison
    from ._inputs import Case


@dataclass(frozen=True)
class Outcome:
    """What came of one case: the last run's outputs, the seconds of each run, the comparison."""

    case: Case
    outputs: dict[str, Any]
    seconds: tuple[float, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool | None:
        """None if there was nothing to compare with."""
        return all(item.passed for item in self.comparisons) if self.comparisons else None


def run(
    model: Model,
    provider: Providers = None,
    fallback: Fallback = FALLBACK,
    optimise: Optimise = OPTIMISE,
    fix: Fix = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="[NAME=]FILE", help="an input: .npy, .npz or .pb; repeat"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="ONNX test data: test_data_set_0, or a folder of such"),
    ] = None,
    dim: Dim = None,
    seed: Seed = 0,
    rtol: Annotated[float, typer.Option(help="tolerated relative difference from expected outputs")] = 1e-3,
    atol: Annotated[float, typer.Option(help="tolerated absolute difference from expected outputs")] = 1e-5,
    output: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="write the outputs")] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="TRACE.json", help="write a trace of one more run, for Perfetto")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="number of runs")] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a model, on inputs that are given or invented."""
    from ._files import write_npz
    from ._inputs import cases
    from ._load import open_session

    start = time.perf_counter()
    with open_session(model, make_settings(provider, fallback, optimise, fix)) as session:
        load_seconds = time.perf_counter() - start
        found = cases(session, given or (), data, parse_sizes(dim, "--dim"), seed)
        if output is not None and len(found) > 1:
            raise typer.BadParameter(
                "name one test_data_set with --data to write its outputs", param_hint="--output"
            )
        outcomes = run_cases(session, found, repeat, rtol, atol)
        recorded = None if profile is None else trace(session, found[0], profile)
        if output is not None:
            write_npz(output, outcomes[0].outputs)
        report = _as_json if as_json else _as_text
        report(session, load_seconds, outcomes, recorded)
    if not as_json:
        _say_written(output, profile)
    if any(outcome.passed is False for outcome in outcomes):
        raise typer.Exit(1)


def run_cases(
    session: Session, found: Sequence[Case], repeat: int, rtol: float, atol: float
) -> list[Outcome]:
    """Run every case ``repeat`` times."""
    outcomes = []
    with _render.progress() as bar:
        task = bar.add_task("running", total=len(found) * repeat)
        for case in found:
            seconds = []
            for _ in range(repeat):
                start = time.perf_counter()
                outputs = session.run(None, case.feeds)
                seconds.append(time.perf_counter() - start)
                bar.advance(task)
            outcomes.append(Outcome(case, outputs, tuple(seconds), compare_all(case, outputs, rtol, atol)))
    return outcomes


def compare_all(case: Case, outputs: dict[str, Any], rtol: float, atol: float) -> tuple[Comparison, ...]:
    """Each expected output with what came out."""
    from ._compare import compare

    return tuple(compare(name, outputs[name], value, rtol, atol) for name, value in case.expected.items())


def trace(session: Session, case: Case, path: Path) -> Profile:
    """Run once more with a profile; the file shows the stages of loading too."""
    from .. import Profile, RunOptions
    from ..trace import Recorder

    recorded = Profile()
    session.run(None, case.feeds, RunOptions(profile=recorded))
    whole = Recorder()
    whole.events = [*session.load_trace.events, *recorded.recorder.events]
    whole.save(path)
    return recorded


# ---- as text ----


def _as_text(
    session: Session, load_seconds: float, outcomes: list[Outcome], recorded: Profile | None
) -> None:
    counts, partitions = session.placement.counts(), session.placement.partitions()
    shares = ", ".join(
        f"{name} {count} nodes in {partitions[name]} partitions" for name, count in counts.items()
    )
    _render.line(f"{session.name}: {shares or 'no nodes'}; {session.placement.transfers} transfers")
    for outcome in outcomes:
        if outcome.case.name:
            _render.heading(outcome.case.name)
        _values("input", outcome.case.feeds, outcome.case.sources)
        _values("output", outcome.outputs, {})
        _comparisons(outcome)
    _render.line()
    _render.line(_times(load_seconds, outcomes))
    if recorded is not None:
        _render.heading("profile of one warm run")
        _profile(recorded)


def _values(kind: str, values: dict[str, Any], sources: dict[str, str]) -> None:
    columns = [kind, "type", ">min", ">mean", ">max", *(["from"] if sources else [])]
    rows = []
    for name, value in values.items():
        told = describe(value)
        numbers = [_number(told[key]) for key in ("min", "mean", "max")]
        remark = [sources[name]] if sources else []
        rows.append([name, told["type"], *numbers, *remark])
    _render.line()
    _render.table(columns, rows) if rows else _render.line(f"no {kind}s")


def describe(value: Any) -> dict[str, Any]:
    """Type and shape of a value; the least, mean and greatest of its finite numbers."""
    import numpy as np

    told: dict[str, Any] = {
        "type": type(value).__name__,
        "shape": None,
        "min": None,
        "mean": None,
        "max": None,
    }
    if isinstance(value, list):
        kinds = ", ".join(describe(item)["type"] for item in value[:3])
        return {**told, "type": f"list of {len(value)}: {kinds}" + (", ..." if len(value) > 3 else "")}
    if not hasattr(value, "dtype"):
        return told
    dtype = "string" if value.dtype.kind in "OSUT" else str(value.dtype)
    told.update(type=f"{dtype}{list(value.shape)}", shape=list(value.shape))
    if dtype != "string" and value.dtype.kind != "c":
        numbers = np.asarray(value, np.float64)
        finite = numbers[np.isfinite(numbers)]
        if finite.size < numbers.size:
            told["type"] += f", {numbers.size - finite.size} not finite"
        if finite.size:
            told.update(min=float(finite.min()), mean=float(finite.mean()), max=float(finite.max()))
    return told


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _comparisons(outcome: Outcome) -> None:
    if not outcome.comparisons:
        return
    rows = []
    for item in outcome.comparisons:
        verdict = _render.Text("pass", "green") if item.passed else _render.Text("FAIL", "bold red")
        told = item.problem or (
            f"{item.wrong} of {item.total} differ" if item.wrong else f"{item.total} agree"
        )
        rows.append([item.name, verdict, f"{item.max_abs:.2g}", f"{item.max_rel:.2g}", told])
    _render.line()
    _render.table(["compared", "", ">max abs", ">max rel", "elements"], rows)


def _times(load_seconds: float, outcomes: list[Outcome]) -> str:
    parts = [f"load {_render.milliseconds(load_seconds)}"]
    parts.append(f"first run {_render.milliseconds(outcomes[0].seconds[0])}")
    later = [seconds for outcome in outcomes for seconds in outcome.seconds[1:]]
    if later:
        parts.append(f"median of the next {len(later)} {_render.milliseconds(statistics.median(later))}")
    return ", ".join(parts)


def _profile(recorded: Profile) -> None:
    rows = recorded.rows()
    shown = [
        [f"{row.total_ms:.3f}", f"{row.share:.1%}", row.calls, row.provider, row.operator]
        for row in rows[:10]
    ]
    _render.table([">ms", ">share", ">calls", "provider", "operator"], shown)
    if len(rows) > len(shown):
        _render.line(f"and {len(rows) - len(shown)} more")


def _say_written(output: Path | None, profile: Path | None) -> None:
    if output is not None:
        _render.note(f"the outputs are in {output}")
    if profile is not None:
        _render.note(f"the trace is in {profile}; open it at https://ui.perfetto.dev")


# ---- as JSON ----


def _as_json(
    session: Session, load_seconds: float, outcomes: list[Outcome], recorded: Profile | None
) -> None:
    passed = [outcome.passed for outcome in outcomes if outcome.passed is not None]
    _render.emit(
        {
            "model": session.name,
            "providers": session.providers,
            "nodes": session.placement.counts(),
            "partitions": session.placement.partitions(),
            "transfers": session.placement.transfers,
            "warnings": session.warnings,
            "load_seconds": load_seconds,
            "cases": [_case(outcome) for outcome in outcomes],
            "passed": all(passed) if passed else None,
            "profile": None if recorded is None else [asdict(row) for row in recorded.rows()],
        }
    )


def _case(outcome: Outcome) -> dict[str, Any]:
    sources = outcome.case.sources
    return {
        "name": outcome.case.name,
        "inputs": [{"name": n, **describe(v), "from": sources[n]} for n, v in outcome.case.feeds.items()],
        "outputs": [{"name": n, **describe(v)} for n, v in outcome.outputs.items()],
        "comparisons": [{**asdict(item), "passed": item.passed} for item in outcome.comparisons],
        "passed": outcome.passed,
        "seconds": outcome.seconds,
    }
