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
from epkit_npu_sim.timing import QUEUE, Timeline, duration, events, simulate, transfer_cycles

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


@st.composite
def streams(draw: Any) -> list[isa.Command]:
    """Commands of all engines that wait for any that come before them."""
    made, counts = [], [0, 0, 0, 0]
    for _ in range(draw(st.integers(1, 60))):
        m, n, k = (draw(SIZES) for _ in range(3))
        kinds: list[isa.Operands] = [
            isa.Load(0, 0, 0, 1, 1, m, n, 0, 2 * n, 1),
            isa.Store(0, 0, 0, 1, 1, 1, m * n, 0, 0, 1),
            isa.MatMul(0, 0, 0, m, k, n, k, 1, n, 1, 0, 0, -1, 0, 0, 0),
            isa.Table(0, 0, m * n, 0, 1),
            isa.Barrier(),
        ]
        waits = tuple(draw(st.integers(0, count)) for count in counts)
        made.append(isa.Command(draw(st.sampled_from(kinds)), 0, waits))
        counts[made[-1].op.ENGINE] += 1
    return made


def by_recurrence(machine: Machine, commands: list[isa.Command]) -> tuple[list[int], list[int]]:
    """Starts and ends without events: each is the latest of those that it must wait for."""
    begun: list[list[int]] = [[], [], [], []]
    over: list[list[int]] = [[0], [0], [0], [0]]
    starts, ends, dealt = [], [], 0
    for command in commands:
        engine = command.op.ENGINE
        if len(begun[engine]) >= QUEUE:
            dealt = max(dealt, begun[engine][-QUEUE])
        start = max(dealt, over[engine][-1], *(over[e][n] for e, n in enumerate(command.waits)))
        begun[engine].append(start)
        over[engine].append(start + duration(machine, command.op))
        starts.append(start)
        ends.append(over[engine][-1])
    return starts, ends


@settings(max_examples=60, deadline=None)
@given(streams(), st.sampled_from([8, 32]), st.sampled_from([1, 16]), st.sampled_from([1, 64]))
def test_events_come_when_everything_before_them_is_over(
    commands: list[isa.Command], array: int, width: int, lanes: int
) -> None:
    """The simulation, clock by clock, against the recurrence; and the bounds of each engine."""
    machine = Machine(array=array, dma_bytes=width, lanes=lanes)
    timeline = simulate(machine, commands)
    assert (list(timeline.starts), list(timeline.ends)) == by_recurrence(machine, commands)
    total, cycles = timeline.total(), timeline.cycles
    assert cycles * array**2 >= total.macs and cycles * lanes >= total.lane_operations
    assert cycles * width >= max(total.loaded, total.stored)
    assert max(total.busy) <= cycles <= sum(total.busy)
    for wider in (replace(machine, dma_bytes=3 * width), replace(machine, lanes=2 * lanes)):
        assert simulate(wider, commands).cycles <= cycles
    assert simulate(replace(machine, clock_mhz=1001.0), commands).milliseconds < timeline.milliseconds


def test_what_begins_at_a_clock_sees_what_ends_at_it() -> None:
    stream = [isa.Command(isa.Barrier()), isa.Command(isa.Table(0, 0, 1, 0, 1), waits=(0, 0, 1, 0))]
    assert [(e.clock, e.index, e.ends) for e in events(Machine(), stream)] == [
        *((0, 0, False), (1, 0, True)),
        *((1, 1, False), (18, 1, True)),
    ]


def test_a_full_queue_stops_the_command_processor() -> None:
    """A store that waits for nothing: behind 16 commands of the array it begins at once, behind 17 it does not."""
    load = isa.Command(isa.Load(0, 0, 0, 1, 1, 1, 160, 0, 0, 1))
    store = isa.Command(isa.Store(0, 0, 0, 1, 1, 1, 1, 0, 0, 1))
    blocked = isa.Command(isa.Barrier(), waits=(1, 0, 0, 0))
    for count, start in ((QUEUE, 0), (QUEUE + 1, 64 + 160 // 16)):
        assert simulate(Machine(), [load, *[blocked] * count, store]).starts[-1] == start


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
