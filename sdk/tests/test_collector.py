"""The garbage collector rests while a model is loaded, and not longer."""

from __future__ import annotations

import gc
import threading

import pytest

from epkit.collector import paused


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with pytest.raises(ValueError, match="within"), paused():
            assert not gc.isenabled()
            raise ValueError("within")
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if before else gc.disable()


def test_pauses_that_overlap_end_with_the_last() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with paused():
        pass
    within = gc.isenabled()
    leave.set()
    thread.join()
    assert not within
    assert gc.isenabled()
