"""What the provider claims, what it refuses and why, options, replay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest
from npu_node import Q, integers, qdq
from npu_streams import network, stream_of

import epkit
from epkit.errors import OptionError, PlacementError
from epkit_npu_sim.provider import NpuSimOptions, NpuSimProvider


def refusals(text: str, **options: Any) -> dict[str, tuple[str, str]]:
    """Operator -> (code, reason) of the nodes of a graph, opset 21, that npu_sim left."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    with epkit.load(model, ["npu_sim"], optimise="none", **options) as session:
        return {
            node.operator: (r.code, r.reason)
            for node in session.placement.nodes
            for r in node.refused
            if r.provider == "npu_sim"
        }


def test_a_float_model_is_told_how_to_become_an_integer_one(tmp_path: Path) -> None:
    """The command that is named exists, and does what it says."""
    (tmp_path / "MODEL.onnx").write_bytes(perceptron().SerializeToString())
    with epkit.load(tmp_path / "MODEL.onnx", ["npu_sim"]) as session:
        assert session.placement.counts() == {"cpu": 3}
        (refused,) = session.placement.nodes[0].refused
    assert refused.code == "dtype"
    words = refused.reason.partition("quantise the model first: python ")[2].split()
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
    with epkit.load(tmp_path / "MODEL.int8.onnx", ["npu_sim"]) as session:
        left = [node.operator for node in session.placement.nodes if node.provider != "npu_sim"]
        assert sorted(left) == ["DequantizeLinear", "QuantizeLinear"]
        x = np.random.default_rng(1).standard_normal((5, 12)).astype(np.float32)
        (y,) = session(x=x).values()
    with epkit.load(tmp_path / "MODEL.onnx", ["cpu"]) as session:
        (want,) = session(x=x).values()
    assert np.corrcoef(y.ravel(), want.ravel())[0, 1] > 0.98


def perceptron() -> onnx.ModelProto:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[5, 12] x) => (float[5, 4] y) '
    model = onnx.parser.parse_model(text + "{ a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }")
    rng = np.random.default_rng(0)
    for name, shape in (("w", (12, 24)), ("v", (24, 4))):
        weights = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


def test_a_symbolic_dimension_is_told_how_to_be_fixed() -> None:
    text = """(int8[N, 4] x) => (int8[N, 4] y) <float s = {0.1}, float t = {0.2}, int8 z = {0}> {
        a = DequantizeLinear(x, s, z)  b = Sigmoid(a)  y = QuantizeLinear(b, t, z)
    }"""
    code, reason = refusals(text)["DequantizeLinear"]
    assert code == "dynamic-shape" and "dimension `N`" in reason and "--fix N=1" in reason
    assert not refusals(text, fix={"N": 3})


@pytest.mark.parametrize(
    ("graph", "operator", "code", "told"),
    [
        ("(int8[2] x, float s) => (int8[2] y) <int8 z = {0}> { a = DequantizeLinear(x, s, z) b = Relu(a) y = QuantizeLinear(b, s, z) }",
         "DequantizeLinear", "constant", "scale and zero point"),
        ("(float[2] x) => (int8[2] y) <float s = {1.}, int8 z = {0}> { y = QuantizeLinear(x, s, z) }",
         "QuantizeLinear", "dtype", "the host does that"),
        ("(int8[2] x) => (float[2] y) <float s = {1.}, int8 z = {0}> { y = DequantizeLinear(x, s, z) }",
         "DequantizeLinear", "cost", "the host dequantises"),
        ("(float[2] x) => (float[2] y) { y = Cos(x) }", "Cos", "no-kernel", "no Cos"),
        ("(int8[1, 2, 4, 4, 4] x) => (int8[1, 2, 2, 2, 2] y) { y = MaxPool <kernel_shape = [3, 3, 3]> (x) }",
         "MaxPool", "shape", "3 spatial axes"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_missing(graph: str, operator: str, code: str, told: str) -> None:
    found = refusals(graph)[operator]
    assert found[0] == code and told in found[1]


@pytest.mark.parametrize(
    ("graph", "operator"),
    [("(int8[1, 1, 4, 4] x) => (int8[1, 1, 2, 2] y, int64[1, 1, 2, 2] i) { y, i = MaxPool <kernel_shape = [3, 3]> (x) }",
      "MaxPool"),
     ("(int8[3, 4] x) => (int8[3, 4] y, float[3, 1] m) <float s = {1.}, int8 z = {0}, float[4] g = {1., 1., 1., 1.}> "
      "{ a = DequantizeLinear(x, s, z) b, m = LayerNormalization(a, g) y = QuantizeLinear(b, s, z) }",
      "LayerNormalization")],
)  # fmt: skip
def test_second_results_are_left_to_others(graph: str, operator: str) -> None:
    """Indices and statistics that only the caller reads: they came out as whatever was in memory."""
    code, reason = refusals(graph)[operator]
    assert code == "attribute" and "a second result" in reason


def test_an_operator_and_its_rounding_step_are_refused_for_one_reason() -> None:
    rng = np.random.default_rng(0)
    x, w = Q(integers(rng, (1, 2, 4, 4), "int8"), 0.1), Q(integers(rng, (2, 2, 1, 1), "int8"), 0.1)
    model = qdq("Conv", [x, w], Q((1, 2, 4, 4), 0.1))
    with pytest.raises(PlacementError, match="the weights x1 must be known at compile time") as caught:
        epkit.load(model, ["npu_sim"], fallback="error")
    assert "it quantises the result of Conv" in str(caught.value)


def test_a_real_result_that_leaves_is_dequantised_by_table() -> None:
    """The sum is needed as integers inside and as real numbers outside: one claim, and both are right."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (int8[3, 4] x) => (int8[3, 4] y, float[3, 4] c)
    <float s = {0.1}, float t = {0.2}, int8 z = {5}> {
        a = DequantizeLinear(x, s, z)  b = Sigmoid(a)  y = QuantizeLinear(b, t, z)  c = Cos(a)
    }"""
    x = integers(np.random.default_rng(0), (3, 4), "int8")
    with epkit.load(onnx.parser.parse_model(text), ["npu_sim"], optimise="basic") as session:
        assert session.placement.counts() == {"npu_sim": 3, "cpu": 1}
        outputs = session(x=x)
    assert np.allclose(
        outputs["c"], np.cos((x.astype(np.float32) - 5) * np.float32(0.1)), rtol=1e-6, atol=1e-7
    )


def test_a_claim_is_convex_where_a_shared_value_goes_round() -> None:
    """x feeds a Conv and the Add at the end: the nodes between them join the claim."""
    with epkit.load(network(), ["npu_sim"]) as session:
        assert session.placement.counts() == {"npu_sim": len(session.placement.nodes)}
        assert session.placement.partitions() == {"npu_sim": 1}


def test_16_bits_are_not_approximated_where_they_must_be_exact() -> None:
    """Clip on int16 was taken as a polynomial, and was wrong beside its limits."""
    text = "(int16[99] x) => (int16[99] y) <int16 low = {1}, int16 high = {3}> { y = Clip(x, low, high) }"
    assert refusals(text)["Clip"][0] == "dtype"


def test_options_describe_a_chip() -> None:
    (found,) = NpuSimProvider(NpuSimOptions(array=16, clock_mhz=500.0)).devices().found
    assert "16x16 int8" in found.description and "500 MHz" in found.description and not found.host_memory
    with pytest.raises(OptionError, match="array must be positive"):
        epkit.load(network(), [("npu_sim", {"array": 0})])


def test_a_restored_program_is_not_compiled_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = {"x": integers(np.random.default_rng(0), (1, 16, 20, 20), "int8")}
    with epkit.load(network(), ["npu_sim"], cache=tmp_path) as session:
        want = session.run(None, feeds)
    monkeypatch.setattr("epkit_npu_sim.provider.assemble_layers", None)
    with epkit.load(network(), ["npu_sim"], cache=tmp_path) as session:
        got = session.run(None, feeds)
    assert all(np.array_equal(got[name], want[name]) for name in want)


def test_compressed_weights_move_fewer_bytes() -> None:
    rng = np.random.default_rng(0)
    a = Q(integers(rng, (64, 256), "int8"), 0.1)
    b = Q(integers(rng, (256, 128), "int8") * (rng.random((256, 128)) < 0.2), 0.1, constant=True)
    model = qdq("MatMul", [a, b], Q((64, 128), 9.0))
    plain, short = (stream_of(model, compress_weights=flag) for flag in (False, True))
    assert short.timeline.total().loaded < 0.7 * plain.timeline.total().loaded
    assert len(short.image) < 0.7 * len(plain.image)
