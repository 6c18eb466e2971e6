"""A case on the CPU provider, held against its oracle."""

from __future__ import annotations

import onnx
from onnx.defs import OpSchema

import epkit

from .case import Case, Outputs
from .compare import assert_like
from .model import build, feeds
from .oracle import Verdict, peers, reference, verdict
from .retype import Typed, is_narrow, outputs_in


def run(case: Case, model: onnx.ModelProto) -> Outputs:
    """The outputs in the order of the node's; what was left out is left out."""
    with epkit.load(model, ["cpu"], optimise="none") as session:
        results = session.run(None, feeds(case))
        return [results[info.name] for info in session.outputs]


def check(case: Case, schema: OpSchema) -> str:
    """Run a case and compare; returns the oracle that was asked, or "" if nobody knows the result."""
    found = run(case, build(case, schema))
    if case.judge is not None:
        case.judge(found)
        return "distribution"
    return _compare(found, verdict(case, schema), case.rtol)


def check_typed(typed: Typed, schema: OpSchema) -> str:
    """The same for a case in another element type; wider numbers stand in where no peer knows these."""
    case, narrow = typed.case, is_narrow(typed.element)
    found = run(case, build(case, schema))
    expected = None if narrow and case.expect else peers(case, schema)
    for wider in typed.wider:
        if expected is None and (known := peers(wider, schema)):
            results = outputs_in(typed.element, typed.variable, schema, known.outputs)
            expected = Verdict(f"{known.oracle}, wider type", results)
    return _compare(found, expected or reference(case, schema), max(case.rtol, 1e-4))


def _compare(found: Outputs, expected: Verdict | None, rtol: float) -> str:
    if expected is None:
        return ""
    try:
        assert_like(found, expected.outputs, rtol)
    except AssertionError as error:
        raise AssertionError(f"differs from {expected.oracle}: {error}") from None
    return expected.oracle
