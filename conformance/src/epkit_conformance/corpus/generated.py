"""Level 2: every operator of the recipes, in every version and for every element type that its schema names.

The corpus is the same everywhere: each case seeds its own generator with its name. Errors are measured in ULP
against results in a wider type, and compared with the operator's budget.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.defs
from onnx import helper, numpy_helper

import epkit
from epkit.dtypes import BY_SPELLING, CODE, NUMBERS, name_of

from ..budgets import budget_for, ulp_error
from ..case import Case
from ..compare import difference
from ..evidence import measured, ran_elsewhere, reasons, recorded_run
from ..recipes import Trial
from ..recipes_all import RECIPES
from ..result import Result, State

TYPES = NUMBERS | {"bool"}


def cases() -> Iterator[Case]:
    """One case for each (operator, since_version, dtype)."""
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda s: (s.name, s.since_version)):
        own = schema.file != "unknown"  # else a package of operators registered it
        if schema.domain or schema.deprecated or schema.name not in RECIPES or not own:
            continue
        for dtype in types_of(schema):
            place = (schema.name, schema.since_version, dtype)
            yield Case(f"generated/{'/'.join(map(str, place))}", 2, "generated", _runner(*place), *place)


def types_of(schema: onnx.defs.OpSchema) -> list[str]:
    """The numeric types of the schema's main type variable."""
    formal = schema.inputs[1 if schema.name == "Where" else 0].type_str
    for constraint in schema.type_constraints:
        if constraint.type_param_str == formal:
            spelt = [text.removeprefix("tensor(").removesuffix(")") for text in constraint.allowed_type_strs]
            return sorted({BY_SPELLING[text] for text in spelt if text in BY_SPELLING} & TYPES)
    name = BY_SPELLING.get(formal.removeprefix("tensor(").removesuffix(")"), "")
    return [name] if name in TYPES else []


def trial_of(op: str, version: int, dtype: str) -> Trial:
    """The case's data, the same in every process."""
    rng = np.random.default_rng(zlib.crc32(f"{op} {version} {dtype}".encode()))
    return RECIPES[op](op, version, dtype, rng)


def model_of(op: str, version: int, trial: Trial) -> onnx.ModelProto:
    """The trial as a model of one node."""
    given = {f"x{index}": array for index, array in enumerate(trial.inputs)}
    outputs = [f"y{index}" for index in range(len(trial.want))]
    node = helper.make_node(op, list(given), outputs, "node", **trial.attributes)
    opset = helper.make_opsetid("", version)
    old = version < 9  # constants were graph inputs too
    graph = helper.make_graph(
        [node],
        "generated",
        [_info(n, x) for i, (n, x) in enumerate(given.items()) if old or i not in trial.fixed],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(x, n) for i, (n, x) in enumerate(given.items()) if i in trial.fixed],
    )
    return helper.make_model(
        graph, opset_imports=[opset], ir_version=3 if old else max(7, helper.find_min_ir_version_for([opset]))
    )


def _info(name: str, array: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, CODE[name_of(array.dtype)], array.shape)


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
        names = {info.name for info in session.inputs}
        feeds = {f"x{i}": x for i, x in enumerate(trial.inputs) if f"x{i}" in names}
        outputs, profile = recorded_run(session, feeds)
        elsewhere = ran_elsewhere(profile, provider)
        worst = 0.0
        allowed = budget_for(op, trial.result or dtype).allowed(trial.terms)
        for (name, got), want in zip(outputs.items(), trial.want, strict=True):
            worst = max(worst, error_of(name, got, want, trial, dtype, allowed))
        measures = measured(session, feeds, profile)
    state = State.FALLBACK if elsewhere else State.PASSED
    detail = f"ran elsewhere: {', '.join(elsewhere)}" if elsewhere else ""
    return Result(state, detail, error=worst, budget=allowed, **measures)


def error_of(name: str, got: Any, want: Any, trial: Trial, dtype: str, allowed: float) -> float:
    """The largest error of an output in ULP; AssertionError if it is over what is allowed."""
    if want.dtype.kind in "biu":
        problem = difference(got, want, 0, 0)
        assert not problem, f"output {name} {problem}"
        return 0.0
    assert got.shape == want.shape, f"output {name} has shape {got.shape}, must have {want.shape}"
    due = next(kind for kind in (trial.result, dtype, "float32") if "float" in kind)
    assert got.dtype.name == due, f"output {name} has dtype {got.dtype}, must have {due}"
    rights = (want, *(other for other in trial.also if other.shape == want.shape))
    errors = np.min([ulp_error(got, right, trial.scale) for right in rights], axis=0)
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
