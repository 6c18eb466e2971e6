"""A run's report, as text and as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.text import Text

from ..runtime.profile import COUNTED, Profile
from ..runtime.session import Session
from . import _render
from ._outcome import Outcome

# ---- as text ----


def print_text(
    session: Session, load_seconds: float, outcomes: list[Outcome], recorded: Profile | None
) -> None:
    counts, partitions = session.placement.counts(), session.placement.partitions()
    shares = ", ".join(
        f"{name} {count} nodes in {partitions[name]} partitions" for name, count in counts.items()
    )
    _render.line(f"{session.name}: {shares or 'no nodes'}; {session.placement.transfers} transfers")
    _idle(session)
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


def _idle(session: Session) -> None:
    """Of providers that run nothing: what they say most often."""
    for name in session.providers:
        said = [row for row in session.placement.reasons() if row[1] == name]
        if said and name not in session.placement.counts():
            _render.note(f"{name} runs none of the nodes:")
            for count, _, operator, reason in said[:3]:
                _render.note(f"  {count} x {operator}: {reason}")


def _values(kind: str, values: dict[str, Any], sources: dict[str, str]) -> None:
    columns = [kind, "type", ">min", ">mean", ">max", *(["from"] if sources else [])]
    rows: list[list[_render.Cell]] = []
    for name, value in values.items():
        told = describe(value)
        numbers = [_number(told[key]) for key in ("min", "mean", "max")]
        remark = [sources[name]] if sources else []
        rows.append([name, told["type"], *numbers, *remark])
    _render.line()
    _render.table(columns, rows) if rows else _render.line(f"no {kind}s")


def describe(value: Any) -> dict[str, Any]:
    """Type and shape of a value; the least, mean and greatest of its finite numbers."""
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
    rows: list[list[_render.Cell]] = []
    for item in outcome.comparisons:
        verdict = Text("pass", "green") if item.passed else Text("FAIL", "bold red")
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
    counted = any(row.counters for row in rows)
    shown: list[list[_render.Cell]] = [
        [
            *(f"{row.total_ms:.3f}", f"{row.share:.1%}", row.calls, row.provider, row.operator),
            *(row.counted() if counted else ()),
        ]
        for row in rows[:10]
    ]
    columns = [">ms", ">share", ">calls", "provider", "operator"]
    _render.table([*columns, *(f">{name}" for name in COUNTED if counted)], shown)
    if len(rows) > len(shown):
        _render.line(f"and {len(rows) - len(shown)} more")


# ---- as JSON ----


def print_json(
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
