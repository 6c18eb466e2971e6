"""Level 0: the provider loads and describes itself."""

from __future__ import annotations

import dataclasses

import pytest

from epkit.backend import CONTRACT_VERSION, Devices
from epkit.backend.registry import default
from epkit.errors import OptionError


def test_it_is_installed_and_ready(provider: str) -> None:
    state = default.state(provider)
    assert state.state == "ready", f"{state.state}: {state.reason} ({state.remedy})"
    assert state.version not in ("", "-")


def test_it_supports_this_contract(provider: str) -> None:
    oldest, newest = default.provider_type(provider).contract
    assert oldest <= CONTRACT_VERSION <= newest


def test_its_devices_have_distinct_names(provider: str) -> None:
    devices = default.state(provider).devices
    assert isinstance(devices, Devices)
    names = [device.name for device in devices.found]
    assert len(set(names)) == len(names) > 0
    assert all(device.memory_bytes is None or device.memory_bytes > 0 for device in devices.found)


def test_asking_twice_gives_the_same_answer(provider: str) -> None:
    assert default.state(provider) == default.state(provider)


def test_its_options_are_a_frozen_dataclass(provider: str) -> None:
    options = default.provider_type(provider).Options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_an_unknown_option_is_refused(provider: str) -> None:
    with pytest.raises(OptionError, match="no_such_option"):
        default.create(provider, {"no_such_option": 1})
