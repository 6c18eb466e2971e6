"""Running one case, and deciding its state from what the runtime saw happen.

A case passes only if its outputs are right *and* the dispatch record shows that every node of it ran on the
provider under test. Right outputs that some other provider had a hand in are another state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx

import epkit

from .compare import difference


class State(Enum):
    """What became of a case."""

    PASSED = "passed"
    FALLBACK = "passed on fallback"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Case:
    """A model, inputs in the order of the graph's, the outputs that it must give, and the tolerance."""

    name: str
    model: onnx.ModelProto
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float = 1e-3
    atol: float = 1e-7
    random: bool = False


@dataclass(frozen=True)
class Result:
    """A case's state and what led to it."""

    state: State
    detail: str = ""


def run_case(case: Case, provider: str) -> Result:
    """Run a case on a provider, with the default fallback for what it refuses."""
    try:
        with epkit.load(case.model, [provider], optimise="none") as session:
            placed = session.placement.counts()
            if provider not in placed:
                reasons = {
                    r.reason
                    for node in session.placement.nodes
                    for r in node.refused
                    if r.provider == provider
                }
                return Result(State.REFUSED, "; ".join(sorted(reasons)))
            elsewhere = _run(case, session, provider)
    except epkit.EpkitError as error:
        return Result(State.FAILED, str(error))
    except AssertionError as error:
        return Result(State.FAILED, str(error))
    if elsewhere:
        return Result(
            State.FALLBACK, "ran elsewhere: " + ", ".join(f"{n} on {p}" for n, p in sorted(elsewhere.items()))
        )
    return Result(State.PASSED)


def _run(case: Case, session: epkit.Session, provider: str) -> dict[str, str]:
    """Compare all data sets; returns the nodes that other providers ran."""
    elsewhere: dict[str, str] = {}
    for inputs, expected in case.data:
        profile = epkit.Profile()
        names = [info.name for info in session.inputs]
        feeds = dict(zip(names, map(as_value, inputs), strict=False))
        outputs = session.run(None, feeds, epkit.RunOptions(profile=profile))
        ran = profile.dispatched()
        elsewhere.update({node: who for node, who in ran.items() if who != provider})
        if provider not in ran.values():
            raise AssertionError(
                f"{provider} was given nodes, and the dispatch record shows none that it ran"
            )
        for info, want in zip(session.outputs, expected, strict=True):
            problem = difference(
                outputs[info.name], as_value(want), case.rtol, case.atol, values=not case.random
            )
            if problem:
                raise AssertionError(f"output {info.name}: {problem}")
    return elsewhere


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
