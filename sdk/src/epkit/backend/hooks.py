"""All hooks that a plugin may implement: signature and documentation in one place.

A plugin is a module named by an entry point. Provider packages use the group ``epkit.providers`` and
the provider's name; they are imported when an application asks for that provider. Packages that add
operators, rewrites or observers use the group ``epkit.plugins``; they are imported when the first model
is loaded. A module may implement any of the hooks. An implementation names only the arguments that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pluggy

from .custom import CustomOperator
from .provider import Provider

if TYPE_CHECKING:
    import onnx_ir as ir

PROJECT = "epkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Notice:
    """Something that happened: ``kind`` is "load", "partition", "run" or "error"; details by kind."""

    kind: str
    model: str
    seconds: float = 0.0
    details: dict[str, object] = field(default_factory=dict)


@hookspec
def epkit_providers() -> Iterable[type[Provider]]:  # type: ignore[empty-body]
    """The providers of this package."""


@hookspec
def epkit_operators() -> Iterable[CustomOperator]:  # type: ignore[empty-body]
    """Operators of a domain outside the standard. Any provider may claim them; the fallback runs the rest."""


@hookspec
def epkit_rewrites() -> Iterable[Callable[[ir.Model], int]]:  # type: ignore[empty-body]
    """Graph passes that run after the built-in ones at level ``extended`` and above.

    A pass changes the model in place and returns the number of changes.
    """


@hookspec
def epkit_notice(notice: Notice) -> None:
    """Called after each load, partitioning and run, and on errors. Must be quick; must not raise."""
