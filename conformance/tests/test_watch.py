"""Watching a provider: margins around memory, hidden sessions, streams that are given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

import epkit
from epkit.backend import HostAllocator, Provider
from epkit.backend.registry import Registry, default
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.plugins import registry_of
from epkit_conformance.evidence import recorded_run
from epkit_conformance.observer import OBSERVER, HiddenWork
from epkit_conformance.watch import MARGIN, Guard, Watch

MODEL = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { a = Relu(x) y = Neg(a) }'
)
X = {"x": np.array([-1, 2], np.float32)}


@pytest.mark.parametrize(("place", "word"), [(3, "in front of"), (20, "behind"), (8, "")])
def test_a_byte_outside_of_its_memory_is_told(place: int, word: str) -> None:
    whole = HostAllocator().allocate(24)
    whole[:] = MARGIN
    whole[place] = 0
    watch = Watch(Registry(), guards=[Guard("y", whole, 8, 16)])
    watch.check_guards()
    assert watch.faults == ([f"1 bytes were written {word} the memory of y"] if word else [])
    assert not watch.guards


def test_a_session_inside_a_program_is_heard() -> None:
    class Program(epkit.backend.Program):
        def __init__(self, model: Any) -> None:
            self.session = epkit.load(model, ["cpu"])

        def run(self, context: Any, inputs: Any) -> Any:
            names = [info.name for info in self.session.inputs]
            return list(self.session.run(None, dict(zip(names, inputs, strict=True))).values())

    class Hider(Provider):
        name = "watch_hider"
        version = "1.0"

        def devices(self) -> Any:
            return epkit.backend.Devices((epkit.backend.Device("toy:0", "toy"),))

        def claim(self, graph: Any) -> Any:
            return [epkit.backend.Claim((node,)) for node in graph.nodes]

        def compile(self, subgraph: Any) -> Any:
            return Program(subgraph.to_model())

    epkit.register(Hider)
    with (
        epkit.load(MODEL, ["watch_hider"]) as session,
        pytest.raises(HiddenWork, match="of the provider's own"),
    ):
        recorded_run(session, X)
    with epkit.load(MODEL, ["cpu"]) as session:
        assert recorded_run(session, X)[0]["y"].tolist() == [0, -2]


def test_nobody_listens_afterwards() -> None:
    with OBSERVER.listening() as heard, epkit.load(MODEL, ["cpu"], fallback="cpu") as session:
        session.run(None, X)
        assert default.observed
    assert [kind for kind, _ in heard] == ["load", "run"]
    assert not default.observed


def test_a_toy_device_keeps_no_closed_stream_and_tells_of_open_ones() -> None:
    device = FakeDevice()
    with epkit.load(MODEL, ["toy"], registry=registry_of(device_provider("toy", device))) as session:
        for _ in range(5):
            session.run(None, X)
        assert len(device.queue.open) <= 1
    device.assert_clean()
    device.stream()
    with pytest.raises(AssertionError, match="1 streams were never closed"):
        device.assert_clean()
