"""Faults on demand: the core says where, loses nothing, and goes on after a reset."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npu_streams import network

import epkit
from epkit.errors import CompileError, DeviceMemoryError, OptionError, RunError

FEEDS = {"x": np.arange(6400, dtype=np.int64).astype(np.int8).reshape(1, 16, 20, 20)}


def load(**options: Any) -> epkit.Session:
    return epkit.load(network(), [("npu_sim", options)], fallback="error")


def right() -> dict[str, Any]:
    with load() as session:
        return session.run(None, FEEDS)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("bit-flip@3", "arrived with checksum"),
        ("timeout@5", "did not end within"),
        ("device-lost@7", "the device was lost"),
    ],
)
def test_a_failure_names_its_place_and_a_reset_ends_it(fault: str, told: str) -> None:
    with load(fault=fault, timeout_ms=1.0) as session:
        with pytest.raises(RunError, match=told) as caught:
            session.run(None, FEEDS)
        where = caught.value.where
        assert (where.provider, where.partition) == ("npu_sim", "npu_sim:0")
        assert where.node in {node.node for node in session.placement.nodes}
        assert "session.reset()" in caught.value.remedy
        session.reset()
        outputs = session.run(None, FEEDS)
        assert all(np.array_equal(outputs[name], want) for name, want in right().items())
        assert all(arena.in_use == 0 for arena in session.memory.arenas)


def test_a_lost_device_stays_lost_until_then() -> None:
    with load(fault="device-lost") as session:
        for _ in range(3):
            with pytest.raises(RunError, match="was lost"):
                session.run(None, FEEDS)


def test_too_little_scratchpad_is_told_at_load_time() -> None:
    with pytest.raises(CompileError, match="bytes of scratchpad") as caught:
        load(fault="out-of-scratchpad")
    assert caught.value.where.node and "scratchpad_kib" in caught.value.remedy


def test_a_node_that_no_scratchpad_can_hold_is_refused() -> None:
    with epkit.load(network(), [("npu_sim", {"scratchpad_kib": 1})]) as session:
        reasons = [
            r.reason for node in session.placement.nodes for r in node.refused if node.operator == "Conv"
        ]
    assert reasons and all("the machine has 1,024" in reason for reason in reasons)


def test_too_little_memory_names_the_device() -> None:
    with load(fault="out-of-dram") as session:
        with pytest.raises(DeviceMemoryError, match="npu_sim:0"):
            session.run(None, FEEDS)


def test_a_slow_device_is_only_slow() -> None:
    with load(fault="slow@10") as session:
        outputs = session.run(None, FEEDS)
    assert all(np.array_equal(outputs[name], want) for name, want in right().items())


def test_another_driver_compiles_anew(tmp_path: Path) -> None:
    """A program that was saved under another driver is not run: there are two files then, one for each."""
    for driver in ("1.0", "1.0", "2.0"):
        with epkit.load(
            network(), [("npu_sim", {"driver": driver})], fallback="error", cache=tmp_path
        ) as session:
            outputs = session.run(None, FEEDS)
        assert all(np.array_equal(outputs[name], want) for name, want in right().items())
    assert len(list(tmp_path.rglob("*.program"))) == 2


def test_an_unknown_fault_lists_those_there_are() -> None:
    with pytest.raises(OptionError, match="there are bit-flip"):
        load(fault="sunspots")


def test_a_reset_waits_for_no_run() -> None:
    """While a run is under way, a reset is refused; afterwards it is taken."""
    with load(fault="slow@200") as session:
        runner = threading.Thread(target=session.run, args=(None, FEEDS))
        runner.start()
        with pytest.raises(RunError, match="under way"):
            while runner.is_alive():
                session.reset()
        runner.join()
        session.reset()


@pytest.mark.parametrize("fault", ["device-lost@7", "bit-flip@3"])
def test_where_the_application_wants_it_the_partition_moves(fault: str) -> None:
    """The run goes on elsewhere, and the placement, the warnings and the record say so."""
    chosen = [("npu_sim", {"fault": fault})]
    with epkit.load(network(), chosen, on_failure="fallback") as session:
        outputs = session.run(None, FEEDS)
        assert set(session.placement.counts()) == {"cpu"}
        assert any("npu_sim:0 was moved to cpu: the device failed" in text for text in session.warnings)
        profile = epkit.Profile()
        session.run(None, FEEDS, epkit.RunOptions(profile=profile))
        assert set(profile.dispatched().values()) == {"cpu"}
    for name, want in right().items():
        assert np.abs(outputs[name].astype(int) - want.astype(int)).max() <= 2  # three roundings in a row
