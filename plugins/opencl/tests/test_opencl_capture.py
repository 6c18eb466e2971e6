"""Captured runs: replayed launch by launch, and as command buffers where the device has them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from test_opencl_kernels import data, model_of

import epkit
from epkit_opencl import command_buffer, replay
from epkit_opencl.device import Options, find_devices, handle_of, open_device


def test_a_captured_run_gives_the_same_from_several_threads() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Shape", ["m"], ["s"]),
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Add", ["m", "r"], ["a"]),
        helper.make_node("Softmax", ["a"], ["y"]),
    ]
    w = data(40, 40, seed=3)
    model = model_of(nodes, {"x": data(2, 3, 40), "w": w}, ["y"])
    with epkit.load(model, ["opencl"], fallback="error", optimise="none", capture=True) as session:

        def check(seed: int) -> None:
            x = data(2, 3, 40, seed=seed)
            a = x @ w + x
            e = np.exp(a - a.max(-1, keepdims=True))
            np.testing.assert_allclose(
                session(x=x, w=w)["y"], e / e.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6
            )

        for seed in range(5):
            check(seed)
        profile = epkit.Profile()
        session.run(None, {"x": data(2, 3, 40), "w": w}, epkit.RunOptions(profile=profile))
        assert any(e.details.get("replay") for e in profile.recorder.events if e.category == "partition")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(12)))


def test_what_depends_on_data_is_not_captured() -> None:
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    model = model_of([node], {"x": data(1, 3), "shape": np.array([2, 3])}, ["y"])
    with epkit.load(model, ["opencl"], fallback="error", optimise="none", capture=True) as session:
        for rows in (2, 2, 2, 2, 5, 1):
            x = data(1, 3, seed=rows)
            found = session(x=x, shape=np.array([rows, 3]))["y"]
            np.testing.assert_array_equal(found, np.broadcast_to(x, (rows, 3)))


def softmaxes() -> onnx.ModelProto:
    """Three launches and no more."""
    nodes = [helper.make_node("Softmax", [a], [b]) for a, b in ("xs", "st", "ty")]
    return model_of(nodes, {"x": data(3, 5)}, ["y"])


def replays(model: onnx.ModelProto, feeds: Any, times: int = 4) -> list[Any]:
    """The results of captured runs."""
    with epkit.load(model, ["opencl"], fallback="error", optimise="none", capture=True) as session:
        return [session.run(None, feed)["y"] for feed in feeds for _ in range(times)]


def test_neighbouring_launches_are_one_command_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = open_device(handle_of(find_devices(Options()).found[0]))
    if command_buffer.functions_of(gpu) is None:
        pytest.skip("the device has no command buffers that can be enqueued again at once")
    enqueued: list[int] = []
    plain = command_buffer.CommandBuffer.__call__

    def counted(self: command_buffer.CommandBuffer, queue: Any) -> None:
        enqueued.append(len(self.kept))
        plain(self, queue)

    monkeypatch.setattr(command_buffer.CommandBuffer, "__call__", counted)
    feeds = [{"x": data(3, 5, seed=seed)} for seed in range(3)]
    found = replays(softmaxes(), feeds)
    assert enqueued and set(enqueued) == {3}
    monkeypatch.setattr(replay, "functions_of", lambda gpu: None)
    before = len(enqueued)
    np.testing.assert_array_equal(found, replays(softmaxes(), feeds))
    assert len(enqueued) == before


def test_a_driver_that_takes_no_command_buffer_is_given_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *given: Any) -> None:
            raise RuntimeError("clCreateCommandBufferKHR returned -59")

    feeds = [{"x": data(3, 5, seed=seed)} for seed in range(2)]
    want = replays(softmaxes(), feeds)
    monkeypatch.setattr(replay, "functions_of", lambda gpu: object())
    monkeypatch.setattr(replay, "CommandBuffer", Refusing)
    np.testing.assert_array_equal(want, replays(softmaxes(), feeds))
