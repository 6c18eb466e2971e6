"""Threads of the native engine: runs at once, fairly, without a fork's or a close's harm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_session import Array, chain, make, normal
from onnx import helper

import epkit
from epkit.errors import RunError
from epkit_cpu.native import cpus, isas

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


def test_runs_at_once(isa: str) -> None:
    model, feeds = chain(isa, 128)
    with epkit.load(model) as session:
        wanted = session.run(None, feeds)["y"]
        wrong: list[object] = []

        def work() -> None:
            for _ in range(20):
                if not np.array_equal(session.run(None, feeds)["y"], wanted):
                    wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_equal_threads_give_equal_bits(isa: str) -> None:
    model, feeds = chain(isa, 300)
    results = []
    for _ in range(3):
        with epkit.load(model, [("cpu", {"threads": 2})]) as session:
            results.append(session.run(None, feeds)["y"])
    assert all(np.array_equal(results[0], other) for other in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_threads_of_its_own() -> None:
    model, feeds = chain("", 300)
    with epkit.load(model, [("cpu", {"threads": 2})]) as session:
        wanted = session.run(None, feeds)["y"]
        child = os.fork()
        if child == 0:
            same = np.array_equal(session.run(None, feeds)["y"], wanted)
            os._exit(0 if same else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(session.run(None, feeds)["y"], wanted)


def test_an_idle_session_uses_no_cpu() -> None:
    """Threads that wait for work spin for a moment, then sleep."""
    model, feeds = chain("", 300)
    with epkit.load(model, [("cpu", {"threads": 2})]) as session:
        for _ in range(3):
            session.run(None, feeds)
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.4)
        assert time.process_time() - before < 0.1


def test_small_work_and_large_work_by_turns() -> None:
    """What a step had to share is remembered: the next run may have much more of it, or less."""
    nodes = [helper.make_node("MatMul", ["x", "x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    feeds = [{"x": 0.1 * normal(n, n)} for n in (4, 300, 4, 150, 300, 8)]
    with epkit.load(make(nodes, feeds[0], ["y"], {}), [("cpu", {"threads": 3})]) as session:
        for feed in feeds * 3:
            x = feed["x"].astype(np.float64)
            wanted = np.exp(x @ x - (x @ x).max(1, keepdims=True))
            found = session.run(None, feed)["y"]
            np.testing.assert_allclose(found, wanted / wanted.sum(1, keepdims=True), 1e-4, 1e-7)


def test_closing_during_a_run_is_safe() -> None:
    model, feeds = chain("", 256)
    session = epkit.load(model)
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(50):
            try:
                session.run(None, feeds)
            except RunError as error:
                outcomes.append(error.what)
                return

    thread = threading.Thread(target=work)
    thread.start()
    session.close()
    thread.join()
    assert outcomes in ([], ["the session is closed"])


def test_runs_of_two_sessions_progress_alike() -> None:
    """One has the pool at a time, and the other then works alone: neither waits for long."""
    turns, enough = [0, 0], threading.Event()

    def work(which: int, model: onnx.ModelProto, feeds: dict[str, Array]) -> None:
        with epkit.load(model, [("cpu", {"threads": 2})]) as session:
            session.run(None, feeds)
            ready.wait()
            while not enough.is_set():
                session.run(None, feeds)
                turns[which] += 1
                if sum(turns) >= 400:
                    enough.set()

    ready = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(which, *chain("", 256))) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(turns) >= 80, turns  # half of them would be 200


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the system does not say where threads may run"
)
@pytest.mark.skipif(cpus() < 2, reason="there is one CPU")
def test_workers_wake_away_from_their_caller() -> None:
    """Where both had one CPU, each waited for the other: three times the time of a run after a pause."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import epkit
from engine_session import chain
model, feeds = chain("", 512)
before = set(os.listdir("/proc/self/task"))
with epkit.load(model, [("cpu", {{"threads": 2}})]) as session:
    for _ in range(3):
        session.run(None, feeds)
        time.sleep(0.2)
    workers = set(os.listdir("/proc/self/task")) - before
    print(*{{len(os.sched_getaffinity(int(worker))) for worker in workers}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(len(os.sched_getaffinity(0)) - 1) in done.stdout.split(), done.stdout
