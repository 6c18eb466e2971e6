"""The commands in one application, and how it ends: 0 done, 1 failed, 2 misused, 130 interrupted.

The commands import NumPy, ONNX and the pipeline when they run, so that ``--help`` answers at once. Installed packages
may bring more commands (``extensions.py``).
"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .command import Command
from .compile import compile_model
from .explain import explain
from .extensions import Commands
from .inspect import inspect
from .new_provider import new_provider
from .providers import providers
from .run import run
from .tune import tune
from .verify import bisect, verify

app = typer.Typer(
    cls=Commands,
    help="Run ONNX models on any hardware that has a plugin, and see who runs what.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (run, inspect, explain, verify, bisect, tune, providers, bench, new_provider):
    app.command(function.__name__.replace("_", "-"), cls=Command)(function)
app.command("compile", cls=Command)(compile_model)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"epkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """The entry point of ``epkit``."""
    app()
