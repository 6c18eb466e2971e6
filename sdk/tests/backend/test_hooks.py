"""What packages add besides providers: operators, rewrites, observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.defs
import onnx_ir as ir
import pytest

import epkit
from epkit.backend import CustomOperator, Kernel, kernel
from epkit.errors import InvalidModelError, OptionError, UnknownOperatorError
from epkit.testing.awkward import awkward, everything
from epkit.testing.broken import Sound
from epkit.testing.models import model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import plugin_of, registry_of

X = np.array([-1, 2], np.float32)
SCALE = model(
    "g (float[N] x) => (float[N] y) { a = toys.Scale <by = 3.0> (x)  y = Neg(a) }", domains={"toys": 1}
)


def scale(xp: Any, x: Any, *, by: float = 2.0) -> Any:
    return x * xp.asarray(by, dtype=x.dtype)


OPERATOR = CustomOperator("toys", "Scale", scale)
PACKAGE = {"scale": lambda: plugin_of(epkit_operators=lambda: [OPERATOR])}


# ---- operators ----


def test_an_operator_of_a_package() -> None:
    with epkit.load(SCALE, registry=registry_of(extensions=PACKAGE)) as session:
        assert_same(session(x=X)["y"], -3 * X)
        assert session.placement.nodes[0].operator == "toys.Scale"


@pytest.mark.parametrize("level", ["none", "all"])
def test_an_operator_of_the_application(level: str) -> None:
    own = epkit.operator("toys", "Scale")(scale)
    with epkit.load(SCALE, operators=[own], optimise=level) as session:
        assert_same(session(x=X)["y"], -3 * X)


def test_the_applications_own_goes_first() -> None:
    @epkit.operator("toys", "Scale")
    def mine(xp: Any, x: Any, *, by: float) -> Any:
        return x + by

    for others in (PACKAGE, {**PACKAGE, "again": PACKAGE["scale"]}):
        with epkit.load(SCALE, operators=[mine], registry=registry_of(extensions=others)) as session:
            assert_same(session(x=X)["y"], -(X + 3))


def test_two_packages_with_one_operator_disturb_nobody() -> None:
    extensions = {**PACKAGE, "again": PACKAGE["scale"]}
    with epkit.load(SCALE, registry=registry_of(extensions=extensions)) as session:
        assert_same(session(x=X)["y"], -3 * X)


def test_nobody_knows_the_operator() -> None:
    with pytest.raises(UnknownOperatorError, match=r"toys.*Scale|Scale.*toys"):
        epkit.load(SCALE)


def test_a_plain_function_is_no_operator() -> None:
    with pytest.raises(OptionError, match="'scale' is not a custom operator") as caught:
        epkit.load(SCALE, operators=[scale])
    assert "@epkit.operator" in caught.value.remedy


def test_a_provider_may_have_a_kernel_for_it() -> None:
    @kernel("Scale", domain="toys")
    def fast(x: Any, *, by: float) -> Any:
        return x * np.float32(by)

    class Fast(awkward("fast", everything)):  # type: ignore[misc]
        @property
        def table(self) -> Any:
            from epkit.backend import KernelTable

            return KernelTable([fast])

    with epkit.load(SCALE, ["fast"], registry=registry_of(Fast)) as session:
        assert session.placement.nodes[0].provider == "fast"
        assert_same(session(x=X)["y"], -3 * X)
    with epkit.load(SCALE, ["fast"], registry=registry_of(Fast, extensions=PACKAGE)) as session:
        assert session.placement.nodes[0].provider == "fast"


def test_a_schema_gives_types_to_what_comes_after() -> None:
    schema = onnx.defs.OpSchema(
        "Scale",
        "toys",
        1,
        inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[onnx.defs.OpSchema.Attribute("by", onnx.defs.OpSchema.AttrType.FLOAT, required=False)],
    )
    schema.set_type_and_shape_inference_function(
        lambda context: context.set_output_type(0, context.get_input_type(0))
    )
    operator = CustomOperator("toys", "Scale", scale, schema=schema)
    relu = model("g (float[N] x) => (float[N] y) { a = toys.Scale(x)  y = Relu(a) }", domains={"toys": 1})
    with epkit.load(relu, ["null"], operators=[operator]) as session:
        assert session.placement.counts() == {"null": 1, "cpu": 1}
        assert_same(session(x=X)["y"], np.maximum(2 * X, 0))


# ---- rewrites ----


def drop_negations(graph: ir.Model) -> int:
    """Neg becomes Abs: not right, and so easy to see."""
    found = [node for node in graph.graph if node.op_type == "Neg"]
    for node in found:
        node.op_type = "Abs"
    return len(found)


@pytest.mark.parametrize(("level", "applied"), [("basic", False), ("extended", True), ("all", True)])
def test_rewrites_begin_with_level_extended(level: str, applied: bool) -> None:
    registry = registry_of(extensions={"rewrite": lambda: plugin_of(epkit_rewrites=lambda: [drop_negations])})
    graph = model("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    with epkit.load(graph, registry=registry, optimise=level) as session:
        assert_same(session(x=X)["y"], np.abs(X) if applied else -X)


def bad_rewrite(graph: ir.Model) -> int:
    raise KeyError("weight")


def breaking_rewrite(graph: ir.Model) -> int:
    """Leaves a node behind whose input nothing makes."""
    first, second = list(graph.graph)
    second.replace_input_with(0, ir.Value(name="gone"))
    graph.graph.remove(first)
    return 1


def test_a_rewrite_that_raises_is_named() -> None:
    registry = registry_of(extensions={"rewrite": lambda: plugin_of(epkit_rewrites=lambda: [bad_rewrite])})
    with pytest.raises(InvalidModelError, match="bad_rewrite failed: KeyError: 'weight'") as caught:
        epkit.load(SCALE, registry=registry, optimise="all", operators=[OPERATOR])
    assert "optimise='none'" in caught.value.remedy
    assert caught.value.where.stage == "optimise"


def test_checked_mode_says_which_rewrite_broke_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CHECKED", "1")
    registry = registry_of(
        extensions={"rewrite": lambda: plugin_of(epkit_rewrites=lambda: [breaking_rewrite])}
    )
    graph = model("g (float[N] x) => (float[N] y) { a = Abs(x)  [reader] y = Neg(a) }")
    with pytest.raises(InvalidModelError, match="after breaking_rewrite, reader reads gone") as caught:
        epkit.load(graph, registry=registry, optimise="all")
    assert (caught.value.where.node, caught.value.where.value) == ("reader", "gone")


# ---- the hooks themselves ----


def test_a_module_may_have_any_of_the_hooks_and_names_only_what_it_needs() -> None:
    heard: list[int] = []
    plugin = plugin_of(Sound, epkit_operators=lambda: [OPERATOR], epkit_notice=lambda: heard.append(1))
    registry = registry_of(extensions={"all": lambda: plugin})
    with epkit.load(SCALE, registry=registry) as session:
        session(x=X)
    assert len(heard) == 3
    assert registry.warnings == []


@pytest.mark.parametrize("item", [OPERATOR, kernel("Relu")(lambda x: x)])
def test_declarations_are_values(item: CustomOperator | Kernel) -> None:
    with pytest.raises(AttributeError):
        item.domain = "other"  # type: ignore[misc]


def test_extensions_may_be_added_as_objects() -> None:
    registry = registry_of()
    registry.add_extension(plugin_of(epkit_operators=lambda: [OPERATOR]))
    function: Callable[..., Any] = registry.operators()[0].function
    assert function is scale
