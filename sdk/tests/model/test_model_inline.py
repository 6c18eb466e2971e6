"""Inlining: the model computes the same with a call replaced by its body, by the judgement of onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import onnxruntime
import pytest
from model_samples import parse

from epkit.model.check import check
from epkit.model.infer import infer
from epkit.model.inline import inline_call, schema_function
from epkit.model.read import read
from epkit.model.write import to_proto

HEADER = '<ir_version: 8, opset_import: ["": 17, "f": 1]>'
BODY = '<domain: "f", opset_import: ["": 17, "f": 1]>'
RNG = np.random.default_rng(0)


def load(model: onnx.ModelProto | str) -> ir.Model:
    return check(read(parse(model) if isinstance(model, str) else model)).model


def value_names(model: ir.Model) -> set[str]:
    owners = (model.graph, *model.graph.subgraphs())
    return {
        v.name
        for g in owners
        for v in (*g.inputs, *g.initializers.values(), *(o for n in g for o in n.outputs))
    }


def inline_all(model: ir.Model) -> None:
    """Inline calls of the model's functions until none is left."""
    names = value_names(model)
    while calls := [node for node in model.graph.all_nodes() if node.op_identifier() in model.functions]:
        for node in calls:
            new = inline_call(node.graph, node, model.functions[node.op_identifier()], names)
            assert all(each.graph is not None for each in new)
    model.functions.clear()


def run(
    model: ir.Model | onnx.ModelProto, feed: dict[str, np.ndarray], opset: int | None = None
) -> list[np.ndarray]:
    proto = to_proto(model) if isinstance(model, ir.Model) else model
    for entry in proto.opset_import:
        if opset is not None and entry.domain == "":
            entry.version = opset
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)


def feed_for(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    feed = {}
    for info in model.graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        feed[info.name] = (
            np.ones(shape, dtype) if dtype == np.bool_ else RNG.standard_normal(shape).astype(dtype)
        )
    return feed


CALLS = {
    "nested": f"g (float[2,3] x) => (float[2,3] y) {{ t = f.F(x) y = f.G(t) }} "
    f"{BODY} F (a) => (r) {{ t = Neg(a) r = f.G(t) }} {BODY} G (a) => (r) {{ t = Exp(a) r = Add(t, a) }}",
    "attributes": f"g (float[2,3] x) => (float[2,3] y, float[2,3] z) {{ y = f.F <alpha = 0.5> (x) z = f.F(x) }} "
    f"{BODY} F <alpha: float = 0.25> (a) => (r) {{ r = f.G <alpha: float = @alpha> (a) }} "
    f"{BODY} G <alpha> (a) => (r) {{ r = LeakyRelu <alpha: float = @alpha> (a) }}",
    "attribute left out": f"g (float[2,3] x) => (float[2,3] y) {{ y = f.F(x) }} "
    f"{BODY} F <alpha> (a) => (r) {{ r = LeakyRelu <alpha: float = @alpha> (a) }}",
    "missing input": f"g (float[2,3] x) => (float[2,3] y, float[2,3] z) {{ y = f.F(x) m = Constant <value_float = 0.0> () z = f.F(x, , m) }} "
    f"{BODY} F (a, lo, hi) => (r) {{ r = Clip(a, lo, hi) }}",
    "trailing empty input": f"g (float[2,3] x) => (float[2,3] y) {{ y = f.F(x, ) }} {BODY} F (a, b) => (r) {{ r = Neg(a) }}",
    "unused output": f"g (float[2,3] x) => (float[2,3] y) {{ , y = f.F(x) }} "
    f"{BODY} F (a) => (q, r) {{ q = Neg(a) r = Exp(a) }}",
    "captured in a body": f"g (float[2,3] x, bool c) => (float[2,3] y) {{ y = f.F(x, c) }} "
    f"{BODY} F (a, c) => (r) {{ h = Neg(a) r = If(c) < then_branch = t () => (u) {{ k = Exp(h) u = Add(k, a) }}, "
    "else_branch = e () => (u) { u = Identity(h) } > }",
    "call in a body": f"g (float[2,3] x, bool c) => (float[2,3] y) {{ y = If(c) < then_branch = t () => (float[2,3] u) {{ u = f.F(x) }}, "
    f"else_branch = e () => (float[2,3] u) {{ u = Neg(x) }} > }} {BODY} F (a) => (r) {{ t = Exp(a) r = Neg(t) }}",
    "clashing names": 'g (float[2,3] x) => (float[2,3] y) { [n] "n/t" = Neg(x) ["n/Exp_0"] z = f.F("n/t") y = f.F(z) } '
    f"{BODY} F (x) => (y) {{ t = Exp(x) y = Neg(t) }}",
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_and_its_body_give_the_same(name: str) -> None:
    proto = parse(HEADER + CALLS[name])
    model = load(proto)
    outputs = [value.name for value in model.graph.outputs]
    inline_all(model)
    assert [value.name for value in model.graph.outputs] == outputs
    names = [node.name for node in model.graph.all_nodes()]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(to_proto(model))
    feed = feed_for(proto)
    for found, wanted in zip(run(model, feed), run(proto, feed), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert infer(model) == []


def test_outputs_that_are_inputs_or_equal_pass_through_identities() -> None:
    body = f"{BODY} F (a) => (a, r, r) {{ r = Neg(a) }}"
    model = load(
        f"{HEADER} g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) {{ y, z, w = f.F(x) }} {body}"
    )
    inline_all(model)
    assert [node.op_type for node in model.graph] == ["Neg", "Identity", "Identity"]
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    for found, wanted in zip(run(model, {"x": x}), (x, -x, -x), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_names_tell_where_a_node_came_from() -> None:
    model = load(HEADER + CALLS["attribute left out"].replace("y = f.F", "[call] y = f.F"))
    (node,) = inline_call(model.graph, model.graph[0], model.functions["f", "F", ""], {"x", "y"})
    assert node.name == "call/LeakyRelu_0" and node.outputs[0].name == "y"
    assert "alpha" not in node.attributes


def test_nodes_keep_the_version_that_they_were_written_against() -> None:
    old = '<domain: "f", opset_import: ["": 11]> F (a) => (r) { r = Softmax(a) }'
    model = load(f"{HEADER} g (float[2,3,4] x) => (float[2,3,4] y) {{ y = f.F(x) }} {old}")
    (node,) = inline_call(model.graph, model.graph[0], model.functions["f", "F", ""], {"x", "y"})
    assert node.version == 11


OPERATORS = [
    ("y = Celu <alpha = 2.0> (x)", 17),
    ("y = MeanVarianceNormalization <axes = [0, 1]> (x)", 17),
    ("y = LayerNormalization <axis = -1> (x, w)", 17),
    ("y = LayerNormalization (x, w, w)", 17),
    ("y = Clip(x, , m)", 17),
    ("y = Clip(x)", 17),
    ("y = Gelu <approximate = \"tanh\"> (x)", 20),
    ("y = HardSwish(x)", 17),
    ("y = Softmax <axis = 0> (x)", 17),
    ("y = ReduceL1 <keepdims = 0> (x)", 18),
    ("y = Shrink <lambd = 0.3, bias = 0.1> (x)", 17),
    ("y = Elu(x)", 17),
    ("y = PRelu(x, w)", 17),
    ("y = GroupNormalization <num_groups = 2> (q, two, two)", 18),
    ("y, l = SoftmaxCrossEntropyLoss <reduction = \"none\"> (x, i)", 17),
    ("s = SequenceConstruct(x, w) t = SequenceMap(s) < body = b (float[A,B] e) => (float[A,B] r) { r = Neg(e) } > "
     "k = Constant <value_int = 0> () y = SequenceAt(t, k)", 17),
]  # fmt: skip


@pytest.mark.parametrize(("text", "opset"), OPERATORS)
def test_the_body_that_the_standard_gives_computes_the_same(text: str, opset: int) -> None:
    proto = parse(
        f'<ir_version: 9, opset_import: ["": {opset}]> g (float[4,3] x, float[1,2,3] q) => (y) '
        "<float[3] w = {1, 2, 0.5}, float m = {0.2}, int64[4] i = {0, 2, 1, 1}, float[2] two = {1, 2}> {"
        + text
        + "}"
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model = load(proto)
    names, read_under = value_names(model), set()
    for node in list(model.graph):
        function = schema_function(node, opset)
        if function is not None:
            assert 0 < function.opset_imports[""] <= max(opset, 18)
            read_under.add(function.opset_imports[""])
            new = inline_call(model.graph, node, function, names)
            assert all(each.version == function.opset_imports[""] for each in new)
    assert len(read_under) == 1
    for node in model.graph.all_nodes():
        node.version = None
    feed = {
        "x": RNG.standard_normal((4, 3)).astype(np.float32),
        "q": RNG.standard_normal((1, 2, 3)).astype(np.float32),
    }
    wanted, found = run(proto, feed), run(model, feed, read_under.pop())
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_operators_without_a_body() -> None:
    model = load(
        '<ir_version: 8, opset_import: ["": 17]> g (float[4,3] x) => (float[4,3] y) { a = Neg(x) y = LayerNormalization(a, x) }'
    )
    assert schema_function(model.graph[0], 17) is None
    assert schema_function(ir.Node("zz", "Foo", []), 1) is None
    assert schema_function(ir.Node("", "Elu", []), 1) is None  # Elu-1 is another operator than Elu-6
    node = ir.Node("", "LayerNormalization", [ir.Value(name="x"), ir.Value(name="w")])
    assert schema_function(node, 17) is None  # needs types


def test_the_newest_body_not_above_the_opset() -> None:
    node = ir.Node("", "MeanVarianceNormalization", [ir.Value(name="x")])
    versions = {opset: schema_function(node, opset).opset_imports[""] for opset in (9, 12, 13, 17, 18, 25)}
    assert versions == {9: 9, 12: 9, 13: 13, 17: 13, 18: 18, 25: 18}
