"""Memory of whole sessions: planned ahead, planned from the second run on, reused, and never stale."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.backend import Kernel, kernel
from epkit.backend.registry import Registry
from epkit.errors import DeviceMemoryError
from epkit.runtime.space import PLANS_KEPT
from epkit.testing.awkward import awkward, everything, named
from epkit.testing.device import FakeDevice, device_provider, launch
from epkit.testing.models import model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of

CHAIN = "{ a = Neg(x)  b = Abs(a)  c = Tanh(b)  d = Neg(c)  e = Abs(d)  y = Sigmoid(e) }"
FIXED = model(f"g (float[8, 32] x) => (float[8, 32] y) {CHAIN}")
DYNAMIC = model(f"g (float[N, 32] x) => (float[N, 32] y) {CHAIN}")


def array(rows: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((rows, 32)).astype(np.float32)


def on_device(device: FakeDevice, *extra: Kernel) -> Registry:
    return registry_of(device_provider("toy", device, everything, extra))


# ---- known shapes ----


def test_known_shapes_are_planned_before_the_first_run() -> None:
    device = FakeDevice()
    with epkit.load(FIXED, ["toy"], registry=on_device(device)) as session:
        (plan,) = (plan for plan in session.memory.plans if plan.places)
        assert plan.size == plan.lower_bound == 2 * 1024
        assert plan.unshared == 7 * 1024  # x on the device, and six results
        for seed in range(3):
            assert_same(session(x=array(8, seed)), expected(FIXED, {"x": array(8, seed)}))
        (arena,) = (arena for arena in session.memory.arenas if arena.device == "toy:0")
        assert (arena.peak, arena.in_use, arena.allocations, arena.reused) == (2 * 1024, 0, 1, 2)
    device.assert_clean()


def test_the_report_says_what_is_held() -> None:
    with epkit.load(FIXED, ["toy"], registry=on_device(FakeDevice())) as session:
        session(x=array(8))
        assert "toy:0: peak 2,048 bytes, in use 0, 1 allocations" in str(session.memory)
        assert "arena 2,048 bytes for 7 values" in str(session.memory)


# ---- shapes that come with the inputs ----


def test_unknown_shapes_are_planned_from_the_second_run_on() -> None:
    device = FakeDevice()
    with epkit.load(DYNAMIC, ["toy"], registry=on_device(device)) as session:
        assert not any(plan.places for plan in session.memory.plans)
        session(x=array(8))
        (plan,) = (plan for plan in session.memory.plans if plan.places)
        assert plan.size == plan.lower_bound == 2 * 1024
        session(x=array(8))
        before = device.memory.allocations
        for _ in range(3):
            session(x=array(8))
        assert device.memory.allocations == before
        session(x=array(20))
        assert sum(1 for plan in session.memory.plans if plan.places) == 2
    device.assert_clean()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_shapes(rows: list[int]) -> None:
    device = FakeDevice()
    with epkit.load(DYNAMIC, ["toy"], registry=on_device(device)) as session:
        for seed, count in enumerate(rows):
            assert_same(session(x=array(count, seed)), expected(DYNAMIC, {"x": array(count, seed)}))
    device.assert_clean()


def test_plans_and_buffers_do_not_pile_up() -> None:
    device = FakeDevice()
    shapes = range(1, PLANS_KEPT + 20)
    with epkit.load(DYNAMIC, ["toy"], registry=on_device(device)) as session:
        for rows in shapes:
            session(x=array(rows))
        assert len(session.memory.plans) <= PLANS_KEPT + 2
        largest = 128 * shapes[-1]
        assert device.memory.in_use <= 8 * largest


# ---- shapes that come with the data ----

SPARSE = model("""
    g (float[N, 32] x) => (float[N, 32] y, int64[2, M] where) {
        a = Relu(x)  where = NonZero(a)  p = Neg(where)  q = Neg(p)
        b = Tanh(a)  c = Neg(b)  index = Transpose(q)  picked = GatherND(c, index)
        y = ScatterND(x, index, picked)
    }""")


@pytest.mark.parametrize("pick", [everything, named("NonZero_1", "Neg_3", "Neg_5")])
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6))
@settings(max_examples=15, deadline=None)
def test_shapes_that_depend_on_data_never_corrupt(pick: Any, seeds: list[int]) -> None:
    """The same shape key again and again, with other sizes behind it."""
    device = FakeDevice()
    registry = registry_of(device_provider("toy", device, pick))
    with epkit.load(SPARSE, ["toy"], registry=registry, optimise="none") as session:
        for seed in seeds:
            x = array(4, seed) - np.float32(seed % 4 - 2)
            assert_same(session(x=x), expected(SPARSE, {"x": x}))
    device.assert_clean()


# ---- views ----

VIEWS = model("""
    g (float[4, 4] x) => (float[4, 4] y, float[16, 1] z) {
        a = Neg(x)  v = Identity(a)  w = Flatten <axis = 2> (v)
        b = Abs(x)  c = Tanh(b)  d = Neg(c)  e = Add(d, v)  y = Sub(e, x)
        z = Neg(w)
    }""")


def test_a_view_keeps_its_memory() -> None:
    device = FakeDevice()
    x = np.linspace(-2, 2, 16, dtype=np.float32).reshape(4, 4)
    with epkit.load(VIEWS, ["toy"], registry=on_device(device), optimise="none") as session:
        assert session.placement.counts() == {"toy": 9}
        assert_same(session(x=x), expected(VIEWS, {"x": x}))
    device.assert_clean()


def test_views_in_and_out_of_the_hosts_arena() -> None:
    """Reshape and Transpose of the fallback are views of memory that is planned."""
    graph = model("""
        g (float[4, 4] x) => (float[4, 4] y) <int64[2] s = {4, 4}> {
            a = Relu(x)  v = Reshape(a, s)  t = Transpose(v)  b = Neg(x)  c = Abs(b)  d = Tanh(c)
            e = Sigmoid(d)  f = Add(e, t)  y = Sub(f, v)
        }""")
    x = np.linspace(-2, 2, 16, dtype=np.float32).reshape(4, 4)
    with epkit.load(graph, optimise="none") as session:
        for _ in range(2):
            assert_same(session(x=x), expected(graph, {"x": x}))


# ---- devices that work late ----


def test_the_host_keeps_what_a_device_has_still_to_read() -> None:
    """Two devices read r; one of them is waited for, and then the host's arena could reuse r's place."""
    graph = model("""
        g (float[2, 3] x) => (float[2, 3] p, float[2, 3] y) {
            [s] r = Sigmoid(x)  [n] p = Neg(r)  [b] q = Abs(r)  [t] c = Tanh(q)  [u] d = Exp(c)  [v] y = Relu(d)
        }""")
    devices = FakeDevice(), FakeDevice()
    registry = registry_of(
        device_provider("late", devices[0], named("n")), device_provider("other", devices[1], named("b"))
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
    with epkit.load(graph, ["late", "other"], registry=registry) as session:
        assert_same(session(x=x), expected(graph, {"x": x}))
    for device in devices:
        device.assert_clean()


def test_one_run_does_not_take_what_another_has_still_to_use() -> None:
    """A second run begins in the middle of the first, which has enqueued its work and let go of a buffer."""
    device, second = FakeDevice(), []

    @kernel("Pause", domain="toys")
    def pause(x: Any) -> Any:
        if not second:
            thread = threading.Thread(target=lambda: second.append(session(x=array(4, 1))))
            second.append(None)
            thread.start()
            thread.join()
        return x.view(x.shape)

    graph = model(
        "g (float[N, 32] x) => (float[N, 32] y) { a = Neg(x) b = Abs(a) c = Neg(b) d = toys.Pause(c) y = Tanh(d) }",
        domains={"toys": 1},
    )
    with epkit.load(graph, ["toy"], registry=on_device(device, pause)) as session:
        first = session(x=array(4, 0))
    for result, seed in ((first, 0), (second[1], 1)):
        assert_same(result["y"], np.tanh(-np.abs(array(4, seed))))
    device.assert_clean()


def test_memory_that_the_plan_does_not_know_is_refused() -> None:
    """A program on a device may ask only for what its memory_steps name."""

    @kernel("Same", domain="toys", shapes=lambda x, **_: [(x.shape, x.dtype)])
    def same(x: Any, *, context: Any, out: Any) -> None:
        launch(context, lambda array: array, (x,), out)

    class Forgetful(device_provider("toy", FakeDevice(), everything, [same])):  # type: ignore[misc]
        def memory_steps(self, subgraph: Any) -> Any:
            return ()

    graph = model("g (float[2] x) => (float[2] y) { y = toys.Same(x) }", domains={"toys": 1})
    with epkit.load(graph, ["toy"], registry=registry_of(Forgetful)) as session:
        with pytest.raises(epkit.EpkitError, match="memory_steps"):
            session(x=np.zeros(2, np.float32))


# ---- too little memory ----


def test_a_full_device_is_an_error_and_the_session_goes_on() -> None:
    device = FakeDevice(limit=10_000)
    with epkit.load(DYNAMIC, ["toy"], registry=on_device(device)) as session:
        with pytest.raises(DeviceMemoryError) as caught:
            session(x=array(1000))
        assert (caught.value.where.provider, caught.value.where.stage) == ("toy", "run")
        assert "toy:0" in str(caught.value)
        assert_same(session(x=array(8)), expected(DYNAMIC, {"x": array(8)}))
    device.assert_clean()


def test_a_devices_weights_are_freed_with_the_session() -> None:
    graph = model("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    device = FakeDevice()
    with epkit.load(graph, ["toy"], registry=on_device(device)) as session:
        assert device.memory.in_use > 0
        assert_same(session(x=np.zeros(2, np.float32))["y"], np.array([1, 2], np.float32))
    device.assert_clean()


def test_toys_on_the_host_need_no_transfer() -> None:
    with epkit.load(DYNAMIC, ["toy"], registry=registry_of(awkward("toy", everything))) as session:
        assert session.placement.transfers == 0
        assert [arena.device for arena in session.memory.arenas] == ["host"]
