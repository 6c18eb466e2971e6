"""What is installed: ``epkit.providers()``; and ``epkit.register`` for providers without a package."""

from __future__ import annotations

from .backend.provider import Provider
from .backend.registry import ProviderState, default


def providers() -> tuple[ProviderState, ...]:
    """Every installed provider with its state: ready, absent, incompatible or broken; and the remedy."""
    return default.states()


def register(provider: type[Provider]) -> None:
    """Make a provider class known in this process, for applications and tests that have no package for it."""
    default.register(provider)
