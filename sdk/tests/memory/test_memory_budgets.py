"""Budgets: what a session may hold on each device."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import epkit
from epkit.errors import DeviceMemoryError, OptionError
from epkit.testing.device import FakeDevice, device_provider, everything
from epkit.testing.plugins import registry_of

MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    chain (float[n,256] x) => (float[n,256] y) { a = Relu (x)  b = Add (a, x)  y = Mul (b, a) }
""")


def test_a_run_beyond_the_budget_fails_and_the_next_one_does_not() -> None:
    device = FakeDevice()
    far = device_provider("far", device, everything)
    with epkit.load(MODEL, ["far"], registry=registry_of(far), memory={"far": 40_000}) as session:
        small, large = np.ones((4, 256), np.float32), np.ones((64, 256), np.float32)
        np.testing.assert_array_equal(session(x=small)["y"], 2 * small)
        with pytest.raises(DeviceMemoryError, match="budget of 40,000") as caught:
            session(x=large)
        assert "memory=" in caught.value.remedy
        np.testing.assert_array_equal(session(x=small)["y"], 2 * small)
        assert all(arena.peak <= 40_000 for arena in session.memory.arenas if arena.device != "host")
    device.assert_clean()


@pytest.mark.parametrize("budget", [{"gone": 1}, {"cpu": -1}, {"cpu": 1.5}])
def test_what_is_no_budget_says_what_would_be(budget: dict[str, int]) -> None:
    with pytest.raises(OptionError) as caught:
        epkit.load(MODEL, ["cpu"], memory=budget)
    assert "cpu" in caught.value.remedy
