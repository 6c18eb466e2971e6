"""Recurrent layers, TopK and quantisation against onnxruntime, as a CPU and as a GPU would run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import epkit


@pytest.fixture(params=["cpu", "gpu"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device as it is, and as if it were a GPU: kernels then take the way that they take there."""
    from epkit_opencl.device import all_handles, open_device

    monkeypatch.setattr(open_device(all_handles()[0]), "is_cpu", request.param == "cpu")
    return str(request.param)


def model_of(node: onnx.NodeProto, feeds: Mapping[str, Any], opset: int) -> onnx.ModelProto:
    """One node; symbolic in every dimension."""
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [f"{name}{axis}" for axis in range(value.ndim)],
        )
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def both(node: onnx.NodeProto, feeds: Mapping[str, Any], opset: int = 21) -> tuple[list[Any], list[Any]]:
    """The outputs here, all on OpenCL, and those of onnxruntime."""
    model = model_of(node, feeds, opset)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        ours = list(session.run(None, feeds).values())
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ours, peer.run(None, dict(feeds))


def data(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Reproducible numbers around zero."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, FEATURES = 5, 3, 7


def layer_feeds(name: str, size: int, directions: int, wanted: Sequence[str]) -> dict[str, Any]:
    """X, W, R, and the optional inputs that are wanted."""
    width = GATES[name] * size
    every = {
        "x": data(STEPS, BATCH, FEATURES),
        "w": data(directions, width, FEATURES, seed=1) / 3,
        "r": data(directions, width, size, seed=2) / 3,
        "b": data(directions, 2 * width, seed=3) / 3,
        "lens": np.array([5, 2, 4], np.int32),
        "h0": data(directions, BATCH, size, seed=4) / 3,
        "c0": data(directions, BATCH, size, seed=5) / 3,
        "p": data(directions, 3 * size, seed=6) / 3,
    }
    return {key: value for key, value in every.items() if key in ("x", "w", "r", *wanted)}


ORDER = ("x", "w", "r", "b", "lens", "h0", "c0", "p")
CASES: list[tuple[str, int, str, Sequence[str], dict[str, Any]]] = [
    ("RNN", 5, "forward", (), {}),
    ("RNN", 33, "bidirectional", ("b", "lens", "h0"), {"activations": ["Relu", "Tanh"]}),
    ("GRU", 6, "reverse", ("b",), {}),
    ("GRU", 6, "forward", ("h0",), {"clip": 0.3, "activations": ["HardSigmoid", "Softsign"]}),
    ("LSTM", 5, "forward", (), {}),
    ("LSTM", 6, "reverse", ("b", "h0", "c0", "p"), {}),
    ("LSTM", 6, "forward", ("b", "p"), {"input_forget": 1}),
]


BOTH_WAYS: list[Any] = [
    ("GRU", 40, "bidirectional", ("b", "lens", "h0"), {"linear_before_reset": 1}),
    ("LSTM", 70, "bidirectional", ("b", "lens", "h0", "c0"), {}),
]


@pytest.mark.parametrize(("name", "size", "direction", "wanted", "attributes"), BOTH_WAYS)
def test_recurrent_layers_on_both_kinds(
    kind: str, name: str, size: int, direction: str, wanted: Sequence[str], attributes: dict[str, Any]
) -> None:
    test_recurrent_layers(name, size, direction, wanted, attributes)


@pytest.mark.parametrize(("name", "size", "direction", "wanted", "attributes"), CASES)
def test_recurrent_layers(
    name: str, size: int, direction: str, wanted: Sequence[str], attributes: dict[str, Any]
) -> None:
    feeds = layer_feeds(name, size, 2 if direction == "bidirectional" else 1, wanted)
    inputs = [key if key in feeds else "" for key in ORDER]
    while not inputs[-1]:
        inputs.pop()
    outputs = ["y", "yh", "yc"] if name == "LSTM" else ["y", "yh"]
    node = helper.make_node(name, inputs, outputs, hidden_size=size, direction=direction, **attributes)
    for found, want in zip(*both(node, feeds), strict=True):
        assert found.shape == want.shape
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_the_batch_may_come_first() -> None:
    feeds = layer_feeds("LSTM", 6, 1, ("b", "h0", "c0"))
    outputs = ["y", "yh", "yc"]
    inputs = ["x", "w", "r", "b", "", "h0", "c0"]
    _, want = both(helper.make_node("LSTM", inputs, outputs, hidden_size=6), feeds)
    turned = {k: v.swapaxes(0, 1).copy() if k in ("x", "h0", "c0") else v for k, v in feeds.items()}
    node = helper.make_node("LSTM", inputs, outputs, hidden_size=6, layout=1)
    with epkit.load(model_of(node, turned, 21), ["opencl"], fallback="error", optimise="none") as session:
        y, yh, yc = session.run(None, turned).values()
    np.testing.assert_allclose(y, want[0].transpose(2, 0, 1, 3), rtol=1e-4, atol=1e-5)
    for found, wanted in zip((yh, yc), want[1:], strict=True):
        np.testing.assert_allclose(found, wanted.swapaxes(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_top_k_with_ties(kind: str, axis: int, largest: int, dtype: Any) -> None:
    x = (data(6, 50) * 3).astype(np.int64).astype(dtype)
    node = helper.make_node("TopK", ["x", "k"], ["values", "places"], axis=axis, largest=largest)
    for k in (1, 6):
        for found, want in zip(*both(node, {"x": x, "k": np.array([k])}), strict=True):
            np.testing.assert_array_equal(found, want)


def test_top_k_takes_nan_for_the_greatest(kind: str) -> None:
    x = np.array([[1, np.nan, 3, -np.inf, np.nan, 2]], np.float32)
    node = helper.make_node("TopK", ["x", "k"], ["values", "places"])
    with epkit.load(
        model_of(node, {"x": x, "k": np.array([4])}, 21), ["opencl"], fallback="error"
    ) as session:
        values, places = session(x=x, k=np.array([4])).values()
    np.testing.assert_array_equal(values, [[np.nan, np.nan, 3, 2]])
    np.testing.assert_array_equal(places, [[1, 4, 2, 5]])


@pytest.mark.parametrize(
    ("dtype", "spread"), [(np.int8, "one"), (np.uint8, "axis"), (np.int16, "blocks"), (np.uint16, "axis")]
)
def test_quantising_there_and_back(dtype: Any, spread: str) -> None:
    x = data(4, 6, 10) * 40
    shape = {"one": (), "axis": (6,), "blocks": (4, 2, 10)}[spread]
    scale = np.asarray(np.abs(data(*shape, seed=1)) + np.float32(0.05))
    zero = np.asarray(data(*shape, seed=2) * 20 + (0 if np.iinfo(dtype).min else 60)).astype(dtype)
    attributes: dict[str, Any] = {"axis": 1, "block_size": 3} if spread == "blocks" else {"axis": 1}
    feeds = {"x": x, "s": scale, "z": zero}
    (found,), (want,) = both(helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes), feeds)
    np.testing.assert_array_equal(found, want)
    feeds = {"x": want, "s": scale, "z": zero}
    (found,), (back,) = both(
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], **attributes), feeds
    )
    np.testing.assert_allclose(found, back, rtol=1e-6)


@pytest.mark.parametrize("shift", [0, 5, -5])
def test_quantising_by_the_range(shift: int) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    for found, want in zip(*both(node, {"x": data(30, 40) + np.float32(shift)}), strict=True):
        np.testing.assert_array_equal(found, want)


@pytest.fixture(params=[False, True])
def dots_of_four(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Bytes multiplied one by one, and by four as where the device can; without that its meaning is written out."""
    from epkit_opencl.device import all_handles, open_device

    monkeypatch.setattr(open_device(all_handles()[0]), "dots_of_four", request.param)
    return bool(request.param)


def some_bytes(*shape: int, dtype: Any, seed: int) -> Any:
    """Bytes over the whole range."""
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize(("left", "right"), [(np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8)])
@pytest.mark.parametrize("batches", [((), ()), ((2, 1), (3,))])
def test_products_of_bytes(dots_of_four: bool, left: Any, right: Any, batches: Any) -> None:
    a = some_bytes(*batches[0], 11, 22, dtype=left, seed=1)
    b = some_bytes(*batches[1], 22, 40, dtype=right, seed=2)
    za, zb = some_bytes(11, dtype=left, seed=3), some_bytes(40, dtype=right, seed=4)
    feeds = {"a": a, "b": b, "za": za, "zb": zb}
    model = model_of(helper.make_node("MatMulInteger", list(feeds), ["y"]), feeds, 21)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)["y"]
    want = (a.astype(np.int64) - za[:, None]) @ (b.astype(np.int64) - zb.astype(np.int64))
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("group", [1, 2])
def test_convolution_of_bytes(dots_of_four: bool, group: int) -> None:
    feeds = {
        "x": some_bytes(2, 4, 9, 8, dtype=np.uint8, seed=1),
        "sx": np.array(0.1, np.float32),
        "zx": np.array(120, np.uint8),
        "w": some_bytes(6, 4 // group, 3, 2, dtype=np.int8, seed=2),
        "sw": np.abs(data(6)) + np.float32(0.1),
        "zw": np.zeros(6, np.int8),
        "sy": np.array(9.0, np.float32),
        "zy": np.array(100, np.uint8),
        "b": (data(6, seed=4) * 1000).astype(np.int32),
    }
    node = helper.make_node("QLinearConv", list(feeds), ["y"], group=group, pads=[1, 0, 2, 1], strides=[2, 1])
    (found,), (want,) = both(node, feeds)
    assert np.abs(found.astype(int) - want).max() <= 1  # onnxruntime multiplies by a rounded factor
    assert (found == want).mean() > 0.98
    node = helper.make_node("ConvInteger", ["x", "w", "zx"], ["y"], group=1, pads=[1, 0, 2, 1])
    if group == 1:
        (found,), (want,) = both(node, {name: feeds[name] for name in ("x", "w", "zx")})
        np.testing.assert_array_equal(found, want)
