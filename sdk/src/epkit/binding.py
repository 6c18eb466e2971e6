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
    chosen = labelled(settings)
    named = len(chosen)
    if settings.fallback != "error" and all(name != settings.fallback for name, _ in chosen.values()):
        chosen[settings.fallback] = (settings.fallback, {})
    bounds: list[Bound] = []
    try:
        for index, (label, (name, options)) in enumerate(chosen.items()):
            bounds.append(
                _bind(registry, name, options, index >= named, custom, "" if label == name else label)
            )
    except EpkitError:
        close_all(bounds)
        raise
    return tuple(bounds)


def labelled(settings: Settings) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name and options of each provider that the application named, by what a session calls it.

    A provider may be named again with other options (another device, say): it is then ``name#2``, and so on.

    Raises:
        OptionError: if one is named twice with the same options.
    """
    chosen: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for choice in settings.providers:
        name, options = (choice, {}) if isinstance(choice, str) else choice
        same = [known for other, known in chosen.values() if other == name]
        if options in same:
            raise OptionError(
                f"provider {name!r} is named twice",
                remedy="name each provider once, best first; or again with other options, such as another device",
            )
        chosen[f"{name}#{len(same) + 1}" if same else name] = (name, options)
    return chosen


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
    label: str,
) -> Bound:
    provider, devices = registry.create(name, options)
    device = devices.found[0]
    try:
        with blame(name, "add_operators", "claim"):
            provider.add_operators(custom)
        with blame(name, "allocator", "claim"):
            return Bound(provider, device, provider.allocator(device), fallback, label)
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
