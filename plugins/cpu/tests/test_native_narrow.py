"""Products with B in 16 bits: bfloat16 in three ways, and float16; how far products of halves may be off."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, aligned, call, parallel, scratch
from test_native_gemm import ACTIVATIONS, Epilogue

Array = np.ndarray[Any, Any]
I64, P, C = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
DOT, WIDE, HALF, F16 = range(4)
HALVES = "avx512" in ISAS and "avx512_fp16" in Path("/proc/cpuinfo").read_text()
"""Whether this machine multiplies halves."""
WAYS = [(isa, form) for isa in ISAS for form in (DOT, WIDE, F16)] + [("avx512", HALF)] * HALVES
needs_halves = pytest.mark.skipif(not HALVES, reason="the CPU does not multiply halves")


class Gemm16(ctypes.Structure):
    _fields_ = [("m", I64), ("n", I64), ("k", I64), ("a", P), ("a_row", I64), ("a_block", I64), ("packed", P), ("out", P),
                ("out_row", I64), ("out_block", I64), ("epilogue", Epilogue)]  # fmt: skip


def pack(isa: str, b: Array, form: int) -> Array:
    memory = aligned(call(isa, "gemm16_packed_size", *b.shape, returns=I64))
    call(isa, "gemm16_pack", b, *b.shape, b.strides[0] // 4, b.strides[1] // 4, C(form), memory, None)
    assert (memory[-64:] == 255).all(), "wrote behind the packed matrix"
    return memory


def form_of(packed: Array) -> int:
    """What a matrix was packed as in the end."""
    return int(packed[:4].view(np.int32)[0])


def run(isa: str, g: Gemm16, threads: int) -> None:
    space = scratch(isa, "gemm16_scratch", ctypes.byref(g), C(threads))
    call(isa, "gemm16", ctypes.byref(g), space, parallel(threads))
    assert (space[-64:] == 255).all(), "wrote behind the scratch memory"


def product(
    isa: str, a: Array, b: Array, form: int, epilogue: Epilogue | None = None, threads: int = 2
) -> Array:
    (m, k), n = a.shape, b.shape[1]
    packed, out = pack(isa, b, form), np.full((m, n + 3), np.float32(77))
    run(isa, Gemm16(m, n, k, a.ctypes.data, a.strides[0] // 4, 16, packed.ctypes.data, out.ctypes.data, n + 3, 16,
                    epilogue or Epilogue(1.0, 0, 0, 0)), threads)  # fmt: skip
    assert (out[:, n:] == 77).all()
    return out[:, :n]


def rounded(x: Array, form: int) -> Array:
    """The numbers that a form multiplies, as float64."""
    return x.astype(np.float64) if form == F16 else x.astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize(("isa", "form"), WAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_narrow_products(isa: str, form: int, data: Any) -> None:
    m, n = (data.draw(st.one_of(st.integers(1, 40), st.sampled_from([65, 97, 170]))) for _ in "mn")
    k = data.draw(st.one_of(st.integers(1, 70), st.sampled_from([256, 769, 1601])))
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    wide = np.full((m, k + 5), np.nan, np.float32)
    wide[:, :k] = generator.standard_normal((m, k))
    b = (
        generator.standard_normal((n, k)).astype(np.float16).astype(np.float32).T
    )  # a column lies along memory
    bias, add = generator.standard_normal(n).astype("f"), generator.standard_normal((m, n + 3)).astype("f")
    rows = generator.standard_normal(m).astype("f")
    given_ = [data.draw(st.booleans()) for _ in range(3)]
    activation, scale = data.draw(st.integers(0, 10)), data.draw(st.sampled_from([1.0, 0.125]))
    pointers = [x.ctypes.data if there else None for x, there in zip((bias, rows, add), given_, strict=True)]
    epilogue = Epilogue(scale, activation, -0.5, 0.75, *pointers, n + 3)
    found = product(isa, wide[:, :k], b, form, epilogue, data.draw(st.sampled_from([1, 3])))
    x, y = rounded(wide[:, :k], form), rounded(b, form)
    exact = scale * (x @ y) + given_[0] * bias + given_[1] * rows[:, None] + given_[2] * add[:, :n]
    # float32 sums; sums of halves are rounded to 2^-11 at most 7 times on the way
    unit = 7 * 2.0**-11 if form == HALF else 2.0**-20
    bound = scale * unit * (np.abs(x) @ np.abs(y)) + 1e-5
    assert (np.abs(found - ACTIVATIONS[activation](exact)) <= 1.2 * bound).all()  # no slope exceeds 1.2


@pytest.mark.parametrize(("isa", "form"), WAYS)
def test_packed_rows_serve_several_chunks(isa: str, form: int) -> None:
    """Blocks of rows and of the reduction, of which halves hold only some, in many chunks: the bits of one thread."""
    generator = np.random.default_rng(0)
    a = generator.standard_normal((200, 1300)).astype(np.float32)
    a[:, 700:] *= np.exp2(generator.integers(-40, 0, (200, 600))).astype(np.float32)
    b = generator.standard_normal((1300, 500)).astype(np.float16).astype(np.float32)
    alone, together = product(isa, a, b, form, threads=1), product(isa, a, b, form, threads=3)
    np.testing.assert_array_equal(alone, together)
    exact = rounded(a, form) @ rounded(b, form)
    np.testing.assert_allclose(
        together, exact, rtol=0, atol=(2e-3 if form == HALF else 1e-5) * abs(exact).max()
    )


@pytest.mark.parametrize(("isa", "form"), WAYS)
def test_blocked_images_are_matrices(isa: str, form: int) -> None:
    """Rows in blocks of 16 columns on both sides: pixels of a blocked image."""
    pixels, channels, filters = 37, 48, 80
    generator = np.random.default_rng(0)
    a = generator.standard_normal((channels // 16, pixels, 16)).astype(np.float32)
    b = generator.standard_normal((channels, filters)).astype(np.float16).astype(np.float32)
    add = generator.standard_normal((filters // 16, pixels, 16)).astype(np.float32)
    packed, out = pack(isa, b, form), np.empty_like(add)
    run(isa, Gemm16(pixels, filters, channels, a.ctypes.data, 16, pixels * 16, packed.ctypes.data, out.ctypes.data, 16,
                    pixels * 16, Epilogue(1.0, 0, 0, 0, None, None, add.ctypes.data)), 2)  # fmt: skip
    plain = a.swapaxes(0, 1).reshape(pixels, channels)
    exact = rounded(plain, form) @ rounded(b, form) + add.swapaxes(0, 1).reshape(pixels, filters)
    np.testing.assert_allclose(
        out.swapaxes(0, 1).reshape(pixels, filters), exact, 1e-2 if form == HALF else 1e-5, 1e-2
    )


DATA = {
    "normal": lambda g, shape: g.standard_normal(shape),
    "one sign": lambda g, shape: 1 + g.random(shape),
    "rectified": lambda g, shape: np.maximum(g.standard_normal(shape), 0),
    "heavy tails": lambda g, shape: g.standard_t(2, shape),
    "lognormal": lambda g, shape: np.exp(3 * g.standard_normal(shape)),
    "a large column": lambda g, shape: (
        g.standard_normal(shape) * np.where(np.arange(shape[-1]) == 5, 3000, 1)
    ),
    "rows of all sizes": lambda g, shape: (
        g.standard_normal(shape) * 10.0 ** g.uniform(-15, 15, (shape[0], 1))
    ),
    "tails of an activation": lambda g, shape: (lambda x: x / (1 + np.exp(-8 * x)))(g.standard_normal(shape)),
}


@needs_halves
@pytest.mark.parametrize("right", DATA)
@pytest.mark.parametrize("left", DATA)
def test_error_of_halves(left: str, right: str) -> None:
    """From float64, at most 1.5 times the error of exact products of bfloat16; by row and column, whatever their size."""
    generator = np.random.default_rng(0)
    a, b = (
        DATA[left](generator, (48, 512)).astype(np.float32),
        DATA[right](generator, (96, 512)).astype(np.float32).T,
    )
    exact = a.astype(np.float64) @ b.astype(np.float64)
    size = np.sqrt((a.astype(np.float64) ** 2) @ (b.astype(np.float64) ** 2))
    halves, true = (
        np.sqrt(np.mean(((found - exact) / size) ** 2))
        for found in (product("avx512", a, b, HALF), rounded(a, HALF) @ rounded(b, HALF))
    )
    assert halves <= 1.5 * true


@needs_halves
@pytest.mark.parametrize(
    "case", ["not a number", "infinite", "a far number", "far weights", "huge", "tiny", "zero"]
)
def test_numbers_beyond_halves(case: str) -> None:
    """Where a row's or a column's numbers do not fit halves, float32 multiplies."""
    generator = np.random.default_rng(0)
    a, b = (
        generator.standard_normal((20, 64)).astype(np.float32),
        generator.standard_normal((64, 70)).astype(np.float32),
    )
    if case in ("not a number", "infinite", "a far number"):
        a[3, 7] = {"not a number": np.nan, "infinite": np.inf, "a far number": 1e9}[case]
        b[7] = 0 if case == "a far number" else b[7]
    elif case == "far weights":
        b[7, 3], a[:, 7] = 1e9, 0
    else:
        a *= {"huge": 1e30, "tiny": 1e-38, "zero": 0}[case]
        b *= {"huge": 1e-30, "tiny": 1e30, "zero": 1}[case]
    assert form_of(pack("avx512", b, HALF)) == (WIDE if case == "far weights" else HALF)
    found, wide = (product("avx512", a, b, form) for form in (HALF, WIDE))
    if case in ("huge", "zero"):
        bound = 7 * 2.0**-11 * (np.abs(rounded(a, HALF)) @ np.abs(rounded(b, HALF)))
        assert (np.abs(found - wide) <= bound).all()
    else:
        np.testing.assert_array_equal(found, wide)
