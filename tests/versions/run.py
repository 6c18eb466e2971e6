"""A case on the CPU provider, held against its oracle."""

from __future__ import annotations

import onnx
from onnx.defs import OpSchema

import epkit

from .case import Case, Outputs
from .compare import assert_like
from .model import build, feeds
from .oracle import Verdict, peers, reference, verdict
from .retype import Typed, from_parts, in_parts, is_narrow, kind, outputs_in


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


IN_PARTS = {"CenterCropPad", "Gather", "Resize", "Upsample"}
"""Operators that treat parts of numbers, or numbers for text, alike; the oracles are wrong about those."""


def check_typed(typed: Typed, schema: OpSchema, loosely: bool = False) -> str:
    """The same for a case in another element type; wider numbers stand in where no peer knows these.

    ``loosely``: the values may differ.
    """
    case = typed.case
    found = run(case, build(case, schema))
    if case.judge is not None:
        case.judge(found)
        return "distribution"
    expected = _typed_verdict(typed, schema, found)
    if loosely and expected is not None:
        assert [(x.dtype, x.shape) for x in found] == [(x.dtype, x.shape) for x in expected.outputs]
        return expected.oracle
    return _compare(found, expected, case.rtol)


def _typed_verdict(typed: Typed, schema: OpSchema, found: Outputs) -> Verdict | None:
    if schema.name in IN_PARTS and kind(typed.element) in ("complex", "string"):
        known = [peers(part, schema) for part in in_parts(typed)]
        if all(known):
            return Verdict("onnxruntime, in parts", from_parts(typed, [one.outputs for one in known if one]))
    rounds = (
        is_narrow(typed.element) and typed.case.expect and typed.wider
    )  # a closed form in it rounds too often
    direct = None if rounds else peers(typed.case, schema)
    if direct is not None:
        return direct
    for wider in typed.wider:
        if one := peers(wider, schema):
            return Verdict(f"{one.oracle}, wider type", outputs_in(typed.element, schema, one.outputs, found))
    return reference(typed.case, schema) or peers(typed.case, schema)


def _compare(found: Outputs, expected: Verdict | None, rtol: float) -> str:
    if expected is None:
        return ""
    try:
        assert_like(found, expected.outputs, rtol)
    except AssertionError as error:
        raise AssertionError(f"differs from {expected.oracle}: {error}") from None
    return expected.oracle
