"""Inference: as precise as onnx's own, in bodies too, kept after edits, and not confused by weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnx_ir as ir
import pytest
from model_samples import CONTROL_FLOW, parse
from onnx.reference import ReferenceEvaluator

from epkit.errors import InvalidModelError
from epkit.model.check import check
from epkit.model.infer import infer, weightless
from epkit.model.read import read
from epkit.testing.models import model

RESHAPE = parse(
    """
    g (float[batch,seq,12] x) => (float[A,B,C,D] y)  {
        p = MatMul(x, w)
        s = Shape(p)
        i = Constant <value = int64[2] {0, 1}> ()
        bs = Gather(s, i)
        h = Constant <value = int64[2] {3, 4}> ()
        t = Concat <axis = 0> (bs, h)
        y = Reshape(p, t)
    }
    """
)
RESHAPE.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((12, 12), np.float32), "w"))


def shapes(model: ir.Model) -> dict[str, list[object]]:
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    return {
        value.name: [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        for value in (*made, *model.graph.initializers.values())
        if value.shape is not None
    }


def oracle(model: onnx.ModelProto) -> dict[str, list[object]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        info.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param
            for dim in info.type.tensor_type.shape.dim
        ]
        for info in inferred.value_info
    }


def test_as_precise_as_onnx() -> None:
    found = shapes(check(read(RESHAPE)).model)
    assert found["y"] == ["batch", "seq", 3, 4]
    for name, dims in oracle(RESHAPE).items():
        assert found[name] == dims


def test_bodies_are_filled() -> None:
    result = check(read(CONTROL_FLOW)).model
    assert shapes(result)["t"] == ["N", 3]
    assert all(
        value.type == ir.TensorType(ir.DataType.FLOAT)
        for n in result.graph.all_nodes()
        for value in n.outputs
    )


def test_again_after_an_edit() -> None:
    model = check(read(RESHAPE)).model
    x = model.graph.inputs[0]
    x.shape = ir.Shape([2, 5, 12])
    assert infer(model) == []
    assert shapes(model)["y"] == [2, 5, 3, 4]


def test_what_was_known_better_stays() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["": 17, "zz": 1]> g (float[N] x) => (float[5] y) { y = zz.Foo(x) }'
    )
    result = check(read(model), operators=lambda *_: True)
    assert result.model.graph.outputs[0].shape == [5]
    model = parse("g (float[N] x) => (float[N] y) { y = NonZero(x) }")
    model = parse("g (float[2,3] x) => (int64[2,7] y) { y = NonZero(x) }")
    assert check(read(model)).model.graph.outputs[0].shape == [2, 7]


@pytest.mark.parametrize("number", [-1, 1000])
def test_an_element_type_that_does_not_exist(number: int) -> None:
    text = "g (int64 n) => (float[N] y) { [window] w = HannWindow <output_datatype = %d> (n)  y = CastLike(w, w) }"
    with pytest.raises(InvalidModelError, match=f"'window'.* the element type {number} of 'w'") as caught:
        check(read(parse(text % number)))
    assert (caught.value.where.stage, caught.value.where.node) == ("check", "window")


def test_weights_are_left_out() -> None:
    model = check(read(RESHAPE)).model
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((4000, 4000), np.float32), name="w")
    proto = weightless(model)
    assert proto.ByteSize() < 5000
    kept = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    assert kept["w"] == [4000, 4000]


ATTENTION = """<ir_version: 10, opset_import: ["": 23]>
    g (float[b,q,d] x, float[b,k,d] y, float[b,k,v] z) => (float[A,B,C] r, float[A,B,C,D] s)  {
        a, key, value, scores = Attention <q_num_heads = 4, kv_num_heads = 4> (x, y, z)
        r = Relu(a)
        s = Relu(scores)
    }
"""


def test_lengths_that_attention_does_not_know_are_unknown_and_not_0() -> None:
    model = read(parse(ATTENTION)).model
    infer(model)
    found = shapes(model)
    assert [found[name][:2] for name in ("a", "r")] == [["b", "q"]] * 2
    assert not any(0 in dims for dims in found.values()), found


def test_what_follows_attention_in_a_body_is_no_scalar() -> None:
    body = parse(ATTENTION).graph
    for info in body.input:
        info.type.tensor_type.ClearField("shape")
    inner = onnx.helper.make_graph(list(body.node), "body", [], [onnx.ValueInfoProto(name="s")])
    node = onnx.helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
    inputs = [*body.input, onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])]
    graph = onnx.helper.make_graph([node], "main", inputs, [onnx.ValueInfoProto(name="out")])
    model = read(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])).model
    infer(model)
    assert [] not in shapes(model).values()


@pytest.mark.parametrize(
    ("text", "opset", "feeds"),
    [
        ("a = GroupNormalization <num_groups = 2> (x, s, s)", 21, {"x": (2, 4, 3), "s": (4,)}),
        ("b, a, c = Attention(x, k, k)", 23, {"x": (1, 4, 3, 2), "k": (1, 2, 5, 2)}),
        (
            "b, c, a = Attention <q_num_heads = 4, kv_num_heads = 2> (x, k, k)",
            23,
            {"x": (1, 3, 8), "k": (1, 5, 4)},
        ),
        ("a = OneHot(i, d, s)", 13, {"i": (), "d": (), "s": (2,)}),
        ("a = Compress(x, i)", 13, {"x": (), "i": (1,)}),
    ],
    ids=["GroupNormalization", "present keys", "present values of joined heads", "OneHot", "Compress"],
)
def test_where_onnx_is_silent(text: str, opset: int, feeds: dict[str, tuple[int, ...]]) -> None:
    """What follows has type and shape too; they are those that the reference evaluator gives."""
    kinds = {"i": "bool" if "Compress" in text else "int64", "d": "int64"}
    given = ", ".join(
        f"{kinds.get(name, 'float')}{list(shape) or ''} {name}" for name, shape in feeds.items()
    )
    proto = model(f"g ({given}) => (float y) {{ {text}  y = Neg(a) }}", opset=opset)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    found = check(read(proto)).model
    infer(found)
    arrays = {
        name: np.ones(shape, {"int64": np.int64, "bool": np.bool_}.get(kinds.get(name, ""), np.float32))
        for name, shape in feeds.items()
    }
    (wanted,) = ReferenceEvaluator(proto).run(None, arrays)
    output = found.graph.outputs[0]
    assert output.dtype == ir.DataType.FLOAT and output.shape is not None
    assert len(output.shape) == wanted.ndim
    assert all(
        not isinstance(dim, int) or dim == n for dim, n in zip(output.shape, wanted.shape, strict=True)
    )
    if "OneHot" not in text and "Compress" not in text:
        assert list(output.shape) == list(wanted.shape)
