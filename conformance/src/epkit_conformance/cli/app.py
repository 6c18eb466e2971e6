"""The commands in one application. ``epkit conformance acme`` is short for ``epkit conformance run acme``."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from epkit.cli.command import Command

from . import exits
from .badge import badge
from .ci import ci
from .diff import diff
from .fuzz import fuzz
from .list import list_cases
from .run import run
from .verify import verify

HELP = """Prove that a provider does what it claims: epkit conformance NAME.

Exit codes: 0 certified, 1 a case failed, 2 misused, 3 worse than the baseline, 4 nothing wrong but too little shown,
5 the certificate is void, 130 interrupted.
"""


class OrProvider(TyperGroup):
    """What is no command is the name of a provider."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` in front of a provider's name, and of the options of a run."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


class SuiteCommand(Command):
    """A command of the suite; an error before anything was run is a misuse."""

    failed = exits.MISUSED


app = typer.Typer(
    cls=OrProvider,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", cls=SuiteCommand)(run)
app.command("list", cls=SuiteCommand)(list_cases)
app.command("diff", cls=SuiteCommand)(diff)
app.command("verify", cls=SuiteCommand)(verify)
app.command("badge", cls=SuiteCommand)(badge)
app.command("ci", cls=SuiteCommand)(ci)
app.command(
    "fuzz",
    cls=SuiteCommand,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(fuzz)


@app.callback()
def options() -> None:
    """Everything is in the commands."""
