"""Level 2: every operator of the recipes, in every version and for every element type that its schema names.

The corpus is the same everywhere: each case seeds its own generator with its name. Errors are measured in ULP
against results in a wider type, and compared with the operator's budget.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.defs
from onnx import helper, numpy_helper

import epkit
from epkit.dtypes import BY_SPELLING, CODE, FLOATS, INTS, name_of

from ..budgets import budget_for, ulp_error
from ..case import CLOSED_FORM, Case
from ..compare import difference
from ..evidence import measured, ran_elsewhere, reasons, recorded_run
from ..recipes import RECIPES, Maybe, Trial
from ..result import Result, State
from ..witnesses import witness_of

MEASURED = FLOATS | {np.dtype(np.longdouble).name}
"""Types of exact results that are compared in ULP; all others must be met bit by bit."""

MAIN = {"Where": 1, "Scan": 1}
"""Which input tells the element type of a case, where it is not the first."""

OPEN = {
    "Col2Im": {"bool", "string", "complex64", "complex128"},  # they have no sum
    **dict.fromkeys(("CenterCropPad", "NonZero", "Trilu"), {"string"}),  # they have no zero
    "Unique": {"complex64", "complex128"},  # they have no order
    **dict.fromkeys(("Erf", "ReduceLogSumExp"), INTS),  # rounded, and nothing says how
}
"""Element types that a schema names, and the operator's text gives no meaning."""


def cases() -> Iterator[Case]:
    """One case for each (operator, since_version, dtype)."""
    for schema in sorted(standard(), key=lambda s: (s.name, s.since_version)):
        for dtype in types_of(schema) if schema.name in RECIPES else []:
            place = (schema.name, schema.since_version, dtype)
            oracle = "; ".join(filter(None, (CLOSED_FORM, witness_of(*place))))
            name = f"generated/{'/'.join(map(str, place))}"
            yield Case(name, 2, "generated", _runner(*place), *place, oracle=oracle)


def standard() -> Iterator[onnx.defs.OpSchema]:
    """Every version of every operator of the standard that is not deprecated."""
    for schema in onnx.defs.get_all_schemas_with_history():
        own = schema.file != "unknown"  # else a package of operators registered it
        if own and not schema.domain and not schema.deprecated:
            yield schema


def types_of(schema: onnx.defs.OpSchema) -> list[str]:
    """The element types of the schema's main type variable, be it for tensors, sequences or optionals."""
    formals = schema.inputs or schema.outputs
    formal = formals[min(MAIN.get(schema.name, 0), len(formals) - 1)].type_str
    spelt = [formal]
    for constraint in schema.type_constraints:
        if constraint.type_param_str == formal:
            spelt = list(constraint.allowed_type_strs)
    inner = {match.group(1) for text in spelt if (match := re.search(r"tensor\((\w+)\)", text))}
    known = {BY_SPELLING[text] for text in inner if text in BY_SPELLING}
    return sorted(known - OPEN.get(schema.name, set()))


def trial_of(op: str, version: int, dtype: str) -> Trial:
    """The case's data, the same in every process."""
    rng = np.random.default_rng(zlib.crc32(f"{op} {version} {dtype}".encode()))
    return RECIPES[op](op, version, dtype, rng)


def model_of(op: str, version: int, trial: Trial) -> onnx.ModelProto:
    """The trial as a model of one node."""
    given = {f"x{index}": value for index, value in enumerate(trial.inputs) if value is not None}
    constant = {f"x{index}" for index in trial.fixed} & given.keys()
    names = [f"x{index}" if value is not None else "" for index, value in enumerate(trial.inputs)]
    outputs = [f"y{index}" for index in range(len(trial.want))]
    node = helper.make_node(op, names, outputs, "node", **trial.attributes)
    opset = helper.make_opsetid("", version)
    old = version < 9  # constants were graph inputs too
    shown = {name: value for name, value in given.items() if old or name not in constant}
    graph = helper.make_graph(
        [node],
        "generated",
        [helper.make_value_info(n, type_of(x)) for n, x in {**shown, **trial.outer}.items()],
        [_output(name, want) for name, want in zip(outputs, trial.want, strict=True)],
        [numpy_helper.from_array(given[name], name) for name in given if name in constant],
    )
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=3 if old else max(7, helper.find_min_ir_version_for([opset]))
    )


def feeds_of(model: onnx.ModelProto, trial: Trial) -> dict[str, Any]:
    """The trial's inputs by name; constants are fed only where the model has them as inputs too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = {item.name for item in model.graph.input} - constants
    given = {f"x{index}": value for index, value in enumerate(trial.inputs)} | dict(trial.outer)
    return {
        name: value.value if isinstance(value, Maybe) else value
        for name, value in given.items()
        if name in names
    }


def type_of(value: Any) -> onnx.TypeProto:
    """The type of an input: an optional, a sequence, or a tensor of its shape."""
    if isinstance(value, Maybe):
        return helper.make_optional_type_proto(type_of(value.value))
    if isinstance(value, list):
        return helper.make_sequence_type_proto(
            helper.make_tensor_type_proto(CODE[name_of(value[0].dtype)], None)
        )
    return helper.make_tensor_type_proto(CODE[name_of(value.dtype)], value.shape)


def _output(name: str, want: Any) -> onnx.ValueInfoProto:
    """An output whose type is left to inference, but for its kind."""
    if isinstance(want, np.ndarray):
        return helper.make_empty_tensor_value_info(name)
    return onnx.ValueInfoProto(name=name)


def _runner(op: str, version: int, dtype: str) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        trial = trial_of(op, version, dtype)
        return run_trial(model_of(op, version, trial), trial, op, dtype, provider)

    return run


def run_trial(model: onnx.ModelProto, trial: Trial, op: str, dtype: str, provider: str) -> Result:
    """Run one node and measure its error.

    Raises:
        AssertionError: if it is over the budget.
    """
    with epkit.load(model, [provider], optimise="none") as session:
        if provider not in session.placement.counts():
            return Result(State.REFUSED, reasons(session, provider))
        feeds = feeds_of(model, trial)
        outputs, profile = recorded_run(session, feeds)
        elsewhere = ran_elsewhere(profile, provider)
        worst = 0.0
        allowed = budget_for(op, trial.result or dtype).allowed(trial.terms)
        for index, (name, got) in enumerate(outputs.items()):
            worst = max(worst, error_of(name, got, index, trial, dtype, allowed))
        measures = measured(session, feeds, profile)
    state = State.FALLBACK if elsewhere else State.PASSED
    detail = f"ran elsewhere: {', '.join(elsewhere)}" if elsewhere else ""
    return Result(state, detail, error=worst, budget=allowed, **measures)


def error_of(name: str, got: Any, index: int, trial: Trial, dtype: str, allowed: float) -> float:
    """The largest error of an output in ULP; AssertionError if it is over what is allowed."""
    want = trial.want[index]
    if not isinstance(want, np.ndarray) or want.dtype.name not in MEASURED:
        problem = difference(got, want, 0, 0)
        assert not problem, f"output {name} {problem}"
        return 0.0
    assert got.shape == want.shape, f"output {name} has shape {got.shape}, must have {want.shape}"
    due = next(kind for kind in (trial.result, dtype, "float32") if "float" in kind)
    assert got.dtype.name == due, f"output {name} has dtype {got.dtype}, must have {due}"
    rights = (want, *(other for other in trial.also if other.shape == want.shape))
    scale = trial.scale[index] if isinstance(trial.scale, tuple) else trial.scale
    errors = np.min([ulp_error(got, right, scale) for right in rights], axis=0)
    if not errors.size:
        return 0.0
    if trial.signs:
        wrong = (want == 0) & (np.signbit(got.astype(want.dtype)) != np.signbit(want))
        assert not wrong.any(), f"output {name} has the wrong sign of zero: {got!r}, must be {want!r}"
    at = np.unravel_index(int(np.argmax(errors)), errors.shape)
    worst = float(errors[at])
    assert worst <= allowed, (
        f"output {name} is {worst:.3g} ULP off at {list(map(int, at))}, {allowed:.3g} are allowed: "
        f"{got[at]!r}, must be {want[at]!r}"
    )
    return worst
