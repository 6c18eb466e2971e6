"""LSTM, GRU and RNN against float64, step by step."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from math_library import ISAS, aligned, call, parallel, scratch

Array = np.ndarray[Any, Any]
I64, P, C, F = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32, ctypes.c_float


class Recurrent(ctypes.Structure):
    _fields_ = [("cell", C), ("reverse", C), ("directions", C), ("reset_first", C), ("steps", I64), ("batch", I64),
                ("inputs", I64), ("hidden", I64), ("x", P), ("packed", P), ("bias", P), ("peephole", P), ("lengths", P),
                ("initial", P), ("initial_cell", P), ("clip", F), ("relu", C), ("out", P), ("last", P),
                ("last_cell", P)]  # fmt: skip


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def step(
    cell: int,
    g: Array,
    h: Array,
    c: Array,
    r: Array,
    b: Array,
    peephole: Array,
    clip: float,
    reset_first: bool,
) -> Any:
    """One step of one item: the next h and c. g: the input's products with their bias."""
    n = h.size
    bound = (lambda x: np.clip(x, -clip, clip)) if clip else (lambda x: x)
    if cell == 2:
        return np.tanh(bound(g + r @ h + b)), c
    inner = (r @ h + b).reshape(-1, n)
    g = g.reshape(-1, n)
    if cell == 1:
        z, reset = sigmoid(bound(g[0] + inner[0])), sigmoid(bound(g[1] + inner[1]))
        own = r[2 * n :] @ (reset * h) + b[2 * n :] if reset_first else reset * inner[2]
        return (1 - z) * np.tanh(bound(g[2] + own)) + z * h, c
    i, o, f, new = g + inner
    pi, po, pf = peephole.reshape(3, n)
    c = sigmoid(bound(f + pf * c)) * c + sigmoid(bound(i + pi * c)) * np.tanh(bound(new))
    return sigmoid(bound(o + po * c)) * np.tanh(bound(c)), c


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", [0, 1, 2])
@pytest.mark.parametrize("directions", [1, 2])
def test_sequences(isa: str, cell: int, directions: int) -> None:
    gates = [4, 3, 1][cell]
    for (batch, inputs, n), reset_first, full in itertools.product(
        [(1, 5, 16), (3, 20, 37)], [True, False], [True, False]
    ):
        steps, clip, backwards = 6, 0.6 * full, full and directions == 1
        generator = np.random.default_rng(cell)

        def random(*shape: int, generator: np.random.Generator = generator) -> Array:
            return (generator.standard_normal(shape) / 3).astype(np.float32)

        x, w, r = (
            random(steps, batch, inputs),
            random(directions, gates * n, inputs),
            random(directions, gates * n, n),
        )
        bias, peephole = random(directions, 2 * gates * n) * full, random(directions, 3 * n) * full
        h, c = random(directions, batch, n) * full, random(directions, batch, n) * full
        lengths = np.array([6, 3, 4][:batch], np.int32)
        packed = aligned(
            call(isa, "recurrent_packed_size_f32", ctypes.c_int(cell), directions, inputs, n, returns=I64)
        )
        call(isa, "recurrent_pack_f32", ctypes.c_int(cell), directions, inputs, n, w, r, packed, None)
        out, last, last_cell = (
            np.empty((steps, directions, batch, n), "f"),
            np.empty_like(h),
            np.empty_like(h),
        )
        optional = [v.ctypes.data if full else None for v in (bias, peephole, lengths, h, c)]
        recurrent = Recurrent(cell, backwards, directions, reset_first, steps, batch, inputs, n, x.ctypes.data,
                              packed.ctypes.data, *optional, clip, 0, out.ctypes.data, last.ctypes.data,
                              last_cell.ctypes.data)  # fmt: skip
        space = scratch(isa, "recurrent_scratch_f32", ctypes.byref(recurrent), ctypes.c_int(2))
        call(isa, "recurrent_f32", ctypes.byref(recurrent), space, parallel(2))
        assert (space[-64:] == 255).all()
        exact = np.zeros(out.shape)
        for d, b in itertools.product(range(directions), range(batch)):
            state, memory = h[d, b].astype(np.float64), c[d, b].astype(np.float64)
            own = range(lengths[b] if full else steps)
            for t in reversed(own) if backwards or d else own:
                g = w[d].astype(np.float64) @ x[t, b] + bias[d, : gates * n]
                state, memory = step(cell, g, state, memory, r[d].astype(np.float64), bias[d, gates * n :], peephole[d],
                                     clip, reset_first)  # fmt: skip
                exact[t, d, b] = state
            np.testing.assert_allclose(last[d, b], state, rtol=1e-4, atol=1e-5)
            if cell == 0:
                np.testing.assert_allclose(last_cell[d, b], memory, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-5)
