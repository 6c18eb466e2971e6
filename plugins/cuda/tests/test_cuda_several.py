"""One session over two GPUs: one provider named twice, each with a device of its own."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from cuda_standin import StandIn

import epkit
import epkit.errors
import epkit_cuda.device
import epkit_cuda.provider
from epkit.backend import Devices

MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N, 3] x) => (float[N, 3] y, float[N, 3] b) { a = Exp(x)  b = Sin(a)  y = Cos(b) }
""")
TWO = [("cuda", {"device": 0}), ("cuda", {"device": 1})]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    machines = [StandIn(0), StandIn(1)]
    monkeypatch.setattr(epkit_cuda.provider, "open_machine", machines.__getitem__)
    monkeypatch.setattr(
        epkit_cuda.provider,
        "find_devices",
        lambda options: Devices((epkit_cuda.device.describe(machines[options.device]),)),
    )
    return machines


@pytest.mark.parametrize("capture", [False, True])
def test_parts_of_a_model_run_on_two_gpus(two: list[StandIn], capture: bool) -> None:
    pins = {"op:Sin": "cuda#2"}
    with epkit.load(MODEL, TWO, fallback="error", placement=pins, capture=capture) as session:
        assert session.placement.counts() == {"cuda": 2, "cuda#2": 1}
        for run in range(5):
            x = np.random.default_rng(run).standard_normal((4, 3)).astype(np.float32)
            stay = epkit.RunOptions(on_device=True)
            found = session.run(None, {"x": x}, stay if run == 4 else epkit.RunOptions())
            want = np.sin(np.exp(x))
            assert (found["y"].device, found["b"].device) == ("cuda:0", "cuda:1") if run == 4 else True
            values = [item.numpy() if run == 4 else item for item in (found["b"], found["y"])]
            np.testing.assert_allclose(values[0], want, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(values[1], np.cos(want), rtol=1e-5, atol=1e-6)
    assert all(machine.launches and machine.implicit_reads == 0 for machine in two)
    assert [machine.graph_launches for machine in two] == ([6, 3] if capture else [0, 0])


def test_one_gpu_is_named_once(two: list[StandIn]) -> None:
    with pytest.raises(epkit.errors.OptionError, match="'cuda' is named twice"):
        epkit.load(MODEL, [TWO[0], TWO[0]])
