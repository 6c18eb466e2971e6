"""Streams for tests of the machine: a small network, compiled."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
from epkit_npu_sim.compile import Binary, NpuProgram
from npu_node import integers

import epkit

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


def program_of(session: epkit.Session) -> NpuProgram:
    """The only program on npu_sim."""
    (found,) = [p for p in session._programs.values() if isinstance(p, NpuProgram)]
    return found


def stream_of_a_network(**options: Any) -> Binary:
    """The network's stream."""
    return stream_of(network(), **{"scratchpad_kib": 32, **options})


def stream_of(model: onnx.ModelProto, **options: Any) -> Binary:
    """A model's stream, compiled for a chip."""
    with epkit.load(model, [("npu_sim", options)], fallback="error", optimise="none") as session:
        return program_of(session).binary
