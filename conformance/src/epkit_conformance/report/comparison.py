"""Two reports side by side, as a page and as rows of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..baseline import changes, states
from ..certification import Verdict, judge
from ..record import Entry, Report
from ..result import State
from .matrix import Counts, matrix_of, state_of
from .page import SHORT, STATUS_CLASSES, bar, classes, clean, definitions, esc, legend, medal, page, section

MATRIX_NOTE = "In each cell {left} on the left and {right} on the right, all versions together."

CASES = """<form class="filters" id="filters">
<input type="search" name="text" placeholder="name or reason" aria-label="search">
<select name="level" aria-label="level"><option value="">all levels</option></select>
<select name="left" aria-label="state on the left"><option value="">any state</option></select>
<select name="right" aria-label="state on the right"><option value="">any state</option></select>
<span class="toggles"><label><input type="checkbox" name="same">also what is the same</label></span>
<output></output></form>
<div class="scroll"><table class="list both" id="list"></table></div>
<p><button id="more" type="button">Show more</button></p>"""


def sides(before: Report, after: Report) -> tuple[str, str]:
    """What to call the two: by the provider; of one provider, by the time."""
    names = (before.provider.name, after.provider.name)
    return names if names[0] != names[1] else (f"{names[0]}, old", f"{names[1]}, new")


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
    left, right = sides(before, after)
    note = MATRIX_NOTE.format(left=esc(left), right=esc(right))
    parts = [
        f'<p class="kicker">epkit conformance, compared</p><div class="sides">{_side(before)}{_side(after)}</div>',
        section("levels", "Levels", _levels(before, after)),
        section("matrix", "Operators by element type", _matrix(before.entries, after.entries), note),
        section("moves", "States against each other", _moves(before, after), _worse(before, after)),
        section("cases", "Case by case", CASES),
        section("environment", "What differs around it", _environment(before, after)),
        f"<footer>{esc(left)} on the left, {esc(right)} on the right. Written by epkit conformance diff; this page "
        "loads nothing from elsewhere.</footer>",
    ]
    return page(f"{left} and {right}", "\n".join(parts), pair_data(before, after), "comparison.js")


def pair_data(before: Report, after: Report) -> dict[str, Any]:
    """Every case with its state on both sides (-1 where one has no such case), for the page's script."""
    pairs = paired(before, after)
    texts = dict.fromkeys(entry.result.detail for pair in pairs.values() for entry in pair if entry)
    details = {text: index for index, text in enumerate({"": None, **texts})}
    known = list(State)

    def state(entry: Entry | None) -> int:
        return -1 if entry is None else known.index(entry.state)

    def detail(entry: Entry | None) -> int:
        return details["" if entry is None else entry.result.detail]

    return {
        "sides": list(map(clean, sides(before, after))),
        "states": [[one.value, classes(one)] for one in known],
        "details": list(map(clean, details)),
        "rows": [
            [name, (one or other).level, state(one), state(other), detail(one), detail(other)]  # type: ignore[union-attr]
            for name, (one, other) in pairs.items()
        ],
    }


def paired(before: Report, after: Report) -> dict[str, tuple[Entry | None, Entry | None]]:
    """Both entries of each case, in the order of the cases; those that only the first has come last."""
    old, new = ({entry.name: entry for entry in report.entries} for report in (before, after))
    return {name: (old.get(name), new.get(name)) for name in {**new, **old}}


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
    left, right = sides(before, after)
    head = f"<tr><th></th><th>{esc(left)}</th><th>{esc(right)}</th></tr>"
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


def _moves(before: Report, after: Report) -> str:
    """How many cases are in which state on either side: what is off the diagonal differs."""
    counts = Counter(
        tuple(entry.state if entry else None for entry in pair) for pair in paired(before, after).values()
    )
    rows, columns = (
        [state for state in (*State, None) if any(pair[side] is state for pair in counts)] for side in (0, 1)
    )
    left, right = sides(before, after)
    head = "".join(f"<th>{_pill(state)}</th>" for state in columns)
    body = "".join(
        f"<tr><th>{_pill(row)}</th>"
        + "".join(
            f"<td{' class=same' if row is column else ''}>{_number(counts[row, column])}</td>"
            for column in columns
        )
        + "</tr>"
        for row in rows
    )
    corner = f"<th><small>{esc(left)} ↓ &nbsp; {esc(right)} →</small></th>"
    return (
        f'<div class="scroll"><table class="moves"><thead><tr>{corner}{head}</tr></thead>{body}</table></div>'
    )


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _worse(before: Report, after: Report) -> str:
    """Of one provider at two times, what became worse; two providers are none the worse for being different."""
    found = changes(states(before), after)
    if before.provider.name != after.provider.name or not found:
        return f"{len(found):,} cases differ."
    return f"{len(found):,} cases differ; {sum(change.is_regression for change in found):,} became worse."


def _pill(state: State | None) -> str:
    if state is None:
        return '<span class="pill un">no case</span>'
    return f'<span class="pill {classes(state)}">{state.value}</span>'


def _environment(before: Report, after: Report) -> str:
    keys = dict.fromkeys([*before.environment, *after.environment])
    pairs = {key: (before.environment.get(key, "-"), after.environment.get(key, "-")) for key in keys}
    return definitions({key: f"{old} → {new}" for key, (old, new) in pairs.items() if old != new})
