"""float32 convolutions of every kind against float64, in both layouts."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, aligned, call, parallel, scratch
from test_native_gemm import ACTIVATIONS, Epilogue

Array = np.ndarray[Any, Any]
I64 = ctypes.c_int64


class Conv(ctypes.Structure):
    _fields_ = [("n", I64), ("channels", I64), ("filters", I64), ("group", I64), ("in_", I64 * 3), ("out", I64 * 3),
                ("kernel", I64 * 3), ("stride", I64 * 3), ("dilation", I64 * 3), ("pad", I64 * 3), ("transposed", ctypes.c_int32),
                ("in_blocked", ctypes.c_int32), ("out_blocked", ctypes.c_int32), ("winograd", ctypes.c_int32),
                ("epilogue", Epilogue)]  # fmt: skip


@dataclass
class Case:
    """A convolution; lists are depth, height, width."""

    n: int
    channels: int
    filters: int
    group: int
    size: list[int]
    kernel: list[int]
    stride: list[int] = field(default_factory=lambda: [1, 1, 1])
    dilation: list[int] = field(default_factory=lambda: [1, 1, 1])
    pad: list[int] = field(default_factory=lambda: [0, 0, 0])
    end: list[int] = field(default_factory=lambda: [0, 0, 0])
    transposed: bool = False
    winograd: int = 0

    def out(self) -> list[int]:
        sizes = zip(self.size, self.kernel, self.stride, self.dilation, self.pad, self.end, strict=True)
        if self.transposed:
            return [(i - 1) * s + d * (k - 1) + 1 - p - e for i, k, s, d, p, e in sizes]
        return [(i + p + e - d * (k - 1) - 1) // s + 1 for i, k, s, d, p, e in sizes]


def exact(case: Case, x: Array, w: Array) -> Array:
    """The convolution in float64, tap by tap."""
    x = x.astype(np.float64).reshape(case.n, case.group, -1, *case.size)
    out = case.out()
    if case.transposed:
        w = w.astype(np.float64).reshape(case.group, -1, case.filters // case.group, *case.kernel)
        full = [
            o + p + max(e, 0) for o, p, e in zip(out, case.pad, case.end, strict=True)
        ]  # e < 0: of the output
        y = np.zeros((case.n, case.group, case.filters // case.group, *full))
    else:
        w = w.astype(np.float64).reshape(case.group, case.filters // case.group, -1, *case.kernel)
        margins = [(0, 0)] * 3 + list(zip(case.pad, case.end, strict=True))
        x = np.pad(x, margins)
        y = np.zeros((case.n, case.group, case.filters // case.group, *out))
    for tap in itertools.product(*map(range, case.kernel)):
        count = case.size if case.transposed else out
        ranges = zip(tap, case.dilation, case.stride, count, strict=True)
        at = (..., *[slice(t * d, t * d + (c - 1) * s + 1, s) for t, d, s, c in ranges])
        if case.transposed:
            y[at] += np.einsum("ngc...,gcf->ngf...", x, w[(..., *tap)])
        else:
            y += np.einsum("ngc...,gfc->ngf...", x[at], w[(..., *tap)])
    if case.transposed:
        inner = zip(case.pad, out, strict=True)
        y = y[(..., *[slice(p, p + o) for p, o in inner])]
    return y.reshape(case.n, case.filters, *out)


def blocked(x: Array) -> Array:
    """[n, c, ...] as [n, c / 16, ..., 16], NumPy's way, 0.5 behind the last channel."""
    padded = np.full((x.shape[0], -(-x.shape[1] // 16) * 16, *x.shape[2:]), np.float32(0.5))
    padded[:, : x.shape[1]] = x
    return np.ascontiguousarray(np.moveaxis(padded.reshape(x.shape[0], -1, 16, *x.shape[2:]), 2, -1))


def planar(x: Array, channels: int) -> Array:
    return np.moveaxis(x, -1, 2).reshape(x.shape[0], -1, *x.shape[2:-1])[:, :channels]


def convolve(
    isa: str, case: Case, layouts: tuple[bool, bool], activation: int, add: bool, bias: bool, threads: int
) -> tuple[Array, Array]:
    """The planar result for data by chance, and the exact one."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((case.n, case.channels, *case.size)).astype(np.float32)
    rows, columns = (case.channels, case.filters) if case.transposed else (case.filters, case.channels)
    w = generator.standard_normal((rows, columns // case.group, *case.kernel)).astype(np.float32)
    w /= np.float32(np.sqrt(np.prod(case.kernel) * case.channels / case.group))
    b = generator.standard_normal(case.filters).astype(np.float32)
    residual = generator.standard_normal((case.n, case.filters, *case.out())).astype(np.float32)
    given_x = blocked(x) if layouts[0] else x
    given_residual = blocked(residual) if layouts[1] else residual
    found = np.full_like(given_residual, np.nan)
    triples = [
        (I64 * 3)(*v) for v in (case.size, case.out(), case.kernel, case.stride, case.dilation, case.pad)
    ]
    epilogue = Epilogue(
        1.0, activation, -0.5, 0.75, None, None, given_residual.ctypes.data if add else None, 0
    )
    conv = Conv(
        case.n,
        case.channels,
        case.filters,
        case.group,
        *triples,
        case.transposed,
        *layouts,
        case.winograd,
        epilogue,
    )
    packed = aligned(call(isa, "conv_packed_size_f32", ctypes.byref(conv), returns=I64))
    guards = packed[-64:].copy()
    call(isa, "conv_pack_f32", ctypes.byref(conv), w, b if bias else None, packed, parallel(threads))
    space = scratch(isa, "conv_scratch_f32", ctypes.byref(conv), ctypes.c_int(threads))
    call(isa, "conv_f32", ctypes.byref(conv), given_x, packed, found, space, parallel(threads))
    assert (packed[-64:] == guards).all() and (space[-64:] == 255).all()
    assert np.isfinite(found).all()
    y = exact(case, x, w) + (b.reshape(-1, 1, 1, 1) if bias else 0) + (residual if add else 0)
    result = planar(found, case.filters) if layouts[1] else found
    return result, ACTIVATIONS[activation](y)


def check(
    isa: str, case: Case, layouts: tuple[bool, bool], activation: int, add: bool, bias: bool, threads: int
) -> None:
    found, wanted = convolve(isa, case, layouts, activation, add, bias, threads)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


CASES = {
    "resnet first": Case(1, 3, 64, 1, [1, 37, 37], [1, 7, 7], [1, 2, 2], pad=[0, 3, 3], end=[0, 3, 3]),
    "3x3": Case(2, 32, 48, 1, [1, 15, 29], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "3x3 small image": Case(1, 64, 80, 1, [1, 7, 7], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "3x3 stride": Case(1, 48, 32, 1, [1, 14, 15], [1, 3, 3], [1, 2, 2], pad=[0, 1, 1], end=[0, 1, 1]),
    "strips": Case(2, 20, 33, 1, [1, 75, 70], [1, 3, 3], [1, 2, 2], pad=[0, 1, 1], end=[0, 2, 0]),
    "strips, few channels": Case(
        1, 3, 20, 1, [1, 190, 150], [1, 5, 3], [1, 2, 1], pad=[0, 2, 1], end=[0, 1, 1]
    ),
    "strips, narrow": Case(
        1, 64, 16, 1, [1, 150, 7], [1, 3, 3], dilation=[1, 2, 1], pad=[0, 3, 1], end=[0, 1, 1]
    ),
    "1x1": Case(2, 40, 50, 1, [1, 9, 9], [1, 1, 1]),
    "1x1 stride": Case(1, 64, 96, 1, [1, 9, 9], [1, 1, 1], [1, 2, 2]),
    "large weights": Case(1, 256, 128, 1, [1, 5, 13], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "dilated": Case(1, 16, 16, 1, [1, 17, 17], [1, 3, 3], dilation=[1, 2, 3], pad=[0, 2, 3], end=[0, 2, 3]),
    "grouped": Case(1, 64, 32, 2, [1, 8, 9], [1, 3, 3], pad=[0, 1, 1], end=[0, 0, 1]),
    "grouped odd": Case(2, 12, 20, 4, [1, 8, 9], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "depthwise": Case(2, 40, 40, 40, [1, 19, 21], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "depthwise 5x5 stride": Case(
        1, 16, 16, 16, [1, 20, 33], [1, 5, 5], [1, 2, 2], pad=[0, 2, 2], end=[0, 2, 1]
    ),
    "multiplier": Case(1, 6, 18, 6, [1, 8, 9], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "1-D": Case(1, 20, 33, 1, [1, 1, 70], [1, 1, 5], [1, 1, 2], pad=[0, 0, 2], end=[0, 0, 1]),
    "3-D": Case(1, 17, 16, 1, [4, 6, 7], [3, 2, 3], [1, 1, 2], pad=[1, 1, 1], end=[1, 0, 1]),
    "transposed": Case(
        1, 32, 24, 1, [1, 7, 9], [1, 4, 4], [1, 2, 2], pad=[0, 1, 1], end=[0, 1, 1], transposed=True
    ),
    "transposed gaps": Case(1, 16, 16, 1, [1, 5, 5], [1, 2, 2], [1, 3, 3], transposed=True),
    "transposed apart": Case(2, 24, 1, 1, [1, 9, 13], [1, 2, 2], [1, 2, 2], transposed=True),
    "transposed apart, cut": Case(
        1, 20, 3, 1, [2, 5, 7], [2, 4, 3], [2, 4, 3], end=[0, 1, 2], transposed=True
    ),
    "transposed apart, padded": Case(
        1, 5, 15, 1, [1, 6, 5], [1, 3, 2], [1, 3, 2], end=[0, -2, -1], transposed=True
    ),
    "transposed odd": Case(
        2, 6, 10, 2, [2, 5, 6], [2, 3, 3], [2, 2, 1], [1, 1, 2], [0, 1, 0], [0, 0, 1], True
    ),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_convolutions(isa: str, name: str) -> None:
    for layouts in itertools.product([False, True], repeat=2):
        check(isa, CASES[name], layouts, 0, False, True, 1)
        check(isa, CASES[name], layouts, 1, True, True, 2)
        check(isa, CASES[name], layouts, 6, True, False, 3)


@st.composite
def cases(draw: Any) -> Case:
    def three(least: int, most: int) -> list[int]:
        return [draw(st.integers(least, most)) for _ in range(3)]

    group = draw(st.sampled_from([1, 1, 2, 5]))
    case = Case(draw(st.integers(1, 2)), group * draw(st.integers(1, 34)), group * draw(st.integers(1, 34)), group,
                three(1, 9), three(1, 3), three(1, 3), three(1, 2), three(0, 2), three(0, 2), draw(st.booleans()))  # fmt: skip
    for d in range(3):  # an output of at least one, and no padding of a size that ONNX forbids
        while case.out()[d] < 1:
            case.size[d] += 2
    return case


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(case=cases(), layouts=st.tuples(st.booleans(), st.booleans()), threads=st.integers(1, 2))
def test_any_convolution(isa: str, case: Case, layouts: tuple[bool, bool], threads: int) -> None:
    check(isa, case, layouts, 2, True, True, threads)


@st.composite
def depthwise_cases(draw: Any) -> Case:
    """Widths around those of the blocks into which a row is cut, and any padding."""
    channels, kernel = draw(st.sampled_from([2, 17, 32])), draw(st.sampled_from([1, 2, 3, 5, 7]))
    size = [1, draw(st.integers(1, 5)), draw(st.integers(1, 45))]
    stride, dilation = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    pad, end = ([0, draw(st.integers(0, 3)), draw(st.integers(0, kernel))] for _ in range(2))
    kernels = [1, draw(st.integers(1, 3)), kernel]
    case = Case(1, channels, channels, channels, size, kernels, [1, 1, stride], [1, 1, dilation], pad, end)
    for d in range(3):
        while case.out()[d] < 1:
            case.size[d] += 2
    return case


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=80, deadline=None)
@given(case=depthwise_cases(), activation=st.sampled_from([0, 2, 6]), threads=st.integers(1, 2))
def test_any_depthwise(isa: str, case: Case, activation: int, threads: int) -> None:
    check(isa, case, (True, True), activation, True, True, threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 16, 21])
def test_layouts(isa: str, channels: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, channels, 300)).astype(np.float32)
    there = np.full((2, -(-channels // 16), 300, 16), np.float32(9))
    call(isa, "to_blocked_f32", x, 2, channels, 300, there, parallel(2))
    wanted = blocked(x)
    wanted[:, -1, :, (channels - 1) % 16 + 1 :] = 0
    assert np.array_equal(there, wanted)
    back = np.zeros_like(x)
    call(isa, "from_blocked_f32", there, 2, channels, 300, back, parallel(2))
    assert np.array_equal(back, x)
