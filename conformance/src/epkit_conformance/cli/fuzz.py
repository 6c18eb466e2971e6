"""``epkit conformance fuzz``: look for faults without end."""

from __future__ import annotations

import typer

from epkit.errors import EpkitError


def fuzz(ctx: typer.Context) -> None:
    """Try operators and small graphs at random until interrupted; what is found is made small and written down."""
    try:
        from ..fuzz import main
    except ImportError as error:
        raise EpkitError(
            f"fuzzing needs a package that is missing: {error}", remedy="pip install epkit-conformance[fuzz]"
        ) from None
    raise typer.Exit(main(list(ctx.args)))
