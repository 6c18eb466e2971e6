"""Attention and rotary embedding against float64."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, call, parallel, scratch

Array = np.ndarray[Any, Any]
I64, P, F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
STRIDES = [f"{tensor}_{axis}" for tensor in ("q", "k", "v", "out") for axis in ("batch", "head", "row")]


class Attention(ctypes.Structure):
    _fields_ = [*[(name, I64) for name in ("batch", "heads", "kv_heads", "queries", "keys", "size", "value_size")],
                ("q", P), ("k", P), ("v", P), ("out", P), *[(name, I64) for name in STRIDES], ("scale", F), ("softcap", F),
                ("left", I64), ("right", I64), ("past", I64), ("pasts", P), ("mask", P), ("allowed", P), ("mask_batch", I64),
                ("mask_head", I64), ("mask_row", I64), ("lengths", P), ("sink", P)]  # fmt: skip


def heads_last(
    generator: np.random.Generator, batch: int, heads: int, rows: int, size: int, transposed: bool
) -> Array:
    """[batch, heads, rows, size], lying as that or as [batch, rows, heads, size]."""
    if transposed:
        return generator.standard_normal((batch, rows, heads, size)).astype(np.float32).swapaxes(1, 2)
    return generator.standard_normal((batch, heads, rows, size)).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_attention(isa: str, data: Any) -> None:
    pick = data.draw
    batch, kv_heads, share = (
        pick(st.integers(1, 2)),
        pick(st.integers(1, 2)),
        pick(st.sampled_from([1, 1, 3, 20])),
    )
    queries = pick(st.one_of(st.integers(1, 5), st.sampled_from([14, 29, 130])))
    keys = pick(st.one_of(st.integers(1, 70), st.sampled_from([513, 1200])))
    size, value_size = pick(st.sampled_from([1, 8, 31, 64])), pick(st.sampled_from([5, 32, 64, 80]))
    softcap = pick(st.sampled_from([0.0, 3.0]))
    left, right = pick(st.sampled_from([-1, -1, 0, 7])), pick(st.sampled_from([-1, 0, 0, 3]))
    kind, transposed, threads = (
        pick(st.sampled_from(["", "mask", "allowed"])),
        pick(st.booleans()),
        pick(st.integers(1, 3)),
    )
    generator = np.random.default_rng(pick(st.integers(0, 5)))
    heads = kv_heads * share
    past = keys - queries if pick(st.booleans()) else 0
    pasts = generator.integers(-3, keys, batch) if pick(st.booleans()) else None
    sink = generator.standard_normal(heads).astype(np.float32) if pick(st.booleans()) else None
    q = heads_last(generator, batch, heads, queries, size, transposed)
    k = heads_last(generator, batch, kv_heads, keys, size, transposed)
    v = heads_last(generator, batch, kv_heads, keys, value_size, transposed)
    out = np.full_like(heads_last(generator, batch, heads, queries, value_size, transposed), np.nan)
    mask = generator.standard_normal((batch, 1, queries, keys)).astype(np.float32)
    allowed = generator.random((batch, 1, queries, keys)) < 0.7
    lengths = generator.integers(1, keys + 1, batch) if pick(st.booleans()) else None
    strides = [s // 4 for x in (q, k, v, out) for s in x.strides[:3]]
    attention = Attention(batch, heads, kv_heads, queries, keys, size, value_size, *[x.ctypes.data for x in (q, k, v, out)],
                          *strides, 0.5, softcap, left, right, past, None if pasts is None else pasts.ctypes.data, mask.ctypes.data if kind == "mask" else None,
                          allowed.ctypes.data if kind == "allowed" else None, queries * keys, 0, keys,
                          lengths.ctypes.data if lengths is not None else None,
                          sink.ctypes.data if sink is not None else None)  # fmt: skip
    space = scratch(isa, "attention_scratch_f32", ctypes.byref(attention), ctypes.c_int(threads))
    call(isa, "attention_f32", ctypes.byref(attention), space, parallel(threads))
    assert (space[-64:] == 255).all()
    wide = [np.repeat(x.astype(np.float64), share, 1) for x in (k, v)]
    scores = 0.5 * q.astype(np.float64) @ wide[0].swapaxes(2, 3)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    hidden = np.zeros((batch, 1, queries, keys), bool)
    starts = np.full(batch, past) if pasts is None else pasts
    place = np.arange(queries)[:, None] + starts[:, None, None, None] - np.arange(keys)
    if left >= 0:
        hidden |= place > left
    if right >= 0:
        hidden |= place < -right
    if kind == "allowed":
        hidden |= ~allowed
    if lengths is not None:
        hidden |= np.arange(keys) >= lengths[:, None, None, None]
    scores = np.where(hidden, -np.inf, scores + (mask if kind == "mask" else 0))
    drain = -np.inf if sink is None else sink.astype(np.float64)[:, None, None]
    top = np.maximum(np.maximum(scores.max(3, keepdims=True), drain), -1e300)
    weights = np.exp(scores - top)
    exact = weights @ wide[1] / np.maximum(weights.sum(3, keepdims=True) + np.exp(drain - top), 1e-300)
    np.testing.assert_allclose(out, exact, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(isa: str, interleaved: bool) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((5, 3, 20)).astype(np.float32)
    positions = np.array([3, 0, 9, 4, 4])
    angles = np.outer(np.arange(10), 0.3 ** np.arange(8))
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    out = np.empty_like(x)
    call(isa, "rotary_f32", x, out, cosine, sine, positions, 5, 3, 20, 8, 60, 20, 60, 20, ctypes.c_int(interleaved),
         parallel(2))  # fmt: skip
    pairs = (x[..., 0:16:2], x[..., 1:16:2]) if interleaved else (x[..., :8], x[..., 8:16])
    turned = (pairs[0] + 1j * pairs[1]) * np.exp(1j * angles[positions])[:, None]
    exact = x.astype(np.float64)
    first, second = (slice(0, 16, 2), slice(1, 16, 2)) if interleaved else (slice(0, 8), slice(8, 16))
    exact[..., first], exact[..., second] = turned.real, turned.imag
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
