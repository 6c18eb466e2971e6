"""``epkit conformance diff``: two reports side by side, of one provider at two times or of two providers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from .options import Debug, Json, console, emit

Reported = Annotated[Path, typer.Argument(help="a report.json")]


def diff(
    old: Reported,
    new: Reported,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the comparison as a page")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two reports. Ends with 0 whatever it finds; --baseline of a run is what fails on regressions."""
    from ..baseline import changes, states
    from ..record import read_report

    before, after = read_report(old), read_report(new)
    found = changes(states(before), after)
    if html:
        from ..report.comparison import comparison_page
        from ..report.files import write_text

        write_text(html, comparison_page(before, after))
    if as_json:
        plain = [
            {
                **asdict(change),
                "before": change.before.value if change.before else None,
                "after": change.after.value if change.after else None,
                "regression": change.is_regression,
            }
            for change in found
        ]
        emit({"old": str(before.provider), "new": str(after.provider), "changes": plain})
        return
    from ..report.comparison import level_rows, sides

    out = console()
    for name, report in zip(sides(before, after), (before, after), strict=True):
        out.print(Text.assemble((f"{name}  ", "bright_black"), f"{report.provider}, {report.started}"))
    for row in level_rows(before, after):
        out.print(Text("  ".join(row)))
    moves = Counter((change.before, change.after) for change in found)
    for (was, now), count in moves.most_common():
        told = f"{count:6d}  {was.value if was else 'not run'} -> {now.value if now else 'not run'}"
        out.print(Text(told))
    for change in found if before.provider.name == after.provider.name else ():
        if change.is_regression:
            out.print(Text.assemble(("worse  ", "red"), f"{change.name}: {change.detail}"), soft_wrap=True)
    if not found:
        out.print("no case differs")
