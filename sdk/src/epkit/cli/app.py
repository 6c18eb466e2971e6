"""The commands in one application, and how it ends: 0 done, 1 failed, 2 misused, 130 interrupted.

The commands import NumPy, ONNX and the pipeline when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import __version__
from . import _render
from .bench import bench
from .explain import explain
from .inspect import inspect
from .new_provider import new_provider
from .providers import providers
from .run import run
from .verify import bisect, verify


class Command(TyperCommand):
    """A command whose errors say what, where and what to do; a traceback is shown with ``--debug`` only."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            _render.failure(error, as_json=bool(ctx.params.get("as_json")))
            raise typer.Exit(1) from None


app = typer.Typer(
    help="Run ONNX models on any hardware that has a plugin, and see who runs what.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (run, inspect, explain, verify, bisect, providers, bench, new_provider):
    app.command(function.__name__.replace("_", "-"), cls=Command)(function)


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
