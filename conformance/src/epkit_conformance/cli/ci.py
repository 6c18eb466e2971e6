"""``epkit conformance ci``: a workflow that runs the suite for a plugin's repository."""

from __future__ import annotations

from importlib.resources import files
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
    text = (files("epkit_conformance") / "ci" / "epkit-conformance.yml").read_text(encoding="utf-8")
    typer.echo(text.replace("acme", provider), nl=False)
