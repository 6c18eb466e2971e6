"""The timing model: bounds, monotony, and the data sheet's example worked by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import Q, integers, qoperator
from npu_streams import network, stream_of, stream_of_a_network

import epkit
from epkit_npu_sim import isa
from epkit_npu_sim.compile import Binary
from epkit_npu_sim.machine import Machine
from epkit_npu_sim.timing import Timeline, duration, simulate, transfer_cycles

SHEET = Path(__file__).parents[3] / "docs" / "npu_sim" / "timing.md"
CHIP = Machine(array=8, lanes=8, dma_bytes=8, dma_latency=10)
SIZES = st.integers(1, 300)


@given(SIZES, SIZES, SIZES, st.sampled_from([4, 8, 32]))
def test_a_product_is_never_faster_than_the_array(m: int, k: int, n: int, array: int) -> None:
    op = isa.MatMul(0, 0, 0, m, k, n, k, 1, n, 1, 0, 0, -1, 0, 0, 0)
    assert duration(Machine(array=array), op) * array**2 >= m * k * n


@given(SIZES, st.integers(1, 9), SIZES, st.integers(1, 4), st.integers(0, 500), st.sampled_from([1, 4, 16]))
def test_a_transfer_is_never_faster_than_its_bytes(
    n0: int, n1: int, n2: int, size: int, gap: int, width: int
) -> None:
    op = isa.Store(1, 0, 0, size, n0, n1, n2, n1 * (n2 * size + gap), n2 * size + gap, size)
    assert transfer_cycles(Machine(dma_bytes=width), op) * width >= n0 * n1 * n2 * size


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["dma_bytes", "lanes"]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(1, 5000),
    st.floats(1, 5000),
)
def test_more_of_anything_is_never_slower(
    name: str, low: int, more: int, clock: float, faster: float
) -> None:
    """The same stream on a wider machine takes no more clocks; a faster clock, no more time.

    (A larger array has a longer way through it, so that a small product may take more clocks there.)
    """
    commands = stream().commands
    slow = simulate(Machine(**{name: 1 << low}), commands)
    fast = simulate(Machine(**{name: 1 << low + more}), commands)
    assert fast.cycles <= slow.cycles
    by_clock = [
        simulate(Machine(clock_mhz=c), commands).milliseconds for c in sorted((clock, clock + faster))
    ]
    assert by_clock[1] <= by_clock[0]


def test_the_whole_is_bounded_by_every_engine_and_by_their_sum() -> None:
    timeline = stream_of_a_network().timeline
    busy = timeline.total().busy
    assert max(busy) <= timeline.cycles <= sum(busy)
    assert 0 < timeline.utilisation() <= 1
    assert sum(timeline.shares().values()) == timeline.cycles
    assert timeline.stalls()["array"] == timeline.cycles - busy[isa.ARRAY]


def test_double_buffering_hides_loads() -> None:
    """If each command waited for the one before it, the same stream would take longer."""
    binary = stream_of_a_network(dma_bytes=4)
    counts = [0, 0, 0, 0]
    serial = []
    for command in binary.commands:
        serial.append(replace(command, waits=tuple(counts)))
        counts[command.op.ENGINE] += 1
    assert binary.timeline.cycles < 0.9 * simulate(binary.machine, serial).cycles


def test_a_stream_that_would_hang_is_refused() -> None:
    with pytest.raises(ValueError, match="the machine hangs: command 0 .*done are .*vector 0"):
        simulate(CHIP, [isa.Command(isa.Barrier(), waits=(0, 0, 0, 1))])


@cache
def stream() -> Binary:
    return stream_of_a_network()


# ---- the data sheet ----


def example() -> Timeline:
    """uint8[16, 8] times int8[8, 8] on the small chip of the data sheet."""
    rng = np.random.default_rng(0)
    a = Q(integers(rng, (16, 8), "uint8"), 0.02, 3, "uint8")
    b = Q(integers(rng, (8, 8), "int8"), 0.02, 0, "int8", constant=True)
    model = qoperator("QLinearMatMul", [a, b], Q((16, 8), 0.3, 7, "uint8"))
    return stream_of(model, array=8, lanes=8, dma_bytes=8, dma_latency=10).timeline


def test_the_example_in_the_data_sheet_was_worked_by_hand_and_holds() -> None:
    rows = re.findall(
        r"^\| \d+ \| (\w+) \|.*\| (\d+) \| (\d+) \|$", SHEET.read_text(encoding="utf-8"), re.MULTILINE
    )
    timeline = example()
    found = [
        (type(command.op).__name__, str(start), str(end))
        for command, start, end in zip(timeline.commands, timeline.starts, timeline.ends, strict=True)
    ]
    assert found == rows
    assert f"{timeline.utilisation():.1%}" in SHEET.read_text(encoding="utf-8")


# ---- what an application sees ----


def test_the_profile_counts_cycles_bytes_and_utilisation(tmp_path: Any) -> None:
    profile = epkit.Profile()
    with epkit.load(network(), ["npu_sim"], fallback="error") as session:
        session.run(None, {"x": np.zeros((1, 16, 20, 20), np.int8)}, epkit.RunOptions(profile=profile))
    timeline = stream_of(network()).timeline
    rows = [row for row in profile.rows() if row.counters]
    assert sum(row.counters["cycles"] for row in rows) == timeline.cycles
    assert (
        sum(row.counters["macs"] for row in rows) == 32 * 16 * 9 * 18 * 18
    )  # the depthwise one is the vector unit's
    assert "utilisation" in profile.table()
    profile.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    named = {e["args"]["name"]: e["tid"] for e in events if e["ph"] == "M"}
    assert set(named) == {f"npu_sim {engine}" for engine in isa.ENGINES}
    convs = [e for e in events if e["name"] == "Conv" and e["tid"] == named["npu_sim array"]]
    assert convs and all(e["dur"] > 0 for e in convs)
