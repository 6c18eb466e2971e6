"""Skeletons become what onnx_ir makes of them."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from model_samples import CONTROL_FLOW

from epkit.errors import InvalidModelError, NotOnnxError, UnsafeModelError
from epkit.model.deserialize import deserialize
from epkit.model.limits import Limits
from epkit.model.read import read


def same(model: onnx.ModelProto) -> None:
    """What is made of a model, and what onnx_ir makes of it, are written in the same bytes."""
    ours, theirs = deserialize(model), ir.serde.deserialize_model(model)
    assert ir.serde.serialize_model(ours) == ir.serde.serialize_model(theirs)


def test_loops() -> None:
    same(CONTROL_FLOW)


RICH = """
    <ir_version: {ir}, opset_import: ["": 17, "own": 1], producer_name: "us", producer_version: "1", domain: "d",
     model_version: 3, doc_string: "a model", metadata_props: ["key": "value"]>
    rich (float[batch, 2] x, seq(float[2]) s, bool flag) => (float[batch, 2] y, z)
    <float[2, 2] w = {{1, 2, 3, 4}}, float[batch, 2] product, float[batch, 2] again>
    {{
        product = MatMul (x, w)
        again, skipped = own.twice (product)
        y = If (flag) <
            then_branch = t () => (float[batch, 2] a) <float[2] b = {{5, 6}}> {{ a = Add (again, b) }},
            else_branch = e () => (c) {{ d = If (flag) <
                then_branch = t2 () => (f) {{ f = Neg (product) }},
                else_branch = e2 () => (g) {{ g = Clip (product, , again) }}>
                c = Mul (d, x) }}>
        z = Clip <noted: string = "text", numbers: ints = [1, 2], ratio: float = 0.5, values: floats = [1.0]> (x, , x)
    }}
    <opset_import: ["": 17], domain: "own">
    twice (a) => (b, c) {{ b = Add (a, a) c = Identity (b) }}
"""


@pytest.mark.parametrize("version", [8, 10])
def test_bodies_functions_and_what_is_said_of_them(version: int) -> None:
    model = onnx.parser.parse_model(RICH.format(ir=version))
    graph = model.graph
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="of", value="the graph")
    graph.node[0].doc_string, graph.node[0].overload = "a node", "one"
    graph.node[0].metadata_props.add(key="of", value="the node")
    graph.node[3].attribute[0].doc_string = "an attribute"
    graph.value_info[0].doc_string = "a value"
    graph.value_info[1].metadata_props.add(key="of", value="the value")
    graph.input[0].type.denotation = "TENSOR"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    same(model)
    outside = deserialize(model).graph
    (choice,) = (node for node in outside if node.op_type == "If")
    inner = choice.attributes["then_branch"].as_graph()
    assert inner[0].inputs[0] is outside[1].outputs[0]


@pytest.mark.parametrize("where", ["annotation", "configuration", "node"])
def test_what_is_rare_is_kept(where: str) -> None:
    model = onnx.parser.parse_model(RICH.format(ir=11))
    if where == "annotation":
        entry = model.graph.quantization_annotation.add(tensor_name="x")
        entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    elif where == "configuration":
        model.configuration.add(name="two", num_devices=2)
    else:
        model.graph.node[0].device_configurations.add(configuration_id="two")
    same(model)


NAMES = (
    b"us", b"own", b"value", b"key", b"rich", b"batch", b"flag", b"product", b"again", b"skipped", b"twice",
    b"MatMul", b"Clip", b"then_branch", b"noted", b"numbers",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_text(name: bytes) -> None:
    """Wherever it stands: the first place, the last, and all of them."""
    data = onnx.parser.parse_model(RICH.format(ir=10)).SerializeToString()
    field = bytes([len(name)]) + name
    broken = bytes([len(name)]) + b"\xff" + name[1:]
    count = data.count(field)
    assert count
    ahead, last = data.rsplit(field, 1)
    for damaged in {data.replace(field, broken, 1), ahead + broken + last, data.replace(field, broken)}:
        with pytest.raises(NotOnnxError, match="not text"):
            read(damaged)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a = Add (again, b)", "a = Add (again, nowhere)", "Nothing produces the value 'nowhere'"),
        ("a = Add (again, b)", "b = Add (again, again) a = Neg (b)", "'b' is defined twice"),
        ("c = Mul (d, x)", "c, d = Mul (d, x)", "'d' is defined twice"),
        ("c = Mul (d, x)", "c = Mul (f, x)", "Nothing produces the value 'f'"),
        ("numbers: ints", "noted: ints", "has an attribute twice"),
        ("t2 () => (f)", "t2 () => (product)", "is defined outside of it"),
        ("c = Identity (b)", "c = Identity (x)", "Nothing produces the value 'x'"),
    ],
)
def test_what_is_wrong_with_names_is_said(old: str, new: str, said: str) -> None:
    text = RICH.format(ir=10)
    assert old in text
    with pytest.raises(InvalidModelError, match=said):
        read(onnx.parser.parse_model(text.replace(old, new)))


def test_limits_of_nodes_and_nesting() -> None:
    model = onnx.parser.parse_model(RICH.format(ir=10))
    for limits in (Limits(nodes=8), Limits(nesting=1)):
        with pytest.raises(UnsafeModelError):
            deserialize(model, limits)
    deserialize(model, Limits(nodes=9, nesting=2))
