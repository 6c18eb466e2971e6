"""Values in shared virtual memory, where the device has it: kernels are given pointers, the host maps them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pyopencl as cl
import pytest
from onnx import helper
from test_opencl_kernels import data, model_of

import epkit
import epkit.errors
from epkit_opencl import device, transfer
from epkit_opencl.device import Gpu, all_handles, has_svm, open_device

SVM = ("opencl", {"memory": "svm"})


@pytest.fixture
def gpu() -> Gpu:
    """The device behind the sessions here."""
    found = open_device(all_handles()[0])
    if not has_svm(found.handle):
        pytest.skip("the device has no shared virtual memory")
    return found


def network() -> tuple[onnx.ModelProto, Any]:
    """Launches, a fill, a copy, sizes that the host looks at, a constant that leaves; and its meaning."""
    w = data(40, 40, seed=3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Softmax", ["r"], ["s"]),
        helper.make_node("Pad", ["s", "pads"], ["p"]),
        helper.make_node("Concat", ["p", "p"], ["y"], axis=0),
        helper.make_node("Identity", ["w"], ["z"]),
    ]
    model = model_of(nodes, {"x": data(3, 40)}, ["y", "z"])
    kept = {"w": w, "pads": np.array([1, 0, 0, 2])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in kept.items())

    def meaning(x: Any) -> list[Any]:
        e = np.exp(np.maximum(x @ w, 0))
        p = np.pad(e / e.sum(-1, keepdims=True), ((1, 0), (0, 2)))
        return [np.concatenate([p, p]), w]

    return model, meaning


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("capture", [False, True])
def test_the_same_results_as_in_buffers(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, shares: bool, capture: bool
) -> None:
    """From several threads; by maps where the host shares the memory, else by copies."""
    monkeypatch.setattr(gpu, "shares_memory", shares)
    made: list[Any] = []
    maps: list[Any] = []
    allocation, plain_map = cl.SVMAllocation, cl._cl._enqueue_svm_map

    def allocate(*arguments: Any) -> Any:
        made.append(allocation(*arguments))
        return made[-1]

    def mapped(*arguments: Any, **named: Any) -> Any:
        maps.append(arguments)
        return plain_map(*arguments, **named)

    monkeypatch.setattr(transfer, "is_shared", lambda tensor: isinstance(tensor.buffer, allocation))
    monkeypatch.setattr(cl, "SVMAllocation", allocate)
    monkeypatch.setattr(cl._cl, "_enqueue_svm_map", mapped)
    model, meaning = network()
    with epkit.load(model, [SVM], fallback="error", optimise="none", capture=capture) as session:

        def check(seed: int) -> None:
            x = data(3, 40, seed=seed)
            for found, want in zip(session.run(None, {"x": x}).values(), meaning(x), strict=True):
                np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)

        for seed in range(5):
            check(seed)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(12)))
    assert made
    assert bool(maps) == (shares or capture)  # a captured constant is copied out of its buffer through a map


def test_an_output_that_stays_is_the_next_runs_input(gpu: Gpu) -> None:
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    with epkit.load(model_of([node], {"x": data(5)}, ["y"]), [SVM], fallback="error") as session:
        x = data(300)
        kept = session.run(None, {"x": x}, epkit.RunOptions(on_device=True))["y"]
        np.testing.assert_allclose(session.run(None, {"x": kept})["y"], x**4, rtol=1e-5)
        np.testing.assert_allclose(kept.numpy(), x**2, rtol=1e-6)


def test_no_host_memory_is_read_before_the_device_has_written_it(gpu: Gpu) -> None:
    """A long computation between two maps of the same memory."""
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in zip("xabcd", "abcdy", strict=True)]
    w = np.eye(700, dtype=np.float32)[::-1].copy()
    model = model_of(nodes, {"x": data(700, 700)}, ["y"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    with epkit.load(model, [SVM], fallback="error", optimise="none") as session:
        for seed in range(3):
            x = data(700, 700, seed=seed)
            np.testing.assert_array_equal(session.run(None, {"x": x})["y"], x[:, ::-1])


def test_a_device_without_it_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_svm", lambda handle: False)
    model, _ = network()
    with pytest.raises(epkit.errors.UnavailableProviderError, match="shared virtual memory") as caught:
        epkit.load(model, [SVM], fallback="error")
    assert "buffers" in caught.value.remedy
    with pytest.raises(epkit.errors.OptionError, match="svm"):
        epkit.load(model, [("opencl", {"memory": "images"})], fallback="error")


def test_too_little_of_it_is_an_error_and_the_session_runs_on(gpu: Gpu) -> None:
    feeds = {"shape": np.array([3])}
    node = helper.make_node(
        "ConstantOfShape",
        ["shape"],
        ["y"],
        value=helper.make_tensor("v", onnx.TensorProto.DOUBLE, [1], [2.0]),
    )
    largest = gpu.handle.max_mem_alloc_size
    with epkit.load(model_of([node], feeds, ["y"]), [SVM], fallback="error", optimise="none") as session:
        with pytest.raises(epkit.errors.EpkitError, match="bytes"):
            session(shape=np.array([largest // 8 + 1]))
        np.testing.assert_array_equal(session(shape=np.array([3]))["y"], [2.0, 2.0, 2.0])
