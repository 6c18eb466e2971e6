"""The operator matrix: operators down, element types across, in each cell one square for each version."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..record import Entry
from ..result import State
from .page import SHORT, classes, esc

COLUMNS = (
    *("float32", "float16", "bfloat16", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "string", "complex64", "complex128"),
)
"""Element types in the order in which they are shown; any others follow by name."""

WORST_FIRST = (
    State.CRASHED,
    State.HUNG,
    State.FAILED,
    State.UNEXPECTED_PASS,
    State.EXPECTED_FAILURE,
    State.PASSED,
    State.FALLBACK,
    State.REFUSED,
    State.UNSUPPORTED,
)
"""The state of a cell is the first of these that some case of it has."""

Counts = Counter[State]


@dataclass(frozen=True)
class Matrix:
    """Counts of states: operator -> element type -> version."""

    rows: Mapping[str, Mapping[str, Mapping[int, Counts]]]
    columns: tuple[str, ...]


def matrix_of(entries: Iterable[Entry]) -> Matrix:
    """The cells that some case is about."""
    rows: dict[str, dict[str, dict[int, Counts]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(Counter))
    )
    for entry in entries:
        if entry.operator:
            rows[entry.operator][entry.dtype][entry.version][entry.state] += 1
    used = {dtype for row in rows.values() for dtype in row}
    columns = [dtype for dtype in COLUMNS if dtype in used]
    return Matrix(dict(sorted(rows.items(), key=_standard_first)), (*columns, *sorted(used - set(columns))))


def _standard_first(item: tuple[str, object]) -> tuple[bool, str]:
    return "." in item[0], item[0].lower()


def state_of(counts: Counts) -> State:
    """The worst error if there is one, else the best that was shown."""
    return next(state for state in WORST_FIRST if counts[state])


def is_partial(counts: Counts) -> bool:
    """True if some cases passed and others did not run here."""
    return state_of(counts) is State.PASSED and len([n for n in counts.values() if n]) > 1


def matrix_table(matrix: Matrix) -> str:
    """The matrix as an HTML table."""
    head = "".join(
        f"<th><span>{esc(SHORT.get(name, name) or 'other')}</span></th>" for name in matrix.columns
    )
    body = "".join(_row(name, row, matrix.columns) for name, row in matrix.rows.items())
    return (
        f'<table class="matrix"><thead><tr><th>operator</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _row(name: str, row: Mapping[str, Mapping[int, Counts]], columns: Sequence[str]) -> str:
    states = {state_of(counts) for cell in row.values() for counts in cell.values()}
    cells = "".join(f"<td>{_cell(name, dtype, row.get(dtype, {}))}</td>" for dtype in columns)
    words = " ".join(sorted(classes(state) for state in states))
    return f'<tr data-o="{esc(name)}" data-s="{words}"><th>{esc(name)}</th>{cells}</tr>'


def _cell(name: str, dtype: str, versions: Mapping[int, Counts]) -> str:
    return "".join(
        f'<i class="{classes(state_of(counts))}{" part" if is_partial(counts) else ""}" '
        f'title="{esc(tooltip(name, version, dtype, counts))}"></i>'
        for version, counts in sorted(versions.items())
    )


def tooltip(name: str, version: int, dtype: str, counts: Counts) -> str:
    """``Relu 14 float32: 12 passed, 3 refused``."""
    told = ", ".join(f"{counts[state]} {state.value}" for state in WORST_FIRST if counts[state])
    return f"{name} {version} {dtype}: {told}"
