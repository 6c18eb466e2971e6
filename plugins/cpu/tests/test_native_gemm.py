"""float32 products against float64: shapes, strides, packing, batches, epilogues."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, aligned, call, parallel, scratch

Array = np.ndarray[Any, Any]
P = ctypes.c_void_p
I64 = ctypes.c_int64


class Epilogue(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_float), ("activation", ctypes.c_int32), ("alpha", ctypes.c_float),
                ("beta", ctypes.c_float), ("bias", P), ("row_bias", P), ("add", P), ("add_row", I64)]  # fmt: skip


class Gemm(ctypes.Structure):
    _fields_ = [("m", I64), ("n", I64), ("k", I64), ("a", P), ("a_row", I64), ("a_column", I64), ("b", P), ("b_row", I64),
                ("b_column", I64), ("packed", P), ("out", P), ("out_row", I64), ("batch", I64), ("a_offset", P),
                ("b_offset", P), ("out_offset", P), ("epilogue", Epilogue)]  # fmt: skip


erf = np.vectorize(math.erf, otypes=[np.float64])
ACTIVATIONS = [
    lambda x: x,
    lambda x: np.maximum(x, 0),
    lambda x: np.clip(x, -0.5, 0.75),
    lambda x: np.where(x < 0, -0.5 * x, x),
    lambda x: 1 / (1 + np.exp(-x)),
    np.tanh,
    lambda x: x / (1 + np.exp(-x)),
    lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    lambda x: np.clip(-0.5 * x + 0.75, 0, 1),
    lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
]


def run(isa: str, a: Array, b: Array, out: Array, packed: bool, threads: int, epilogue: Epilogue) -> None:
    """``out = a @ b`` for a [batch, m, k], b [batch, k, n] (or [1, k, n] packed) of any strides."""
    batch, m, k = a.shape
    n = b.shape[2]
    memory = None
    if packed:
        memory = aligned(call(isa, "gemm_packed_size_f32", k, n, returns=I64))
        call(isa, "gemm_pack_f32", b[0], k, n, b.strides[1] // 4, b.strides[2] // 4, memory, None)
    offsets = [np.arange(batch, dtype=np.int64) * (x.strides[0] // 4) * (x.shape[0] > 1) for x in (a, b, out)]
    g = Gemm(m, n, k, a.ctypes.data, a.strides[1] // 4, a.strides[2] // 4, None if packed else b.ctypes.data,
             b.strides[1] // 4, b.strides[2] // 4, memory.ctypes.data if memory is not None else None, out.ctypes.data,
             out.strides[1] // 4, batch, *[o.ctypes.data for o in offsets], epilogue)  # fmt: skip
    space = scratch(isa, "gemm_scratch_f32", ctypes.byref(g), ctypes.c_int(threads))
    guard = space[-64:].copy()
    call(isa, "gemm_f32", ctypes.byref(g), space, parallel(threads))
    assert (space[-64:] == guard).all(), "wrote behind the scratch memory"


def strided(generator: np.random.Generator, shape: tuple[int, ...], transposed: bool) -> Array:
    """Random float32 in a wider buffer of NaN, with or without its last two axes swapped in memory."""
    *batch, rows, columns = shape
    if transposed:
        rows, columns = columns, rows
    wide = np.full((*batch, rows, columns + 3), np.nan, np.float32)
    wide[..., :columns] = generator.standard_normal((*batch, rows, columns))
    view = wide[..., :columns]
    return view.swapaxes(-1, -2) if transposed else view


sizes = st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 97, 170]))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_products(isa: str, data: Any) -> None:
    batch, m, n = data.draw(st.integers(1, 3)), data.draw(sizes), data.draw(sizes)
    k = data.draw(st.one_of(st.integers(0, 70), st.sampled_from([256, 769, 1601])))
    packed, threads = data.draw(st.booleans()), data.draw(st.sampled_from([1, 2, 3]))
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    a = strided(generator, (batch, m, k), data.draw(st.booleans()))
    b = strided(generator, (1 if packed else batch, k, n), data.draw(st.booleans()))
    activation, scale = data.draw(st.integers(0, 10)), data.draw(st.sampled_from([1.0, 0.125]))
    bias, row_bias = generator.standard_normal(n).astype("f"), generator.standard_normal(m).astype("f")
    with_bias, with_rows, with_add = (
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
    )
    out = np.full((batch, m, n + 5), np.float32(77))
    add = generator.standard_normal(out.shape).astype(np.float32)
    epilogue = Epilogue(scale, activation, -0.5, 0.75, bias.ctypes.data if with_bias else None,
                        row_bias.ctypes.data if with_rows else None, add.ctypes.data if with_add else None, n + 5)  # fmt: skip
    run(isa, a, b, out[..., :n], packed, threads, epilogue)
    exact = scale * (a.astype(np.float64) @ b.astype(np.float64))
    exact = exact + with_bias * bias + with_rows * row_bias[:, None] + with_add * add[..., :n]
    np.testing.assert_allclose(out[..., :n], ACTIVATIONS[activation](exact), rtol=1e-4, atol=1e-4)
    assert (out[..., n:] == 77).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 300, 800, 200), (2, 130, 770, 200)], ids=str)
def test_rows_packed_for_all_threads(isa: str, shape: tuple[int, int, int, int]) -> None:
    """Several blocks of rows and of the reduction: the same bits as on one thread, where each is packed as it comes."""
    batch, m, k, n = shape
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((batch, m, k)), generator.standard_normal((batch, k, n))
    exact, (a, b) = a @ b, (a.astype(np.float32), b.astype(np.float32))
    alone, together = np.zeros((2, batch, m, n), np.float32)
    run(isa, a, b, alone, batch == 1, 1, Epilogue(1.0))
    run(isa, a, b, together, batch == 1, 4, Epilogue(1.0))
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_allclose(together, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_passes_the_activations(isa: str) -> None:
    a = np.array([[[np.nan], [1]]], np.float32)
    for activation in (1, 2):
        out = np.zeros((1, 2, 3), np.float32)
        run(isa, a, np.ones((1, 1, 3), np.float32), out, False, 1, Epilogue(1, activation, -0.5, 0.75))
        assert np.isnan(out[0, 0]).all() and not np.isnan(out[0, 1]).any()
