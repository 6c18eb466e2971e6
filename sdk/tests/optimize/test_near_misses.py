"""Rules refuse what only looks like their formula, and say why; and keep hands off what others still read."""

from __future__ import annotations

import near_misses_attention
import near_misses_basic
import near_misses_network
import near_misses_quantised
import onnx
import pytest
from near_misses_network import GELU, HALVES
from transformer_samples import Builder

from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import RULES as FUSIONS
from epkit.optimize.levels import LEVELS
from epkit.optimize.optimise import Optimised, optimise
from epkit.testing.models import model


def optimised(text: str | onnx.ModelProto, level: str = "extended", opset: int = 18) -> Optimised:
    proto = model(text, opset=opset) if isinstance(text, str) else text
    return optimise(check(read(proto)).model, level)


def operators(found: Optimised) -> list[str]:
    return [node.op_type for node in found.model.graph]


SUBJECTS = (near_misses_basic, near_misses_attention, near_misses_network, near_misses_quantised)
REFUSED = tuple(each for subject in SUBJECTS for each in subject.REFUSED)
LEFT_ALONE = tuple(each for subject in SUBJECTS for each in subject.LEFT_ALONE)


@pytest.mark.parametrize(("rule", "reason", "text"), REFUSED)
def test_a_near_miss_does_not_fire_and_says_why(rule: str, reason: str, text: str) -> None:
    found = optimised(text, "all", 23 if "Attention" in text else 18)
    assert not [each for each in found.applied if each.rule == rule]
    assert any(reason in each.reason for each in found.missed if each.rule == rule), found.missed


@pytest.mark.parametrize(("rule", "text"), LEFT_ALONE)
def test_what_is_none_of_its_business_stays(rule: str, text: str) -> None:
    found = optimised(text, "all", 20 if "Gelu" in text else 18)
    assert not [each for each in found.applied if each.rule == rule]


def test_every_rule_has_a_near_miss() -> None:
    """Written down here, in test_layout, or a random one: of every formula an inner value that is also a result."""
    written = {str(each.values[0]) for each in (*REFUSED, *LEFT_ALONE)} | {"cancel_blocks"}
    inside = {rule.name for rule in FUSIONS if isinstance(rule, Fusion) and rule.renames is None}
    rules = {rule.name for phase in LEVELS["all"] for rule in phase.rules}
    assert rules == rules & (written | inside), rules - written - inside


@pytest.mark.parametrize("root", [1.5, 1.41])
def test_other_constants_are_another_function(root: float) -> None:
    text = f"g (float[2] x) => (float[2] y) {{ {HALVES} r = Constant <value_float = {root}> () {GELU} y = Mul(h, s) }}"
    assert "Gelu" not in operators(optimised(text))


def test_a_constant_with_more_axes_than_x_would_widen_the_result() -> None:
    text = f"g (float[2] x) => (float[1, 2] y) <float[1, 1] r = {{1.4142135}}> {{ {HALVES} {GELU} y = Mul(h, s) }}"
    assert "Gelu" not in operators(optimised(text))


def test_a_value_needed_before_the_rest_can_be_made_is_not_swallowed() -> None:
    """The sum feeds the residual that the normalisation's scale comes from: one node could not make both."""
    text = """g (float[2, 4] x, float[2, 4] z) => (float[2, 4] y) <int64[1] a = {0}> {
        t = Add(x, z)  n = Neg(t)  g2 = ReduceMax <keepdims = 0> (n, a)  y = LayerNormalization <axis = -1> (t, g2) }"""
    found = optimised(text)
    assert "SkipLayerNormalization" not in operators(found)
    assert any("before" in each.reason for each in found.missed)


def test_an_overridable_initializer_is_no_constant() -> None:
    proto = model("g (float[2] x, float[1] one) => (float[2] y) <float[1] one = {1}> { y = Mul(x, one) }")
    assert operators(optimised(proto)) == ["Mul"]


def test_weights_that_are_not_in_blocks_stay() -> None:
    """Before opset 21 DequantizeLinear has no blocks: the attribute is not there to be remembered."""
    text = """g (float[2, 3] x) => (float[2, 3] y) <int8[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float s = {0.5}, int8 z = {0}> {
        d = DequantizeLinear(w, s, z)  y = MatMul(x, d) }"""
    found = optimised(text, opset=13)
    assert operators(found) == ["DequantizeLinear", "MatMul"]
    assert any("not in blocks" in each.reason for each in found.missed)


def test_a_transposition_without_permutation_reverses_all_axes() -> None:
    matrix = optimised(
        "g (float[2, 3] x, float[4, 3] z) => (float[2, 4] y) { t = Transpose(z)  y = MatMul(x, t) }"
    )
    assert operators(matrix) == ["FusedMatMul"]
    deep = optimised(
        "g (float[3, 2, 3] x, float[4, 3, 3] z) => (float[3, 2, 4] y) { t = Transpose(z)  y = MatMul(x, t) }"
    )
    assert operators(deep) == ["Transpose", "MatMul"]


def test_large_weights_that_others_read_are_not_kept_twice() -> None:
    b = Builder(18)
    x, w = b.input("x", onnx.TensorProto.FLOAT, [1, 600]), b.weight(600, 600)
    scaled = b.op("Mul", b.op("MatMul", x, w), b.constant(2.0))
    found = optimised(
        b.model(scaled, b.op("Gather", w, b.input("row", onnx.TensorProto.INT64, [1]))), "basic"
    )
    assert "Mul" in operators(found)
    assert any("kept twice" in each.reason for each in found.missed)
