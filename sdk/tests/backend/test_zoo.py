"""Every fault of the zoo ends in the right error, at the right stage, naming the culprit; and touches nobody else."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest

import epkit
from epkit.errors import EpkitError, ProviderError, RunError
from epkit.testing.broken import HOSTILE, ZOO, Sound, Specimen
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import entry_points_of, registry_of

RELU = model("g (float[N] x) => (float[N] y) { [relu] a = Relu(x)  [neg] y = Neg(a) }")
X = np.array([-1, 2], np.float32)
Y = -np.maximum(X, 0)

RAISING = [specimen for specimen in ZOO if specimen.error is not None]
LEAVING_A_WARNING = [specimen for specimen in ZOO if specimen.error is None]
STARTS = ("import", "devices")
"""Stages at which a fault shows before a model is there."""


def everybody(*more: type[Sound]) -> epkit.Session:
    """A load with the whole zoo installed."""
    entries = entry_points_of({specimen.name: specimen.body for specimen in ZOO})
    return registry_of(*more, entry_points=entries)  # type: ignore[return-value]


@pytest.mark.parametrize("specimen", RAISING, ids=lambda specimen: specimen.name)
def test_the_culprit_is_named(specimen: Specimen) -> None:
    registry = registry_of(entry_points=entry_points_of({specimen.name: specimen.body}))
    with pytest.raises(EpkitError) as caught, epkit.load(RELU, [specimen.name], registry=registry) as session:
        session(x=X)
    error = caught.value
    assert type(error) is specimen.error
    assert isinstance(error, ProviderError | RunError)
    assert (error.where.stage, error.where.provider) == (specimen.stage, specimen.name)
    assert specimen.name in error.what
    assert error.remedy
    if specimen.stage in ("compile", "run"):
        assert error.where.partition == f"{specimen.name}:0" or error.where.value
    if specimen.stage not in STARTS:
        assert error.where.model


@pytest.mark.parametrize("specimen", LEAVING_A_WARNING, ids=lambda specimen: specimen.name)
def test_a_fault_in_closing_leaves_a_warning(specimen: Specimen) -> None:
    registry = registry_of(Sound, entry_points=entry_points_of({specimen.name: specimen.body}))
    with epkit.load(RELU, [specimen.name, "sound"], registry=registry) as session:
        assert_same(session(x=X)["y"], Y)
    assert any(specimen.name in text and "broken on purpose" in text for text in session.warnings)


def test_the_whole_zoo_does_not_disturb_a_sound_plugin() -> None:
    registry = everybody(Sound)
    states = {state.name: state.state for state in registry.states()}  # type: ignore[attr-defined]
    assert states["sound"] == states["cpu"] == "ready"
    assert set(states.values()) == {"ready", "absent", "incompatible", "broken"}
    for specimen in ZOO:
        if specimen.stage in STARTS:
            assert states[specimen.name] != "ready", specimen.name
    with epkit.load(RELU, ["sound"], registry=registry) as session:  # type: ignore[arg-type]
        assert_same(session(x=X)["y"], Y)
        assert session.placement.counts() == {"sound": 1, "cpu": 1}


@pytest.mark.parametrize("specimen", RAISING, ids=lambda specimen: specimen.name)
def test_what_was_opened_before_is_closed_again(specimen: Specimen) -> None:
    """A sound provider, named first, is closed whatever the next one does; its programs too."""
    open_now: list[str] = []

    class Watched(Sound):
        name = "watched"

        def __init__(self, options: object = None) -> None:
            super().__init__(options)
            open_now.append("provider")

        def compile(self, subgraph):  # type: ignore[no-untyped-def]
            program = super().compile(subgraph)
            program.close = lambda: open_now.remove("program")
            open_now.append("program")
            return program

        def close(self) -> None:
            open_now.remove("provider")

    two = model("g (float[N] x) => (float[N] y, float[N] z) { a = Relu(x)  y = Neg(a)  z = Relu(x) }")
    registry = registry_of(Watched, entry_points=entry_points_of({specimen.name: specimen.body}))
    order = (
        [specimen.name, "watched"]
        if specimen.stage in ("compile", "run", "plan")
        else ["watched", specimen.name]
    )
    with pytest.raises(EpkitError), epkit.load(two, order, registry=registry) as session:
        session(x=X)
        raise EpkitError("a fault that shows only in nodes of its own")
    assert open_now == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_hooks_leave_a_warning_and_nothing_else(name: str) -> None:
    registry = registry_of(extensions={"hostile": HOSTILE[name]})
    with epkit.load(RELU, registry=registry, optimise="all") as session:
        for _ in range(2):
            assert_same(session(x=X)["y"], Y)
    assert len(registry.warnings) == 1
    assert "hostile" in registry.warnings[0]


def test_nothing_is_left_to_the_garbage_collector() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for specimen in RAISING:
            registry = registry_of(entry_points=entry_points_of({specimen.name: specimen.body}))
            with pytest.raises(EpkitError), epkit.load(RELU, [specimen.name], registry=registry) as session:
                session(x=X)
        gc.collect()
