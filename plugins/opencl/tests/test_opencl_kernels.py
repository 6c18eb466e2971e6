"""Kernels against NumPy and onnxruntime, over shapes that vary; chains against their nodes one by one."""

from __future__ import annotations

import math
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
import epkit.errors

F32 = onnx.TensorProto.FLOAT


def model_of(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, Any], outputs: Sequence[str], opset: int = 18
) -> onnx.ModelProto:
    """A model of nodes whose inputs have the types of the feeds; symbolic in every dimension."""
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype),
            [f"{name}{axis}" for axis in range(np.ndim(value))],
        )
        for name, value in feeds.items()
    ]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ours(
    model: onnx.ModelProto, feeds: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> list[Any]:
    """The outputs, all nodes on OpenCL."""
    with epkit.load(model, [("opencl", dict(options or {}))], fallback="error", optimise="none") as session:
        return list(session.run(None, feeds).values())


def theirs(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs of onnxruntime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def data(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Reproducible numbers around zero."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


SIZES = st.sampled_from([1, 2, 3, 5, 17, 40, 70])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_chains_with_any_broadcasting(draw: st.DataObject) -> None:
    rank = draw.draw(st.integers(0, 4))
    full = draw.draw(st.lists(SIZES, min_size=rank, max_size=rank))
    feeds = {}
    for name in "abc":
        kept = draw.draw(st.integers(0, rank))
        shape = [n if draw.draw(st.booleans()) else 1 for n in full[rank - kept :]]
        feeds[name] = data(*shape, seed=ord(name))
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("Mul", ["t", "c"], ["m"]),
        helper.make_node("Greater", ["m", "a"], ["g"]),
        helper.make_node("Where", ["g", "m", "b"], ["w"]),
        helper.make_node("Sub", ["w", "s"], ["y"]),
    ]
    a, b, c = feeds.values()
    m = np.tanh(a + b) * c
    want = np.where(m > a, m, b) - (a + b)
    (found,) = ours(model_of(nodes, feeds, ["y"]), feeds)
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_the_error_function_over_all_numbers() -> None:
    """Within 2 ULP of the exact value, where that is no denormal number."""
    x = np.arange(0, 2**32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    (found,) = ours(model_of([helper.make_node("Erf", ["x"], ["y"])], {"x": x}, ["y"]), {"x": x})
    want = np.array([math.erf(float(v)) for v in x])
    normal = np.abs(want) > 1.2e-38
    error = np.abs(found[normal] - want[normal]) / np.spacing(np.abs(want[normal]).astype(np.float32))
    assert error.max() <= 2
    assert np.isnan(found[np.isnan(x)]).all()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from([1, 7, 64]),
    st.sampled_from([((), ()), ((3,), (3,)), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((2, 3), (3,))]),
)
def test_products(m: int, n: int, k: int, batches: Any) -> None:
    a, b = data(*batches[0], m, k), data(*batches[1], k, n, seed=1)
    feeds = {"a": a, "b": b}
    (found,) = ours(model_of([helper.make_node("MatMul", ["a", "b"], ["y"])], feeds, ["y"]), feeds)
    np.testing.assert_allclose(found, a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("addend", [None, (1,), (35,), (13, 1), (13, 35)])
def test_gemm(transposed: tuple[int, int], addend: Any) -> None:
    feeds = {"a": data(13, 20), "b": data(20, 35, seed=1)}
    feeds = {
        k: np.ascontiguousarray(v.T) if t else v for (k, v), t in zip(feeds.items(), transposed, strict=True)
    }
    if addend is not None:
        feeds["c"] = data(*addend, seed=2)
    node = helper.make_node(
        "Gemm", list(feeds), ["y"], transA=transposed[0], transB=transposed[1], alpha=0.5, beta=2.0
    )
    model = model_of([node], feeds, ["y"])
    np.testing.assert_allclose(ours(model, feeds)[0], theirs(model, feeds)[0], rtol=1e-5, atol=1e-5)


CONVOLUTIONS: list[tuple[Sequence[int], Sequence[int], dict[str, Any]]] = [
    ((2, 3, 9, 11), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 3, 9, 11), (5, 3, 3, 2), {"strides": [2, 1], "pads": [0, 1, 2, 0], "dilations": [1, 2]}),
    ((1, 8, 7, 7), (12, 8, 1, 1), {}),
    ((2, 6, 8, 8), (4, 3, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER"}),
    ((2, 6, 8, 9), (6, 1, 3, 3), {"group": 6, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((2, 3, 8, 9), (6, 1, 3, 5), {"group": 3, "pads": [1, 2, 1, 2]}),
    ((2, 3, 20), (4, 3, 5), {"strides": [3]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 0]}),
    ((1, 5, 3, 70), (4, 5, 3, 5), {"pads": [1, 2, 1, 2], "strides": [1, 1]}),
    ((1, 3, 5, 80), (4, 3, 3, 3), {"pads": [2, 9, 2, 9], "strides": [2, 2], "dilations": [1, 4]}),
    ((2, 130, 5, 13), (3, 130, 1, 1), {}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_conv(x: Sequence[int], w: Sequence[int], attributes: dict[str, Any], bias: bool) -> None:
    feeds = {"x": data(*x), "w": data(*w, seed=1), **({"b": data(w[0], seed=2)} if bias else {})}
    model = model_of([helper.make_node("Conv", list(feeds), ["y"], **attributes)], feeds, ["y"])
    np.testing.assert_allclose(ours(model, feeds)[0], theirs(model, feeds)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    "attributes",
    [{}, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}, {"dilations": [2, 1]}],
)
def test_conv_transpose(group: int, attributes: dict[str, Any]) -> None:
    feeds = {"x": data(2, 4, 5, 6), "w": data(4, 3, 3, 2, seed=1), "b": data(3 * group, seed=2)}
    model = model_of(
        [helper.make_node("ConvTranspose", list(feeds), ["y"], group=group, **attributes)], feeds, ["y"]
    )
    np.testing.assert_allclose(ours(model, feeds)[0], theirs(model, feeds)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limits", [{"work_items": 64, "local_memory": 16384, "fp64": False, "int64": False}])
def test_a_tiny_device(limits: dict[str, Any]) -> None:
    feeds = {"x": data(2, 3, 9, 11), "w": data(5, 3, 3, 3, seed=1)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Softmax", ["p"], ["y"], axis=1),
    ]
    model = model_of(nodes, feeds, ["y"])
    np.testing.assert_allclose(ours(model, feeds, limits)[0], theirs(model, feeds)[0], rtol=1e-5)


def test_shape_arithmetic_stays_on_the_host_with_a_reason() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["u"]),
        helper.make_node("Concat", ["u", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["r"]),
        helper.make_node("Exp", ["r"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    model = model_of(nodes, {"x": data(2, 3, 4)}, ["y"])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    with epkit.load(model, ["opencl"], optimise="none") as session:
        placed = {node.operator: node for node in session.placement.nodes}
        assert {name: node.provider for name, node in placed.items()} == {
            **dict.fromkeys(("Shape", "Reshape", "Exp"), "opencl"),
            **dict.fromkeys(("Gather", "Unsqueeze", "Concat"), "cpu"),
        }
        assert placed["Gather"].refused[0].code == "cost"
        for rows in (2, 5):
            x = data(rows, 3, 4)
            np.testing.assert_allclose(session(x=x)["y"], np.exp(x.reshape(rows, -1)), rtol=1e-6)


def test_an_index_outside_is_an_error_where_the_host_knows_it() -> None:
    feeds = {"x": data(3, 4), "i": np.array([0, 3])}
    model = model_of([helper.make_node("Gather", ["x", "i"], ["y"])], feeds, ["y"])
    with pytest.raises(epkit.errors.RunError, match="index"):
        ours(model, feeds)


@pytest.mark.parametrize("wanted", ["no such device", "99"])
def test_a_device_that_is_not_there_lists_those_that_are(wanted: str) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": data(2)}, ["y"])
    with pytest.raises(epkit.errors.UnavailableProviderError) as caught:
        ours(model, {"x": data(2)}, {"device": wanted})
    assert "0:" in caught.value.remedy


def test_a_kernel_that_does_not_compile_shows_the_line() -> None:
    from epkit_opencl.device import all_handles, open_device
    from epkit_opencl.launch import built

    with pytest.raises(epkit.errors.CompileError, match="float y = oops"):
        built(open_device(all_handles()[0]), "__kernel void k(__global float* p) {\n  float y = oops;\n}\n")


def test_without_a_driver_the_provider_is_absent_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from epkit_opencl import device

    def nothing() -> list[Any]:
        raise RuntimeError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(device, "all_handles", nothing)
    found = device.find_devices(device.Options())
    assert not found.found
    assert "PLATFORM_NOT_FOUND" in found.reason
    assert "pocl" in found.remedy


def test_a_result_never_shows_what_the_host_knew_of_its_memory_before() -> None:
    """Small copies to the device are remembered on the host; memory that comes back as an output was not."""
    from types import SimpleNamespace

    from epkit_opencl.launch import empty
    from epkit_opencl.memory import Tensor

    stale = Tensor(None, 0, (2,), np.dtype(np.float32), np.full(2, np.nan, np.float32))
    context: Any = SimpleNamespace(empty=lambda *arguments: stale)
    assert empty(context, None, (2,), np.dtype(np.float32)).host is None
