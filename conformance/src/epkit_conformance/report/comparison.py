"""Two reports side by side, as a page and as rows of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..baseline import Change, changes, states
from ..certification import Verdict, judge
from ..record import Entry, Report
from ..result import State
from .matrix import Counts, matrix_of, state_of
from .page import SHORT, STATUS_CLASSES, bar, classes, definitions, esc, legend, medal, page, section

MOST_CHANGES = 400
"""Changes told one by one."""

MATRIX_NOTE = "In each cell the old result on the left and the new one on the right, all versions together."


def level_rows(before: Report, after: Report) -> list[tuple[str, str, str]]:
    """Level, then status and passes of each side, as text of even width."""
    rows = []
    for old, new in zip(judge(before).verdicts, judge(after).verdicts, strict=True):
        title = f"{old.level.number} {old.level.title}"
        rows.append((f"{title:32}", f"{_told(old):28}", _told(new)))
    return rows


def _told(verdict: Verdict) -> str:
    passed, total = verdict.counts[State.PASSED], sum(verdict.counts.values())
    return f"{verdict.status.value}{f' ({passed}/{total})' if total else ''}"


def comparison_page(before: Report, after: Report) -> str:
    """The whole page."""
    found = changes(states(before), after)
    parts = [
        f'<p class="kicker">epkit conformance, compared</p><div class="sides">{_side(before)}{_side(after)}</div>',
        section("levels", "Levels", _levels(before, after)),
        section("matrix", "Operators by element type", _matrix(before.entries, after.entries), MATRIX_NOTE),
        section("changes", "What differs", _changes(found)),
        section("environment", "What differs around it", _environment(before, after)),
        "<footer>Old on the left, new on the right. Written by epkit conformance diff; this page loads nothing from "
        "elsewhere.</footer>",
    ]
    return page(f"{before.provider.name} and {after.provider.name}", "\n".join(parts))


def _side(report: Report) -> str:
    when = report.started.replace("T", " ").replace("+00:00", " UTC")
    provider = report.provider
    return f"""<div><header><div class="who"><h1>{esc(provider.name)} <small>{esc(provider.version)}</small></h1>
<p>{esc(", ".join(provider.devices))}</p><p class="when">{esc(when)} · {len(report.entries):,} cases</p></div>
{medal(judge(report), report.complete)}</header>{bar(report.counts())}{legend(report.counts())}</div>"""


def _levels(before: Report, after: Report) -> str:
    pairs = zip(judge(before).verdicts, judge(after).verdicts, strict=True)
    rows = "".join(
        f"<tr><th>{old.level.number} {esc(old.level.title)}</th><td>{_verdict(old)}</td><td>{_verdict(new)}</td></tr>"
        for old, new in pairs
    )
    head = f"<tr><th></th><th>{esc(before.provider.name)}</th><th>{esc(after.provider.name)}</th></tr>"
    return f'<div class="scroll"><table class="versus"><thead>{head}</thead>{rows}</table></div>'


def _verdict(verdict: Verdict) -> str:
    total = sum(verdict.counts.values())
    passed = f" <small>{verdict.counts[State.PASSED]:,} of {total:,}</small>" if total else ""
    told = f'<span class="pill {STATUS_CLASSES[verdict.status]}">{verdict.status.value}</span>{passed}'
    return told + (bar(verdict.counts) if total else "")


def _matrix(before: Sequence[Entry], after: Sequence[Entry]) -> str:
    old, new = matrix_of(before), matrix_of(after)
    columns = list(dict.fromkeys([*old.columns, *new.columns]))
    names = sorted({*old.rows, *new.rows}, key=str.lower)
    if not names:
        return ""
    head = "".join(f"<th>{esc(SHORT.get(name, name) or 'other')}</th>" for name in columns)
    rows = []
    for name in names:
        cells = [
            (_merged(old.rows.get(name, {}), dtype), _merged(new.rows.get(name, {}), dtype))
            for dtype in columns
        ]
        same = all(_state(left) is _state(right) for left, right in cells)
        body = "".join(f"<td>{_pair(left, right)}</td>" for left, right in cells)
        rows.append(f"<tr{' class=same' if same else ''}><th>{esc(name)}</th>{body}</tr>")
    top = f"<thead><tr><th>operator</th>{head}</tr></thead>"
    table = f'<table class="matrix">{top}<tbody>{"".join(rows)}</tbody></table>'
    toggle = '<label><input type="checkbox" id="differing" checked>only operators that differ</label>'
    return (
        f'<p class="filters"><span class="toggles">{toggle}</span></p><div class="scroll tall">{table}</div>'
    )


def _merged(row: Mapping[str, Mapping[int, Counts]], dtype: str) -> Counts:
    return sum(row.get(dtype, {}).values(), Counter())


def _state(counts: Counts) -> State | None:
    return state_of(counts) if counts else None


def _pair(left: Counts, right: Counts) -> str:
    if not left and not right:
        return ""
    return f'<span class="two">{_half(left)}{_half(right)}</span>'


def _half(counts: Counts) -> str:
    if not counts:
        return '<i class="gone" title="no case"></i>'
    told = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    return f'<i class="{classes(state_of(counts))}" title="{esc(told)}"></i>'


def _changes(found: Sequence[Change]) -> str:
    if not found:
        return "<p>No case differs.</p>"
    order = sorted(found, key=lambda change: (not change.is_regression, change.name))
    rows = "".join(
        f"<tr><td>{_pill(change.before)} → {_pill(change.after)}</td><td>{esc(change.name)}</td>"
        f"<td>{esc(change.detail)}</td></tr>"
        for change in order[:MOST_CHANGES]
    )
    more = (
        f"<p class='note'>{len(found) - MOST_CHANGES:,} more differ.</p>" if len(found) > MOST_CHANGES else ""
    )
    worse = sum(change.is_regression for change in found)
    told = f"<p class='note'>{len(found):,} cases differ; {worse:,} are worse, and come first.</p>"
    return f'{told}<div class="scroll tall"><table class="reasons changes">{rows}</table></div>{more}'


def _pill(state: State | None) -> str:
    if state is None:
        return '<span class="pill un">no case</span>'
    return f'<span class="pill {classes(state)}">{state.value}</span>'


def _environment(before: Report, after: Report) -> str:
    keys = dict.fromkeys([*before.environment, *after.environment])
    pairs = {key: (before.environment.get(key, "-"), after.environment.get(key, "-")) for key in keys}
    return definitions({key: f"{old} → {new}" for key, (old, new) in pairs.items() if old != new})
