"""A command that ends well: errors say what, where and what to do next."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from ..errors import EpkitError
from . import _render


class Command(TyperCommand):
    """A command whose errors are told in lines; a traceback is shown with ``--debug`` only."""

    failed = 1
    """The exit code after an error that epkit raised on purpose; after any other it is 1."""

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
            raise typer.Exit(self.failed if isinstance(error, EpkitError) else 1) from None
