"""Products with block-quantised weights against float64."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, call, parallel, scratch
from test_native_gemm import Epilogue

I64, P = ctypes.c_int64, ctypes.c_void_p


class NBits(ctypes.Structure):
    _fields_ = [*[(name, I64) for name in ("m", "n", "k", "bits", "block")], ("a", P), ("b", P), ("scales", P),
                ("zeros", P), ("out", P), ("epilogue", Epilogue)]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    m=st.sampled_from([1, 2, 3, 4, 5, 20]),
    n=st.integers(1, 70),
    k=st.sampled_from([1, 16, 32, 100, 256, 800]),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 128]),
    with_zeros=st.booleans(),
    threads=st.integers(1, 2),
)
def test_products(
    isa: str, m: int, n: int, k: int, bits: int, block: int, with_zeros: bool, threads: int
) -> None:
    generator = np.random.default_rng(0)
    blocks = -(-k // block)
    a, bias = (generator.standard_normal(s).astype(np.float32) for s in ((m, k), (n,)))
    values = generator.integers(0, 2**bits, (n, blocks, block), dtype=np.uint8)
    zeros = generator.integers(0, 2**bits, (n, blocks), dtype=np.uint8)
    scales = generator.uniform(0.01, 0.1, (n, blocks)).astype(np.float32)

    def packed(x: Any) -> Any:
        if bits == 8:
            return x
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] % 2)])
        return x[..., ::2] | x[..., 1::2] << 4

    b, z = np.ascontiguousarray(packed(values)), np.ascontiguousarray(packed(zeros))
    out = np.empty((m, n), np.float32)
    g = NBits(m, n, k, bits, block, a.ctypes.data, b.ctypes.data, scales.ctypes.data, z.ctypes.data if with_zeros else None,
              out.ctypes.data, Epilogue(1.0, 1, 0, 0, bias.ctypes.data))  # fmt: skip
    space = scratch(isa, "nbits_scratch", ctypes.byref(g), ctypes.c_int(threads))
    call(isa, "nbits", ctypes.byref(g), space, parallel(threads))
    assert (space[-64:] == 255).all()
    shifted = values.astype(np.float64) - (zeros[..., None] if with_zeros else 2 ** (bits - 1))
    weights = (shifted * scales[..., None]).reshape(n, -1)[:, :k]
    exact = np.maximum(a.astype(np.float64) @ weights.T + bias, 0)
    np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-5 * 2**bits * k**0.5)
