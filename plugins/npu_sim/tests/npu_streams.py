"""Streams for tests of the machine: a small network, compiled."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx.numpy_helper
import onnx.parser
from npu_node import integers

import epkit
from epkit.backend import Subgraph
from epkit.testing.plugins import registry_of
from epkit_npu_sim.compile import Binary, NpuProgram
from epkit_npu_sim.provider import NpuSimProvider

NETWORK = """<ir_version: 10, opset_import: ["" : 21]>
g (int8[1, 16, 20, 20] x) => (int8[1, 32, 18, 18] y, int8[1, 32, 18, 18] p)
<float s = {0.05}, float t = {0.4}, float u = {0.01}, int8 z = {3}, int8 o = {0}> {
    xr = DequantizeLinear(x, s, z)  wr = DequantizeLinear(w, u, o)  vr = DequantizeLinear(v, u, o)
    c = Conv(xr, wr)  q = QuantizeLinear(c, t, z)  d = DequantizeLinear(q, t, z)
    h = HardSwish(d)  p = QuantizeLinear(h, t, z)  e = DequantizeLinear(p, t, z)
    k = Conv <pads = [1, 1, 1, 1], group = 32> (e, vr)  l = QuantizeLinear(k, s, o)  m = DequantizeLinear(l, s, o)
    a = Add(m, e)  y = QuantizeLinear(a, t, o)
}"""


@cache
def network() -> onnx.ModelProto:
    """Conv, HardSwish, a depthwise Conv and a residual Add."""
    model = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (32, 16, 3, 3)), ("v", (32, 1, 3, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(integers(rng, shape, "int8"), name))
    return model


class Seen:
    """The provider under its own name, with its programs in view.

    Attributes:
        programs: what was compiled, in order.
        registry: for ``epkit.load``.
    """

    def __init__(self) -> None:
        self.programs: list[NpuProgram] = []
        seen = self.programs

        class Watched(NpuSimProvider):
            def compile(self, subgraph: Subgraph) -> NpuProgram:
                program = super().compile(subgraph)
                seen.append(program)
                return program

        self.registry = registry_of(Watched)


def stream_of_a_network(**options: Any) -> Binary:
    """The network's stream."""
    return stream_of(network(), **{"scratchpad_kib": 32, **options})


def stream_of(model: onnx.ModelProto, **options: Any) -> Binary:
    """A model's stream, compiled for a chip."""
    seen = Seen()
    chosen = [("npu_sim", options)]
    epkit.load(model, chosen, fallback="error", optimise="none", registry=seen.registry).close()
    return seen.programs[0].binary
