"""Level 0: the provider loads and describes itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from epkit.backend import CONTRACT_VERSION
from epkit.backend.registry import default
from epkit.errors import OptionError

from ..case import Case
from ..result import Result, State

Check = Callable[[str], None]


def is_ready(provider: str) -> None:
    """Installed, imported, its device found."""
    state = default.state(provider)
    assert state.state == "ready", f"the provider is {state.state}: {state.reason}; {state.remedy}"
    assert state.version not in ("", "-"), "it has no version"


def supports_this_contract(provider: str) -> None:
    """The contract range holds the version that this epkit speaks."""
    oldest, newest = default.provider_type(provider).contract
    assert oldest <= CONTRACT_VERSION <= newest, f"contract {oldest} to {newest}, needed {CONTRACT_VERSION}"


def names_its_devices(provider: str) -> None:
    """At least one device; names differ; sizes are positive."""
    devices = default.state(provider).devices.found
    names = [device.name for device in devices]
    assert names, "devices() found none"
    assert len(set(names)) == len(names), f"two devices have one name: {names}"
    for device in devices:
        assert device.memory_bytes is None or device.memory_bytes > 0, f"{device.name} has no memory"


def answers_twice_alike(provider: str) -> None:
    """Asking again gives the same answer."""
    first, second = default.state(provider), default.state(provider)
    assert first == second, f"first {first}, then {second}"


def has_frozen_options(provider: str) -> None:
    """Options are a frozen dataclass that can be made without arguments."""
    options = default.provider_type(provider).Options
    assert dataclasses.is_dataclass(options), "Options is no dataclass"
    made = options()
    for field in dataclasses.fields(options):
        try:
            setattr(made, field.name, None)
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(
            f"option {field.name} can be changed after creation: declare the dataclass frozen"
        )


def refuses_unknown_options(provider: str) -> None:
    """An option that does not exist is an error that names it."""
    try:
        default.create(provider, {"no_such_option": 1})
    except OptionError as error:
        assert "no_such_option" in str(error)
        return
    raise AssertionError("an unknown option was taken without a word")


CHECKS: tuple[Check, ...] = (
    is_ready,
    supports_this_contract,
    names_its_devices,
    answers_twice_alike,
    has_frozen_options,
    refuses_unknown_options,
)


def cases() -> Iterator[Case]:
    """One case a check."""
    for check in CHECKS:
        yield Case(f"describe/{check.__name__}", 0, "describe", _runner(check))


def _runner(check: Check) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        check(provider)
        return Result(State.PASSED)

    return run
