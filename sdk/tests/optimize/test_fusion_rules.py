"""Every fusion, on random instances of its own formula: it fires, and the values stay what they were.

The judge of the values is onnxruntime, on the model as it was. After the rule, both what a provider that knows the
operator computes, and the parts inlined again, have to agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from attention_cases import CASES as ATTENTION
from drawn_arrays import SIDE, f32, floats
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from network_cases import CASES as NETWORK
from quantised_cases import CASES as QUANTISED
from rule_instances import Draw, Given, Instance, instance

import epkit
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import (
    RULES,
    gelu,
    normalization,
)
from epkit.optimize.lift_constants import lift_constants
from epkit.optimize.optimise import verify
from epkit.optimize.rule import Ledger, apply_rule, make_scopes
from epkit.partition.claims import inline_nodes
from epkit.testing.oracle import assert_same

CASES: dict[str, tuple[Fusion, Callable[[Draw], Given]]] = {
    rule.name: (rule, make) for rule, make in (*ATTENTION, *NETWORK, *QUANTISED)
}


def test_every_fusion_has_a_case() -> None:
    assert {rule.name for rule in RULES if isinstance(rule, Fusion)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_rule_fires_on_its_formula_and_keeps_the_values(name: str, data: st.DataObject) -> None:
    rule, make = CASES[name]
    case = instance(rule, data.draw, make(data.draw))
    wanted = judged(case)
    fused = apply(rule, case.model)
    step = 1 if wanted[0].dtype.kind in "iu" else 0
    agree(run(fused.clone(), case.feeds), wanted, step)
    parts(fused)
    agree(run(fused, case.feeds), wanted, step)


ALONE = {name for name, (rule, _) in CASES.items() if all(len(p.operators) == 1 for p in rule.patterns)}
"""They only give another name: nothing is inside."""


@pytest.mark.parametrize("name", sorted(set(CASES) - ALONE))
@settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_a_value_inside_that_somebody_reads_is_not_swallowed(name: str, data: st.DataObject) -> None:
    """A near miss of every formula: one of its inner values is a result, too. What makes it has to stay."""
    rule, make = CASES[name]
    case = instance(rule, data.draw, make(data.draw))
    results = {output.name for output in case.model.graph.output}
    inner = [value for node in case.model.graph.node for value in node.output if value not in results]
    assume(inner)
    kept = data.draw(st.sampled_from(inner))
    less = onnx.ModelProto()
    less.CopyFrom(case.model)
    case.model.graph.output.append(onnx.helper.make_empty_tensor_value_info(kept))
    maker, is_fused = made_by(rule, case.model, kept)
    if is_fused and not gives_out(rule, maker):  # then what makes it is a smaller instance of the formula
        last = next(at for at, node in enumerate(less.graph.node) if kept in node.output)
        del less.graph.node[last + 1 :], less.graph.output[:]
        less.graph.output.append(onnx.helper.make_empty_tensor_value_info(kept))
        assert made_by(rule, less, kept)[1]


def made_by(rule: Fusion, model: onnx.ModelProto, output: str) -> tuple[ir.Node, bool]:
    """What makes an output once the rule was applied, and whether that is the rule's operator."""
    found = check(read(model), operators=lambda *_: True).model
    lift_constants(found)
    apply_rule(rule, make_scopes(found), Ledger())
    verify(found, rule.name)
    maker = next(value for value in found.graph.outputs if value.name == output).producer()
    assert maker is not None
    return maker, maker.op_identifier() in found.functions


def gives_out(rule: Fusion, maker: ir.Node) -> bool:
    """Whether a value that a rule's operator has as a further output is made by it."""
    return maker.op_identifier()[:2] == rule.target and len(maker.outputs) > 1


@pytest.mark.parametrize("pattern", [0, 1])
@settings(max_examples=10, deadline=None, database=None, phases=[Phase.generate])
@given(data=st.data())
def test_what_does_not_vary_is_normalised_to_exactly_the_bias(pattern: int, data: st.DataObject) -> None:
    """Whatever the formula that was fused would lose to rounding: (x - E x) is 0."""
    rule = normalization.layer_normalization
    rows = data.draw(SIDE)
    scale, bias = floats(data.draw, 1), floats(data.draw, 1)
    constants = {"scale": scale, "bias": bias, "epsilon": f32(1e-5), "axes": np.array([-1])}
    x = {"x": floats(data.draw, rows, 1)}
    case = instance(
        rule,
        data.draw,
        Given(x, constants, {"axes": [-1]}, opset=17, pattern=pattern, without=("GlobalAveragePool",)),
    )
    (found,) = run(apply(rule, case.model), case.feeds)
    has_bias = any(each.name == "bias" for each in case.model.graph.initializer)
    np.testing.assert_array_equal(found, np.broadcast_to(bias if has_bias else f32(0), (rows, 1)))


def judged(case: Instance) -> list[np.ndarray[Any, Any]]:
    """The values by the independent evaluator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), options)
        return list(session.run(None, case.feeds))
    except Exception:  # it has no kernel for some types of some operators
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(case.model).run(None, case.feeds))


def apply(rule: Fusion, model: onnx.ModelProto) -> ir.Model:
    """The model after the rule, which has to fire."""
    found = check(read(model), operators=lambda *_: True).model
    lift_constants(found)
    ledger = Ledger()
    count = apply_rule(rule, make_scopes(found), ledger)
    assert count == 1, [missed.reason for missed in ledger.missed]
    verify(found, rule.name)
    return found


def parts(model: ir.Model) -> None:
    """Inline the fused operators again."""
    while calls := [node for node in model.graph if node.op_identifier() in model.functions]:
        inline_nodes(model, calls)


def run(model: ir.Model, feeds: dict[str, Any]) -> list[Any]:
    with epkit.load(model, optimise="none") as session:
        return list(session.run(None, feeds).values())


def agree(actual: list[Any], wanted: list[Any], step: int) -> None:
    for one, other in zip(actual, wanted, strict=True):
        if step:
            assert one.dtype == other.dtype and one.shape == other.shape
            assert np.abs(one.astype(np.int32) - other.astype(np.int32)).max(initial=0) <= step
        else:
            assert_same(one, other, rtol=1e-5, atol=2e-5)


def test_the_page_quotes_a_rule_as_it_is() -> None:
    root = Path(__file__).resolve().parents[3]
    quoted = re.findall(r"```python\n(.*?)```", (root / "docs/optimiser.md").read_text("utf-8"), re.S)
    assert quoted and all(text in Path(str(gelu.__file__)).read_text("utf-8") for text in quoted)
