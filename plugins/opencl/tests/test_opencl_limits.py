"""Small devices, devices that run out of memory or go away, and what is measured and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyopencl as cl
import pytest
from onnx import helper

import epkit
import epkit.errors
from epkit_opencl import tuning
from epkit_opencl.device import Gpu, Options, all_handles, limits_of, open_device
from epkit_opencl.memory import weight_buffer

TINY = {"work_items": 64, "local_memory": 16384, "fp64": False, "int64": False}


@pytest.fixture
def gpu() -> Gpu:
    """The device behind the sessions here."""
    return open_device(all_handles()[0])


def data(*shape: int, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, Any], outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    """Nodes over the feeds; symbolic in every dimension."""
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            [f"{name}{axis}" for axis in range(value.ndim)],
        )
        for name, value in feeds.items()
    ]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def check(model: onnx.ModelProto, feeds: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """All nodes on OpenCL, against onnxruntime."""
    with epkit.load(model, [("opencl", dict(options))], fallback="error", optimise="none") as session:
        found = list(session.run(None, feeds).values())
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for ours, theirs in zip(found, peer.run(None, dict(feeds)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> Iterator[None]:
    """Every launch is held against the limits of the tiny device, by what the compiled kernel itself says."""
    launched = cl.enqueue_nd_range_kernel
    local_size = cl.kernel_work_group_info.LOCAL_MEM_SIZE

    def enqueue(queue: Any, kernel: Any, size: Any, group: Any) -> Any:
        assert group is None or math.prod(group) <= TINY["work_items"]
        assert kernel.get_work_group_info(local_size, gpu.handle) <= TINY["local_memory"]
        return launched(queue, kernel, size, group)

    monkeypatch.setattr(cl, "enqueue_nd_range_kernel", enqueue)
    before = set(gpu.programs)
    yield
    sources = [program.source for key, program in gpu.programs.items() if key not in before]
    assert not any("double" in source for source in sources)


SUMS = np.arange(200, dtype=np.int32)
NODES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("MatMul", {"a": data(70, 40), "b": data(40, 50, seed=1)}, {}),
    ("Conv", {"x": data(2, 3, 9, 11), "w": data(20, 3, 3, 3, seed=1), "b": data(20, seed=2)}, {}),
    ("Conv", {"x": data(1, 6, 9, 9), "w": data(6, 1, 3, 3, seed=1)}, {"group": 6}),
    ("LSTM", {"x": data(3, 2, 5), "w": data(1, 160, 5, seed=1), "r": data(1, 160, 40, seed=2)}, {"hidden_size": 40}),
    ("LayerNormalization", {"x": data(7, 40), "s": data(40, seed=1), "b": data(40, seed=2)}, {}),
    ("Softmax", {"x": data(3, 70)}, {"axis": -1}),
    ("ReduceMean", {"x": data(3, 70)}, {"keepdims": 0}),
    ("MaxPool", {"x": data(1, 2, 9, 9)}, {"kernel_shape": [3, 3]}),
    ("ScatterElements", {"x": SUMS[:3], "i": np.arange(200, dtype=np.int32) % 3, "u": SUMS}, {"reduction": "add"}),
    ("Transpose", {"x": data(5, 6, 7)}, {"perm": [2, 0, 1]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "feeds", "attributes"), NODES)
@pytest.mark.usefixtures("watched")
def test_a_tiny_gpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, name: str, feeds: dict[str, Any], attributes: dict[str, Any]
) -> None:
    monkeypatch.setattr(gpu, "is_cpu", False)
    check(model_of([helper.make_node(name, list(feeds), ["y"], **attributes)], feeds), feeds, TINY)


def test_a_device_without_a_type_refuses_it_by_name() -> None:
    for dtype, name in ((np.float64, "float64"), (np.int64, "int64")):
        feeds = {"x": np.ones(3, dtype)}
        model = model_of([helper.make_node("Add", ["x", "x"], ["y"])], feeds)
        with epkit.load(model, [("opencl", TINY), "cpu"], optimise="none") as session:
            (node,) = session.placement.nodes
            assert node.provider == "cpu"
            assert node.refused[0].code == "dtype"
            assert name in node.refused[0].reason


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("limits", [{}, TINY])
def test_products_in_tiles(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, transposed: int, limits: dict[str, Any]
) -> None:
    """Sizes that no tile divides; all that may happen before a number is stored."""
    monkeypatch.setattr(gpu, "is_cpu", False)
    feeds = {
        "a": data(37, 77) if transposed else data(77, 37),
        "b": data(37, 45, seed=1),
        "c": data(45, seed=2),
    }
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], transA=transposed, alpha=0.5, beta=2.0)
    check(model_of([node], feeds), feeds, limits)


def test_the_fastest_way_is_measured_once_and_kept(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gpu, "choices", None)
    feeds = {"a": data(512, 512), "b": data(512, 520, seed=1)}
    model = model_of([helper.make_node("MatMul", ["a", "b"], ["y"])], feeds)
    check(model, feeds, {"tune": False})
    assert not list(tmp_path.iterdir())
    check(model, feeds, {})
    (kept,) = tmp_path.iterdir()
    assert len(json.loads(kept.read_text())) == 1

    def measured(*arguments: object) -> int:
        raise AssertionError("measured again")

    monkeypatch.setattr(tuning, "_measured", measured)
    monkeypatch.setattr(gpu, "choices", None)  # as in another process
    check(model, feeds, {})
    kept.write_text("not what was written")
    monkeypatch.setattr(gpu, "choices", None)
    with pytest.raises(epkit.errors.RunError, match="measured again"):
        check(model, feeds, {})


def test_copies_through_pinned_memory(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some that fit the staging buffer together, and one that is larger than it."""
    from epkit_opencl.staging import SIZE

    monkeypatch.setattr(gpu, "shares_memory", False)
    nodes = [helper.make_node("Neg", [name], [f"y{name}"]) for name in "abc"]
    for large in (5, SIZE // 4 + 3):
        feeds = {"a": data(700), "b": data(3, 1000, seed=1), "c": data(large, seed=2)}
        with epkit.load(model_of(nodes, feeds, ["ya", "yb", "yc"]), ["opencl"], optimise="none") as session:
            for factor in (1, 2):
                found = session.run(None, {name: x * np.float32(factor) for name, x in feeds.items()})
                for name, x in feeds.items():
                    np.testing.assert_array_equal(found[f"y{name}"], -x * np.float32(factor))


def test_a_session_outlives_a_device_without_memory(gpu: Gpu) -> None:
    """More than one buffer may hold: the driver says no before anything is taken."""
    feeds = {"shape": np.array([3])}
    node = helper.make_node(
        "ConstantOfShape",
        ["shape"],
        ["y"],
        value=helper.make_tensor("v", onnx.TensorProto.DOUBLE, [1], [2.0]),
    )
    largest = gpu.handle.max_mem_alloc_size
    assert largest // 8 < 2**31 - 2, "take a wider type: a tensor cannot be so large"
    with epkit.load(model_of([node], feeds), ["opencl"], fallback="error", optimise="none") as session:
        for _ in range(2):
            with pytest.raises(epkit.errors.EpkitError, match="bytes"):
                session(shape=np.array([largest // 8 + 1]))
            np.testing.assert_array_equal(session(shape=np.array([3]))["y"], [2.0, 2.0, 2.0])


def test_a_lost_device_is_named_and_the_session_runs_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = {"x": data(5)}
    model = model_of([helper.make_node("Relu", ["x"], ["y"], name="the relu")], feeds)

    def lost(*arguments: object) -> Any:
        raise cl.RuntimeError("clEnqueueNDRangeKernel", cl.status_code.DEVICE_NOT_AVAILABLE, "gone")

    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        with monkeypatch.context() as patch:
            patch.setattr(cl, "enqueue_nd_range_kernel", lost)
            with pytest.raises(epkit.errors.RunError, match="opencl") as caught:
                session.run(None, feeds)
            assert "the relu" in str(caught.value)
        np.testing.assert_array_equal(session.run(None, feeds)["y"], np.maximum(feeds["x"], 0))


def test_a_forked_process_is_told_so(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the device had been opened by another process: a run there would wait forever."""
    feeds = {"x": data(5)}
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], feeds)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        with monkeypatch.context() as patch:
            patch.setattr(gpu, "process", gpu.process + 1)
            with pytest.raises(epkit.errors.EpkitError, match="forked"):
                session.run(None, feeds)
            with pytest.raises(epkit.errors.UnavailableProviderError, match="forked") as caught:
                epkit.load(model, ["opencl"], fallback="error")
            assert "spawn" in caught.value.remedy
        np.testing.assert_array_equal(session.run(None, feeds)["y"], np.maximum(feeds["x"], 0))


@pytest.mark.parametrize("shift", [0, 4])
def test_weights_lie_once_in_memory_that_host_and_device_share(gpu: Gpu, shift: int) -> None:
    """Where the address is one that the device can read; elsewhere they are copied."""
    limits = limits_of(gpu.handle, Options())
    room = np.zeros(limits.alignment + (1 << 16), np.uint8)
    start = -room.ctypes.data % limits.alignment + shift
    weight = room[start : start + (1 << 15)].view(np.float32)
    weight[:] = np.arange(weight.size)
    weight.flags.writeable = False  # as those of a mapped file
    buffer = weight_buffer(gpu, limits, weight)
    shared = bool(buffer.flags & cl.mem_flags.USE_HOST_PTR)
    assert shared == (gpu.shares_memory and not shift)
    found = np.empty_like(weight)
    cl.enqueue_copy(cl.CommandQueue(gpu.context), found, buffer)
    np.testing.assert_array_equal(found, weight)
