"""``epkit conformance verify``: does a certificate hold for what is installed here?"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from . import exits
from .options import Debug, Json, console, emit
from .run import cores


def verify(
    certificate: Annotated[Path, typer.Argument(help="a certificate.json")],
    again: Annotated[
        int, typer.Option("--rerun", min=0, metavar="N", help="run so many random cases again")
    ] = 0,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="of the choice of cases; random if not given")
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="compare with this wheel of the plugin, not the installed one"),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, metavar="N", help="worker processes; 0: one a core")
    ] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a certificate offline: digests of plugin, suite, core and corpus, and arithmetic. Any change voids it."""
    from ..catalogue import all_cases
    from ..certificate import read_certificate
    from ..verification import check_offline, rerun

    values = read_certificate(certificate)
    found = check_offline(values, all_cases(), wheel)
    if again:
        chosen = random.SystemRandom().randrange(2**32) if seed is None else seed
        found += rerun(values, all_cases(), again, chosen, jobs or cores())
    void = any(finding.holds is False for finding in found)
    if as_json:
        emit({"holds": not void, "findings": [vars(finding) for finding in found]})
    else:
        out = console()
        for finding in found:
            mark = {
                True: ("holds    ", "green"),
                False: ("VOID     ", "bold red"),
                None: ("unknown  ", "yellow"),
            }
            detail = f": {finding.detail}" if finding.detail else ""
            out.print(Text.assemble(mark[finding.holds], finding.what, detail), soft_wrap=True)
        provider = values["provider"]
        verdict = (
            "void" if void else f"holds: {provider['name']} {provider['version']}, level {values['reached']}"
        )
        out.print(
            Text(f"the certificate {'is void' if void else verdict}", "bold red" if void else "bold green")
        )
    raise typer.Exit(exits.VOID if void else exits.CERTIFIED)
