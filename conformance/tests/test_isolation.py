"""Cases run in processes: one that crashes, hangs or is greedy costs itself, and is named."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from epkit_conformance.case import Case
from epkit_conformance.result import Result, State
from epkit_conformance.runner import Limits, run_cases

LIMITS = Limits(seconds=3, memory_bytes=1024**3)


def die(provider: str) -> Result:
    os.abort()


def hang(provider: str) -> Result:
    time.sleep(600)
    return Result(State.PASSED)


def greedy(provider: str) -> Result:
    np.ones(2 * 1024**3, np.uint8)
    return Result(State.PASSED)


def leave(provider: str) -> Result:
    raise SystemExit(7)


def cases() -> list[Case]:
    """Their functions are lambdas, as those of the catalogue: they cannot be pickled."""
    bodies = {
        "die": die,
        "fine1": None,
        "hang": hang,
        "greedy": greedy,
        "fine2": None,
        "leave": leave,
        "fine3": None,
    }
    return [
        Case(name, 0, "test", lambda provider, body=body: body(provider) if body else Result(State.PASSED))
        for name, body in bodies.items()
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_costs_one_case_and_is_named_with_the_place(method: str) -> None:
    begun: list[str] = []
    found = run_cases(
        cases(),
        "null",
        jobs=2,
        limits=LIMITS,
        started=lambda case: begun.append(case.name),
        method=method,
        rebuild=cases,
    )
    assert {name: result.state for name, result in found.items()} == {
        "die": State.CRASHED,
        "fine1": State.PASSED,
        "hang": State.HUNG,
        "greedy": State.CRASHED,
        "fine2": State.PASSED,
        "leave": State.CRASHED,
        "fine3": State.PASSED,
    }
    assert sorted(begun) == sorted(found)
    assert "SIGABRT" in found["die"].detail and "in die" in found["die"].detail
    assert "in hang" in found["hang"].detail
    assert "out of memory" in found["greedy"].detail
    assert "exit code 7" in found["leave"].detail


def test_a_crash_is_placed_although_a_library_took_the_signal() -> None:
    """As LLVM does in an OpenCL driver: the process's fault handler is on, the signal goes elsewhere."""
    before = signal.signal(signal.SIGABRT, signal.SIG_DFL)
    try:
        found = run_cases(cases()[:1], "null", limits=LIMITS, method="fork", rebuild=cases)
    finally:
        signal.signal(signal.SIGABRT, before)
    assert "in die" in found["die"].detail


@pytest.mark.slow  # each worker builds the whole catalogue
def test_spawned_workers_know_the_catalogue() -> None:
    from epkit_conformance.catalogue import all_cases

    some = [case for case in all_cases() if case.name in ("published/relu", "published/add")]
    found = run_cases(some, "null", method="spawn")
    assert {name: result.state for name, result in found.items()} == {
        "published/relu": State.PASSED,
        "published/add": State.REFUSED,
    }
