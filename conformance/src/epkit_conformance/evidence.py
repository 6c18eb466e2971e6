"""Deciding what became of a model from what the runtime saw happen.

A model passes only if its outputs are right *and* the dispatch record shows that every node of it ran on the
provider under test. Right outputs that some other provider had a hand in are another state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

import epkit

from .compare import difference
from .observer import EXPECTED, OBSERVER, HiddenWork
from .result import Result, State


@dataclass(frozen=True)
class Expectation:
    """How outputs are compared. ``random``: dtype and shape only, as the standard leaves the values to chance."""

    rtol: float = 1e-3
    atol: float = 1e-7
    random: bool = False


def run_model(
    model: onnx.ModelProto,
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]],
    provider: str,
    expectation: Expectation | None = None,
    **options: Any,
) -> Result:
    """Run a model on a provider, with the default fallback for what it refuses.

    Args:
        model: the model.
        data: pairs of inputs and expected outputs, in the order of the graph's.
        provider: the provider under test.
        expectation: how to compare.
        options: for :func:`epkit.load`.

    Raises:
        AssertionError: if an output is wrong, or the record shows less than the placement promised.
    """
    with epkit.load(model, [provider], **{"optimise": "none", **options}) as session:
        if provider not in session.placement.counts():
            return Result(State.REFUSED, reasons(session, provider))
        elsewhere: dict[str, str] = {}
        measures: dict[str, Any] = {}
        for inputs, expected in data:
            names = [info.name for info in session.inputs]
            feeds = dict(zip(names, map(as_value, inputs), strict=False))
            outputs, profile = recorded_run(session, feeds)
            elsewhere.update(ran_elsewhere(profile, provider))
            compare_outputs(session, outputs, expected, expectation or Expectation())
            measures = measured(session, feeds, profile)
    state, detail = State.PASSED, ""
    if elsewhere:
        state = State.FALLBACK
        detail = "ran elsewhere: " + ", ".join(f"{node} on {who}" for node, who in sorted(elsewhere.items()))
    return Result(state, detail, **measures)


def measured(session: epkit.Session, feeds: dict[str, Any], profile: epkit.Profile) -> dict[str, Any]:
    """What a result tells besides its state: the latency of one warm run, copies, peak memory."""
    start = time.perf_counter()
    session.run(None, feeds)
    return {
        "latency": time.perf_counter() - start,
        "copied_bytes": copied_bytes(profile),
        "peak_bytes": sum(arena.peak for arena in session.memory.arenas),
    }


def recorded_run(session: epkit.Session, feeds: dict[str, Any]) -> tuple[dict[str, Any], epkit.Profile]:
    """Run with a dispatch record.

    Raises:
        HiddenWork: if a program ran a session of its own, so that the record does not say who worked.
    """
    profile = epkit.Profile()
    with OBSERVER.listening() as heard:
        outputs = session.run(None, feeds, epkit.RunOptions(tag=EXPECTED, profile=profile))
    others = [model for kind, model in heard if kind == "run"]
    if others:
        raise HiddenWork(f"the work was done by a session of the provider's own: {others[0]}")
    return outputs, profile


def ran_elsewhere(profile: epkit.Profile, provider: str) -> dict[str, str]:
    """The nodes that other providers ran.

    Raises:
        AssertionError: if the provider under test ran nothing.
    """
    ran = profile.dispatched()
    if provider not in ran.values():
        raise AssertionError(f"{provider} was given nodes, and the dispatch record shows none that it ran")
    return {node: who for node, who in ran.items() if who != provider}


def compare_outputs(
    session: epkit.Session, outputs: dict[str, Any], expected: Sequence[Any], expectation: Expectation
) -> None:
    """Raise AssertionError for the first output that is not as expected."""
    for info, want in zip(session.outputs, expected, strict=True):
        problem = difference(
            outputs[info.name],
            as_value(want),
            expectation.rtol,
            expectation.atol,
            values=not expectation.random,
        )
        if problem:
            raise AssertionError(f"output {info.name} {problem}")


def reasons(session: epkit.Session, provider: str) -> str:
    """The provider's own reasons for what it refused, each once."""
    found = {
        reason.reason
        for node in session.placement.nodes
        for reason in node.refused
        if reason.provider == provider
    }
    return "; ".join(sorted(found)) or "the model has no node that a provider could run"


def copied_bytes(profile: epkit.Profile) -> int:
    """Bytes of all transfers in a record."""
    total = 0
    for event in profile.recorder.events:
        nbytes = event.details.get("nbytes", 0)
        if event.category == "transfer" and isinstance(nbytes, int):
            total += nbytes
    return total


def as_value(value: Any) -> Any:
    """Protobuf tensors, sequences and optionals as arrays, lists and None."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return onnx.numpy_helper.to_optional(value)
    if isinstance(value, np.generic):
        return np.asarray(value)
    return value
