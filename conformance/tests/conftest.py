"""Providers of the tests exist in this process only, so workers are forked; drivers do not survive that."""

from __future__ import annotations

import pytest

from epkit_conformance import runner


@pytest.fixture(autouse=True)
def forked_without_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No case meets a plugin whose driver a test before may have started."""
    monkeypatch.setenv("EPKIT_DISABLED_PLUGINS", "opencl,cuda")
    monkeypatch.setattr(runner, "DRIVERS", ())
