"""RNN, GRU and LSTM: the kernel on the host, against onnxruntime and the standard's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_standin import StandIn
from fake_cudnn import FakeCudnn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from test_cuda_kernels import data

import epkit

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # a source is compiled in between
FEW = settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ORDER = ["x", "w", "r", "b", "lens", "h", "c", "p"]
S, B, INNER, H = 5, 3, 4, 6


def inputs(op: str, directions: int, chosen: set[str], dtype: Any = np.float32) -> dict[str, Any]:
    """Inputs of a layer: the first three, and those that are chosen."""
    gates = GATES[op]
    shapes = {
        "x": (S, B, INNER), "w": (directions, gates * H, INNER), "r": (directions, gates * H, H),
        "b": (directions, 2 * gates * H), "h": (directions, B, H), "c": (directions, B, H), "p": (directions, 3 * H),
    }  # fmt: skip
    found = {
        name: data(*shape, seed=seed, dtype=dtype)
        for seed, (name, shape) in enumerate(shapes.items())
        if seed < 3 or name in chosen
    }
    return {**found, **({"lens": np.array([5, 1, 3], np.int32)} if "lens" in chosen else {})}


def model_of(
    op: str, feeds: dict[str, Any], constants: tuple[str, ...] = (), **attributes: Any
) -> onnx.ModelProto:
    names = [name if name in feeds else "" for name in ORDER]
    while not names[-1]:
        names.pop()
    outputs = ["y", "yh", "yc"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, names, outputs, hidden_size=H, name="layer", **attributes)
    code = helper.np_dtype_to_tensor_dtype
    infos = [
        helper.make_tensor_value_info(n, code(x.dtype), x.shape)
        for n, x in feeds.items()
        if n not in constants
    ]
    results = [helper.make_tensor_value_info(n, code(feeds["x"].dtype), None) for n in outputs]
    kept = [onnx.numpy_helper.from_array(feeds[name], name) for name in constants]
    graph = helper.make_graph([node], "g", infos, results, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def ours(model: onnx.ModelProto, feeds: dict[str, Any], **options: Any) -> list[Any]:
    names = {value.name for value in model.graph.input}
    given_ = {name: value for name, value in feeds.items() if name in names}
    with epkit.load(model, [("cuda", options)], fallback="error", optimise="none") as session:
        return list(session.run(None, given_).values())


def theirs(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    names = {value.name for value in model.graph.input}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: value for name, value in feeds.items() if name in names}))


@FEW
@given(st.data())
def test_layers_against_onnxruntime(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    op, direction = choose("RNN", "GRU", "LSTM"), choose("forward", "reverse", "bidirectional")
    directions = 1 + (direction == "bidirectional")
    extra = ["b", "lens", "h", *(["c", "p"] if op == "LSTM" else [])]
    chosen = set(draw.draw(st.lists(st.sampled_from(extra), unique=True)))
    attributes: dict[str, Any] = {"direction": direction}
    if op == "GRU":
        attributes["linear_before_reset"] = choose(0, 1)
    feeds = inputs(op, directions, chosen)
    model = model_of(op, feeds, choose((), ("w", "r")), **attributes)
    for have, want in zip(ours(model, feeds), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert gpu.implicit_reads == 0


def test_other_activations_bounds_and_coupled_gates(gpu: StandIn) -> None:
    feeds = inputs("LSTM", 2, {"b", "c", "h"})
    names = ["HardSigmoid", "Tanh", "Softsign", "Sigmoid", "ScaledTanh", "Relu"]
    options = {
        "activations": names,
        "activation_alpha": [0.3, 0.9],
        "activation_beta": [0.4, 1.1],
    }
    model = model_of("LSTM", feeds, direction="bidirectional", input_forget=1, **options)
    for have, want in zip(ours(model, feeds), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_what_goes_into_an_activation_is_bounded(gpu: StandIn) -> None:
    feeds = inputs("RNN", 1, {"b", "h"})
    model = model_of("RNN", feeds, clip=0.5)
    for have, want in zip(ours(model, feeds), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert abs(float(have.max()) - np.tanh(0.5)) < 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_and_the_batch_in_front(gpu: StandIn, dtype: Any) -> None:
    feeds = inputs("LSTM", 1, {"b"})
    want = theirs(model_of("LSTM", feeds), feeds)
    mine = {name: value.astype(dtype) for name, value in feeds.items()}
    mine["x"] = np.ascontiguousarray(mine["x"].transpose(1, 0, 2))
    found = ours(model_of("LSTM", mine, layout=1), mine)
    tolerance = 1e-2 if dtype == np.float16 else 1e-4
    np.testing.assert_allclose(found[0].transpose(1, 2, 0, 3), want[0], rtol=tolerance, atol=tolerance)
    for have, wanted in zip(found[1:], want[1:], strict=True):
        np.testing.assert_allclose(have.transpose(1, 0, 2), wanted, rtol=tolerance, atol=tolerance)


def test_wrong_lengths_and_shapes_are_told(gpu: StandIn) -> None:
    feeds = inputs("GRU", 1, {"lens"})
    model = model_of("GRU", feeds)
    with pytest.raises(epkit.errors.RunError, match="out of range in layer"):
        ours(model, {**feeds, "lens": np.array([5, 6, 1], np.int32)})
    wrong = {**feeds, "r": feeds["r"][:, :-1]}
    with pytest.raises(epkit.errors.EpkitError):
        ours(model_of("GRU", wrong), wrong)


@FEW
@given(st.data())
def test_what_cudnn_is_asked_for(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    fake = gpu.use_cudnn(FakeCudnn())
    op, direction = choose("RNN", "GRU", "LSTM"), choose("forward", "bidirectional")
    extra = ["b", "lens", "h", *(["c"] if op == "LSTM" else [])]
    feeds = inputs(
        op, 1 + (direction == "bidirectional"), set(draw.draw(st.lists(st.sampled_from(extra), unique=True)))
    )
    attributes = {"linear_before_reset": 1} if op == "GRU" else {}
    if op == "RNN" and choose(True, False):
        attributes["activations"] = ["Relu"] * feeds["w"].shape[0]
    constants = tuple({"w", "r", "b"} & set(feeds)) if choose(True, False) else ()
    model, launched = model_of(op, feeds, constants, direction=direction, **attributes), gpu.launches
    before = len(fake.calls)
    for have, want in zip(ours(model, feeds), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert fake.calls[before:].count("cudnnRNNForward") == 1 and gpu.launches == launched


def test_cudnn_in_a_graph_with_the_batch_in_front(gpu: StandIn) -> None:
    fake = gpu.use_cudnn(FakeCudnn())
    feeds = inputs("LSTM", 1, {"b", "lens"})
    want = theirs(model_of("LSTM", feeds), feeds)
    mine = {**feeds, "x": np.ascontiguousarray(feeds["x"].transpose(1, 0, 2))}
    model = model_of("LSTM", mine, ("w", "r", "b"), layout=1)
    with epkit.load(model, ["cuda"], fallback="error", capture=True) as session:
        for _ in range(5):
            found = session.run(None, {name: mine[name] for name in ("x", "lens")})
            np.testing.assert_allclose(found["y"].transpose(1, 2, 0, 3), want[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["yc"].transpose(1, 0, 2), want[2], rtol=1e-4, atol=1e-5)
    assert gpu.graph_launches == 3 and fake.calls.count("cudnnGetRNNWeightParams") == 8


@pytest.mark.parametrize("status", [0, 3000])
def test_what_cudnn_has_not_is_the_kernel_s(gpu: StandIn, status: int) -> None:
    fake = gpu.use_cudnn(FakeCudnn(status))
    layers = [("LSTM", {"b", "p"}, {}), ("GRU", {"b"}, {}), ("RNN", set(), {"direction": "reverse"})]
    for op, chosen, attributes in layers if not status else [("LSTM", {"b"}, {})]:
        feeds = inputs(op, 1, chosen)
        model = model_of(op, feeds, **attributes)
        for have, want in zip(ours(model, feeds), theirs(model, feeds), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert "cudnnRNNForward" not in fake.calls


def test_an_error_of_cudnn_is_told(gpu: StandIn) -> None:
    gpu.use_cudnn(FakeCudnn(2000))
    feeds = inputs("LSTM", 1, set())
    with pytest.raises(epkit.errors.RunError, match="cudnnSetRNNDescriptor_v8 of cuDNN gave status 2000"):
        ours(model_of("LSTM", feeds), feeds)
