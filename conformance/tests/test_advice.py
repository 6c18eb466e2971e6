"""What the suite tells a vendor to write: code that compiles, of members that exist."""

from __future__ import annotations

import ast

import onnx.defs
import pytest

import epkit.backend as ep
from epkit_conformance.advice import BY_CASE, Advice, advise, next_operator, next_step, skeleton
from epkit_conformance.catalogue import all_cases
from epkit_conformance.certification import certify
from epkit_conformance.levels import LEVELS
from epkit_conformance.operator_sets import SETS
from epkit_conformance.record import Candidate, Report, entry_of
from epkit_conformance.result import Result, State

CONTRACT = (ep.Provider, ep.KernelProvider, ep.Program, ep.Allocator, ep.Stream)
EXAMPLES = {advice.write: advice.example for _, advice in BY_CASE} | {
    f"level {level.number}": level.example for level in LEVELS
}


def methods(example: str) -> set[str]:
    """The methods that an example defines."""
    return {
        node.name
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg == "self"
    }


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_define_members_of_the_contract(example: str) -> None:
    found = methods(example) - {"__init__"}
    assert all(any(hasattr(kind, name) for kind in CONTRACT) for name in found), found


def test_every_kind_of_error_has_advice() -> None:
    kinds = {case.group: advise(entry_of(case, Result(State.FAILED))) for case in all_cases()}
    members = {group: advice.write for group, advice in kinds.items()}
    cell = next(case for case in all_cases() if case.name == "generated/Clip/13/float16")
    advice = advise(entry_of(cell, Result(State.FAILED)))
    assert advice.write == '@kernel("Clip")' and 'types={"T": {"float16"}}' in advice.example
    assert members["device"] == "Provider.allocator()"
    assert members["streams"] == "Provider.stream()"
    assert members["artifacts"].startswith("Provider.save()")
    assert members["capture"] in ("Program.capture()", "Program.close() and Provider.close()")
    assert members["generated"].startswith("@kernel(")


@pytest.mark.parametrize("name", sorted({name for one in SETS for name in one.operators}))
def test_a_skeleton_is_a_kernel_of_its_operator(name: str) -> None:
    text = skeleton(name, ("float32",))
    scope: dict[str, object] = {"ep": ep}
    exec(text, scope)
    (kernel,) = [value for value in scope.values() if isinstance(value, ep.Kernel)]
    schema = onnx.defs.get_schema(name)
    assert (kernel.op_type, kernel.since) == (name, schema.since_version)
    assert kernel.attributes == frozenset(schema.attributes)


def report(*states: tuple[str, State]) -> Report:
    """A run of named cases; all others of levels 0 to 2 are left out."""
    given = dict(states)
    return Report(
        Candidate("acme"), tuple(entry_of(c, Result(given[c.name])) for c in all_cases() if c.name in given)
    )


def test_the_next_operator_is_the_one_that_the_nearest_set_lacks() -> None:
    cells = {
        case.operator: case for case in all_cases() if case.dtype == "float32" and case.group == "generated"
    }
    dense = ["Add", "Gemm", "MatMul", "Relu", "Softmax"]
    made = report(*((cells[name].name, State.PASSED if name != "Gemm" else State.REFUSED) for name in dense))
    advice = next_operator(made.entries)
    assert advice is not None and advice.write == '@kernel("Gemm")'
    assert "def gemm(A, B, C=None, *, alpha=1.0" in advice.example


def test_errors_come_before_everything_else() -> None:
    made = report(("describe/is_ready", State.PASSED), ("first/one_kernel_runs", State.CRASHED))
    advice = next_step(made, certify(made.entries))
    assert isinstance(advice, Advice) and advice.write == LEVELS[1].write
    fine = report(("describe/is_ready", State.PASSED))
    assert next_step(fine, certify(fine.entries)) is None
