"""Fused operators against onnxruntime: the same node there, where it knows it, or the standard's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import epkit

MS = "com.microsoft"


def model_of(
    node: onnx.NodeProto, feeds: Mapping[str, Any], outputs: Sequence[str], opset: int = 23
) -> onnx.ModelProto:
    """One node; its inputs have the feeds' types and ranks, its outputs are float32."""
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [f"{name}{axis}" for axis in range(value.ndim)],
        )
        for name, value in feeds.items()
    ]
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(
        helper.make_graph([node], "g", inputs, made), opset_imports=opsets, ir_version=10
    )


def compare(
    node: onnx.NodeProto, feeds: Mapping[str, Any], outputs: Sequence[str] = ("y",), tolerance: float = 1e-5
) -> None:
    """All outputs, ours against onnxruntime's."""
    model = model_of(node, feeds, outputs)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, want in zip(outputs, theirs.run(list(outputs), dict(feeds)), strict=True):
        assert found[name].shape == want.shape
        np.testing.assert_allclose(found[name], want, rtol=tolerance, atol=tolerance)


def data(*shape: int, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["Gelu", "BiasGelu", "FastGelu", "QuickGelu"])
@pytest.mark.parametrize("biased", [False, True])
def test_activations_of_microsoft(name: str, biased: bool) -> None:
    feeds = {"x": data(2, 3, 20)}
    if name == "BiasGelu" or (biased and name == "FastGelu"):
        feeds["b"] = data(20, seed=1)
    compare(helper.make_node(name, list(feeds), ["y"], domain=MS), feeds)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 5]), st.sampled_from([3, 16, 37, 64]), st.data())
def test_normalisation_after_a_residual(batch: int, rows: int, size: int, draw: st.DataObject) -> None:
    feeds = {"x": data(batch, rows, size)}
    feeds["skip"] = data(*draw.draw(st.sampled_from([(batch, rows, size), (1, rows, size)])), seed=1)
    feeds["gamma"] = data(size, seed=2)
    simplified = draw.draw(st.booleans())
    inputs = ["x", "skip", "gamma"]
    for name in ("bias",) if simplified else ("beta", "bias"):
        given_ = draw.draw(st.booleans())
        inputs.append(name if given_ else "")
        if given_:
            feeds[name] = data(size, seed=3)
    name = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    outputs = ["y", "", "", "total"] if draw.draw(st.booleans()) else ["y"]
    node = helper.make_node(name, inputs, outputs, domain=MS, epsilon=1e-3)
    compare(node, feeds, [item for item in outputs if item], 1e-4)


@pytest.mark.parametrize(("shape", "axis"), [((3, 20), -1), ((2, 3, 4), 1), ((5, 33), 0)])
@pytest.mark.parametrize("biased", [False, True])
def test_layer_normalization_over_several_axes(shape: Sequence[int], axis: int, biased: bool) -> None:
    rest = shape[axis:]
    feeds = {
        "x": data(*shape),
        "scale": data(*rest, seed=1),
        **({"b": data(*rest, seed=2)} if biased else {}),
    }
    compare(helper.make_node("LayerNormalization", list(feeds), ["y"], axis=axis), feeds, tolerance=1e-4)


def test_rms_normalisation_by_its_older_name() -> None:
    feeds = {"x": data(2, 3, 20), "scale": data(20, seed=1)}
    compare(helper.make_node("SimplifiedLayerNormalization", list(feeds), ["y"], epsilon=1e-3), feeds)


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("batches", [((), ()), ((3,), ()), ((3,), (3,)), ((2, 1), (3,))])
def test_fused_matmul(transposed: tuple[int, int], batches: Any) -> None:
    a, b = data(*batches[0], 13, 20), data(*batches[1], 20, 35, seed=1)
    a, b = (
        np.ascontiguousarray(x.swapaxes(-1, -2)) if t else x for x, t in zip((a, b), transposed, strict=True)
    )
    attributes: dict[str, Any] = {"transA": transposed[0], "transB": transposed[1], "alpha": 0.25}
    compare(helper.make_node("FusedMatMul", ["a", "b"], ["y"], domain=MS, **attributes), {"a": a, "b": b})


ACTIVATIONS: list[tuple[str, list[float]]] = [
    ("Relu", []),
    ("Sigmoid", []),
    ("Tanh", []),
    ("LeakyRelu", [0.3]),
    ("HardSigmoid", [0.3, 0.4]),
    ("Clip", [-0.5, 0.5]),
]


@pytest.mark.parametrize(("activation", "numbers"), ACTIVATIONS)
@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize("residual", [False, True])
def test_fused_conv(activation: str, numbers: list[float], group: int, residual: bool) -> None:
    if group == 6 and residual:
        residual = False  # onnxruntime adds a residual to dense convolutions only
    feeds = {"x": data(2, 6, 7, 9), "w": data(6, 6 // group, 3, 3, seed=1), "b": data(6, seed=2)}
    feeds |= {"z": data(2, 6, 7, 9, seed=3)} if residual else {}
    attributes: dict[str, Any] = {"activation": activation, "group": group, "pads": [1, 1, 1, 1]}
    attributes |= {"activation_params": numbers} if numbers else {}
    compare(helper.make_node("FusedConv", list(feeds), ["y"], domain=MS, **attributes), feeds, tolerance=1e-4)


@pytest.mark.parametrize(("activation", "numbers"), ACTIVATIONS[:5])
def test_fused_gemm(activation: str, numbers: list[float]) -> None:
    feeds = {"a": data(13, 20), "b": data(35, 20, seed=1), "c": data(35, seed=2)}
    names = ("activation_alpha", "activation_beta")
    attributes: dict[str, Any] = {
        "activation": activation,
        "transB": 1,
        "alpha": 0.5,
        **dict(zip(names, numbers, strict=False)),
    }
    compare(helper.make_node("FusedGemm", list(feeds), ["y"], domain=MS, **attributes), feeds, tolerance=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_attention(draw: st.DataObject) -> None:
    batch, shared, serves = (draw.draw(st.integers(1, 2)) for _ in range(3))
    rows, keys = draw.draw(st.sampled_from([1, 5, 17, 40])), draw.draw(st.sampled_from([1, 31, 33, 70]))
    size, wide = draw.draw(st.sampled_from([3, 32, 40])), draw.draw(st.sampled_from([5, 32, 64]))
    heads = shared * serves
    attributes: dict[str, Any] = {}
    if draw.draw(st.booleans()):  # heads joined
        feeds = {
            "q": data(batch, rows, heads * size),
            "k": data(batch, keys, shared * size, seed=1),
            "v": data(batch, keys, shared * wide, seed=2),
        }
        attributes |= {"q_num_heads": heads, "kv_num_heads": shared}
    else:
        feeds = {
            "q": data(batch, heads, rows, size),
            "k": data(batch, shared, keys, size, seed=1),
            "v": data(batch, shared, keys, wide, seed=2),
        }
    inputs, past = ["q", "k", "v"], 0
    if draw.draw(st.booleans()):
        past = 3
        feeds["pk"] = data(batch, shared, past, size, seed=3)
        feeds["pv"] = data(batch, shared, past, wide, seed=4)
    masks = [(rows, keys + past), (1, 1, rows, keys + past), (batch, heads, rows, keys + past)]
    kind = draw.draw(st.sampled_from(["none", "float", "bool"]))
    if kind != "none":
        mask = data(*draw.draw(st.sampled_from(masks)), seed=5)
        feeds["m"] = mask if kind == "float" else mask > -1
    inputs += ["m" if kind != "none" else "", *(["pk", "pv"] if past else [])]
    outputs = ["y", "present_k", "present_v"] if past else ["y"]
    attributes["is_causal"] = int(draw.draw(st.booleans()))
    attributes["softcap"] = draw.draw(st.sampled_from([0.0, 2.0]))
    node = helper.make_node("Attention", inputs, outputs, **attributes)
    model = model_of(node, feeds, outputs)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)
    with epkit.load(model, ["cpu"], optimise="none") as session:
        want = session.run(None, feeds)
    for name in outputs:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(masked: bool) -> None:
    feeds = {"q": data(2, 9, 48), "k": data(2, 35, 48, seed=1), "v": data(2, 35, 48, seed=2)}
    inputs = ["q", "k", "v"]
    if masked:
        feeds["m"] = data(1, 3, 9, 35, seed=3)
        inputs += ["", "", "m"]
    compare(helper.make_node("MultiHeadAttention", inputs, ["y"], domain=MS, num_heads=3), feeds)
