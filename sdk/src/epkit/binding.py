"""Providers as one session uses them: instances with options, device and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .backend.blame import blame, close_quietly
from .backend.bound import Bound
from .backend.custom import CustomOperator
from .backend.registry import Registry
from .errors import EpkitError, OptionError
from .settings import Settings


def bind(settings: Settings, registry: Registry, custom: Sequence[CustomOperator] = ()) -> tuple[Bound, ...]:
    """Instances of the named providers, then of the fallback if it was not named.

    Raises:
        ProviderError, OptionError: as the registry does.
    """
    chosen: list[tuple[str, Mapping[str, Any]]] = []
    for choice in settings.providers:
        name, options = (choice, {}) if isinstance(choice, str) else choice
        if any(name == known for known, _ in chosen):
            raise OptionError(
                f"provider {name!r} is named twice", remedy="name each provider once, best first"
            )
        chosen.append((name, options))
    named = len(chosen)
    if settings.fallback != "error" and all(name != settings.fallback for name, _ in chosen):
        chosen.append((settings.fallback, {}))
    bounds: list[Bound] = []
    try:
        for index, (name, options) in enumerate(chosen):
            bounds.append(_bind(registry, name, options, index >= named, custom))
    except EpkitError:
        close_all(bounds)
        raise
    return tuple(bounds)


def close_all(bounds: Sequence[Bound]) -> None:
    """Close instances that did not come into use."""
    for bound in bounds:
        close_quietly(bound.provider)


def _bind(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    fallback: bool,
    custom: Sequence[CustomOperator],
) -> Bound:
    provider, devices = registry.create(name, options)
    device = devices.found[0]
    try:
        with blame(name, "add_operators", "claim"):
            provider.add_operators(custom)
        with blame(name, "allocator", "claim"):
            return Bound(provider, device, provider.allocator(device), fallback)
    except EpkitError:
        close_quietly(provider)
        raise


def known_operators(
    custom: Sequence[CustomOperator], bounds: Sequence[Bound]
) -> Callable[[str, str, int], bool]:
    """Says whether an operator outside the standard is known to a package or a provider."""
    names = {(item.domain, item.name) for item in custom}

    def known(domain: str, name: str, version: int) -> bool:
        return (domain, name) in names or any(_knows(bound, domain, name) for bound in bounds)

    return known


def _knows(bound: Bound, domain: str, name: str) -> bool:
    with blame(bound.name, "knows", "check"):
        return bool(bound.provider.knows(domain, name))
