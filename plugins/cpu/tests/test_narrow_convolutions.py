"""Convolutions in ``precision="bf16"`` against onnxruntime on rounded numbers, on every instruction set."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import epkit
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]

WAYS = [(isa, "dot") for isa in isas()] + [(isa, "half") for isa in isas() if isa == "avx512fp16"]
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


def model(x: Array, w: Array, bias: Array | None, add: bool, **attributes: Any) -> bytes:
    """Relu(Conv(x, w, bias) + twice the convolution of x with another w, if ``add``)."""
    given_ = ["x", "w"] + ["b"] * (bias is not None)
    nodes = [helper.make_node("Conv", given_, ["c"], **attributes)]
    if add:
        nodes = [
            helper.make_node("Conv", ["x", "v"], ["d"], **attributes),
            *nodes,
            helper.make_node("Add", ["c", "d"], ["s"]),
        ]
    nodes.append(helper.make_node("Relu", ["s" if add else "c"], ["y"]))
    constants = {"w": w, "v": -w[::-1].copy()} | ({} if bias is None else {"b": bias})
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(made.SerializeToString())


def narrow(x: Array) -> Array:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def peer(made: bytes, x: Array) -> Array:
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def ours(made: bytes, x: Array, threads: int) -> Array:
    with epkit.load(made, [("cpu", {"precision": "bf16", "threads": threads})]) as session:
        return np.asarray(session.run(None, {"x": x})["y"])


@pytest.mark.parametrize(("isa", "way"), WAYS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_convolutions(isa: str, way: str, data: Any) -> None:
    rank = data.draw(st.sampled_from([2, 2, 2, 1, 3]))
    size = [data.draw(st.integers(5, 17 if rank < 3 else 7)) for _ in range(rank)]
    kernel = data.draw(st.sampled_from([[1] * rank, [3] * rank, [2] + [3] * (rank - 1)]))
    attributes = {
        "strides": [data.draw(st.integers(1, 2)) for _ in range(rank)],
        "dilations": [data.draw(st.integers(1, 2)) for _ in range(rank)],
        "pads": [data.draw(st.integers(0, 2)) for _ in range(2 * rank)],
    }
    channels, filters = data.draw(st.sampled_from([64, 70, 96])), data.draw(st.sampled_from([192, 200]))
    if 1 < np.prod(kernel) < np.prod(attributes["strides"]):
        attributes["strides"] = [1] * rank  # much of the image is passed by: float32 is faster
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    x = generator.standard_normal((data.draw(st.integers(1, 2)), channels, *size)).astype(np.float32)
    w = generator.standard_normal((filters, channels, *kernel)).astype(np.float32)
    bias = generator.standard_normal(filters).astype(np.float32) if data.draw(st.booleans()) else None
    add = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPKIT_CPU_ISA", isa)
        patch.setenv("EPKIT_CPU_BF16", way)
        patch.setenv("EPKIT_CPU_WINOGRAD", "off")  # which would be float32, as it is faster
        found = ours(model(x, w, bias, add, **attributes), x, data.draw(st.sampled_from([1, 2])))
    wanted = peer(model(narrow(x), narrow(w), bias, add, **attributes), narrow(x))
    terms = peer(model(np.abs(x), np.abs(w), None, False, **attributes), np.abs(x))
    unit = 6 * 2.0**-11 if way == "half" else 2.0**-18
    assert (np.abs(found - wanted) <= (1 + add) * unit * terms.max() + 1e-5).all()
    if way == "half":  # as far as they may be in the worst case, they are not on the whole
        assert np.mean((found - wanted) ** 2) <= (unit * float(terms.max()) / 20) ** 2


@pytest.mark.skipif("avx512fp16" not in isas(), reason="the CPU does not multiply halves")
@pytest.mark.parametrize("kernel", [1, 3])
def test_images_beyond_halves(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image whose numbers do not fit halves is multiplied in float32; NaN and infinity pass."""
    generator = np.random.default_rng(0)
    w = generator.standard_normal((200, 64, kernel, kernel)).astype(np.float32)
    monkeypatch.setenv("EPKIT_CPU_BF16", "half")
    for far in (1e9, np.inf, np.nan):
        x = generator.standard_normal((1, 64, 6, 6)).astype(np.float32)
        x[0, 3, 1, 1] = far
        found, wanted = (
            ours(model(x, w, None, False), x, 1),
            peer(model(x, narrow(w), None, False), narrow(x)),
        )
        np.testing.assert_allclose(found, np.maximum(wanted, 0), 1e-4, 1e-4 if far != 1e9 else 1e5)
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        if far == 1e9 and kernel == 3:  # pixels that do not see it are as good as ever
            np.testing.assert_allclose(found[..., 3:, 3:], wanted[..., 3:, 3:], 1e-4, 1e-4)
