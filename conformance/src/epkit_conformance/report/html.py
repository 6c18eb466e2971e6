"""The report as a page that explains itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ..advice import Advice, advise, next_step
from ..certification import Certification, Status, judge
from ..operator_sets import SETS, Standing, standings
from ..record import Entry, Report
from ..result import State
from .matrix import matrix_of, matrix_table
from .page import (
    SHORT,
    STATUS_CLASSES,
    bar,
    classes,
    clean,
    definitions,
    esc,
    legend,
    medal,
    page,
    seconds,
    section,
)

TOP = 12
"""Rows of the short lists."""

MOST_ERRORS = 100
"""Errors that are told at length; all are in the list of cases."""


def report_page(report: Report) -> str:
    """The whole page."""
    certification = judge(report)
    parts = [
        _header(report, certification),
        section("levels", "Levels", _levels(certification)),
        section("next", "Write next", _next(report, certification)),
        section("errors", "Errors", _errors(report.errors())),
        section("sets", "Operator sets", _sets(report), SETS_NOTE),
        section("matrix", "Operators by version and element type", _matrix(report), MATRIX_NOTE),
        '<div class="pair">',
        section("accuracy", "Nearest to the error budget", _accuracy(report.entries), ACCURACY_NOTE),
        section(
            "slowest", "Slowest cases", _slowest(report.entries), "Wall time of a case, loading included."
        ),
        "</div>",
        section("refusals", "Reasons for refusals", _refusals(report.entries)),
        section("waivers", "Declared exceptions", _waivers(report.entries)),
        section("cases", "All cases", CASES),
        section("environment", "Environment", _environment(report)),
        FOOTER,
    ]
    return page(f"Conformance of {report.provider.name}", "\n".join(parts), case_data(report.entries))


SETS_NOTE = (
    "A set is certified for an element type when every member has passed and none has failed. "
    "A number says how many members have passed; point at it for what is missing."
)
MATRIX_NOTE = (
    "One square for each version of an operator, oldest first. A divided square passed in some cases and was "
    "refused in others. Click one to see its cases."
)
ACCURACY_NOTE = (
    "The worst case of each operator: its error in units of the last place (ULP), of what the budget allows. "
    "Correctly rounded results (half a unit) are left out."
)
CASES = """<form class="filters" id="filters">
<input type="search" name="text" placeholder="name, operator or reason" aria-label="search">
<select name="level" aria-label="level"><option value="">all levels</option></select>
<select name="state" aria-label="state"><option value="">all states</option></select>
<output></output></form>
<div class="scroll"><table class="list" id="list"></table></div>
<p><button id="more" type="button">Show more</button></p>"""
FOOTER = (
    "<footer>A case counts as passed only if its outputs are right and the dispatch record shows that its nodes ran on "
    "the provider under test. Refusals, fallbacks and skipped cases raise no score. Written by epkit conformance; this "
    "page loads nothing from elsewhere.</footer>"
)


def _header(report: Report, certification: Certification) -> str:
    provider = report.provider
    package = f"{provider.package} {provider.package_version}".strip()
    lines = [package if package != provider.name else "", *provider.devices]
    told = "".join(f"<p>{esc(line)}</p>" for line in lines if line)
    stopped = f'<p class="stopped">{esc(report.stopped)}</p>' if report.stopped else ""
    part = f"<p>only {esc(', '.join(report.only))}</p>" if report.only else ""
    when = report.started.replace("T", " ").replace("+00:00", " UTC")
    facts = [when, f"{len(report.entries):,} cases in {seconds(report.seconds)}", f"suite {report.suite}"]
    return f"""<header><div class="who"><p class="kicker">epkit conformance</p>
<h1>{esc(provider.name)} <small>{esc(provider.version)}</small></h1>{told}{part}{stopped}
<p class="when">{" · ".join(map(esc, facts))}</p></div>{medal(certification, report.complete)}</header>
{bar(report.counts())}{legend(report.counts())}"""


def _levels(certification: Certification) -> str:
    rows = []
    for verdict in certification.verdicts:
        style = STATUS_CLASSES[verdict.status]
        passed, total = verdict.counts[State.PASSED], sum(verdict.counts.values())
        beside = verdict.counts[State.UNSUPPORTED]
        score = f"{passed:,} of {total - beside:,} passed" if total > beside else ""
        score += f"{', ' if score else ''}{beside:,} unsupported" if beside else ""
        reason = f"<p>{esc(verdict.reason)}</p>" if verdict.reason else ""
        rows.append(
            f'<li class="{style}"><span class="rung">{verdict.level.number}</span>'
            f'<div class="what"><b>{esc(verdict.level.title)}</b>{reason}</div>'
            f'<span class="pill {style}">{verdict.status.value}</span>'
            f'<div class="how">{bar(verdict.counts) if total else ""}<small>{score}</small></div></li>'
        )
    return f'<ol class="ladder">{"".join(rows)}</ol>'


def _next(report: Report, certification: Certification) -> str:
    """The next step; errors tell theirs themselves."""
    if report.only or certification.next is None or certification.next.status is Status.FAILING:
        return ""
    advice = next_step(report, certification)
    return _advice(advice) if advice else ""


def _advice(advice: Advice) -> str:
    code = f"<pre>{esc(advice.example)}</pre>" if advice.example else ""
    return f'<div class="advice"><p><b>{esc(advice.write)}</b></p><p>{esc(advice.why)}</p>{code}</div>'


def _errors(errors: Sequence[Entry]) -> str:
    """Errors by the member at fault; each group with its advice once."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in errors[:MOST_ERRORS]:
        groups[advise(entry).write].append(entry)
    parts = []
    for entries in groups.values():
        advice = advise(entries[0])
        items = "".join(
            f'<details><summary><i class="{classes(entry.state)}"></i><b>{esc(entry.name)}</b> '
            f"<span>{esc(entry.state.value)}</span></summary><p>{esc(entry.result.detail)}</p></details>"
            for entry in entries
        )
        parts.append(f'<div class="fault">{_advice(advice)}<div class="found">{items}</div></div>')
    if len(errors) > MOST_ERRORS:
        parts.append(f"<p>{len(errors) - MOST_ERRORS} more are in the list of cases.</p>")
    return "".join(parts)


def _sets(report: Report) -> str:
    if report.only:
        return ""  # of a part of the cases, members would seem to be missing from the suite
    found = {(item.set.name, item.dtype): item for item in standings(report.entries)}
    names = [one for one in SETS if any(key[0] == one.name for key in found)]
    dtypes = list(dict.fromkeys(dtype for one in names for dtype in one.dtypes if (one.name, dtype) in found))
    head = "".join(f"<th>{esc(SHORT.get(dtype, dtype) or 'any type')}</th>" for dtype in dtypes)
    rows = "".join(
        f"<tr><th><b>{esc(one.name)}</b><small>{esc(one.title)}</small></th>"
        + "".join(f"<td>{_set_cell(found.get((one.name, dtype)))}</td>" for dtype in dtypes)
        + "</tr>"
        for one in names
    )
    if not rows:
        return ""
    top = f"<thead><tr><th></th>{head}</tr></thead>"
    return f'<div class="scroll"><table class="sets">{top}<tbody>{rows}</tbody></table></div>'


def _set_cell(item: Standing | None) -> str:
    if item is None:
        return ""
    if item.complete:
        return f'<span class="pill ok" title="{esc(", ".join(item.passed))}">✓</span>'
    total = len(item.passed) + len(item.missing) + len(item.failing)
    told = [f"failing: {', '.join(item.failing)}"] if item.failing else []
    told += [f"missing: {', '.join(item.missing)}"] if item.missing else []
    style = "ko" if item.failing else "part" if item.passed else "none"
    return f'<span class="pill {style}" title="{esc("; ".join(told))}">{len(item.passed)}/{total}</span>'


def _matrix(report: Report) -> str:
    matrix = matrix_of(report.entries)
    if not matrix.rows:
        return ""
    states = sorted({entry.state for entry in report.entries if entry.operator}, key=list(State).index)
    toggles = "".join(
        f'<label><input type="checkbox" value="{classes(state)}"><i class="{classes(state)}"></i>{state.value}</label>'
        for state in states
    )
    return f"""<form class="filters" id="operators"><input type="search" placeholder="operator" aria-label="operator">
<span class="toggles">{toggles}</span><output></output></form>
<div class="scroll tall">{matrix_table(matrix)}</div>"""


def _accuracy(entries: Sequence[Entry]) -> str:
    """The worst case of each operator; half a unit is left out, because nothing can be nearer."""
    worst: dict[str, tuple[float, Entry]] = {}
    for entry in entries:
        error, budget = entry.result.error, entry.result.budget
        if error is not None and budget and error > 0.5:
            worst[entry.operator] = max(
                worst.get(entry.operator, (0.0, entry)), (error / budget, entry), key=lambda item: item[0]
            )
    found = sorted(worst.values(), key=lambda item: -item[0])[:TOP]
    return _bars(
        [
            (entry, part, f"{entry.result.error or 0:.3g} of {entry.result.budget or 0:.3g} ULP")
            for part, entry in found
        ]
    )


def _slowest(entries: Sequence[Entry]) -> str:
    slow = sorted(entries, key=lambda entry: -entry.result.seconds)[:TOP]
    most = max((entry.result.seconds for entry in slow), default=0) or 1
    return _bars([(entry, entry.result.seconds / most, seconds(entry.result.seconds)) for entry in slow])


def _bars(rows: Sequence[tuple[Entry, float, str]]) -> str:
    items = "".join(
        f'<li title="{esc(entry.name)}"><span>{esc(entry.name)}</span><em>{esc(told)}</em>'
        f'<div><i class="{classes(entry.state)}" style="width:{100 * min(part, 1):.1f}%"></i></div></li>'
        for entry, part, told in rows
    )
    return f'<ol class="bars">{items}</ol>' if items else ""


def _refusals(entries: Sequence[Entry]) -> str:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.state is State.REFUSED:
            groups[entry.result.detail].append(entry)
    rows = []
    for reason, own in sorted(groups.items(), key=lambda item: -len(item[1]))[:200]:
        operators = Counter(entry.operator or entry.group for entry in own)
        names = ", ".join(name for name, _ in operators.most_common(8)) + (
            ", …" if len(operators) > 8 else ""
        )
        rows.append(f"<tr><td>{len(own):,}</td><td>{esc(reason)}</td><td>{esc(names)}</td></tr>")
    if not rows:
        return ""
    more = (
        f"<p class='note'>{len(groups) - 200} rarer ones are in the list of cases.</p>"
        if len(groups) > 200
        else ""
    )
    head = "<thead><tr><th>cases</th><th>reason, in the provider's words</th><th>of</th></tr></thead>"
    return f'<div class="scroll some"><table class="reasons">{head}{"".join(rows)}</table></div>{more}'


def _waivers(entries: Sequence[Entry]) -> str:
    rows = "".join(
        f'<tr><td><i class="{classes(entry.state)}"></i>{entry.state.value}</td>'
        f"<td>{esc(entry.name)}</td><td>{esc(entry.waiver)}</td></tr>"
        for entry in entries
        if entry.waiver
    )
    return f'<div class="scroll some"><table class="reasons">{rows}</table></div>' if rows else ""


def _environment(report: Report) -> str:
    provider = {"provider": str(report.provider), "devices": "; ".join(report.provider.devices)}
    return definitions({**provider, **report.environment})


def case_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """All cases for the page's script, with texts that repeat written once."""
    details = {
        text: index for index, text in enumerate(dict.fromkeys(entry.result.detail for entry in entries))
    }
    states = list(State)
    oracles = list(dict.fromkeys(entry.oracle for entry in entries))
    return {
        "oracles": oracles,
        "states": [[state.value, classes(state)] for state in states],
        "details": list(map(clean, details)),
        "rows": [
            [
                entry.name,
                entry.level,
                entry.operator,
                entry.version,
                entry.dtype,
                states.index(entry.state),
                details[entry.result.detail],
                _short(entry.result.seconds),
                _short(entry.result.latency),
                entry.result.copied_bytes,
                entry.result.peak_bytes,
                _short(entry.result.error),
                _short(entry.result.budget),
                oracles.index(entry.oracle),
            ]
            for entry in entries
        ],
    }


def _short(value: float | None) -> float | None:
    """Three digits; what JSON cannot say becomes very large."""
    return None if value is None else float(f"{min(value, 1e300):.3g}")
