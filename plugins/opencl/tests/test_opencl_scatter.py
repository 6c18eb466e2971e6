"""Scatter with a reduction: by atomics where the device has them, refused by name elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from test_opencl_limits import check, model_of

import epkit
from epkit_opencl import provider
from epkit_opencl.device import all_handles, limits_of, open_device

FACTS = open_device(all_handles()[0]).facts
TYPES = [np.int32, *([np.int64] if FACTS.int64_atomics else [])]
LARGEST = np.iinfo(np.int64).max


def node_of(name: str, reduction: str, **attributes: Any) -> Any:
    return helper.make_node(name, ["x", "i", "u"], ["y"], reduction=reduction, **attributes)


@pytest.mark.parametrize("reduction", ["add", "max", "min"])
@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_elements(reduction: str, dtype: Any, data: st.DataObject) -> None:
    """Many updates of the same element, negative indices, any axis."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    picked = list(shape)
    picked[axis] = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    feeds = {
        "x": rng.integers(-50, 50, shape).astype(dtype),
        "i": rng.integers(-shape[axis], shape[axis], picked),
        "u": rng.integers(-99, 99, picked).astype(dtype),
    }
    check(model_of([node_of("ScatterElements", reduction, axis=axis)], feeds), feeds, {})


@pytest.mark.parametrize("reduction", ["add", "max", "min"])
@pytest.mark.parametrize("dtype", TYPES)
def test_slices(reduction: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    feeds = {
        "x": rng.integers(-50, 50, (4, 3, 7)).astype(dtype),
        "i": np.stack([rng.integers(-4, 4, (5, 20)), rng.integers(-3, 3, (5, 20))], axis=-1),
        "u": rng.integers(-99, 99, (5, 20, 7)).astype(dtype),
    }
    check(model_of([node_of("ScatterND", reduction)], feeds), feeds, {})


@pytest.mark.skipif(not FACTS.int64_atomics, reason="the device has no atomics of int64")
def test_all_64_bits_are_summed() -> None:
    """Carries between the halves; and over the end, as integers wrap."""
    feeds = {
        "x": np.array([2**32 - 1, LARGEST, 5]),
        "i": np.array([0, 1, 0, 1]),
        "u": np.array([1, 1, 2**40, 7]),
    }
    model = model_of([node_of("ScatterElements", "add")], feeds)
    with epkit.load(model, ["opencl"], fallback="error", optimise="none") as session:
        found = session.run(None, feeds)["y"]
    np.testing.assert_array_equal(found, [2**32 + 2**40, -LARGEST - 1 + 7, 5])


@pytest.mark.parametrize("name", ["ScatterElements", "ScatterND"])
def test_a_device_without_atomics_of_int64_refuses_them(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def limits(handle: Any, options: Any) -> Any:
        return replace(limits_of(handle, options), int64_atomics=False)

    monkeypatch.setattr(provider, "limits_of", limits)
    index = np.array([[0], [0]])
    for dtype, where in ((np.int64, "cpu"), (np.int32, "opencl")):
        feeds = {"x": np.ones((2, 1), dtype), "i": index, "u": np.ones((2, 1), dtype)}
        model = model_of([node_of(name, "add")], feeds)
        with epkit.load(model, ["opencl", "cpu"], optimise="none") as session:
            (node,) = session.placement.nodes
            assert node.provider == where
            assert where == "opencl" or "where the device has them" in node.refused[0].reason
            np.testing.assert_array_equal(session.run(None, feeds)["y"], [[3], [1]])


def test_sums_of_floats_are_refused_with_the_reason() -> None:
    feeds = {"x": np.ones(2, np.float32), "i": np.array([0, 0]), "u": np.ones(2, np.float32)}
    model = model_of([node_of("ScatterElements", "add")], feeds)
    with epkit.load(model, ["opencl", "cpu"], optimise="none") as session:
        (node,) = session.placement.nodes
        assert node.provider == "cpu"
        assert "add, max and min of integers" in node.refused[0].reason
