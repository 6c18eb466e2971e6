"""8-bit products and convolutions, exactly; quantisation."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, aligned, call, parallel, scratch
from test_native_conv import Case, Conv, blocked, exact, planar

Array = np.ndarray[Any, Any]
I64, P, C = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32


class Requantise(ctypes.Structure):
    _fields_ = [
        ("result", C),
        ("bias", P),
        ("multiplier", P),
        ("per_column", C),
        ("zero", C),
        ("low", C),
        ("high", C),
        ("offset", P),
    ]


class GemmInt8(ctypes.Structure):
    _fields_ = [("m", I64), ("n", I64), ("k", I64), ("a", P), ("a_row", I64), ("a_signed", C), ("a_zero", C),
                ("packed", P), ("out", P), ("out_row", I64), ("batch", I64), ("a_offset", P), ("out_offset", P),
                ("finish", Requantise)]  # fmt: skip


class ConvInt8(ctypes.Structure):
    _fields_ = [("shape", Conv), ("x_signed", C), ("x_zero", C), ("finish", Requantise)]


RESULTS = [np.int32, np.float32, np.uint8, np.int8]
LIMITS = {2: (0, 255), 3: (-128, 127)}


def random_bytes(generator: np.random.Generator, shape: tuple[int, ...], signed: bool) -> Array:
    kind = np.dtype(np.int8 if signed else np.uint8)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max + 1, shape).astype(kind)


def finished(sums: Array, result: int, bias: Array, multiplier: Array, zero: int) -> Array:
    """What ONNX makes of int32 sums, whose last axis are columns."""
    total = (sums + bias).astype(np.int32)
    if result == 0:
        return total
    scaled = total.astype(np.float32) * multiplier
    return scaled if result == 1 else np.clip(np.rint(scaled) + zero, *LIMITS[result]).astype(RESULTS[result])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_products_are_exact(isa: str, data: Any) -> None:
    m, n = data.draw(st.integers(1, 40)), data.draw(st.one_of(st.integers(1, 70), st.just(200)))
    k, batch = data.draw(st.one_of(st.integers(1, 140), st.just(1030))), data.draw(st.integers(1, 2))
    a_signed, b_signed, per_column = (
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
    )
    result, threads, transposed = (
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(1, 2)),
        data.draw(st.booleans()),
    )
    generator = np.random.default_rng(0)
    a, b = (
        random_bytes(generator, (batch, m, k + 3), a_signed)[..., :k],
        random_bytes(generator, (k, n), b_signed),
    )
    b = np.asfortranarray(b) if transposed else b
    a_zero = int(random_bytes(generator, (1,), a_signed)[0])
    zeros = random_bytes(generator, (n if per_column else 1,), b_signed)
    packed = aligned(call(isa, "gemm_packed_size_int8", k, n, returns=I64))
    call(isa, "gemm_pack_int8", b, k, n, *b.strides, C(b_signed), zeros, zeros.size, packed, None)
    bias = generator.integers(-1000, 1000, n, dtype=np.int32)
    multiplier = generator.uniform(1e-4, 3e-3, n if per_column else 1).astype(np.float32)
    out = np.full((batch, m, n + 2), 99, RESULTS[result])
    finish = Requantise(
        result, bias.ctypes.data, multiplier.ctypes.data, per_column, 7, *LIMITS.get(result, (0, 0))
    )
    offsets = [np.arange(batch, dtype=np.int64) * m * row for row in (k + 3, n + 2)]
    g = GemmInt8(m, n, k, a.ctypes.data, k + 3, a_signed, a_zero, packed.ctypes.data, out.ctypes.data, n + 2, batch,
                 offsets[0].ctypes.data, offsets[1].ctypes.data, finish)  # fmt: skip
    space = scratch(isa, "gemm_scratch_int8", ctypes.byref(g), C(threads))
    call(isa, "gemm_int8", ctypes.byref(g), space, parallel(threads))
    assert (space[-64:] == 255).all() and (packed[-64:] == 255).all()
    sums = (a.astype(np.int64) - a_zero) @ (b.astype(np.int64) - zeros)
    assert np.array_equal(out[..., :n], finished(sums, result, bias, multiplier, 7))
    assert (out[..., n:] == 99).all()


CASES = {
    "first": Case(1, 3, 20, 1, [1, 17, 19], [1, 7, 7], [1, 2, 2], pad=[0, 3, 3], end=[0, 3, 3]),
    "3x3": Case(2, 32, 48, 1, [1, 9, 29], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "3x3 small": Case(1, 37, 33, 1, [1, 7, 7], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "1x1": Case(2, 48, 50, 1, [1, 9, 9], [1, 1, 1]),
    "grouped": Case(1, 24, 12, 3, [1, 8, 9], [1, 3, 3], [1, 2, 1], pad=[0, 1, 1], end=[0, 0, 1]),
    "depthwise": Case(2, 33, 33, 33, [1, 9, 37], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
    "depthwise stride": Case(1, 16, 16, 16, [1, 9, 12], [1, 3, 3], [1, 2, 2], pad=[0, 1, 0], end=[0, 0, 1]),
    "depthwise 5x5": Case(1, 5, 5, 5, [1, 11, 8], [1, 5, 5], [1, 1, 3], [1, 2, 1], [0, 4, 2], [0, 4, 2]),
    "depthwise 3-D": Case(1, 3, 3, 3, [4, 5, 6], [2, 3, 1], [1, 1, 1], pad=[1, 0, 0], end=[0, 1, 0]),
    "depthwise 1x1": Case(1, 7, 7, 7, [1, 4, 4], [1, 1, 1]),
    "1-D": Case(1, 20, 33, 1, [1, 1, 70], [1, 1, 5], [1, 1, 2], [1, 1, 2], [0, 0, 2], [0, 0, 1]),
    "many weights": Case(1, 512, 256, 1, [1, 3, 7], [1, 3, 3], pad=[0, 1, 1], end=[0, 1, 1]),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_convolutions_are_exact(isa: str, name: str) -> None:
    case, generator = CASES[name], np.random.default_rng(0)
    for layouts, signs in itertools.product(itertools.product([False, True], repeat=2), repeat=2):
        x = random_bytes(generator, (case.n, case.channels, *case.size), signs[0])
        w = random_bytes(generator, (case.filters, case.channels // case.group, *case.kernel), signs[1])
        x_zero = int(random_bytes(generator, (1,), signs[0])[0])
        result, threads = (2 + signs[0], 2) if layouts[0] == layouts[1] else (0, 1)
        pointed = layouts[1] and not (layouts[0] and signs[1])  # the weights have zero points
        zeros = random_bytes(generator, (case.filters,), signs[1]) if pointed else None
        bias = generator.integers(-1000, 1000, case.filters, dtype=np.int32)
        multiplier = generator.uniform(1e-4, 3e-3, case.filters).astype(np.float32)
        triples = [
            (I64 * 3)(*v) for v in (case.size, case.out(), case.kernel, case.stride, case.dilation, case.pad)
        ]
        shape = Conv(case.n, case.channels, case.filters, case.group, *triples, 0, *layouts)
        finish = Requantise(
            result, bias.ctypes.data, multiplier.ctypes.data, 1, 7, *LIMITS.get(result, (0, 0))
        )
        conv = ConvInt8(shape, signs[0], x_zero, finish)
        packed = aligned(call(isa, "conv_packed_size_int8", ctypes.byref(conv), returns=I64))
        call(
            isa,
            "conv_pack_int8",
            ctypes.byref(conv),
            w,
            C(signs[1]),
            zeros,
            case.filters,
            packed,
            parallel(threads),
        )
        space = scratch(isa, "conv_scratch_int8", ctypes.byref(conv), C(threads))
        out = np.zeros((case.n, case.filters, *case.out()), np.float32)
        found = (blocked(out) if layouts[1] else out).astype(RESULTS[result])
        given_x = blocked(x.astype(np.float32)).astype(x.dtype) if layouts[0] else x
        call(isa, "conv_int8", ctypes.byref(conv), given_x, packed, found, space, parallel(threads))
        assert (space[-64:] == 255).all() and (packed[-64:] == 255).all()
        w_zero = 0 if zeros is None else zeros.astype(np.int64).reshape(-1, 1, 1, 1, 1)
        sums = np.moveaxis(exact(case, x.astype(np.int64) - x_zero, w.astype(np.int64) - w_zero), 1, -1)
        wanted = np.moveaxis(finished(sums, result, bias, multiplier, 7), -1, 1)
        assert np.array_equal(planar(found, case.filters) if layouts[1] else found, wanted), (layouts, signs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1003), (2, 5, 33), (3, 7, 1)])
def test_quantisation(isa: str, signed: bool, shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    scale = generator.choice([0.5, 0.25, 0.1], shape[1]).astype(np.float32)
    zero = random_bytes(generator, (shape[1],), signed)
    x = np.round(generator.standard_normal(shape) * 40).astype(np.float32) / 4  # many halves
    x.ravel()[: min(2, x.size)] = [1e30, -np.inf][: min(2, x.size)]
    found, back = np.zeros(shape, zero.dtype), np.zeros(shape, np.float32)
    call(isa, "quantise", x, scale, zero, found, C(signed), *shape, parallel(2))
    s, z = scale[:, None], zero[:, None].astype(np.float32)
    assert np.array_equal(found, np.clip(np.rint(x / s) + z, *LIMITS[2 + signed]).astype(zero.dtype))
    call(isa, "dequantise", found, scale, zero, back, C(signed), *shape, parallel(2))
    assert np.array_equal(back, (found.astype(np.float32) - z) * s)
