"""``epkit conformance ci``: a workflow that runs the suite for a plugin's repository."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Debug


def ci(
    provider: Annotated[
        str, typer.Argument(metavar="NAME", help="the provider that the workflow tests")
    ] = "acme",
    debug: Debug = False,
) -> None:
    """Print a GitHub workflow: epkit conformance ci acme > .github/workflows/epkit-conformance.yml."""
    from ..scaffold import workflow

    typer.echo(workflow(provider), nl=False)
