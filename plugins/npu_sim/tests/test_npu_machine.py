"""The instruction set, the memory, and the counters that keep the order."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_node import integers, on_npu
from npu_streams import Seen, network, stream_of_a_network

import epkit
from epkit_npu_sim import isa
from epkit_npu_sim.compile import Binary
from epkit_npu_sim.engines.vector import integer_root, rounded, scaled
from epkit_npu_sim.machine import ChecksumError, Core, Machine
from epkit_npu_sim.memory import Dram, packed, unpacked

FEW = settings(max_examples=50, deadline=None)
WORDS = st.integers(-(2**31), 2**31 - 1)


@st.composite
def commands(draw: Any) -> isa.Command:
    kind = draw(st.sampled_from(isa.INSTRUCTIONS))
    operands = {name: draw(WORDS) for name in kind._fields}
    waits = tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4)))
    return isa.Command(kind(**operands), draw(st.integers(0, 2**16 - 1)), waits)


@FEW
@given(st.lists(commands(), max_size=5))
def test_binary_and_text_forms_hold_everything(stream: list[isa.Command]) -> None:
    code = isa.encode(stream)
    assert len(code) == 128 * len(stream)
    for again in (isa.decode(code), isa.assemble(isa.disassemble(stream))):
        assert again == stream
        assert [type(command.op) for command in again] == [type(command.op) for command in stream]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("frobnicate a=1", "no instruction 'frobnicate'"),
        ("barrier\nload base=x", "line 2"),
        ("matmul a=1", "missing"),
    ],
)
def test_the_assembler_says_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        isa.assemble(text)


def test_streams_of_no_instruction_are_refused() -> None:
    with pytest.raises(ValueError, match="opcode 99"):
        isa.decode(bytes([99]) + bytes(127))
    with pytest.raises(ValueError, match="multiple of 128"):
        isa.decode(bytes(100))


def test_a_binary_survives_as_bytes_and_notices_damage() -> None:
    binary = stream_of_a_network()
    whole = binary.to_bytes()
    again = Binary.from_bytes(whole)
    assert (again.commands, again.image, again.machine) == (binary.commands, binary.image, binary.machine)
    with pytest.raises(ValueError, match="damaged"):
        Binary.from_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="version 9"):
        Binary.from_bytes(whole.replace(b'"isa": 2', b'"isa": 9'))


def test_counters_are_enough_and_are_needed() -> None:
    """By the simulated clock the result is that of the stream's order; without the counters of an engine it is not."""
    feeds = {"x": integers(np.random.default_rng(1), (1, 16, 20, 20), "int8")}
    chosen = [("npu_sim", {"scratchpad_kib": 32, "mode": "cycles"})]
    seen = Seen()
    with epkit.load(network(), chosen, fallback="error", registry=seen.registry) as session:
        (program,) = seen.programs
        whole = program.binary
        want = session.run(None, feeds)["y"]
        assert np.array_equal(want, on_npu(network(), feeds))
        for engine in (isa.LOAD, isa.ARRAY, isa.VECTOR):
            careless = [replace(c, waits=without(c.waits, engine)) for c in whole.commands]
            program.binary = replace(whole, commands=tuple(careless))
            assert not np.array_equal(session.run(None, feeds)["y"], want), isa.ENGINES[engine]


def without(waits: isa.Waits, engine: int) -> Any:
    return tuple(0 if index == engine else count for index, count in enumerate(waits))


def test_a_command_reads_when_it_begins_and_writes_when_it_ends() -> None:
    """What it writes is not to be seen before: a reader that did not wait has read what was there."""
    core = Core(Machine(scratchpad=4096), Dram(4096))
    core.dram.bytes[:], core.spad[:] = 7, 1
    place, numbers = core.result(isa.Load(0, 0, 0, 1, 1, 1, 16, 0, 0, 1), [256])
    core.dram.bytes[:] = 9
    core.step(isa.Store(0, 0, 0, 1, 1, 1, 16, 0, 0, 1), [1024])
    place[...] = numbers
    assert set(core.dram.bytes[1024:1040]) == {1} and set(core.spad[:16]) == {7} and core.spad[16] == 1


@FEW
@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 2**24 - 1), st.integers(0, 40))
def test_rounding_is_exact_in_both_forms(value: int, mult: int, shift: int) -> None:
    want = round(Fraction(value * mult, 2**shift))
    assert int(rounded(np.array([value * mult], np.int64), shift)[0]) == want
    assert int(scaled(np.array([float(value)]), mult, shift)[0]) == want


@FEW
@given(st.integers(0, 2**62 - 1))
def test_integer_roots(value: int) -> None:
    assert int(integer_root(np.array([value], np.int64))[0]) == math.isqrt(value)


@FEW
@given(st.binary(max_size=200), st.integers(0, 100))
def test_compression_loses_nothing(data: bytes, zeros: int) -> None:
    array = np.frombuffer(data + bytes(zeros), np.uint8)
    stored = np.frombuffer(packed(array), np.uint8)
    assert unpacked(stored, len(array)).tobytes() == array.tobytes()


def test_memory_is_reused_and_runs_out() -> None:
    dram = Dram(4096)
    first, second = dram.allocate(1000), dram.allocate(1000)
    dram.free(first)
    with pytest.raises(ValueError, match="freed twice"):
        dram.free(first)
    assert dram.allocate(900).address == first.address
    with pytest.raises(MemoryError, match="dram_mib"):
        dram.allocate(4000)
    dram.free(second)


def test_a_load_is_checked_and_stays_in_memory() -> None:
    core = Core(Machine(scratchpad=4096), Dram(4096))
    core.dram.bytes[:] = 7
    with pytest.raises(ChecksumError, match="expected 00000001"):
        core.step(isa.Load(0, 0, 0, 1, 1, 1, 16, 0, 0, 1, 1), [256])
    with pytest.raises(IndexError, match="beyond the end of DRAM"):
        core.step(isa.Load(0, 0, 0, 1, 1, 1, 16, 0, 0, 1), [4090])
