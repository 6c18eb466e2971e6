"""Faults on demand: the core says where, loses nothing, and goes on after a reset."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npu_streams import network

import epkit
from epkit.errors import CompileError, DeviceMemoryError, EpkitError, OptionError, RunError
from epkit_npu_sim import provider

FEEDS = {"x": np.arange(6400, dtype=np.int64).astype(np.int8).reshape(1, 16, 20, 20)}


def load(**options: Any) -> epkit.Session:
    return epkit.load(network(), [("npu_sim", options)], fallback="error")


@cache
def right() -> Mapping[str, Any]:
    """Without a fault; ask before one is ordered."""
    with load() as session:
        return session.run(None, FEEDS)


ENDED_BY_A_RESET = [
    ("bit-flip@3", "arrived with checksum"),
    ("timeout@5", "did not end within"),
    ("device-lost@7", "the device was lost"),
    ("out-of-dram", "leaves none"),
]


@pytest.fixture(params=["option", "environment"])
def order(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Order a fault, in either way; gives the options to load with."""

    def order(fault: str) -> dict[str, str]:
        if request.param == "option":
            return {"fault": fault}
        monkeypatch.setenv("EPKIT_NPU_SIM_FAULT", fault)
        return {}

    return order


@pytest.mark.parametrize(("fault", "told"), ENDED_BY_A_RESET)
def test_a_failure_names_its_place_and_a_reset_ends_it(order: Any, fault: str, told: str) -> None:
    want = right()
    with load(**order(fault), timeout_ms=1.0) as session:
        with pytest.raises(RunError, match=told) as caught:
            session.run(None, FEEDS)
        assert_place(caught.value, {node.node for node in session.placement.nodes})
        session.reset()
        assert_equal(session.run(None, FEEDS), want)
        assert all(arena.in_use == 0 for arena in session.memory.arenas)


def assert_place(error: EpkitError, nodes: set[str]) -> None:
    assert (error.where.provider, error.where.partition) == ("npu_sim", "npu_sim:0")
    assert error.where.node in nodes and error.remedy


def assert_equal(outputs: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    assert outputs.keys() == want.keys()
    assert all(np.array_equal(outputs[name], want[name]) for name in want)


def test_a_lost_device_stays_lost_until_then() -> None:
    with load(fault="device-lost") as session:
        for _ in range(3):
            with pytest.raises(RunError, match="was lost"):
                session.run(None, FEEDS)


def test_too_little_scratchpad_is_told_at_load_time(order: Any) -> None:
    with load() as session:
        convolutions = {node.node for node in session.placement.nodes if "Conv" in node.operator}
    with pytest.raises(CompileError, match="bytes of scratchpad") as caught:
        load(**order("out-of-scratchpad"))
    assert_place(caught.value, convolutions)
    assert "scratchpad_kib" in caught.value.remedy


def test_a_node_that_no_scratchpad_can_hold_is_refused() -> None:
    with epkit.load(network(), [("npu_sim", {"scratchpad_kib": 1})]) as session:
        reasons = [
            r.reason for node in session.placement.nodes for r in node.refused if "Conv" in node.operator
        ]
    assert reasons and all("the machine has 1,024" in reason for reason in reasons)


def test_too_little_memory_names_the_device() -> None:
    with load(fault="out-of-dram") as session, pytest.raises(DeviceMemoryError, match="npu_sim:0"):
        session.run(None, FEEDS)


def test_a_slow_device_is_only_slow(order: Any) -> None:
    want = right()
    with load(**order("slow@10")) as session:
        assert_equal(session.run(None, FEEDS), want)


def test_a_driver_that_refuses_a_saved_program_gets_a_new_one(
    order: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost: the program is compiled and saved again, and the next load finds it."""
    want, compiled, assemble = right(), [], provider.assemble_layers
    monkeypatch.setattr(provider, "assemble_layers", lambda *args: compiled.append(1) or assemble(*args))
    options = order("artifact-refused")
    for count in (1, 2, 3):
        with epkit.load(network(), [("npu_sim", options)], fallback="error", cache=tmp_path) as session:
            assert_equal(session.run(None, FEEDS), want)
        assert len(compiled) == count
    assert len(list(tmp_path.rglob("*.program"))) == 1


def test_another_driver_compiles_anew(tmp_path: Path) -> None:
    """A program that was saved under another driver is not run: there are two files then, one for each."""
    for driver in ("1.0", "1.0", "2.0"):
        with epkit.load(
            network(), [("npu_sim", {"driver": driver})], fallback="error", cache=tmp_path
        ) as session:
            outputs = session.run(None, FEEDS)
        assert_equal(outputs, right())
    assert len(list(tmp_path.rglob("*.program"))) == 2


def test_an_unknown_fault_lists_those_there_are(order: Any) -> None:
    with pytest.raises(OptionError, match="there are bit-flip"):
        load(**order("sunspots"))


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


@pytest.mark.parametrize(("fault", "told"), [*ENDED_BY_A_RESET, ("out-of-scratchpad", "does not fit")])
def test_where_the_application_wants_it_the_partition_moves(order: Any, fault: str, told: str) -> None:
    """The run goes on elsewhere, and the placement, the warnings and the record say so."""
    wanted = right()
    chosen = [("npu_sim", {**order(fault), "timeout_ms": 1.0})]
    with epkit.load(network(), chosen, on_failure="fallback") as session:
        outputs = session.run(None, FEEDS)
        assert set(session.placement.counts()) == {"cpu"}
        (warning,) = session.warnings
        assert warning.startswith("npu_sim:0 was moved to cpu: ") and told in warning
        profile = epkit.Profile()
        session.run(None, FEEDS, epkit.RunOptions(profile=profile))
        assert set(profile.dispatched().values()) == {"cpu"}
    for name, want in wanted.items():
        assert np.abs(outputs[name].astype(int) - want.astype(int)).max() <= 2  # three roundings in a row
