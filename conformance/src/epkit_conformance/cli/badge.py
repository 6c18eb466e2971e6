"""``epkit conformance badge``: a small picture of the level for a README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug


def badge(
    result: Annotated[Path, typer.Argument(help="a certificate.json or report.json")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="else stdout")] = None,
    debug: Debug = False,
) -> None:
    """Draw the badge (SVG)."""
    from ..catalogue import all_cases
    from ..certificate import SCHEMA, entries_of, read_certificate
    from ..certification import certify, judge
    from ..record import read_json, read_report
    from ..report.badge import badge_of
    from ..report.files import write_text

    if read_json(result).get("schema") == SCHEMA:
        found = certify(entries_of(read_certificate(result), all_cases()))
    else:
        found = judge(read_report(result))
    drawn = badge_of(found)
    if output:
        write_text(output, drawn)
    else:
        typer.echo(drawn)
