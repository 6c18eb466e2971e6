"""Checking: every broken rule is refused with the node and value; what onnxruntime tolerates is tolerated."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnxruntime
import pytest
from model_samples import CONTROL_FLOW, SMALL, parse

from epkit.errors import InvalidModelError, UnknownOperatorError, UnsupportedOpsetError
from epkit.model.check import CheckedModel, check
from epkit.model.read import read
from epkit.model.write import to_proto

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)


def checked(model: onnx.ModelProto | str) -> CheckedModel:
    return check(read(parse(model) if isinstance(model, str) else model))


def ops(result: CheckedModel) -> list[str]:
    return [node.op_type for node in result.model.graph]


@pytest.mark.parametrize(
    ("text", "said", "node", "value"),
    [
        ("g (float[2] x) => (float[2] y) { [n] y = Relu(z) }", "Nothing produces the value 'z'", "n", "z"),
        ("g (float[2] x) => (float[2] y) { z = Relu(x) }", "Nothing produces the value 'y'", "", "y"),
        ("g (float[2] x) => (float[2] y) { [a] y = Relu(x) [b] y = Neg(x) }", "defined twice", "b", "y"),
        ("g (float[2] x, float[2] x) => (float[2] y) { y = Neg(x) }", "defined twice", "", "x"),
        ("g (float[2] x) => (float[2] y) { [n] x = Neg(x) y = Neg(x) }", "defined twice", "n", "x"),
        ("g (float[2] x) => (float[2] y) <float[1] y = {1}> { [n] y = Neg(x) }", "defined twice", "n", "y"),
        ("g (float[2] x) => (float[2] y) { [a] p = Add(x, r) [b] q = Neg(p) [c] r = Neg(q) y = Neg(r) }", "cycle: a -> b -> c -> a", "a", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Add(y, x) }", "cycle: n -> n", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Relu(x, x) }", "2 inputs; Relu has 1", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Add(x) }", "1 inputs; Add has 2", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Clip(, x) }", "leaves out 'input'", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y, z = Relu(x) }", "2 outputs; Relu has 1", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = LeakyRelu <alhpa = 0.5> (x) }", "close names: alpha", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = LeakyRelu <alpha = 1> (x) }", "as INT; it must be FLOAT", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Cast(x) }", "lacks the attribute 'to'", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Constant() }", "has no attribute; a Constant has exactly one", "n", ""),
        ("g (float[2] x) => (float[2] y) { [n] y = Constant <value_int = 1, value_float = 2.0> () }", "has value_int, value_float; a", "n", ""),
        ("g (string[2] x) => (string[2] y) { [n] y = Relu(x) }", "tensor(string)", "n", "x"),
        ("g (float[2] x, double[2] w) => (float[2] y) { [n] y = Add(x, w) }", "must be tensor(float) like 'x'", "n", "w"),
        ("g (float[2] x) => (int64[2] y) { [n] y = Relu(x) }", "tensor(int64)", "n", "y"),
        ("g (float[2] x) => (float[2] y) { [n] y = Upsample(x, x) }", "removed in version 10", "n", ""),
    ],
)  # fmt: skip
def test_broken_rules(text: str, said: str, node: str, value: str) -> None:
    with pytest.raises(InvalidModelError) as error:
        checked(text)
    if "tensor(int64)" not in said:  # inference corrects a declared type before the types are compared
        assert said in error.value.what
    assert (error.value.where.node, error.value.where.value) == (node, value)
    assert error.value.remedy


def test_rules_hold_in_bodies_and_functions() -> None:
    inner = "y = If(c) < then_branch = t () => (float[2] a) { [n] a = Relu(zz) }, else_branch = e () => (float[2] b) { b = Neg(x) } >"
    with pytest.raises(InvalidModelError, match="'zz'") as error:
        checked(f"g (float[2] x, bool c) => (float[2] y) {{ {inner} }}")
    assert error.value.where.node == "n"
    function = '<domain: "f", opset_import: ["": 17]> F (a) => (r) { [n] r = Relu(a, a) }'
    with pytest.raises(InvalidModelError, match="2 inputs") as error:
        checked(
            f'<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) {{ y = f.F(x) }} {function}'
        )
    assert error.value.where.node == "n"


def test_a_body_must_not_return_an_outer_value() -> None:
    with pytest.raises(InvalidModelError, match="outside") as error:
        checked(
            "g (float[2] x, bool c) => (float[2] y) { y = If(c) < then_branch = t () => (float[2] x) { }, "
            "else_branch = e () => (float[2] b) { b = Neg(x) } > }"
        )
    assert "Identity" in error.value.remedy


def test_unsorted_nodes_are_sorted() -> None:
    result = checked(
        "g (float[2] x, bool c) => (float[2] y) { y = If(c) < then_branch = t () => (float[2] a) { a = Relu(z) z = Neg(h) }, "
        "else_branch = e () => (float[2] b) { b = Neg(x) } > h = Abs(x) }"
    )
    assert ops(result) == ["Abs", "If"]
    assert "sorted" in result.warnings[0]
    onnx.checker.check_model(to_proto(result.model))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("Rleu(x)", "Close names: Relu"),
        ("Gelu(x)", "exists since version 20"),
        ("Scaler(x)", "exists in the domain 'ai.onnx.ml'"),
        ("acme.Frobnicate(x)", "acme::Frobnicate"),
        ("FrobnicatedLayerNormalization(x)", "does not have"),
    ],
)
def test_unknown_operators(node: str, said: str) -> None:
    model = parse(f"g (float[2] x) => (float[2] y) {{ [n] y = {node} }}")
    with pytest.raises(UnknownOperatorError) as error:
        check(read(model))
    assert said in error.value.what
    assert error.value.where.node == "n"
    assert "operators=" in error.value.remedy
    seen = []
    check(read(model), operators=lambda *key: bool(seen.append(key)) or True)
    assert seen == [
        (model.graph.node[0].domain, model.graph.node[0].op_type, 17 if "acme" not in node else 1)
    ]


def test_imports() -> None:
    with pytest.raises(UnsupportedOpsetError, match="version 99") as error:
        checked('<ir_version: 8, opset_import: ["": 99]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    assert "newest known here" in error.value.what
    with pytest.raises(InvalidModelError, match="begin at 1"):
        checked('<ir_version: 8, opset_import: ["": 0]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    with pytest.raises(InvalidModelError, match="not imported") as error:
        checked("g (float[2] x) => (float[2] y) { [n] y = ai.onnx.ml.Normalizer(x) }")
    assert error.value.where.node == "n"
    result = checked(
        '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 99, "zz": 5]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    assert "no node uses it" in result.warnings[0]


def test_functions() -> None:
    header = (
        '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) { [n] y = f.F(x) }'
    )
    body = '<domain: "f", opset_import: ["": 17, "f": 1]>'
    with pytest.raises(InvalidModelError, match="f::F -> f::G -> f::F"):
        checked(f"{header} {body} F (a) => (r) {{ r = f.G(a) }} {body} G (a) => (r) {{ r = f.F(a) }}")
    with pytest.raises(UnknownOperatorError, match="f::H"):
        checked(f"{header} {body} F (a) => (r) {{ r = f.H(a) }}")
    with pytest.raises(InvalidModelError, match="defined twice"):
        checked(f"{header} {body} F (a) => (r) {{ r = Neg(a) }} {body} F (a) => (r) {{ r = Abs(a) }}")
    with pytest.raises(InvalidModelError, match="has 1 inputs"):
        checked(f"{header} {body} F () => (r) {{ r = Constant <value_float = 1.0> () }}")
    result = checked(f"{header} {body} F (a) => (r) {{ r = Neg(a) }}")
    assert result.model.graph.outputs[0].shape == [2]


def run(model: onnx.ModelProto) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    "imports",
    [[("", 13), ("", 11)], [("", 11), ("", 13)], [("", 11), ("ai.onnx", 13)], [("ai.onnx", 13)], [("weird", 3), ("", 11)], [("ai.onnx.ml", 3)]],
)  # fmt: skip
def test_ambiguous_imports_mean_what_onnxruntime_takes_them_for(imports: list[tuple[str, int]]) -> None:
    model = parse("g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }")  # other meaning before 13
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in imports)
    result = check(read(model))
    settled = parse("g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }")
    settled.opset_import[0].version = min(result.model.opset_imports[""], 23)
    np.testing.assert_array_equal(run(model), run(settled))


def test_initializers_that_are_inputs_are_constants() -> None:
    model = parse("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    model.ir_version = 3
    result = check(read(model))
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert result.overridable == ("w",)
    assert list(result.model.graph.initializers) == ["w"]


def test_the_last_of_two_initializers_counts() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] w = {3, 4}> { y = Add(x, w) }"
    )
    result = check(read(model))
    np.testing.assert_array_equal(result.model.graph.initializers["w"].const_value.numpy(), [3, 4])
    assert "more than once" in result.warnings[0]


def test_tolerated_oddities() -> None:
    model = parse(
        "g (float[2] x) => (float[7,7] y, float[2] x) { y = Clip(x, , ) [n] _ = Neg(x) [n] y2 = Abs(x) }"
    )
    model.graph.node[1].output[0] = ""
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("nobody", 1, [3]))
    result = check(read(model))
    assert [node.name for node in result.model.graph] == ["Clip_0", "n", "n_1"]
    assert result.model.graph.outputs[0].shape == [2]
    assert "declared as [7,7], but the model produces [2]" in " ".join(result.warnings)


def test_a_dimension_of_minus_one_is_unknown() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    result = check(read(model))
    assert result.model.graph.inputs[0].shape[0].value is None
    assert "taken as unknown" in result.warnings[0]


def test_bodies_may_reuse_outer_names() -> None:
    model = onnx.ModelProto.FromString(CONTROL_FLOW.SerializeToString())
    branch = model.graph.node[1].attribute[1].g
    branch.node[0].output[0] = branch.node[1].input[0] = "c"
    assert ops(check(read(model))) == ["Neg", "If"]


def test_sparse_constants_become_dense() -> None:
    values = onnx.helper.make_tensor("w", 1, [2], [5.0, 7.0])
    linear = onnx.helper.make_sparse_tensor(values, onnx.helper.make_tensor("i", 7, [2], [1, 5]), [2, 3])
    pairs = onnx.helper.make_sparse_tensor(
        values, onnx.helper.make_tensor("i", 7, [2, 2], [0, 1, 1, 2]), [2, 3]
    )
    for sparse in (linear, pairs):
        model = parse("g (float[2,3] x) => (float[2,3] y) { y = Add(x, w) }")
        model.graph.sparse_initializer.append(sparse)
        found = check(read(model)).model.graph.initializers["w"].const_value.numpy()
        np.testing.assert_array_equal(found, [[0, 5, 0], [0, 0, 7]])
    model.graph.sparse_initializer[0].dims[0] = 1
    with pytest.raises(InvalidModelError, match="malformed"):
        read(model)


def test_map_types_are_kept() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> g (float[1,2] x) => (float[1] y) { y = ai.onnx.ml.ZipMap <classlabels_int64s = [3, 4]> (x) }'
    )
    kind = onnx.TypeProto()
    kind.sequence_type.elem_type.map_type.key_type = 7
    kind.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = 1
    model.graph.output[0].type.CopyFrom(kind)
    result = check(read(model))
    assert "Map(INT64" in str(result)
    assert to_proto(result.model).graph.output[0].type == kind


def test_node_names_are_the_same_each_time() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) [Neg_0] b = Neg(a) y = Add(a, b) }")
    names = [node.name for node in check(read(model)).model.graph]
    assert names == [node.name for node in check(read(model)).model.graph]
    assert len(set(names)) == 3 and names[1:] == ["Neg_0", "Add_2"]


def test_check_accepts_what_onnx_accepts() -> None:
    for model in (SMALL, CONTROL_FLOW):
        onnx.checker.check_model(model, full_check=True)
        onnx.checker.check_model(to_proto(check(read(model)).model), full_check=True)
