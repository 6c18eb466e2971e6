"""What several commands take from the command line, and how results are printed."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="print one JSON document, for programs")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]

PIPED_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """Plain text where there is no terminal; nothing is guessed from what is printed."""
    width = shutil.get_terminal_size((PIPED_WIDTH, 25)).columns
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
