"""Winograd convolutions: the error against float64 on every instruction set, and where a session uses them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS
from onnx import helper, numpy_helper
from test_native_conv import Case, convolve

import epkit
from epkit.errors import OptionError
from epkit_cpu.compile import NativeProgram
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
BOUND = 1e-5
"""Of the largest value before the activation: a clip makes values smaller, and not their errors."""


def case(tile: int, n: int, channels: int, filters: int, size: list[int], pad: list[int]) -> Case:
    begin, end = [0, *pad[:2]], [0, *pad[2:]]
    return Case(n, channels, filters, 1, [1, *size], [1, 3, 3], pad=begin, end=end, winograd=tile)


@st.composite
def cases(draw: Any) -> Case:
    pad = [draw(st.integers(0, 3)) for _ in range(4)]
    size = [draw(st.integers(max(1, 3 - pad[i] - pad[i + 2]), 30)) for i in range(2)]
    channels = st.one_of(st.integers(1, 70), st.sampled_from([16, 32, 64]))
    return case(
        draw(st.sampled_from([2, 4])), draw(st.integers(1, 2)), draw(channels), draw(channels), size, pad
    )


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    case=cases(),
    layouts=st.tuples(st.booleans(), st.booleans()),
    activation=st.sampled_from([0, 1, 2, 6]),
    add=st.booleans(),
    threads=st.integers(1, 3),
)
def test_error(
    isa: str, case: Case, layouts: tuple[bool, bool], activation: int, add: bool, threads: int
) -> None:
    found, wanted = convolve(isa, case, layouts, activation, add, True, threads)
    _, sums = convolve(isa, case, layouts, 0, add, True, threads)  # of the same data
    assert np.abs(found - wanted).max() <= BOUND * np.abs(sums).max()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [2, 4])
def test_error_of_many_channels_and_many_tiles(isa: str, tile: int) -> None:
    for one in (case(tile, 1, 512, 16, [9, 9], [1] * 4), case(tile, 1, 16, 33, [70, 50], [1] * 4)):
        for threads in (1, 3):
            found, wanted = convolve(isa, one, (True, True), 0, False, True, threads)
            assert np.abs(found - wanted).max() <= BOUND * np.abs(wanted).max()


def model(channels: int, shape: list[int | str], attributes: dict[str, Any]) -> tuple[bytes, Array]:
    """One convolution with as many filters as channels, and an image."""
    generator = np.random.default_rng(0)
    w = generator.standard_normal((channels, channels // attributes.get("group", 1), 3, 3)).astype(np.float32)
    ends = [helper.make_tensor_value_info("x", 1, shape), helper.make_tensor_value_info("y", 1, [None] * 4)]
    pads: dict[str, Any] = {} if "auto_pad" in attributes else {"pads": [1] * 4}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **pads, **attributes)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = generator.standard_normal([20 if isinstance(d, str) else d for d in shape]).astype(np.float32)
    return made.SerializeToString(), x


@pytest.mark.skipif(not isas(), reason="the package was built without a compiler")
@pytest.mark.parametrize(
    ("channels", "size", "attributes", "tile"),
    [
        (32, 20, {}, 4),
        (32, 20, {"auto_pad": "SAME_UPPER"}, 4),
        (32, 10, {}, 2),
        (32, 6, {}, 0),
        (16, 20, {}, 0),
        (32, 20, {"strides": [2, 2]}, 0),
        (32, 20, {"dilations": [2, 2]}, 0),
        (32, 20, {"group": 2}, 0),
        (32, "any", {}, 4),
        (144, "any", {}, 2),
    ],
)
def test_where_a_session_uses_them(
    channels: int, size: int | str, attributes: dict[str, Any], tile: int
) -> None:
    data, x = model(channels, [1, channels, size, size], attributes)
    (wanted,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    with epkit.load(data, [("cpu", {"threads": 2})]) as session:
        (program,) = session._engine.compiled.programs.values()
        assert isinstance(program, NativeProgram)
        (step,) = [step for step in program.steps if step.kernel == "conv"]
        assert struct.unpack("<ii", step.attributes[-8:]) == (tile, 0)  # and 32-bit products
        first = session.run(None, {"x": x})["y"]
        assert np.abs(first - wanted).max() <= 2 * BOUND * np.abs(wanted).max()
        assert all(np.array_equal(first, session.run(None, {"x": x})["y"]) for _ in range(3))


@pytest.mark.skipif(not isas(), reason="the package was built without a compiler")
def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x = model(32, [1, 32, 20, 20], {})
    x[0, 0, 10, 10] = np.inf
    reached = {}
    for choice in ("auto", "off"):
        monkeypatch.setenv("EPKIT_CPU_WINOGRAD", choice)
        with epkit.load(data, ["cpu"]) as session:
            reached[choice] = int((~np.isfinite(session.run(None, {"x": x})["y"][0, 0])).sum())
    assert reached["off"] == 9 < reached["auto"]
    monkeypatch.setenv("EPKIT_CPU_WINOGRAD", "sometimes")
    with pytest.raises(OptionError, match="EPKIT_CPU_WINOGRAD"):
        epkit.load(data, ["cpu"])
