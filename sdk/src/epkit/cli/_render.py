"""Printing: results go to stdout, everything else to stderr; ``--json`` puts one document on stdout."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from ..errors import EpkitError

PIPED_WIDTH = 200
"""Columns where there is no terminal: wide, so that a row stays one line for grep."""

STATE_STYLES = {"ready": "green", "absent": "yellow", "incompatible": "magenta", "broken": "red"}

Cell = str | Text | int


def stdout() -> Console:
    """Where results go."""
    return _console(stderr=False)


def stderr() -> Console:
    """Where messages and progress go."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    width = shutil.get_terminal_size((PIPED_WIDTH, 25)).columns
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def line(text: str = "", style: str = "") -> None:
    """A line of the result, wrapped between words."""
    stdout().print(Text(text, style))


def verbatim(text: str) -> None:
    """Text of the result as it is."""
    sys.stdout.write(text + "\n")


def heading(text: str) -> None:
    """A title above a part of the result."""
    line()
    line(text, "bold")


def note(text: str) -> None:
    """A remark that is not part of the result."""
    stderr().print(Text.assemble(("note: ", "cyan"), text), soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """What was odd."""
    for text in warnings:
        stderr().print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """A table. Columns whose name begins with ``>`` hold numbers and are set flush right."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        right = name.startswith(">")
        made.add_column(
            name.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console = stdout()
    with console.capture() as captured:
        console.print(made)
    for text in captured.get().splitlines():
        sys.stdout.write(text.rstrip() + "\n")


def progress() -> Progress:
    """A bar on stderr; nothing at all where stderr is no terminal."""
    console = stderr()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not console.is_terminal
    return Progress(*columns, console=console, transient=True, refresh_per_second=4, disable=hidden)


def failure(error: Exception, as_json: bool) -> None:
    """An error for people on stderr; for programs on stdout too."""
    if not isinstance(error, EpkitError):
        remedy = "this is a fault of epkit itself: run it again with --debug and report what it prints"
        error = EpkitError(f"{type(error).__name__}: {error}", remedy=remedy)
    console = stderr()
    first, *more = error.what.splitlines() or [""]
    console.print(Text.assemble(("error: ", "bold red"), (first, "bold")), soft_wrap=True)
    for text in more:
        console.print(Text(text), soft_wrap=True)
    for label, text in (("where", str(error.where)), ("try", error.remedy)):
        if text:
            console.print(Text.assemble((f"  {label}: ".ljust(10), "cyan"), text), soft_wrap=True)
    if as_json:
        where = {key: value for key, value in asdict(error.where).items() if value}
        told = {"type": type(error).__name__, "what": error.what, "where": where, "try": error.remedy}
        emit({"error": told})


def emit(value: Any) -> None:
    """One JSON document on stdout. What JSON has no number for becomes null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def milliseconds(seconds: float) -> str:
    """A duration with three significant digits: ``0.034 ms``, ``12.3 ms``, ``4.56 s``."""
    if seconds >= 1:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    value = seconds * 1e3
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def memory(nbytes: int | None) -> str:
    """Bytes for people: ``3.1 MB``, ``125 GB``."""
    if nbytes is None:
        return "-"
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
