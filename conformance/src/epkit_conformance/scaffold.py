"""What the suite adds to a new plugin package: the workflow that runs it."""

from __future__ import annotations

from importlib.resources import files
from typing import Protocol

WORKFLOW = ".github/workflows/epkit-conformance.yml"


class Named(Protocol):
    """What ``epkit new-provider`` tells of the package."""

    @property
    def name(self) -> str:
        """The provider's name."""


def workflow(provider: str) -> str:
    """A GitHub workflow that runs the levels for a provider, and keeps report and badge."""
    text = (files(__package__) / "ci" / "epkit-conformance.yml").read_text(encoding="utf-8")
    return text.replace("acme", provider)


def files_for(names: Named) -> dict[str, str]:
    """The files, by path within the package."""
    return {WORKFLOW: workflow(names.name)}
