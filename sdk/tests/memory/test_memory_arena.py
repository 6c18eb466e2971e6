"""The arena over an allocator that notices misuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epkit.errors import DeviceMemoryError
from epkit.memory.arena import Arena
from epkit.testing.memory import FakeMemory


class ArenaMachine(RuleBasedStateMachine):
    """Takes and gives in any order, as runs of several threads do."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = FakeMemory()
        self.arena = Arena("toy:0", self.memory)
        self.taken: list[tuple[int, Any]] = []
        self.requests = 0

    @rule(nbytes=st.integers(0, 20_000))
    def take(self, nbytes: int) -> None:
        buffer = self.arena.take(nbytes)
        assert all(buffer is not other for _, other in self.taken)
        assert len(buffer.data) >= nbytes
        self.taken.append((nbytes, buffer))
        self.requests += 1

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.taken) - 1))
        self.arena.give(self.taken.pop(index)[1])

    @invariant()
    def statistics_are_true(self) -> None:
        found = self.arena.statistics()
        assert found.held == self.memory.in_use
        assert sum(nbytes for nbytes, _ in self.taken) <= found.in_use <= found.held <= found.peak
        assert found.allocations == self.memory.allocations
        assert found.allocations + found.reused == self.requests

    def teardown(self) -> None:
        """Closed in the middle: what is out comes back later, and then nothing is left."""
        self.arena.close()
        for _, buffer in self.taken:
            self.arena.give(buffer)
        assert self.memory.in_use == 0
        assert self.memory.faults == []


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_buffer_that_was_given_back_is_taken_again() -> None:
    arena = Arena("toy:0", FakeMemory())
    first = arena.take(1000)
    arena.give(first)
    assert arena.take(900) is first


def test_a_small_request_does_not_tie_up_a_large_buffer() -> None:
    arena = Arena("toy:0", FakeMemory())
    large = arena.take(1 << 20)
    arena.give(large)
    assert arena.take(16) is not large


def test_unused_buffers_make_room_when_the_device_is_full() -> None:
    memory = FakeMemory(limit=10_000)
    arena = Arena("toy:0", memory)
    arena.give(arena.take(1_000))
    arena.take(9_500)
    assert memory.in_use == 9_500


def test_a_full_device_is_an_error_with_sizes_and_a_remedy() -> None:
    arena = Arena("toy:0", FakeMemory(limit=1_000))
    arena.take(800)
    with pytest.raises(DeviceMemoryError, match=r"toy:0 has no 300 bytes left .*holds 800") as caught:
        arena.take(300)
    assert caught.value.remedy
    arena.take(200)
