"""Rule 9 of the design: fused operators carry their own meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.inliner
import pytest

import epkit
import epkit.backend as ep
from epkit.testing.awkward import awkward, by_chance
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of

SOURCE = Path(epkit.__file__).parent

# ---- rule 9: fused operators carry their own meaning ----

PLAIN = """
    g (float[N, 3] x) => (float[N, 3] y) { [before] a = Abs(x)  [call] b = DOMAIN.Fused <gain = 3.0> (a, x)  [after] y = Neg(b) }
    <domain: "DOMAIN", opset_import: ["": 18]> Fused <gain: float = 2.0> (p, q) => (r) {
        [sum] s = Add(p, q)  [tanh] t = Tanh(s)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }"""
IN_A_LOOP = """
    g (float[N, 3] x) => (float[N, 3] y) <int64 n = {2}, bool yes = {1}> {
        y = Loop(n, yes, x) <body = step (int64 i, bool go, float[N, 3] s) => (bool on, float[N, 3] t) {
            on = Identity(go)  [call] t = DOMAIN.Fused <gain = 2.0> (s, x) }>
    }
    <domain: "DOMAIN", opset_import: ["": 18]> Fused <gain: float = 2.0> (p, q) => (r) {
        [sum] s = Add(p, q)  [tanh] t = Tanh(s)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }"""
NESTED = """
    g (float[N, 3] x) => (float[N, 3] y) { [call] y = DOMAIN.Fused <gain = 3.0> (x, x) }
    <domain: "DOMAIN", opset_import: ["": 18, "DOMAIN": 1]> Fused <gain: float = 2.0> (p, q) => (r) {
        [inner] t = DOMAIN.Inner(p, q)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }
    <domain: "DOMAIN", opset_import: ["": 18]> Inner (p, q) => (r) { [sum] s = Add(p, q)  [tanh] r = Tanh(s) }"""

DOMAINS = ("local", "com.microsoft")
X = np.array([[-1, 0.5, 2]], np.float32)


def fused_model(text: str, domain: str) -> onnx.ModelProto:
    return model(text.replace("DOMAIN", domain), domains={domain: 1})


def knows(name: str, *operators: str, domain: str) -> type[ep.KernelProvider]:
    """A provider with kernels for Fused, Tanh or Add, and for nothing else."""
    kernels = {
        "Fused": ep.kernel("Fused", domain=domain)(
            lambda p, q, *, gain=2.0: np.tanh(p + q) * np.float32(gain)
        ),
        "Inner": ep.kernel("Inner", domain=domain)(lambda p, q: np.tanh(p + q)),
        "Tanh": ep.kernel("Tanh")(np.tanh),
        "Add": ep.kernel("Add")(np.add),
    }

    class Knowing(ep.KernelProvider):
        version = "1.0"

        def devices(self) -> ep.Devices:
            return ep.Devices((ep.Device(f"{name}:0", "toy"),))

    Knowing.name = name
    Knowing.kernels = tuple(kernels[operator] for operator in operators)
    return Knowing


def run_fused(graph: onnx.ModelProto, *providers: type[ep.Provider], level: str = "none") -> dict[str, str]:
    """Check the values; give who ran each operator."""
    names = [provider.name for provider in providers]
    with epkit.load(graph, names, registry=registry_of(*providers), optimise=level) as session:
        assert_same(session(x=X), expected(onnx.inliner.inline_local_functions(graph), {"x": X}))
        return {node.operator: node.provider for node in session.placement.nodes}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_who_knows_the_operator_takes_it_whole(text: str, domain: str) -> None:
    found = run_fused(fused_model(text, domain), knows("toy", "Fused", domain=domain))
    assert found[f"{domain}.Fused"] == "toy"
    assert "Tanh" not in found


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_for_any_other_the_body_is_inlined(text: str, domain: str, level: str) -> None:
    found = run_fused(fused_model(text, domain), level=level)
    assert found["Tanh"] == found["Mul"] == "cpu"
    assert not any(operator.endswith((".Fused", ".Inner")) for operator in found)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_who_knows_only_an_inner_operator_gets_that(text: str, domain: str) -> None:
    found = run_fused(fused_model(text, domain), knows("toy", "Tanh", domain=domain))
    assert (found["Tanh"], found["Add"], found["Mul"]) == ("toy", "cpu", "cpu")


@pytest.mark.parametrize("known", [(), ("Tanh",), ("Fused",)])
def test_rule_9_defaults_of_a_function_hold_either_way(known: tuple[str, ...]) -> None:
    graph = fused_model(PLAIN.replace("<gain = 3.0>", ""), "local")
    with epkit.load(graph, ["toy"], registry=registry_of(knows("toy", *known, domain="local"))) as session:
        assert_same(session(x=X)["y"], -2 * np.tanh(np.abs(X) + X))


@pytest.mark.parametrize("domain", DOMAINS)
def test_rule_9_a_preferred_part_goes_before_a_later_whole(domain: str) -> None:
    graph = fused_model(PLAIN, domain)
    part, whole = knows("part", "Tanh", domain=domain), knows("whole", "Fused", "Add", domain=domain)
    found = run_fused(graph, part, whole)
    assert (found["Tanh"], found["Add"], found["Mul"]) == ("part", "whole", "cpu")
    assert run_fused(graph, whole, part)[f"{domain}.Fused"] == "whole"
    nothing = knows("nothing", domain=domain)
    assert run_fused(graph, nothing, whole)[f"{domain}.Fused"] == "whole"


@pytest.mark.parametrize("domain", DOMAINS)
def test_rule_9_of_a_function_in_a_function_either_may_be_known(domain: str) -> None:
    found = run_fused(fused_model(NESTED, domain), knows("toy", "Inner", domain=domain))
    assert (found[f"{domain}.Inner"], found["Mul"]) == ("toy", "cpu")


def test_rule_9_operators_that_the_standard_defines_by_others_are_inlined_too() -> None:
    class OnlyParts(awkward("parts", by_chance(0, 1.0))):  # type: ignore[misc]
        def claim(self, view: ep.Subgraph) -> Iterator[ep.Claim | ep.Refusal]:
            whole = {"MeanVarianceNormalization"}
            for node in view.nodes:
                if node.op_type in whole:
                    yield ep.Refusal(node, "no-kernel", "not as a whole")
                else:
                    yield ep.Claim((node,))

    graph = model("g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) { y = MeanVarianceNormalization(x) }")
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)}
    registry = registry_of(OnlyParts)
    with epkit.load(graph, ["parts"], fallback="error", registry=registry, optimise="none") as session:
        assert_same(session.run(None, feeds), expected(graph, feeds))
        assert set(session.placement.counts()) == {"parts"}
        assert len(session.placement.nodes) > 3
