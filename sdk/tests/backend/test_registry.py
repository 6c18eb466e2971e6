"""Discovery: lazy, total, and with a remedy for everything."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epkit
from epkit.backend import Devices
from epkit.backend.registry import Registry
from epkit.errors import (
    BrokenProviderError,
    IncompatibleProviderError,
    UnavailableProviderError,
    UnknownProviderError,
)
from epkit.testing.broken import FromTheFuture, FromThePast, Sound
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import FakeDistribution, entry_points_of, plugin_of, registry_of

RELU = model("g (float[N] x) => (float[N] y) { y = Relu(x) }")
X = np.array([-1, 2], np.float32)


class Absent(Sound):
    name = "absent"

    def devices(self) -> Devices:
        return Devices(reason="libacme.so.3 was not found", remedy="install the driver from acme.example")


@dataclass(frozen=True)
class Choices:
    threads: int = 4
    mode: str = "fast"


class WithOptions(Sound):
    name = "with_options"
    version = "2.5"
    Options = Choices


# ---- states ----


def test_ready() -> None:
    registry = registry_of(
        entry_points=entry_points_of(
            {"with_options": lambda: plugin_of(WithOptions)}, package="epkit-acme", version="7.1"
        ),
        installed=False,
    )
    (state,) = registry.states()
    assert (state.name, state.package, state.version, state.state) == (
        "with_options",
        "epkit-acme",
        "2.5",
        "ready",
    )
    assert [device.name for device in state.devices.found] == ["with_options:0"]
    assert state.options == ("threads: int = 4", "mode: str = 'fast'")
    assert (state.reason, state.remedy) == ("", "")


def test_absent_says_why_and_what_to_do() -> None:
    registry = registry_of(Absent)
    state = registry.state("absent")
    assert (state.state, state.reason) == ("absent", "libacme.so.3 was not found")
    assert state.remedy == "install the driver from acme.example"
    with pytest.raises(UnavailableProviderError, match="libacme.so.3 was not found") as caught:
        registry.create("absent")
    assert caught.value.remedy == state.remedy


@pytest.mark.parametrize(
    ("kind", "remedy"), [(FromThePast, "upgrade epkit-from_the_past"), (FromTheFuture, "--upgrade epkit")]
)
def test_incompatible_says_which_side_is_older(kind: type[Sound], remedy: str) -> None:
    registry = registry_of(kind)
    state = registry.state(kind.name)
    assert state.state == "incompatible"
    assert "supports contract" in state.reason
    assert state.remedy.endswith(remedy)
    with pytest.raises(IncompatibleProviderError):
        registry.create(kind.name)


def test_broken_names_the_package() -> None:
    def body() -> Any:
        raise OSError("no such library")

    registry = registry_of(entry_points=entry_points_of({"acme": body}, package="epkit-acme", version="7.1"))
    state = registry.state("acme")
    assert (state.state, state.version) == ("broken", "7.1")
    assert "OSError: no such library" in state.reason
    assert "reinstall or upgrade the package 'epkit-acme'" in state.remedy


def installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, files: dict[str, str]
) -> Any:
    """The state of a provider whose entry point is ``value``."""
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "epkit_slip"]:
        monkeypatch.delitem(sys.modules, name)
    listed = FakeDistribution("epkit-slip", "1.0", f"[epkit.providers]\nslip = {value}")
    return registry_of(entry_points=list(listed.entry_points), installed=False).state("slip")


CLASS = "from epkit.backend.null import NullProvider\nclass Slip(NullProvider):\n    name = 'slip'\n"
HOOK = "\nfrom epkit.backend import hookimpl\n@hookimpl\ndef epkit_providers():\n    return [Slip]\n"


def test_an_entry_point_that_names_a_class_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"epkit_slip/__init__.py": "", "epkit_slip/provider.py": CLASS}
    state = installed_package(tmp_path, monkeypatch, "epkit_slip.provider:Slip", files)
    assert state.state == "broken"
    assert "names the class epkit_slip.provider:Slip" in state.reason
    assert 'write slip = "epkit_slip" under [project.entry-points."epkit.providers"]' in state.remedy
    assert "write in the module epkit_slip: @epkit.backend.hookimpl" in state.remedy
    assert "return [Slip]" in state.remedy

    files |= {"epkit_slip/__init__.py": "from .provider import Slip" + HOOK}
    state = installed_package(tmp_path, monkeypatch, "epkit_slip.provider:Slip", files)
    assert 'write slip = "epkit_slip" under' in state.remedy
    assert "hookimpl" not in state.remedy

    state = installed_package(tmp_path, monkeypatch, "epkit_slip", files)  # as told
    assert state.state == "ready"


def test_a_module_without_the_hook_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = installed_package(tmp_path, monkeypatch, "epkit_slip", {"epkit_slip/__init__.py": CLASS})
    assert (state.state, "names the module epkit_slip;" in state.reason) == ("broken", True)
    assert "entry-points" not in state.remedy
    assert "write in the module epkit_slip: @epkit.backend.hookimpl" in state.remedy


def test_what_is_really_installed() -> None:
    states = {state.name: state for state in epkit.providers()}
    assert states["null"].state == states["cpu"].state == "ready"
    assert (states["null"].package, states["cpu"].package) == ("epkit", "epkit-cpu")


# ---- unknown ----


def test_an_unknown_provider_lists_those_there_are() -> None:
    registry = registry_of(Sound, Absent, installed=False)
    with pytest.raises(
        UnknownProviderError, match="no provider 'acme_npu' is installed; installed: absent, sound"
    ) as c:
        epkit.load(RELU, ["acme_npu"], registry=registry)
    assert c.value.remedy == "pip install epkit-acme-npu"
    assert c.value.where.provider == "acme_npu"


def test_a_slip_is_recognised() -> None:
    with pytest.raises(UnknownProviderError) as caught:
        registry_of(Sound).create("suond")
    assert caught.value.remedy.startswith("did you mean 'sound'?")


def test_nothing_installed() -> None:
    with pytest.raises(UnknownProviderError, match="installed: none"):
        Registry(lambda group: []).create("cpu")


# ---- lazy ----


def test_a_module_is_imported_when_it_is_asked_for_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real modules: one that works, and one that must stay untouched."""
    (tmp_path / "lazy_sound.py").write_text(
        "from epkit.backend import hookimpl\nfrom epkit.testing.broken import Sound\n"
        "class LazySound(Sound):\n    name = 'lazy'\n"
        "@hookimpl\ndef epkit_providers():\n    return [LazySound]\n"
    )
    (tmp_path / "lazy_other.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        importlib.metadata.EntryPoint(name, f"lazy_{module}", "epkit.providers")
        for name, module in (("lazy", "sound"), ("other", "other"))
    ]
    registry = registry_of(entry_points=entries)
    assert {"lazy", "other"} <= set(registry.names())
    assert "lazy_sound" not in sys.modules
    for _ in range(2):
        with epkit.load(RELU, ["lazy"], registry=registry) as session:
            assert_same(session(x=X)["y"], np.maximum(X, 0))
    assert "lazy_sound" in sys.modules
    assert "lazy_other" not in sys.modules
    assert registry.state("other").state == "broken"


def test_extensions_are_imported_with_the_first_model() -> None:
    imported: list[str] = []

    def body() -> Any:
        imported.append("extension")
        return plugin_of()

    registry = registry_of(Sound, extensions={"extension": body})
    registry.states()
    assert imported == []
    for _ in range(2):
        epkit.load(RELU, ["sound"], registry=registry).close()
    assert imported == ["extension"]


def test_disabled_plugins_are_as_if_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    registry = registry_of(Sound, extensions={"noisy": lambda: imported.append("noisy")})
    monkeypatch.setenv("EPKIT_DISABLED_PLUGINS", "sound, noisy")
    assert "sound" not in registry.names()
    with pytest.raises(UnknownProviderError):
        registry.create("sound")
    epkit.load(RELU, registry=registry).close()
    assert imported == []


# ---- instances ----


def test_every_instance_that_was_made_is_closed() -> None:
    """By the question for a state, and by a start that fails, as by the end of a session."""
    alive: list[str] = []

    class Counted(Sound):
        name = "counted"

        def __init__(self, options: object = None) -> None:
            super().__init__(options)
            alive.append("counted")

        def close(self) -> None:
            alive.pop()

    class Nothing(Counted):
        name = "nothing"

        def devices(self) -> Devices:
            return Devices()

    class Failing(Counted):
        name = "failing"

        def devices(self) -> Devices:
            raise RuntimeError("no")

    registry = registry_of(Counted, Nothing, Failing)
    registry.states()
    assert alive == []
    for providers in (["counted", "nothing"], ["counted", "failing"], ["counted", "nobody"]):
        with pytest.raises(epkit.EpkitError):
            epkit.load(RELU, providers, registry=registry)
        assert alive == []
    with epkit.load(RELU, ["counted"], registry=registry):
        assert alive == ["counted"]
    assert alive == []


def test_a_class_may_be_registered_without_a_package() -> None:
    registry = Registry(lambda group: [])
    registry.register(Sound)
    assert registry.names() == ("sound",)
    assert registry.state("sound").package == "-"
    with epkit.load(RELU, ["sound"], fallback="error", registry=registry) as session:
        assert session.providers == ("sound",)


@pytest.mark.parametrize("wrong", [Sound(), int, None])
def test_only_provider_classes_can_be_registered(wrong: Any) -> None:
    registry = Registry(lambda group: [])
    with pytest.raises(BrokenProviderError, match="not a subclass of epkit.backend.Provider"):
        registry.register(wrong)
    assert registry.names() == ()


def test_a_provider_is_named_once() -> None:
    with pytest.raises(epkit.EpkitError, match="'sound' is named twice"):
        epkit.load(RELU, ["sound", ("sound", {})], registry=registry_of(Sound))


def test_names_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_PROVIDERS", "sound")
    with epkit.load(RELU, registry=registry_of(Sound)) as session:
        assert session.providers == ("sound", "cpu")


def test_names_of_other_runtimes_are_understood() -> None:
    with epkit.load(RELU, ["CPUExecutionProvider"]) as session:
        assert session.providers == ("cpu",)
