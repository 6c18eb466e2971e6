"""Discovery: which plugins are installed, and in what state.

Reading entry-point metadata imports nothing. A plugin is imported when it is first asked for, inside a
guard: whatever it raises becomes its state, and never another plugin's problem.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from .. import knobs
from ..errors import (
    BrokenProviderError,
    EpkitError,
    IncompatibleProviderError,
    ProviderError,
    UnavailableProviderError,
    UnknownProviderError,
    Where,
)
from . import hooks
from .blame import blame, close_quietly
from .contract import CONTRACT_VERSION
from .custom import CustomOperator
from .device import Device, Devices
from .options import describe_options, make_options
from .provider import Provider

PROVIDER_GROUP = "epkit.providers"
PLUGIN_GROUP = "epkit.plugins"


@dataclass(frozen=True)
class ProviderState:
    """One installed provider as discovery sees it.

    Attributes:
        state: ``ready``, ``absent`` (no hardware or driver), ``incompatible`` (contract) or ``broken``.
        reason, remedy: why it is not ready, and what to do.
    """

    name: str
    package: str
    version: str
    state: str
    reason: str = ""
    remedy: str = ""
    devices: Devices = field(default_factory=Devices)
    options: tuple[str, ...] = ()


class Registry:
    """The installed plugins. One instance serves the process; tests make their own."""

    def __init__(
        self, entry_points: Callable[[str], Iterable[importlib.metadata.EntryPoint]] | None = None
    ) -> None:
        self._entry_points = entry_points or _installed_entry_points
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)
        self._lock = threading.RLock()
        self._types: dict[str, type[Provider]] = {}
        self._extensions_loaded = False
        self._extensions: list[tuple[str, str, str]] | None = None
        self._added = 0
        self.warnings: list[str] = []

    # ---- providers ----

    def names(self) -> tuple[str, ...]:
        """Names of the installed providers, without importing any."""
        names = dict.fromkeys(sorted(entry.name for entry in self._entry_points(PROVIDER_GROUP)))
        names.update(dict.fromkeys(self._types))
        return tuple(name for name in names if name not in knobs.DISABLED_PLUGINS.get())

    def register(self, provider: type[Provider]) -> None:
        """Make a provider class known in this process, without a package (applications, tests).

        Raises:
            BrokenProviderError: if it is not a provider class.
        """
        _require_class(provider, str(getattr(provider, "name", provider)))
        with self._lock:
            self._types[provider.name] = provider

    def provider_type(self, name: str) -> type[Provider]:
        """Import the plugin and return its provider class.

        Raises:
            UnknownProviderError: if no plugin has this name.
            BrokenProviderError: if the plugin raises while it is imported, or does not provide the name.
            IncompatibleProviderError: if it supports other versions of the contract.
        """
        with self._lock:
            if name not in self._types:
                self._types[name] = self._import_provider(name)
            return _compatible(self._types[name], name)

    def _import_provider(self, name: str) -> type[Provider]:
        entries = [entry for entry in self._entry_points(PROVIDER_GROUP) if entry.name == name]
        if not entries or name in knobs.DISABLED_PLUGINS.get():
            raise self._unknown(name)
        where = Where(provider=name, stage="import")
        remedy = f"reinstall or upgrade the package {_package(entries[0])!r}, or leave {name!r} out"
        try:
            module = entries[0].load()
            _require_hook(module, entries[0])
            self._add_module(module, entries[0])
            # pluggy knows no call to one plugin only; the module's function is the hook itself
            found: dict[str, type[Provider]] = {p.name: p for p in module.epkit_providers()}
        except EpkitError:
            raise
        except (Exception, SystemExit) as error:
            raise BrokenProviderError(
                f"the plugin {name!r} cannot be imported: {type(error).__name__}: {error}",
                where=where,
                remedy=remedy,
            ) from error
        if name not in found:
            raise BrokenProviderError(
                f"the plugin {name!r} provides {', '.join(found) or 'nothing'}, not {name!r}",
                where=where,
                remedy=remedy,
            )
        return found[name]

    def _unknown(self, name: str) -> UnknownProviderError:
        installed = self.names()
        close = difflib.get_close_matches(name, installed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return UnknownProviderError(
            f"no provider {name!r} is installed; installed: {', '.join(installed) or 'none'}",
            where=Where(provider=name),
            remedy=f"{hint}pip install epkit-{name.replace('_', '-').lower()}",
        )

    def create(self, name: str, options: Mapping[str, Any] | None = None) -> tuple[Provider, Devices]:
        """An instance of a provider with its options, and its devices (at least one).

        Raises:
            ProviderError: if it is unknown, broken, incompatible, or has no device.
            OptionError: if an option does not fit.
        """
        provider_type = self.provider_type(name)
        with blame(name, "Options", "claim"):
            chosen = make_options(provider_type.Options, options or {}, name)
        provider, devices = _start(provider_type, chosen)
        if not devices.found:
            close_quietly(provider)
            raise UnavailableProviderError(
                f"provider {name!r} has no device: {devices.reason or 'no reason given'}",
                where=Where(provider=name, stage="devices"),
                remedy=devices.remedy or f"leave {name!r} out of providers",
            )
        return provider, devices

    def states(self) -> tuple[ProviderState, ...]:
        """The state of every installed provider; never raises for a plugin's fault."""
        return tuple(self.state(name) for name in self.names())

    def state(self, name: str) -> ProviderState:
        """The state of one provider."""
        entry = next((entry for entry in self._entry_points(PROVIDER_GROUP) if entry.name == name), None)
        package, version = _package(entry), _version(entry)
        try:
            provider_type = self.provider_type(name)
            version = str(provider_type.version)
            provider, devices = _start(provider_type, provider_type.Options())
            close_quietly(provider)
            options = describe_options(provider_type.Options)
        except IncompatibleProviderError as error:
            return ProviderState(name, package, version, "incompatible", error.what, error.remedy)
        except ProviderError as error:
            return ProviderState(name, package, version, "broken", error.what, error.remedy)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            remedy = f"report this to the maker of the plugin, or leave {name!r} out"
            return ProviderState(name, package, version, "broken", reason, remedy)
        if not devices.found:
            return ProviderState(
                name, package, version, "absent", devices.reason, devices.remedy, devices, options
            )
        return ProviderState(name, package, version, "ready", "", "", devices, options)

    # ---- other plugins ----

    def _add_module(self, module: Any, entry: importlib.metadata.EntryPoint | None = None) -> None:
        if not self._manager.is_registered(module):
            self._manager.register(module, f"{entry.name} ({entry.group})" if entry else None)

    def load_extensions(self) -> None:
        """Import the packages that add operators, rewrites and observers; a broken one becomes a warning."""
        with self._lock:
            if self._extensions_loaded:
                return
            self._extensions_loaded = True
            for entry in self._entry_points(PLUGIN_GROUP):
                if entry.name in knobs.DISABLED_PLUGINS.get():
                    continue
                try:
                    self._add_module(entry.load(), entry)
                except (Exception, SystemExit) as error:
                    self.warnings.append(
                        f"plugin {entry.name!r} was left out: {type(error).__name__}: {error}"
                    )

    def extensions(self) -> str | None:
        """What there is besides providers, as text that changes when it does, without importing it.

        None if that cannot be told: this process has added some by itself, or somebody observes.
        """
        if self._added or self.observed:
            return None
        with self._lock:
            if self._extensions is None:
                entries = self._entry_points(PLUGIN_GROUP)
                self._extensions = sorted((entry.name, entry.value, _version(entry)) for entry in entries)
        disabled = knobs.DISABLED_PLUGINS.get()
        return repr([found for found in self._extensions if found[0] not in disabled])

    def add_extension(self, plugin: object) -> None:
        """Register an object or module with hook implementations in this process."""
        self._add_module(plugin)
        self._added += 1

    def remove_extension(self, plugin: object) -> None:
        """Undo :meth:`add_extension`."""
        self._manager.unregister(plugin)
        self._added -= 1

    def operators(self) -> list[CustomOperator]:
        """The custom operators of all imported plugins."""
        self.load_extensions()
        return [
            item for items in self._guarded("epkit_operators", _items_of(CustomOperator)) for item in items
        ]

    def rewrites(self) -> list[Callable[[Any], int]]:
        """The graph passes of all imported plugins."""
        self.load_extensions()
        return [item for items in self._guarded("epkit_rewrites", _items_of(Callable)) for item in items]

    def notify(self, notice: hooks.Notice) -> None:
        """Tell the observers; one that raises is reported once as a warning and not asked again."""
        self._guarded("epkit_notice", notice=notice)

    @property
    def observed(self) -> bool:
        """True if there is somebody to notify."""
        return bool(self._manager.hook.epkit_notice.get_hookimpls())

    def _guarded(
        self, hook: str, accept: Callable[[Any], Any] = lambda result: result, **arguments: Any
    ) -> list[Any]:
        """Call each plugin's implementation by itself, so that one that raises is only its own problem.

        ``accept`` raises for results of a wrong type.
        """
        results = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            given = {name: arguments[name] for name in implementation.argnames}
            try:
                results.append(accept(implementation.function(**given)))
            except Exception as error:
                self._leave_out(implementation, f"{implementation.plugin_name}.{hook} raised", error)
        return results

    def _leave_out(self, implementation: pluggy.HookImpl, what: str, error: Exception) -> None:
        with self._lock:  # several runs may meet the same faulty observer
            if self._manager.is_registered(implementation.plugin):
                self.warnings.append(f"{what} {type(error).__name__}: {error}")
                self._manager.unregister(implementation.plugin)


def _installed_entry_points(group: str) -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=group)


def _items_of(kind: Any) -> Callable[[Any], list[Any]]:
    """Makes a list of a hook's result, and refuses items of another kind."""

    def accept(result: Any) -> list[Any]:
        items = list(result)
        for item in items:
            if not isinstance(item, kind):
                raise TypeError(f"{item!r:.100} is not a {kind.__name__}")
        return items

    return accept


def _package(entry: importlib.metadata.EntryPoint | None) -> str:
    return entry.dist.name if entry is not None and entry.dist is not None else "-"


def _version(entry: importlib.metadata.EntryPoint | None) -> str:
    return entry.dist.version if entry is not None and entry.dist is not None else "-"


def _require_hook(found: Any, entry: importlib.metadata.EntryPoint) -> None:
    """An entry point names a module that has the hook; a slip is to name the provider's class instead."""
    if _has_hook(found):
        return
    kind = "module" if not entry.attr else "class" if isinstance(found, type) else "object"
    own, package = entry.module, entry.module.partition(".")[0]
    homes = [name for name in (own, package) if _has_hook(sys.modules.get(name))]
    home = homes[0] if homes else package if entry.attr else own
    steps = []
    if entry.value != home:
        steps.append(f'write {entry.name} = "{home}" under [project.entry-points."{PROVIDER_GROUP}"]')
    if not homes:
        provider = entry.attr.rpartition(".")[2] if kind == "class" else "YourProvider"
        steps.append(
            f"write in the module {home}: @epkit.backend.hookimpl, def epkit_providers(): return [{provider}]"
        )
    raise BrokenProviderError(
        f"the entry point {entry.name!r} names the {kind} {entry.value}; it must name a module with the hook "
        "epkit_providers",
        where=Where(provider=entry.name, stage="import"),
        remedy=f"{'; '.join(steps)}; then install {_package(entry)} again",
    )


def _has_hook(module: Any) -> bool:
    return callable(getattr(module, "epkit_providers", None))


def _require_class(provider_type: Any, name: str) -> None:
    if not isinstance(provider_type, type) or not issubclass(provider_type, Provider):
        raise BrokenProviderError(
            f"provider {name!r} is {provider_type!r:.100}, not a subclass of epkit.backend.Provider",
            where=Where(provider=name, stage="import"),
            remedy="report this to the maker of the plugin: epkit_providers must return provider classes",
        )


def _compatible(provider_type: type[Provider], name: str) -> type[Provider]:
    _require_class(provider_type, name)
    with blame(provider_type.name, "contract", "import"):
        oldest, newest = provider_type.contract
    if not oldest <= CONTRACT_VERSION <= newest:
        older = newest < CONTRACT_VERSION
        raise IncompatibleProviderError(
            f"provider {provider_type.name!r} supports contract {oldest} to {newest}; this "
            f"epkit speaks {CONTRACT_VERSION}",
            where=Where(provider=provider_type.name, stage="import"),
            remedy=f"pip install --upgrade epkit-{provider_type.name}"
            if older
            else "pip install --upgrade epkit",
        )
    return provider_type


def _start(provider_type: type[Provider], options: Any) -> tuple[Provider, Devices]:
    """Make an instance and ask for its devices; anything it raises becomes BrokenProviderError."""
    name = provider_type.name
    with blame(name, "__init__", "devices"):
        provider = provider_type(options)
    try:
        with blame(name, "devices", "devices"):
            devices = provider.devices()
        if not isinstance(devices, Devices) or not all(isinstance(found, Device) for found in devices.found):
            raise BrokenProviderError(
                f"provider {name!r} returned {devices!r:.100} from devices(), not Devices of Device",
                where=Where(provider=name, stage="devices"),
                remedy=f"report this to the maker of the plugin, or leave {name!r} out of providers",
            )
    except EpkitError:
        close_quietly(provider)
        raise
    return provider, devices


default = Registry()
"""The registry of this process."""
