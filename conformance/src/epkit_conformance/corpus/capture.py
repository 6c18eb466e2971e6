"""Level 7: a replay of a run computes what the run would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

import epkit
from epkit.backend import Provider
from epkit.backend.registry import default

from ..case import REFERENCE, Case
from ..evidence import recorded_run
from ..probes import ROWS, Subject, on_each, subjects
from ..result import Result, State
from ..watch import watched
from .concurrency import in_threads

BEFORE = 4
"""Runs after which a replay must have been made."""


def replays(subject: Subject) -> None:
    """After a few runs of one shape, the record shows replays, and the results stay right."""
    with subject.load(capture=True) as session:
        shown = [_run(subject, session, seed=seed) for seed in range(BEFORE + 4)]
    assert any(shown[BEFORE:]), f"{subject.probe.label}: captured, and the record shows no replay: {shown}"


def replays_new_values(subject: Subject) -> None:
    """A replay reads the inputs of its own run."""
    with subject.load(capture=True) as session, subject.load() as plain:
        for seed in range(BEFORE + 6):
            feeds = subject.probe.feeds(seed=seed)
            got, want = session.run(None, feeds), plain.run(None, feeds)
            for name, array in got.items():
                assert array.tobytes() == want[name].tobytes(), (
                    f"{subject.probe.label}: run {seed + 1} with capture gives other bytes than without, in {name}"
                )


def follows_other_shapes(subject: Subject) -> None:
    """Other shapes are run as they are, and have replays of their own; the first shape's is still right."""
    with subject.load(capture=True) as session:
        for rows in (3, 8, 1, 3, 0, 8):
            for seed in range(BEFORE):
                _run(subject, session, rows, seed)


def gives_replayed_outputs_away(subject: Subject) -> None:
    """The outputs of a replay are not the memory of the next."""
    with subject.load(capture=True) as session:
        kept = []
        for seed in range(BEFORE + 4):
            outputs = session.run(None, subject.probe.feeds(seed=seed))
            kept.append((outputs, {name: array.copy() for name, array in outputs.items()}))
    for outputs, copies in kept:
        for name, array in outputs.items():
            assert np.array_equal(array, copies[name], equal_nan=array.dtype.kind == "f"), (
                f"{subject.probe.label}: a later replay changed output {name} of an earlier one"
            )


def replays_in_threads(subject: Subject) -> None:
    """Several threads replay at once."""
    with subject.load(capture=True) as session:
        for seed in range(BEFORE):
            _run(subject, session, seed=seed)
        in_threads(lambda index: [_run(subject, session, seed=10 * index + turn) for turn in range(8)])


def gives_back_replays(subject: Subject) -> None:
    """Replays are closed with their session."""
    watch = watched(subject.provider)
    with subject.load(capture=True, registry=watch.registry) as session:
        for seed in range(BEFORE + 2):
            _run(subject, session, seed=seed)
    left = watch.calls("allocate") - watch.calls("free")
    assert left == 0, f"{subject.probe.label}: {left} buffers were not freed with the session"
    assert not session.warnings, "; ".join(session.warnings)


def _run(subject: Subject, session: epkit.Session, rows: int = ROWS, seed: int = 0) -> bool:
    """One checked run; True if the record shows that it was a replay."""
    feeds = subject.probe.feeds(rows, seed)
    outputs, profile = recorded_run(session, feeds)
    subject.check(outputs, feeds, f"in a session with capture ({rows} rows, seed {seed})")
    return any(event.details.get("replay") for event in profile.recorder.events)


CHECKS: tuple[Callable[[Subject], Any], ...] = (
    replays,
    replays_new_values,
    gives_replayed_outputs_away,
    replays_in_threads,
    gives_back_replays,
)


def cases() -> Iterator[Case]:
    """One case a rule; none applies where no program can be captured."""
    for check in CHECKS:
        yield Case(
            f"capture/{check.__name__}",
            7,
            "capture",
            partial(_on_captured, check=check),
            oracle=REFERENCE,
        )
    yield Case(
        "capture/follows_other_shapes",
        7,
        "capture",
        lambda provider: _on_captured(provider, follows_other_shapes, dynamic=True),
        oracle=REFERENCE,
    )


def _on_captured(provider: str, check: Callable[[Subject], Any], *, dynamic: bool = False) -> Result:
    captured = _captured(provider, default.provider_type(provider))
    if not captured and subjects(provider)[0]:
        return Result(State.UNSUPPORTED, "no program of the provider can be captured")
    return on_each(
        provider,
        check,
        only=lambda subject: subject.probe.label in captured and (subject.dynamic or not dynamic),
    )


@cache
def _captured(provider: str, provider_type: type[Provider]) -> frozenset[str]:
    """The probes of which a replay is made; the class is a key too, because a name may be registered anew."""
    return frozenset(subject.probe.label for subject in subjects(provider)[0] if _can_be_captured(subject))


def _can_be_captured(subject: Subject) -> bool:
    with subject.load(capture=True) as session:
        return any(_run_unchecked(session, subject, seed) for seed in range(BEFORE + 1))


def _run_unchecked(session: epkit.Session, subject: Subject, seed: int) -> bool:
    _, profile = recorded_run(session, subject.probe.feeds(seed=seed))
    return any(event.details.get("replay") for event in profile.recorder.events)
