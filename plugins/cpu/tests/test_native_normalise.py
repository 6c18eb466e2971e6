"""Softmax, normalisations and pooling against float64."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_library import ISAS, call, parallel
from test_native_conv import blocked, planar

Array = np.ndarray[Any, Any]
I64 = ctypes.c_int64
close = np.testing.assert_allclose


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 70), st.sampled_from([1, 1, 3, 16, 33])),
    st.booleans(),
    st.booleans(),
)
def test_softmax(isa: str, shape: tuple[int, int, int], logarithm: bool, masked: bool) -> None:
    x = 20 * random(*shape)
    if masked and shape[1] > 1:
        x[:, ::2][:, 1:] = -np.inf
    out = np.empty_like(x)
    call(isa, "softmax_f32", x, out, *shape, ctypes.c_int(logarithm), parallel(2))
    wide = x.astype(np.float64)
    shifted = wide - wide.max(1, keepdims=True)
    exact = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    if logarithm:
        with np.errstate(divide="ignore"):
            exact = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    close(out, exact, rtol=4e-6, atol=1e-7 + 4e-6 * logarithm)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 5, 16, 100, 768])
@pytest.mark.parametrize("rms", [False, True])
def test_layer_norm(isa: str, n: int, rms: bool) -> None:
    x, skip, skip_bias, scale, bias = (
        random(7, n) + 3,
        random(7, n + 1)[:, :n].copy(),
        random(n),
        random(n),
        random(n),
    )
    for with_skip in (False, True):
        out, total, mean, inverse = np.empty_like(x), np.empty_like(x), np.empty(7, "f"), np.empty(7, "f")
        extra = [skip, skip_bias] if with_skip else [None, None]
        call(isa, "layer_norm_f32", x, *extra, scale, bias, out, total if with_skip else None, mean, inverse, 7, n,
             1e-5, ctypes.c_int(rms), parallel(2))  # fmt: skip
        wide = x.astype(np.float64) + ((skip + skip_bias.astype(np.float64)) if with_skip else 0)
        center = wide.mean(1, keepdims=True) * (not rms)
        deviation = np.sqrt(((wide - center) ** 2).mean(1, keepdims=True) + 1e-5)
        close(out, (wide - center) / deviation * scale + bias, rtol=1e-4, atol=2e-5 + 2e-4 * (n == 1))
        close(mean, center[:, 0], rtol=1e-5, atol=1e-6)
        close(inverse, 1 / deviation[:, 0], rtol=1e-4)
        if with_skip:
            close(total, wide, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("channels", "pixels", "groups"), [(6, 7, 2), (16, 33, 16), (32, 64, 1), (4, 1, 2)])
def test_group_norm(isa: str, channels: int, pixels: int, groups: int) -> None:
    x, scale, bias = random(2, channels, pixels), random(channels), random(channels + 1)[:channels].copy()
    out = np.empty_like(x)
    call(isa, "group_norm_f32", x, scale, bias, out, 2, channels, pixels, groups, 1e-5, parallel(2))
    wide = x.astype(np.float64).reshape(2, groups, -1)
    wide = (wide - wide.mean(2, keepdims=True)) / np.sqrt(wide.var(2, keepdims=True) + 1e-5)
    close(out, wide.reshape(x.shape) * scale[:, None] + bias[:, None], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 16, 21])
def test_channel_affine(isa: str, channels: int) -> None:
    x, factor, term = random(2, channels, 19), random(channels), random(channels + 1)[:channels].copy()
    out, there = np.empty_like(x), blocked(x)
    call(isa, "channel_affine_f32", x, factor, term, out, 2, channels, 19, ctypes.c_int(0), parallel(2))
    call(isa, "channel_affine_f32", there, factor, term, there, 2, channels, 19, ctypes.c_int(1), parallel(2))
    close(out, x * factor[:, None] + term[:, None], rtol=1e-6, atol=1e-6)
    close(planar(there, channels), out, rtol=1e-6, atol=1e-6)


class Pool(ctypes.Structure):
    _fields_ = [("n", I64), ("channels", I64), ("in_", I64 * 3), ("out", I64 * 3), ("kernel", I64 * 3), ("stride", I64 * 3),
                ("dilation", I64 * 3), ("pad", I64 * 3), ("pad_end", I64 * 3), ("average", ctypes.c_int32),
                ("count_padding", ctypes.c_int32), ("blocked", ctypes.c_int32)]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pooling(isa: str, data: Any) -> None:
    def three(least: int, most: int) -> list[int]:
        return [data.draw(st.integers(least, most)) for _ in range(3)]

    size, kernel, stride, dilation = three(2, 12), three(1, 3), three(1, 3), three(1, 2)
    pad = [data.draw(st.integers(0, k - 1)) for k in kernel]
    end = [data.draw(st.integers(0, k - 1)) for k in kernel]
    average, count = data.draw(st.booleans()), data.draw(st.booleans())
    channels, up = data.draw(st.sampled_from([1, 3, 17])), data.draw(st.booleans())
    out = []
    for d in range(3):
        size[d] = max(size[d], dilation[d] * (kernel[d] - 1) + 1)
        span = size[d] + pad[d] + end[d] - dilation[d] * (kernel[d] - 1) - 1
        o = span // stride[d] + 1
        if up and span % stride[d] and o * stride[d] < size[d] + pad[d]:
            o += 1  # the last window begins inside
        out.append(o)
    x = random(2, channels, *size)
    exact = np.zeros((2, channels, *out))
    for place in itertools.product(*map(range, out)):
        picked = [[o * s - p + d * k for k in range(n)]
                  for o, s, p, d, n in zip(place, stride, pad, dilation, kernel, strict=True)]  # fmt: skip
        real = [[i for i in p if 0 <= i < n] for p, n in zip(picked, size, strict=True)]
        counted = [[i for i in p if i < n + e] for p, n, e in zip(picked, size, end, strict=True)]
        window = x.astype(np.float64)[np.ix_([0, 1], range(channels), *real)].reshape(2, channels, -1)
        if average:
            exact[(..., *place)] = window.sum(2) / np.prod([len(r) for r in (counted if count else real)])
        else:
            exact[(..., *place)] = window.max(2) if window.shape[2] else -np.inf
    if not all(np.isfinite(exact).ravel()):
        return
    for layout in (False, True):
        triples = [(I64 * 3)(*v) for v in (size, out, kernel, stride, dilation, pad, end)]
        pool = Pool(2, channels, *triples, average, count, layout)
        found = np.empty((2, channels, *out), np.float32)
        found = blocked(found) if layout else found
        call(isa, "pool_f32", ctypes.byref(pool), blocked(x) if layout else x, found, parallel(2))
        close(planar(found, channels) if layout else found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pixels", [1, 16, 49])
@pytest.mark.parametrize("average", [False, True])
def test_global_pooling(isa: str, pixels: int, average: bool) -> None:
    x = random(2, 19, pixels)
    exact = x.astype(np.float64).mean(2) if average else x.max(2)
    out, there = np.empty((2, 19), np.float32), np.empty((2, 2, 16), np.float32)
    call(isa, "global_pool_f32", x, out, 2, 19, pixels, ctypes.c_int(average), ctypes.c_int(0), parallel(2))
    call(
        isa, "global_pool_f32", blocked(x), there, 2, 19, pixels, ctypes.c_int(average), ctypes.c_int(1), None
    )
    close(out, exact, rtol=1e-5, atol=1e-6)
    close(there.reshape(2, -1)[:, :19], exact, rtol=1e-5, atol=1e-6)
