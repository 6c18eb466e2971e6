"""What several commands take from the command line, and how its text is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..aliases import DEFAULT_FALLBACK

if TYPE_CHECKING:
    from ..settings import Settings

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX file")]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        "-p",
        metavar="NAME[:KEY=VALUE,...]",
        help="a provider, with its options; repeat, best first",
    ),
]
Fallback = Annotated[
    str, typer.Option(metavar="NAME", help="the provider that takes what is left; 'error' forbids that")
]
Optimise = Annotated[str, typer.Option(metavar="LEVEL", help="none, basic, extended or all")]
Fix = Annotated[
    list[str] | None, typer.Option(metavar="DIM=N", help="give a symbolic dimension a fixed size; repeat")
]
Policy = Annotated[
    str,
    typer.Option(metavar="POLICY", help="who gets what several claim: priority (the first named) or cost"),
]
Placement = Annotated[
    Path | None, typer.Option(metavar="PLAN.json", help="a placement saved by explain --save")
]
Pin = Annotated[
    list[str] | None,
    typer.Option(metavar="WHAT=PROVIDER", help="pin a node, a pattern or op:TYPE to a provider; repeat"),
]
Dim = Annotated[
    list[str] | None,
    typer.Option(metavar="DIM=N", help="the size of a symbolic dimension in invented inputs; repeat"),
]
Seed = Annotated[int, typer.Option(metavar="N", help="the seed of invented inputs")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document, for programs")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]

FALLBACK = DEFAULT_FALLBACK
OPTIMISE = "all"
POLICY = "priority"


def make_settings(
    providers: list[str] | None,
    fallback: str = FALLBACK,
    optimise: str = OPTIMISE,
    fix: list[str] | None = None,
    policy: str = POLICY,
    placement: Path | None = None,
    pin: list[str] | None = None,
) -> Settings:
    """The settings of a load, from the text of the options.

    Raises:
        BadParameter: if a text cannot be read, or nodes are placed in two ways at once.
    """
    from .. import api

    if placement is not None and pin:
        raise typer.BadParameter("give --placement or --pin, not both", param_hint="--pin")
    chosen = None if providers is None else [parse_provider(text) for text in providers]
    pinned = placement if placement is not None else _pins(pin)
    sizes = parse_sizes(fix, "--fix")
    return api.make_settings(
        chosen, fallback, optimise, sizes, (), None, None, policy=policy, placement=pinned
    )


def _pins(items: list[str] | None) -> dict[str, str]:
    pins = {}
    for item in items or ():
        what, equals, provider = item.rpartition("=")
        if not equals or not what or not provider:
            raise typer.BadParameter(f"{item!r} is no WHAT=PROVIDER, such as op:Conv=cpu", param_hint="--pin")
        pins[what] = provider
    return pins


def parse_provider(text: str) -> tuple[str, dict[str, str]]:
    """``acme:precise=true,cores=2`` as a name and its options.

    Raises:
        BadParameter: if an option has no value.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise typer.BadParameter(
                f"{item!r} in {text!r} is no KEY=VALUE; write --provider NAME:KEY=VALUE,KEY=VALUE",
                param_hint="--provider",
            )
        options[key.strip()] = value.strip()
    return name, options


def parse_sizes(items: list[str] | None, option: str) -> dict[str, int]:
    """``["batch=2"]`` as sizes by dimension.

    Raises:
        BadParameter: if one is not DIM=N with a whole number N of at least 0.
    """
    sizes = {}
    for item in items or ():
        name, equals, size = item.rpartition("=")
        if not equals or not name or not size.isdecimal():
            raise typer.BadParameter(f"{item!r} is no DIM=N, such as batch=2", param_hint=option)
        sizes[name] = int(size)
    return sizes
