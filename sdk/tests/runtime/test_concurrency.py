"""Many threads in one session, and stopping a run from another thread."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import epkit
from epkit.errors import CancelledError
from epkit.testing.awkward import awkward, by_chance, everything, named
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same
from epkit.testing.plugins import plugin_of, registry_of

THREADS = 8

MIXED = model("""
    g (float[N, M] x) => (float[N, M] y, int64[2, K] where) {
        a = Neg(x)  b = Abs(a)  where = NonZero(b)  c = Tanh(b)  t = Transpose(c)  d = Sigmoid(t)
        e = MatMul(c, d)  f = MatMul(e, c)  g1 = Add(f, a)  h = Concat <axis = 0> (g1, g1)
        s, r = Split <num_outputs = 2> (h)  y = Sub(s, c)
    }""")


def matrix(rows: int, columns: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("threads", [False, True], ids=["late", "worker"])
def test_many_shapes_from_many_threads_agree_with_one_thread(threads: bool) -> None:
    device = FakeDevice(threads=threads)
    registry = registry_of(device_provider("toy", device, by_chance(3, 0.6)), awkward("host", by_chance(4)))
    feeds = [matrix(1 + seed % 5, 1 + seed % 3, seed) for seed in range(48)]
    with epkit.load(MIXED, ["toy", "host"], registry=registry, optimise="none") as session:
        assert {"toy", "cpu"} <= session.placement.counts().keys()
        with ThreadPoolExecutor(THREADS) as pool:
            together = list(pool.map(lambda x: session(x=x), feeds))
        for x, result in zip(feeds, together, strict=True):
            assert_same(result, session(x=x), rtol=0, atol=0)
    device.assert_clean()


def test_control_flow_from_many_threads() -> None:
    graph = random_model(random.Random(7), 14, depth=2)
    with epkit.load(graph) as session:
        alone = [session.run(None, random_feeds(seed)) for seed in range(16)]
        with ThreadPoolExecutor(THREADS) as pool:
            together = list(pool.map(lambda seed: session.run(None, random_feeds(seed)), range(16)))
    assert_same(together, alone, rtol=0, atol=0)


def test_an_observer_that_raises_in_all_threads_is_left_out_once() -> None:
    barrier = threading.Barrier(THREADS)

    def fail(notice: Any) -> None:
        if notice.kind == "run":
            barrier.wait(30)
            raise RuntimeError("no")

    registry = registry_of(extensions={"ear": lambda: plugin_of(epkit_notice=fail)})
    with epkit.load(MIXED, registry=registry) as session, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda seed: session(x=matrix(2, 2, seed)), range(THREADS)))
    assert registry.warnings == ["ear (epkit.plugins).epkit_notice raised RuntimeError: no"]


# ---- cancelling ----

ENDLESS = model("""
    g (float[3] x) => (float[3] y) <int64 n = {1000000000}, bool yes = {1}> {
        [loop] y = Loop(n, yes, x) <body = step (int64 i, bool go, float[3] s) => (bool on, float[3] t) {
            [go] on = Identity(go)  [slow] t = Neg(s)
        }>
    }""")


@pytest.mark.parametrize("where", ["host", "device"])
def test_another_thread_cancels_a_loop(where: str) -> None:
    switch, turns, device = epkit.Cancellation(), itertools.count(), FakeDevice()
    started = threading.Event()

    class Counting(awkward("host", named("slow"))):  # type: ignore[misc]
        def compile(self, subgraph: Any) -> Any:
            program = super().compile(subgraph)
            run = program.run

            def count(context: Any, inputs: Any) -> Any:
                if next(turns) == 5:
                    started.set()
                return run(context, inputs)

            program.run = count
            return program

    registry = registry_of(Counting, device_provider("device", device, everything))
    providers = ["host", "device"] if where == "device" else ["host"]
    with epkit.load(ENDLESS, providers, registry=registry, optimise="none") as session:

        def throw() -> None:
            assert started.wait(30)
            switch.cancel()

        thread = threading.Thread(target=throw)
        thread.start()
        with pytest.raises(CancelledError, match="'nightly' was cancelled") as caught:
            session.run(None, {"x": np.zeros(3, np.float32)}, epkit.RunOptions(tag="nightly", cancel=switch))
        thread.join(30)
        assert caught.value.where.node in {"loop", "go", "slow"}  # wherever the switch was seen
        arenas = session.memory.arenas
        assert all(arena.in_use == 0 for arena in arenas)
    device.assert_clean()


def test_a_switch_thrown_before_the_run_stops_it_at_once() -> None:
    switch = epkit.Cancellation()
    switch.cancel()
    profile = epkit.Profile()
    with epkit.load(MIXED) as session:
        with pytest.raises(CancelledError):
            session.run(None, {"x": matrix(2, 2, 0)}, epkit.RunOptions(cancel=switch, profile=profile))
        assert profile.dispatched() == {}
        session(x=matrix(2, 2, 0))
