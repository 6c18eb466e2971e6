"""Level 3: two plugins in one session. Neither harms the other, and tensors are handed over right."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from itertools import islice

import onnx

import epkit
from epkit.backend import Provider
from epkit.backend.null import NullProvider
from epkit.backend.registry import PROVIDER_GROUP, Registry, default
from epkit.testing.awkward import awkward, every_other, everything, inside_control_flow
from epkit.testing.device import FakeDevice, device_provider

from ..case import REFERENCE, Case
from ..compare import difference
from ..evidence import reasons, recorded_run
from ..probes import feeds_for, native_type, reference, tolerance_for
from ..result import Result, State
from .graphs import OTHERS, whole_graphs

DEVICE = "conformance_device"
FEW = 3
"""Graphs that are tried with what else is installed: its drivers may take long to start."""

Partner = Callable[[], tuple[type[Provider], Callable[[], None]]]


def _quiet() -> None:
    return None


def _on_host(picker: str) -> Partner:
    pickers = {"odd": every_other(1), "even": every_other(0), "bodies": inside_control_flow}
    return lambda: (awkward(f"conformance_{picker}", pickers[picker]), _quiet)


def _on_device() -> tuple[type[Provider], Callable[[], None]]:
    device = FakeDevice()
    return device_provider(DEVICE, device, every_other(1)), device.assert_clean


def _on_busy_device() -> tuple[type[Provider], Callable[[], None]]:
    device = FakeDevice(threads=True)
    return device_provider(DEVICE, device, everything), device.assert_clean


PARTNERS: dict[str, Partner] = {
    "null": lambda: (NullProvider, _quiet),
    "odd_nodes": _on_host("odd"),
    "even_nodes": _on_host("even"),
    "bodies": _on_host("bodies"),
    "late_device": _on_device,
    "busy_device": _on_busy_device,
}
"""A provider class of each kind, and what to check once its session is closed."""


def cases() -> Iterator[Case]:
    """Each partner in front of the provider under test, and behind it."""
    for name, partner in PARTNERS.items():
        for first in (True, False):
            place = "before" if first else "after"
            yield Case(f"pairs/{place}_{name}", 3, "pairs", _runner(partner, first), oracle=REFERENCE)
    for first in (True, False):
        place = "before" if first else "after"
        yield Case(f"pairs/{place}_installed", 3, "pairs", _installed(first), seconds=300, oracle=REFERENCE)


def _installed(first: bool) -> Callable[[str], Result]:
    """With every other provider that is installed and ready here."""

    def run(provider: str) -> Result:
        installed = {entry.name for entry in importlib.metadata.entry_points(group=PROVIDER_GROUP)}
        others = [
            state.name
            for state in epkit.providers()
            if state.state == "ready" and state.name in installed - {provider}
        ]
        if not others:
            return Result(State.UNSUPPORTED, "no other provider is installed and ready")
        results = [
            _runner(lambda name=name: (default.provider_type(name), _quiet), first, FEW)(provider)  # type: ignore[misc]
            for name in others
        ]
        shown = [name for name, result in zip(others, results, strict=True) if result.state is State.PASSED]
        return Result(State.PASSED, f"with {', '.join(shown)}") if shown else results[0]

    return run


def _runner(partner: Partner, first: bool, at_most: int | None = None) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        seen = {provider: 0, "partner": 0}
        refusal = ""
        for model in islice(whole_graphs(native_type(provider)), at_most):
            counts, reason = run_pair(model, provider, partner, first)
            refusal = refusal or reason
            for name, count in counts.items():
                seen[name] += count
        if not seen[provider]:
            return Result(State.REFUSED, refusal or "the partner took all that could be run")
        return Result(State.PASSED, f"{seen[provider]} nodes here, {seen['partner']} on the partner")

    return run


def run_pair(
    model: onnx.ModelProto, provider: str, partner: Partner, first: bool
) -> tuple[dict[str, int], str]:
    """Run a model on both; how many nodes each of the two ran, and why the provider refused others.

    Raises:
        AssertionError: if a result is wrong, or a node ran where it was not placed.
    """
    other, check = partner()
    registry = Registry()
    registry.register(default.provider_type(provider))
    if other.name == provider:
        return {provider: 0, "partner": 0}, "the provider is its own partner here"
    registry.register(other)
    order = [provider, other.name] if first else [other.name, provider]
    ran: dict[str, str] = {}
    with epkit.load(model, order, registry=registry, optimise="none") as session:
        placed = {node.node: node.provider for node in session.placement.nodes}
        reason = reasons(session, provider)
        for rows in (3, 1) if model.graph.name == "inside_scan" else (3, 1, 0):
            feeds = feeds_for(model, {"N": rows}) | {
                name: values[0] for name, values in OTHERS.items() if name in _input_names(model)
            }
            outputs, profile = recorded_run(session, feeds)
            for node, who in profile.dispatched().items():
                assert placed[node] == who, f"{node} was placed on {placed[node]} and ran on {who}"
            ran |= profile.dispatched()
            for (name, got), want in zip(outputs.items(), reference(model, feeds), strict=True):
                problem = difference(got, want, *tolerance_for(want))
                assert not problem, f"{model.graph.name}, {' then '.join(order)}: output {name} {problem}"
    check()
    workers = list(ran.values())
    return {provider: workers.count(provider), "partner": workers.count(other.name)}, reason


def _input_names(model: onnx.ModelProto) -> set[str]:
    return {item.name for item in model.graph.input}
