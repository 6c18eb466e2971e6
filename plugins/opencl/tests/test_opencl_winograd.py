"""Winograd convolution against onnxruntime: every tile, as a CPU and as a GPU would run it, and how it is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import epkit
from epkit_opencl.device import Gpu, all_handles, open_device
from epkit_opencl.kernels import convolution
from epkit_opencl.kernels import winograd as kernels
from epkit_opencl.kernels.winograd_source import FOUR, TWO, Tile


@pytest.fixture
def gpu() -> Gpu:
    """The device behind the sessions here."""
    return open_device(all_handles()[0])


def data(*shape: int, seed: int = 0) -> Any:
    """Reproducible numbers around zero."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(node: onnx.NodeProto, x: Any, weights: dict[str, Any]) -> onnx.ModelProto:
    """One node over x; its other inputs are weights."""
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    kept = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "g", inputs, outputs, kept)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def compare(model: onnx.ModelProto, x: Any, options: dict[str, Any] | None = None) -> Any:
    """Our result, held against onnxruntime's: within 1e-4 of the largest number."""
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = peer.run(None, {"x": x})
    with epkit.load(model, [("opencl", options or {})], fallback="error", optimise="none") as session:
        for _ in range(2):  # the weights of the second run were made by the first
            found = session.run(None, {"x": x})["y"]
            assert found.shape == want.shape
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-4 * max(1, float(np.abs(want).max())))
    return found


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tile], list[Tile]]:
    """Makes every convolution that can go by these tiles do so; gives the list of those that did."""

    def force(tile: Tile) -> list[Tile]:
        done: list[Tile] = []
        plain = kernels.winograd

        def noted(context: Any, way: Tile, *arguments: Any) -> None:
            done.append(way)
            plain(context, way, *arguments)

        monkeypatch.setattr(kernels, "HEAVY", 0)
        monkeypatch.setattr(convolution, "fastest", lambda stream, key, ways, run: tile)
        monkeypatch.setattr(convolution, "winograd", noted)
        return done

    return force


@pytest.mark.parametrize("is_cpu", [True, False])
@pytest.mark.parametrize("tile", [TWO, FOUR])
def test_any_size_and_padding(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, forced: Callable[[Tile], list[Tile]], tile: Tile, is_cpu: bool
) -> None:
    monkeypatch.setattr(gpu, "is_cpu", is_cpu)
    done = forced(tile)

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        images=st.integers(1, 3),
        channels=st.tuples(st.integers(2, 18), st.integers(1, 26)),
        sizes=st.tuples(st.integers(3, 23), st.integers(3, 40)),
        pads=st.tuples(*[st.integers(0, 2)] * 4),
        biased=st.booleans(),
    )
    def check(
        images: int, channels: tuple[int, int], sizes: tuple[int, int], pads: tuple[int, ...], biased: bool
    ) -> None:
        x, weights = data(images, channels[0], *sizes), {"w": data(*channels[::-1], 3, 3, seed=1)}
        weights |= {"b": data(channels[1], seed=2)} if biased else {}
        before = len(done)
        compare(model_of(helper.make_node("Conv", ["x", *weights], ["y"], pads=pads), x, weights), x)
        assert done[before:] == [tile, tile]

    check()


@pytest.mark.parametrize("is_cpu", [True, False])
@pytest.mark.parametrize(
    ("tile", "activation", "numbers"), [(TWO, "Relu", {}), (FOUR, "Clip", {"activation_params": [-0.5, 1.0]})]
)
def test_what_ends_a_convolution(
    gpu: Gpu,
    monkeypatch: pytest.MonkeyPatch,
    forced: Callable[[Tile], list[Tile]],
    tile: Tile,
    is_cpu: bool,
    activation: str,
    numbers: dict[str, Any],
) -> None:
    """A residual is added before the activation; borders are those of no tile."""
    monkeypatch.setattr(gpu, "is_cpu", is_cpu)
    done = forced(tile)
    x = data(2, 5, 9, 11)
    weights = {"w": data(13, 5, 3, 3, seed=1), "b": data(13, seed=2), "r": data(2, 13, 9, 11, seed=3)}
    node = helper.make_node(
        "FusedConv", ["x", *weights], ["y"], domain="com.microsoft", pads=[1] * 4,
        activation=activation, **numbers,
    )  # fmt: skip
    compare(model_of(node, x, weights), x)
    assert done == [tile, tile]


@pytest.mark.parametrize(
    "attributes", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"group": 2}, {"kernel_shape": [1, 3]}]
)
def test_other_convolutions_go_another_way(
    forced: Callable[[Tile], list[Tile]], attributes: dict[str, Any]
) -> None:
    done = forced(TWO)
    shape = attributes.get("kernel_shape", [3, 3])
    x, w = data(1, 4, 9, 9), data(6, 4 // attributes.get("group", 1), *shape, seed=1)
    compare(model_of(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), x, {"w": w}), x)
    assert not done


def test_the_choice_is_measured_once_and_other_forms_of_the_weights_are_dropped(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EPKIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gpu, "choices", None)
    kept: list[set[str]] = []
    plain = kernels.keep_only

    def noted(w: Any, tile: Tile | None) -> None:
        plain(w, tile)
        kept.append(
            {key for key in w.packed if key.startswith("winograd")} ^ ({repr(tile)} if tile else set())
        )

    monkeypatch.setattr(convolution, "keep_only", noted)
    x, w = data(1, 64, 40, 40), data(64, 64, 3, 3, seed=1)
    model = model_of(helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4), x, {"w": w})
    compare(model, x, {"tune": False})
    assert not list(tmp_path.iterdir())
    compare(model, x)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["conv 3 3 7 7 1 6 6"] in ("None", "winograd 2", "winograd 4")
    assert len(kept) == 1 and not any(kept)
