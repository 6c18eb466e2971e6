"""Every test here runs on the stand-in, GPU or not; ``test_cuda_gpu`` is for the real thing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cuda_standin import StandIn

import epkit_cuda.device
import epkit_cuda.provider
from epkit.backend import Devices


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the provider takes for its GPU."""
    machine = StandIn()
    monkeypatch.setattr(epkit_cuda.provider, "open_machine", lambda index: machine)
    monkeypatch.setattr(
        epkit_cuda.provider,
        "find_devices",
        lambda options: Devices((epkit_cuda.device.describe(machine),)),
    )
    yield machine
