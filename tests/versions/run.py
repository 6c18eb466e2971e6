"""A case on the CPU provider, held against its oracle."""

from __future__ import annotations

import onnx
from onnx.defs import OpSchema

import epkit

from .case import Case, Outputs
from .compare import assert_like
from .model import build, build_twin, feeds
from .oracle import verdict


def run(case: Case, model: onnx.ModelProto) -> Outputs:
    """The outputs in the order of the node's; what was left out is left out."""
    with epkit.load(model, ["cpu"], optimise="none") as session:
        results = session.run(None, feeds(case))
        return [results[info.name] for info in session.outputs]


def check(case: Case, schema: OpSchema) -> str:
    """Run a case and compare; returns the oracle that was asked, or "" if nobody knows the result."""
    model = build(case, schema)
    found = run(case, model)
    if case.judge is not None:
        case.judge(found)
        return "distribution"
    expected = verdict(case, model, build_twin(case, schema))
    if expected is None:
        return ""
    try:
        assert_like(found, expected.outputs, case.rtol)
    except AssertionError as error:
        raise AssertionError(f"differs from {expected.oracle}: {error}") from None
    return expected.oracle
