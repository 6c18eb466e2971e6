"""Registries over plugins that are not installed.

    registry = registry_of(plugin_of(Acme), package="epkit-acme", version="2.0")
    epkit.load(model, providers=["acme"], registry=registry)

The entry points are real ones of :mod:`importlib.metadata`, so that discovery is tested as it is; only the
distribution that lists them is made up. What an entry point loads is looked up when it is loaded, not before.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..backend.hooks import hookimpl
from ..backend.provider import Provider
from ..backend.registry import PLUGIN_GROUP, PROVIDER_GROUP, Registry

Body = Callable[[], Any]
"""Stands for the source of a plugin's module: called when it is imported; returns the module, or raises."""


class _Shelf:
    """An object whose attributes are made when they are asked for, as a module is when it is imported."""

    def __init__(self) -> None:
        self._bodies: dict[str, Body] = {}
        self._numbers = itertools.count()

    def put(self, body: Body) -> str:
        key = f"plugin_{next(self._numbers)}"
        self._bodies[key] = body
        return key

    def __getattr__(self, key: str) -> Any:
        if key not in self._bodies:
            raise AttributeError(key)
        return self._bodies[key]()


shelf = _Shelf()
"""What the entry points made here refer to."""


class FakeDistribution(importlib.metadata.Distribution):
    """An installed package that exists only in memory."""

    def __init__(self, package: str, version: str, entry_points: str) -> None:
        self._files = {
            "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
            "entry_points.txt": entry_points,
        }

    def read_text(self, filename: str) -> str | None:
        return self._files.get(filename)

    def locate_file(self, path: Any) -> Any:
        return Path(path)


def entry_points_of(
    bodies: Mapping[str, Body],
    *,
    group: str = PROVIDER_GROUP,
    package: str = "epkit-toys",
    version: str = "1.0",
) -> list[importlib.metadata.EntryPoint]:
    """Entry points of one made-up package, by name; each loads what its body returns."""
    lines = [f"{name} = {__name__}:shelf.{shelf.put(body)}" for name, body in bodies.items()]
    text = "\n".join([f"[{group}]", *lines])
    return list(FakeDistribution(package, version, text).entry_points)


def plugin_of(*providers: type[Provider], **hooks: Callable[..., Any]) -> SimpleNamespace:
    """What a plugin's module looks like: ``epkit_providers`` for the classes given, and other hooks by name."""
    found: dict[str, Callable[..., Any]] = dict(hooks)
    if providers:
        found["epkit_providers"] = lambda: list(providers)
    return SimpleNamespace(**{name: hookimpl(function) for name, function in found.items()})


def registry_of(
    *providers: type[Provider],
    entry_points: Sequence[importlib.metadata.EntryPoint] = (),
    extensions: Mapping[str, Body] | None = None,
    installed: bool = True,
) -> Registry:
    """A registry of its own, apart from the process's.

    Args:
        providers: classes, each as a plugin of one provider.
        entry_points: more plugins, see :func:`entry_points_of`.
        extensions: plugins of the other group, which add operators, rewrites and observers.
        installed: also show what is really installed, such as the fallback; of equal names, those given here count.
    """
    made = list(entry_points)
    for provider in providers:
        made += entry_points_of({provider.name: lambda each=provider: plugin_of(each)})  # type: ignore[misc]
    made += entry_points_of(extensions or {}, group=PLUGIN_GROUP)

    def find(group: str) -> Iterable[importlib.metadata.EntryPoint]:
        mine = [entry for entry in made if entry.group == group]
        if not installed or group != PROVIDER_GROUP:
            return mine
        hidden = {entry.name for entry in mine}
        really = importlib.metadata.entry_points(group=group)
        return [*(entry for entry in really if entry.name not in hidden), *mine]

    return Registry(find)
