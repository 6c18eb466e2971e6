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
        with pytest.raises(
            DeviceMemoryError, match="for values of runs exceed the budget of 40,000"
        ) as caught:
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


def product(size: int = 256) -> onnx.ModelProto:
    """A product with a weight that is packed, and two results beside it."""
    proto = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n,{size}] x) => (float[n,{size}] y) {{
            a = MatMul (x, w)  b = Softmax <axis = 1> (a)  c = MatMul (b, w)  d = Transpose <perm = [1, 0]> (c)
            e = Softmax <axis = 0> (d)  f = Transpose <perm = [1, 0]> (e)  y = Neg (f)
        }}""")
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return proto


def test_packed_weights_count_from_the_load_on() -> None:
    with epkit.load(product(), ["cpu"]) as session:
        packed = session.memory.packed
    assert packed >= 256 * 256 * 4
    with pytest.raises(DeviceMemoryError, match=f"{packed:,} bytes more for packed weights exceed") as caught:
        epkit.load(product(), ["cpu"], memory={"cpu": packed - 1})
    assert caught.value.where.stage == "compile"
    assert f"{packed:,} or more" in caught.value.remedy
    epkit.load(product(), ["cpu"], memory={"cpu": packed}).close()


def test_the_engine_stays_within_what_the_weights_leave() -> None:
    """Runs that were refused leave nothing behind: afterwards the same ones as before are possible."""
    small, large = (np.ones((rows, 256), np.float32) for rows in (16, 4096))
    with epkit.load(product(), ["cpu"]) as free:
        wanted = free.run(None, {"x": small})["y"]
        packed = free.memory.packed
    budget = packed + 1_000_000
    with epkit.load(product(), ["cpu"], memory={"host": budget}) as session:
        for _ in range(20):
            np.testing.assert_array_equal(session.run(None, {"x": small})["y"], wanted)
            with pytest.raises(DeviceMemoryError, match="packed weights.*programs|packed weights") as caught:
                session.run(None, {"x": large})
            assert caught.value.where.node
            assert f"budget of {budget:,}" in str(caught.value)
        assert 0 < session.memory.peak <= 1_000_000


def test_a_session_tells_its_memory() -> None:
    with epkit.load(product(), ["cpu"]) as session:
        session.run(None, {"x": np.ones((64, 256), np.float32)})
        report = session.memory
    assert report.weights == 256 * 256 * 4
    assert report.packed >= report.weights
    assert report.mapped == 0
    assert report.peak >= report.lower_bound > 0
    assert f"{report.packed:,} packed" in str(report)
    device = FakeDevice()
    registry = registry_of(device_provider("far", device, everything))
    fixed = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        chain (float[8,256] x) => (float[8,256] y) { a = Relu (x)  b = Add (a, x)  y = Mul (b, a) }
    """)
    with epkit.load(fixed, ["far"], registry=registry) as session:
        assert session.memory.planned >= 3 * 8 * 256 * 4
