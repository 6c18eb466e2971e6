"""``epkit conformance list``: the names of the cases, for ``--only`` and for expectations."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import typer

from .options import Debug, Json, emit


def list_cases(
    only: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="the cases that match; repeat")
    ] = None,
    levels: Annotated[bool, typer.Option("--levels", help="explain the levels instead")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the cases, or explain the levels."""
    if levels:
        from ..levels import LEVELS

        if as_json:
            emit([vars(level) for level in LEVELS])
            return
        for level in LEVELS:
            typer.echo(f"{level.number}  {level.title}{' (optional)' if level.optional else ''}")
            typer.echo(f"   write: {level.write}")
        return
    from ..catalogue import all_cases

    patterns = only or ["*"]
    chosen = [case for case in all_cases() if any(fnmatchcase(case.name, item) for item in patterns)]
    if as_json:
        emit([{"name": case.name, "level": case.level, "group": case.group} for case in chosen])
        return
    for case in chosen:
        typer.echo(f"{case.level} {case.name}")
