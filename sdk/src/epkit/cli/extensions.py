"""Commands of installed packages: entry points of the group ``epkit.commands``.

An entry point names a Typer application. Its package is imported when its command is called, not before, so a broken
one breaks nothing but itself. Commands of epkit itself cannot be replaced.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import EpkitError, Where
from . import _render

COMMAND_GROUP = "epkit.commands"

KNOWN = {"conformance": ("epkit-conformance", "Prove that a provider does what it claims")}
"""Commands that other packages of the project bring: what to install, and what they do."""


class Commands(TyperGroup):
    """The commands of epkit and those of installed packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Its own first, then the others by name."""
        others = {*KNOWN, *(entry.name for entry in entry_points())} - set(self.commands)
        return [*super().list_commands(ctx), *sorted(others)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; for one of another package a stand-in, which imports it when it is called."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = next((entry for entry in entry_points() if entry.name == cmd_name), None)
        return StandIn(cmd_name, entry) if entry or cmd_name in KNOWN else None


class StandIn(TyperCommand):
    """In place of a command whose package is not imported yet, or not installed."""

    def __init__(self, name: str, entry: importlib.metadata.EntryPoint | None) -> None:
        package, summary = KNOWN.get(name, ("", ""))
        if entry is not None and entry.dist is not None:
            summary = entry.dist.metadata["Summary"] or summary
        shown = summary if entry else f"{summary} (pip install {package})"
        super().__init__(name, help=shown, short_help=shown)
        self.entry = entry

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The real command's context; ends with 1 if it cannot be imported, with 2 if it is not installed."""
        if self.entry is None:
            package = KNOWN[str(self.name)][0]
            told = f"the command {self.name!r} is not installed"
            _render.failure(EpkitError(told, remedy=f"pip install {package}"), as_json="--json" in args)
            raise typer.Exit(2)
        try:
            real = typer.main.get_command(self.entry.load())
        except (Exception, SystemExit) as error:
            _render.failure(_broken(self.entry, error), as_json="--json" in args)
            raise typer.Exit(1) from None
        real.name = self.name
        return real.make_context(info_name, args, parent=parent, **extra)


def entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    """The installed commands."""
    return importlib.metadata.entry_points(group=COMMAND_GROUP)


def _broken(entry: importlib.metadata.EntryPoint, error: BaseException) -> EpkitError:
    package = entry.dist.name if entry.dist is not None else entry.value
    return EpkitError(
        f"the command {entry.name!r} of {package} cannot be imported: {type(error).__name__}: {error}",
        where=Where(stage="import", file=entry.value),
        remedy=f"reinstall or upgrade it: pip install --upgrade {package}",
    )
