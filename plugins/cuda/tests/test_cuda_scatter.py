"""ScatterElements, ScatterND and TensorScatter: the source on the host, against NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_standin import StandIn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from test_cuda_kernels import data, ours

import epkit

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # a source is compiled in between
FEW = settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
JOINS: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def joined(x: Any, places: Any, updates: Any, reduction: str) -> Any:
    result = x.copy()
    if reduction == "none":
        result[places] = updates
    else:
        JOINS[reduction].at(result, places, updates)
    return result


@FEW
@given(st.data())
def test_updates_along_an_axis(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    reduction, dtype = choose("none", *JOINS), choose(np.float32, np.int64, np.float16)
    axis, index = choose(-1, 0, 1), choose(np.int32, np.int64)
    random = np.random.default_rng(draw.draw(st.integers(0, 9)))
    x = random.integers(-9, 9, (5, 4, 3)).astype(dtype)
    shape = (5, 4, 2) if axis == -1 else (3, 4, 3) if axis == 0 else (5, 2, 3)
    order = np.argsort(random.random(x.shape), axis=axis)  # no place twice
    indices = order[tuple(map(slice, shape))] if reduction == "none" else random.integers(0, 3, shape)
    signed = np.where(random.random(shape) < 0.5, indices - x.shape[axis], indices).astype(index)
    updates = random.integers(-9, 9, shape).astype(dtype)
    places = list(np.indices(shape))
    places[axis] = indices
    nodes = [helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=axis, reduction=reduction)]
    found = ours(nodes, {"x": x, "i": signed, "u": updates})
    np.testing.assert_array_equal(found, joined(x, tuple(places), updates, reduction))


@pytest.mark.parametrize(("depth", "reduction"), [(1, "none"), (2, "add"), (2, "max"), (3, "mul")])
def test_updates_at_tuples(gpu: StandIn, depth: int, reduction: str) -> None:
    x = data(4, 3, 2)
    rows = np.array([[0, 1, 1], [-1, 2, 0], [0, 1, -1], [2, 0, 0]])[: 4 if reduction != "none" else 2, :depth]
    indices = rows.reshape(-1, 1, depth).astype(np.int64)
    updates = data(*indices.shape[:-1], *x.shape[depth:], seed=1)
    nodes = [helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)]
    found = ours(nodes, {"x": x, "i": indices, "u": updates})
    want = joined(x, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert (gpu.launches, gpu.copies_between) == (1, 1)


@pytest.mark.parametrize("reduction", JOINS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_beside_each_other_are_joined_each_on_its_own(
    gpu: StandIn, dtype: Any, reduction: str
) -> None:
    x = np.arange(1, 6, dtype=np.float32).astype(dtype)
    indices, updates = np.array([[4], [0], [1], [1]]), np.array([2, 3, -2, 4], np.float32).astype(dtype)
    want = joined(x.astype("d"), (indices[:, 0],), updates.astype("d"), reduction)
    nodes = [helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)]
    found = ours(nodes, {"x": x, "i": indices, "u": updates})
    np.testing.assert_array_equal(found.astype("d"), want)
    assert gpu.launches == 1


def test_what_is_no_number_wins_and_narrow_types_move(gpu: StandIn) -> None:
    nodes = [helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], reduction="max")]
    line = np.array([1, np.nan, 3], np.float32)
    feeds = {"x": line, "i": np.array([0, 1, 2]), "u": np.array([np.nan, 5, 9], np.float32)}
    np.testing.assert_array_equal(ours(nodes, feeds), [np.nan, np.nan, 9])
    moved = [helper.make_node("ScatterElements", ["x", "i", "u"], ["y"])]
    halves = {name: value.astype(np.float16) if name != "i" else value for name, value in feeds.items()}
    np.testing.assert_array_equal(ours(moved, halves), [np.nan, 5, 9])
    assert gpu.launches == 2


@FEW
@given(st.data())
def test_steps_go_into_a_cache(gpu: StandIn, draw: st.DataObject) -> None:
    choose = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731
    dtype, mode, axis = (
        choose(np.float32, np.float16, np.int8),
        choose("linear", "circular"),
        choose(1, -2, -1),
    )
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, 5, choose(1, 4, 7))).astype(dtype)
    length = x.shape[axis]
    steps = draw.draw(st.integers(0, length))
    starts = [draw.draw(st.integers(0, length - steps if mode == "linear" else 3 * length)) for _ in range(2)]
    shape = list(x.shape)
    shape[axis] = steps
    update = np.random.default_rng(1).integers(10, 90, shape).astype(dtype)
    feeds = {"x": x, "u": update, "i": np.array(starts, np.int64)}
    if draw.draw(st.booleans()):
        feeds.pop("i")
        starts = [0, 0]
    want = x.copy()
    for item, start in enumerate(starts):
        into, new = (
            np.moveaxis(want[item], axis - (axis > 0), 0),
            np.moveaxis(update[item], axis - (axis > 0), 0),
        )
        for step in range(steps):
            into[(start + step) % length] = new[step]
    nodes = [helper.make_node("TensorScatter", list(feeds), ["y"], axis=axis, mode=mode)]
    before = gpu.launches, gpu.implicit_reads
    np.testing.assert_array_equal(ours(nodes, feeds, 24), want)
    assert (gpu.launches, gpu.implicit_reads) == (before[0] + 1, before[1])


def test_a_step_outside_of_the_cache_is_told(gpu: StandIn) -> None:
    nodes = [helper.make_node("TensorScatter", ["x", "u", "i"], ["y"], name="here")]
    for start in (-1, 3):
        with pytest.raises(epkit.errors.RunError, match="out of range in here"):
            ours(nodes, {"x": data(1, 4, 2), "u": data(1, 2, 2), "i": np.array([start])}, 24)


def test_an_index_outside_is_told(gpu: StandIn) -> None:
    for name, indices in (("ScatterElements", np.array([7, 0])), ("ScatterND", np.array([[-4], [0]]))):
        nodes = [helper.make_node(name, ["x", "i", "u"], ["y"], name="here")]
        with pytest.raises(epkit.errors.RunError, match="out of range in here"):
            ours(nodes, {"x": data(3), "i": indices, "u": data(2)})
