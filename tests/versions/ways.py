"""The ways in which the CPU provider computes: by native kernels of each instruction set, or without any."""

from __future__ import annotations

import pytest

from epkit_cpu.native import isas

WAYS = ("none", *isas())


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of them, in force during the test."""
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)
    return str(request.param)
