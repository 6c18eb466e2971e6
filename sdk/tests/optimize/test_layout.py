"""Level ``all``: a provider that knows operators with channels last gets them, with few transpositions around."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from transformer_samples import Builder

import epkit
import epkit.backend as ep
from epkit.kernels.conv import conv
from epkit.optimize.layout import DOMAIN, to_first, to_last
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of


def channels_last_conv(x: Any, w: Any, b: Any = None, *, pads: Any = None, strides: Any = None) -> Any:
    y = conv(np, x.transpose(to_first(x.ndim)), w, b, pads=pads, strides=strides)
    return np.ascontiguousarray(y.transpose(to_last(y.ndim)))


class Last(ep.KernelProvider):
    """Convolutions with channels last, and what works element by element in any layout."""

    name = "last"
    version = "1"
    kernels = (
        ep.kernel("Conv", domain=DOMAIN)(channels_last_conv),
        ep.kernel("Relu")(lambda x: np.maximum(x, np.float32(0))),
        ep.kernel("Add")(lambda a, b: a + b),
        ep.kernel("Mul")(lambda a, b: a * b),
        ep.kernel("Transpose")(lambda x, *, perm: np.ascontiguousarray(x.transpose(perm))),
    )

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("last:0", "toy"),))


class First(Last):
    name = "first"
    kernels = Last.kernels[1:]


def residual_network(height: Any = 5) -> onnx.ModelProto:
    b = Builder(18)
    x = b.input("x", onnx.TensorProto.FLOAT, ["N", 3, height, 4])
    y = b.op("Relu", b.op("Conv", x, b.weight(6, 3, 3, 3), b.weight(6), pads=[1, 1, 1, 1]))
    z = b.op("Conv", y, b.weight(6, 6, 3, 3), pads=[1, 1, 1, 1])
    z = b.op("Mul", b.op("Sigmoid", z), b.weight(6, 1, 1))
    both = b.op("Concat", b.op("Relu", b.op("Add", z, y)), y, axis=1)
    return b.model(b.op("Conv", both, b.weight(2, 12, 1, 1)))


def operators(provider: type[ep.Provider], level: str, height: Any) -> Counter[tuple[str, str]]:
    proto = residual_network(height)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)}
    with epkit.load(proto, [provider.name], registry=registry_of(provider), optimise=level) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))
        return Counter((node.provider, node.operator) for node in session.placement.nodes)


@pytest.mark.parametrize("height", [5, "H"])
def test_who_asks_for_channels_last_gets_them_between_two_transpositions(height: Any) -> None:
    found = operators(Last, "all", height)
    assert found["last", f"{DOMAIN}.Conv"] == 3
    assert found["last", "Transpose"] == 2, "one in front, and one behind"
    assert not [operator for _, operator in found if operator == "Conv"]


def test_at_other_levels_the_layout_stays() -> None:
    assert not [operator for _, operator in operators(Last, "extended", 5) if "Transpose" in operator]


def test_who_does_not_ask_keeps_channels_first() -> None:
    found = operators(First, "all", 5)
    assert not [operator for _, operator in found if DOMAIN in operator or operator == "Transpose"]
