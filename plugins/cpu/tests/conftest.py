"""The instruction sets that the engine has here, one after the other."""

from __future__ import annotations

import pytest

from epkit_cpu.native import isas


@pytest.fixture(params=isas() or ("none",))
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EPKIT_CPU_ISA", request.param)
    return str(request.param)
